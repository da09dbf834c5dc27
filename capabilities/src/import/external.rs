//! The configurations of MagicTunnel's first life: `external_mcp`, and
//! `external-mcp-servers.yaml`.

use super::{Importer, Outcome, Wrong, entry::Context, servers};
use crate::node::{Entry, Node};

/// `external_mcp:` with servers, and perhaps a mesh.
pub(super) fn read_external_mcp(importer: &mut Importer, root: &Node) -> Result<&'static str, Wrong> {
    let Some(external) = root.get("external_mcp") else {
        return Ok("external_mcp");
    };
    let disabled = external.get("enabled").and_then(Node::as_bool) == Some(false);
    let context = Context { disabled, seconds: true, ..Context::default() };
    if let Some(node) = external.get("servers") {
        for (name, entry) in servers(node, "external_mcp.servers")? {
            importer.entry(name, entry, context);
        }
    }
    let mesh = external.get("mesh");
    if let Some(node) = mesh.and_then(|mesh| mesh.get("nodes")) {
        for (name, entry) in servers(node, "external_mcp.mesh.nodes")? {
            importer.entry(name, entry, context);
        }
        let text = "the nodes of the mesh become backends of their own; no node of this version fails over between them";
        importer.note("mesh", Outcome::Changed, text.into());
    }
    if let Some(file) = external.get("config_file").and_then(Node::as_text) {
        let text = format!("`config_file` names another file: import {} too", file);
        importer.note("", Outcome::Changed, text);
    }
    let known = ["enabled", "servers", "mesh", "config_file"];
    not_followed(importer, external, "external_mcp.", &known);
    not_followed(importer, root, "", &["external_mcp"]);
    Ok("external_mcp")
}

/// `mcpServers`, `httpServices`, `sseServices` and such.
pub(super) fn read_services(importer: &mut Importer, root: &Node) -> Result<&'static str, Wrong> {
    for entry in root.as_map().unwrap_or_default().iter().filter(|entry| !entry.value.is_null()) {
        let transport = match entry.key.as_str() {
            "mcpServers" => None,
            "httpServices" | "streamableHttpServices" | "streamHttpServices" => Some("http"),
            "sseServices" => Some("sse"),
            "wsServices" | "websocketServices" | "webSocketServices" => Some("websocket"),
            _ => continue,
        };
        let context = Context { transport, seconds: transport.is_some(), ..Context::default() };
        for (name, server) in servers(&entry.value, &entry.key)? {
            importer.entry(name, server, context);
        }
    }
    let known = [
        "mcpServers",
        "httpServices",
        "streamableHttpServices",
        "streamHttpServices",
        "sseServices",
        "wsServices",
        "websocketServices",
        "webSocketServices",
    ];
    not_followed(importer, root, "", &known);
    Ok("external-mcp-servers (mcpServers, httpServices and such)")
}

fn not_followed(importer: &mut Importer, node: &Node, prefix: &str, known: &[&str]) {
    let other = |entry: &&Entry| !known.contains(&entry.key.as_str());
    let keys: Vec<String> = node
        .as_map()
        .unwrap_or_default()
        .iter()
        .filter(other)
        .map(|e| format!("{prefix}{}", e.key))
        .collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    importer.left_out("", &keys, "no node of this version follows it");
}
