//! What a client can be asked: its capabilities, as its revision knows them.
//!
//! A client is never asked for what it has not declared, nor told of what its
//! revision does not have, whatever it has declared.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{
    gateway::call::Client,
    mcp::{ProtocolVersion, splice::Patch},
};

/// The extension that takes the place of the legacy era's own tasks.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What a client can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    pub form: bool,
    pub url: bool,
    pub sampling: bool,
    pub sampling_tools: bool,
    pub roots: bool,
}

impl Abilities {
    pub fn of(client: &Client) -> Self {
        let declared: Map<String, Value> = serde_json::from_slice(&client.capabilities).unwrap_or_default();
        let version = client.version;
        let has =
            |capability: &str, part: &str| declared.get(capability).is_some_and(|c| c.get(part).is_some());
        let elicitation = version.has_elicitation() && declared.contains_key("elicitation");
        let url = version.has_url_elicitation() && has("elicitation", "url");
        Self {
            // An empty object means forms, which came first.
            form: elicitation && (has("elicitation", "form") || !has("elicitation", "url")),
            url,
            sampling: declared.contains_key("sampling"),
            sampling_tools: version.has_sampling_tools() && has("sampling", "tools"),
            roots: declared.contains_key("roots"),
        }
    }
}

/// The capabilities that a client of this revision can mean.
pub fn within(version: ProtocolVersion, capabilities: &Bytes) -> Bytes {
    narrowed(version, capabilities).map_or_else(|| capabilities.clone(), Patch::finish)
}

/// A legacy client's capabilities for a modern backend.
pub fn to_modern(version: ProtocolVersion, capabilities: &Bytes) -> Bytes {
    if matches!(capabilities.trim_ascii(), b"" | b"{}") {
        return Bytes::from_static(b"{}");
    }
    let Some(patch) = narrowed(version, capabilities) else { return Bytes::from_static(b"{}") };
    patch
        .remove("tasks")
        .remove_in("extensions", TASKS_EXTENSION)
        // Nobody could be told.
        .remove_in("roots", "listChanged")
        .finish()
}

fn narrowed(version: ProtocolVersion, capabilities: &Bytes) -> Option<Patch> {
    let mut patch = Patch::of(capabilities).ok()?;
    if !version.has_elicitation() {
        patch = patch.remove("elicitation");
    } else if !version.has_url_elicitation() {
        patch = patch.remove_in("elicitation", "url");
    }
    if !version.has_sampling_tools() {
        patch = patch.remove_in("sampling", "tools").remove_in("sampling", "context");
    }
    if version.has_sessions() && !version.has_core_tasks() {
        patch = patch.remove("tasks");
    }
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::version::ProtocolVersion::*;

    const ALL: &str = r#"{"x/y":{"a":1.0},"elicitation":{"form":{},"url":{}},"sampling":{"tools":{},"context":{}},"roots":{"listChanged":true},"tasks":{}}"#;

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_client_has_what_its_revision_has() {
        let of = |version| text(&within(version, &Bytes::from_static(ALL.as_bytes()))).to_owned();
        assert_eq!(of(V2025_11_25), ALL);
        assert_eq!(
            of(V2025_06_18),
            r#"{"x/y":{"a":1.0},"elicitation":{"form":{}},"sampling":{},"roots":{"listChanged":true}}"#
        );
        assert_eq!(of(V2024_11_05), r#"{"x/y":{"a":1.0},"sampling":{},"roots":{"listChanged":true}}"#);
    }

    #[test]
    fn a_modern_backend_hears_what_it_can_use() {
        let of = |version, capabilities: &'static str| {
            text(&to_modern(version, &Bytes::from_static(capabilities.as_bytes()))).to_owned()
        };
        assert_eq!(
            of(V2025_11_25, ALL),
            r#"{"x/y":{"a":1.0},"elicitation":{"form":{},"url":{}},"sampling":{"tools":{},"context":{}},"roots":{}}"#
        );
        assert_eq!(of(V2025_11_25, " {} "), "{}");
        assert_eq!(of(V2025_11_25, "[]"), "{}");
        assert_eq!(
            of(V2025_06_18, r#"{"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}}"#),
            r#"{"extensions":{"a/b":{}}}"#
        );
    }

    #[test]
    fn nothing_is_asked_that_was_not_declared() {
        let of = |version, capabilities: &'static str| {
            Abilities::of(&Client {
                identity: crate::gateway::call::Identity::anonymous(),
                version,
                info: Bytes::new(),
                capabilities: Bytes::from_static(capabilities.as_bytes()),
                scope: crate::gateway::call::Scope::Stateless,
                events: None,
            })
        };
        let forms = Abilities { form: true, ..Abilities::default() };
        assert_eq!(of(V2025_11_25, r#"{"elicitation":{}}"#), forms);
        assert_eq!(of(V2025_03_26, r#"{"elicitation":{}}"#), Abilities::default());
        let urls = Abilities { url: true, ..Abilities::default() };
        assert_eq!(of(V2025_11_25, r#"{"elicitation":{"url":{}}}"#), urls);
        let asks = Abilities { sampling: true, roots: true, ..Abilities::default() };
        assert_eq!(of(V2024_11_05, r#"{"sampling":{"tools":{}},"roots":{}}"#), asks);
    }
}
