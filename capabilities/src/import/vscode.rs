//! VS Code's `mcp.json`: `servers`, and `inputs` that it asks its user for.

use super::{Importer, Outcome, Wrong, entry::Context, reference::variable_for, servers};
use crate::node::Node;

pub(super) fn read(importer: &mut Importer, root: &Node) -> Result<&'static str, Wrong> {
    // In the settings of an editor all of it stands under `mcp`.
    let root = root.get("mcp").filter(|mcp| mcp.get("servers").is_some()).unwrap_or(root);
    if let Some(node) = root.get("servers") {
        for (name, entry) in servers(node, "servers")? {
            importer.entry(name, entry, Context::default());
        }
    }
    for input in root.get("inputs").and_then(Node::as_list).unwrap_or_default() {
        let Some(id) = input.get("id").and_then(Node::as_text) else { continue };
        let variable = variable_for(id);
        let used = importer.secrets.contains_key(&variable);
        let about = input.get("description").and_then(Node::as_text).unwrap_or("no description");
        let text = if used {
            format!("becomes a Secret that reads the variable {variable} of the node ({about})")
        } else {
            format!("no value of a header or a variable consists of it alone ({about})")
        };
        let outcome = if used { Outcome::Taken } else { Outcome::KeptOut };
        importer.note(&format!("input {id}"), outcome, text);
    }
    Ok("VS Code (servers and inputs)")
}
