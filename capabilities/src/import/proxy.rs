//! Proxy mode: servers whose tools clients see as `namespace.server.tool`.

use mt_proto::pb::resource::{self as pb, resource::Spec};

use super::{Importer, Outcome, Wrong, entry::Context, managed, servers};
use crate::{names::legal_name, node::Node};

const NAMESPACE_DEFAULT: &str = "proxy";

pub(super) fn read(importer: &mut Importer, root: &Node) -> Result<&'static str, Wrong> {
    let proxy = root.get("proxy");
    let setting = |key: &str| proxy.and_then(|proxy| proxy.get(key));
    let written = setting("namespace").and_then(Node::as_text).unwrap_or(NAMESPACE_DEFAULT);
    let namespace = legal_namespace(written);
    if namespace != written {
        let text = format!(
            "the namespace becomes `{namespace}`: tools are named with A-Z, a-z, 0-9, '_', '.' and '-'"
        );
        importer.note("", Outcome::Changed, text);
    }
    if setting("enabled").and_then(Node::as_bool) == Some(false) {
        let text = "proxy mode is switched off in the file; the gateway is made all the same";
        importer.note("", Outcome::Changed, text.into());
    }
    let mut members = Vec::new();
    if let Some(node) = root.get("servers") {
        for (name, entry) in servers(node, "servers")? {
            let Some(backend) = importer.entry(name, entry, Context::default()) else { continue };
            // Clients go on seeing the names that they know.
            let kept = backend != name && legal_namespace(name) == name;
            let tool_name = if kept { format!("{{namespace}}.{name}.{{tool}}") } else { String::new() };
            let source = Some(pb::member::Source::Backend(backend));
            members.push(pb::Member { source, tool_name, ..Default::default() });
        }
    }
    let name = legal_name(&namespace).unwrap_or_else(|| NAMESPACE_DEFAULT.into());
    let text = format!("gateway/{name} serves the tools at /g/{name}/mcp, named `{namespace}.server.tool`");
    importer.note("", Outcome::Taken, text);
    let gateway = pb::Gateway {
        members,
        tool_name: "{namespace}.{backend}.{tool}".into(),
        namespace,
        ..Default::default()
    };
    importer.gateway = Some(managed(&name, Spec::Gateway(gateway)));
    Ok("proxy mode (proxy and servers)")
}

/// The nearest text that may be part of the name of a tool.
fn legal_namespace(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let namespace: String = text.chars().take(63).map(legal).collect();
    if namespace.is_empty() { NAMESPACE_DEFAULT.into() } else { namespace }
}
