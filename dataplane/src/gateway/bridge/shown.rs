//! How a member that speaks one era is shown to clients of the other: its
//! capabilities and its tools, less what has no meaning there.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{abilities::TASKS_EXTENSION, param_headers::ParamHeaders, translate::member};
use crate::mcp::{Era, splice::Patch};

/// What a server has declared in the other era, as it can be declared in this
/// one. Lists and subscriptions are carried across; tasks are not the same thing.
pub fn capabilities(era: Era, mut declared: Map<String, Value>) -> Map<String, Value> {
    if era == Era::Modern {
        declared.remove("tasks");
    }
    drop_tasks_extension(&mut declared);
    declared
}

/// Takes the extension out of what is declared.
pub fn drop_tasks_extension(declared: &mut Map<String, Value>) {
    if let Some(Value::Object(extensions)) = declared.get_mut("extensions") {
        extensions.remove(TASKS_EXTENSION);
        if extensions.is_empty() {
            declared.remove("extensions");
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Execution {
    task_support: Option<String>,
}

/// A tool of a member that speaks only the other era; none where it cannot be
/// called from this one.
pub fn tool(era: Era, raw: &Bytes) -> Option<Bytes> {
    match era {
        Era::Modern => tool_to_modern(raw),
        Era::Legacy => tool_to_legacy(raw),
    }
}

/// A tool that runs only as a task cannot be called; for others it is a choice
/// that the client does not have.
fn tool_to_modern(raw: &Bytes) -> Option<Bytes> {
    if memchr::memmem::find(raw, b"\"execution\"").is_none() {
        return Some(raw.clone());
    }
    let Some(execution) = member(raw, "execution") else { return Some(raw.clone()) };
    let execution: Execution = serde_json::from_slice(&execution).unwrap_or_default();
    if execution.task_support.as_deref() == Some("required") {
        return None;
    }
    Some(without(raw, "execution"))
}

/// Legacy clients know only objects as structured content, and refuse a list in
/// which one tool promises something else.
fn tool_to_legacy(raw: &Bytes) -> Option<Bytes> {
    // Clients must not show a tool with headers that cannot be made.
    ParamHeaders::of_tool(raw).ok()?;
    if memchr::memmem::find(raw, b"\"outputSchema\"").is_none() {
        return Some(raw.clone());
    }
    let Some(schema) = member(raw, "outputSchema") else { return Some(raw.clone()) };
    let promised = if schema.starts_with(b"{") { member(&schema, "type") } else { None };
    let object = promised.is_some_and(|kind| *kind == *b"\"object\"");
    Some(if object { raw.clone() } else { without(raw, "outputSchema") })
}

fn without(raw: &Bytes, key: &str) -> Bytes {
    Patch::of(raw).map_or_else(|_| raw.clone(), |patch| patch.remove(key).finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tasks_are_not_carried_across() {
        let of = |era, declared: Value| {
            let Value::Object(declared) = declared else { panic!() };
            Value::Object(capabilities(era, declared))
        };
        let legacy = json!({"tasks": {"list": {}}, "logging": {}, "resources": {"subscribe": true}});
        assert_eq!(of(Era::Modern, legacy), json!({"logging": {}, "resources": {"subscribe": true}}));
        let modern = json!({"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
        assert_eq!(of(Era::Legacy, modern), json!({"tools": {}}));
        let kept = json!({"extensions": {"a/b": {}}});
        assert_eq!(of(Era::Legacy, kept.clone()), kept);
    }

    #[test]
    fn tools_lose_what_the_other_era_does_not_have() {
        let check = |era, from: &'static str, to: Option<&str>| {
            let shown = tool(era, &Bytes::from_static(from.as_bytes()));
            assert_eq!(shown.as_deref().map(|raw| std::str::from_utf8(raw).unwrap()), to);
        };
        let plain = r#"{"x":1E2,"name":"t","inputSchema":{"type":"object"}}"#;
        check(Era::Modern, plain, Some(plain));
        check(Era::Legacy, plain, Some(plain));
        let optional = r#"{"x":1E2,"execution":{"taskSupport":"optional"},"name":"t"}"#;
        check(Era::Modern, optional, Some(r#"{"x":1E2,"name":"t"}"#));
        check(Era::Modern, r#"{"name":"t","execution":{"taskSupport":"required"}}"#, None);
        let array = r#"{"name":"t","outputSchema":{"type":"array"}}"#;
        check(Era::Legacy, array, Some(r#"{"name":"t"}"#));
        check(Era::Modern, array, Some(array));
        let object = r#"{"name":"t","outputSchema":{"type":"object"}}"#;
        check(Era::Legacy, object, Some(object));
        let wish = r#"{"name":"t","inputSchema":{"x-mcp-header":"A"}}"#;
        check(Era::Legacy, wish, None);
    }
}
