//! `mcpServers`: Claude Desktop, Claude Code, Cursor and most others.

use super::{Importer, Outcome, Wrong, entry::Context, servers};
use crate::node::{Entry, Node};

pub(super) fn read(importer: &mut Importer, root: &Node) -> Result<&'static str, Wrong> {
    if let Some(node) = root.get("mcpServers") {
        for (name, entry) in servers(node, "mcpServers")? {
            importer.entry(name, entry, Context::default());
        }
    }
    // Claude Code keeps the servers of each project beside those of the user.
    let projects = root.get("projects").and_then(Node::as_map).unwrap_or_default();
    let has_servers = |entry: &&Entry| {
        entry.value.get("mcpServers").and_then(Node::as_map).is_some_and(|servers| !servers.is_empty())
    };
    let count = projects.iter().filter(has_servers).count();
    if count > 0 {
        let text = format!(
            "the servers of single projects ({count} have some) are not read; import their `.mcp.json`"
        );
        importer.note("", Outcome::Changed, text);
    }
    Ok("mcpServers (Claude Desktop, Claude Code, Cursor and others)")
}
