//! Tools that stand for a tool of another backend: the call goes there, with
//! the arguments that the tool set says, and clients see of it what the tool
//! set does not say itself.

use bytes::Bytes;
use mt_proto::{
    resource::Mcp,
    template::{Scope, Tree},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    bridge::translate::member,
    call::{Answer, Call, CallError},
    catalog::{Alias, Catalog, Entry},
};
use crate::mcp::{Key, Limits, Params, ProtocolVersion, error::code, splice::Patch};

const INPUT_SCHEMA: &str = "inputSchema";
/// In `_meta` of a result that is an error, as all agents have it.
const ERROR_META: &str = "io.magictunnel/error";

/// Makes of the call what the other backend gets. What the tool set does not touch
/// stays the bytes that the client sent.
///
/// # Errors
/// If an argument is missing that the tool set maps, or what it makes of them is too
/// deep or too much.
pub fn map(alias: &Alias, call: &mut Call) -> Result<(), CallError> {
    if alias.of.is_plain() {
        return Ok(());
    }
    call.params = mapped(&alias.of, &call.params)?;
    Ok(())
}

fn mapped(of: &Mcp, params: &Params) -> Result<Params, CallError> {
    let invalid = |reason| CallError::InvalidParams { reason };
    let given: Map<String, Value> = match params.arguments() {
        None => Map::new(),
        Some(raw) => serde_json::from_slice(&raw)
            .map_err(|_| invalid("params.arguments must be an object".to_owned()))?,
    };
    let arguments = fill(of, given).map_err(invalid)?;
    let mapped = params.patch().set(Key::Arguments.as_str(), arguments.to_string()).finish();
    // What the tool set makes of them may be deeper and more than what came.
    Params::scan(&mapped, Limits::CLIENT)
        .map_err(|error| invalid(format!("params.arguments, as the tool set passes them on: {error}")))
}

/// `arguments` in place of what is given, then `defaults` where nothing is,
/// then `fixed` over everything.
fn fill(of: &Mcp, given: Map<String, Value>) -> Result<Value, String> {
    let scope = Scope { arguments: &given, env: &|name| std::env::var(name).ok() };
    let render = |tree: &Tree| tree.render(scope).map_err(|error| error.to_string());
    let mut filled = match of.arguments.as_ref().map(render).transpose()? {
        None => given.clone(),
        Some(Value::Object(mapped)) => mapped,
        Some(_) => return Err("the tool's `arguments` make no object".to_owned()),
    };
    for (name, tree) in &of.defaults {
        if !filled.contains_key(name) {
            filled.insert(name.clone(), render(tree)?);
        }
    }
    for (name, tree) in &of.fixed {
        filled.insert(name.clone(), render(tree)?);
    }
    Ok(Value::Object(filled))
}

/// The answer as clients see it: like that of every tool of a tool set, what
/// went wrong is a result that a model can read. Results of the other backend
/// stay as they are, and so do errors that mean something to the protocol.
///
/// # Errors
/// Where the failure is not one of the tool.
pub fn outcome(
    tool: &str,
    version: ProtocolVersion,
    outcome: Result<Answer, CallError>,
) -> Result<Answer, CallError> {
    let failed = |reason, retry, message: &str| {
        Ok(Answer::Result(failure(version, reason, retry, &format!("tool {tool:?}: {message}"))))
    };
    match outcome {
        Ok(Answer::Error(raw)) => match serde_json::from_slice(&raw) {
            Ok(Said { code: code::INVALID_PARAMS, message }) => failed("invalid_arguments", true, &message),
            Ok(Said { code: code::INTERNAL, message }) => failed("refused", false, &message),
            _ => Ok(Answer::Error(raw)),
        },
        Err(error) => match reason(&error) {
            Some(reason) => {
                let said = error.to_rpc(version);
                // Other doors say no more than that it is unreachable.
                let message = match &error {
                    CallError::Disabled { .. } => error.to_string().into(),
                    _ => said.message,
                };
                failed(reason, said.retry, &message)
            }
            None => Err(error),
        },
        answered => answered,
    }
}

/// What other agents call a failure like this; None: it is not the tool's.
fn reason(error: &CallError) -> Option<&'static str> {
    Some(match error {
        CallError::Timeout { .. } => "timeout",
        CallError::Unreachable { .. } => "unreachable",
        CallError::Lost { .. } | CallError::Protocol { .. } => "broken",
        CallError::NeedsAuth { .. } | CallError::Disabled { .. } => "misconfigured",
        CallError::Overloaded { .. } | CallError::QueueFull { .. } | CallError::QueueTimeout { .. } => {
            "overloaded"
        }
        CallError::InvalidParams { .. } => "invalid_arguments",
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Said {
    code: i32,
    #[serde(default)]
    message: String,
}

fn failure(version: ProtocolVersion, reason: &str, retry: bool, message: &str) -> Bytes {
    let mut result = json!({
        "content": [{"type": "text", "text": message}],
        "isError": true,
        "_meta": {ERROR_META: {"reason": reason, "retry_safe": retry}},
    });
    if version.requires_result_type() {
        result["resultType"] = "complete".into();
    }
    result.to_string().into()
}

/// The tool as clients see it: what the tool set says of it, and the rest as
/// the other backend has it. `target` is what that backend offers.
pub fn definition(entry: &Entry, alias: &Alias, target: Option<&Catalog>) -> Bytes {
    let Ok(mut patch) = Patch::of(&entry.raw) else { return entry.raw.clone() };
    let tools = target.map(|catalog| catalog.tools.as_slice()).unwrap_or_default();
    let original = tools.iter().find(|tool| tool.key == alias.of.tool).map(|tool| &tool.raw);
    let names = |raw: &Bytes| -> Vec<String> {
        let members: Map<String, Value> = serde_json::from_slice(raw).unwrap_or_default();
        members.into_iter().map(|(name, _)| name).collect()
    };
    let own = names(&entry.raw);
    if !own.iter().any(|name| name == INPUT_SCHEMA) {
        let schema = original.and_then(|raw| member(raw, INPUT_SCHEMA));
        patch = patch.set(INPUT_SCHEMA, schema_left(&alias.of, schema));
    }
    for name in original.map(names).unwrap_or_default() {
        let inherited = name != INPUT_SCHEMA && !own.contains(&name);
        if let Some(value) = original.filter(|_| inherited).and_then(|raw| member(raw, &name)) {
            patch = patch.set(&name, value);
        }
    }
    patch.finish()
}

/// What is left of the other tool's schema for clients to fill in: what is
/// fixed is gone, and what has a default need not be given.
fn schema_left(of: &Mcp, schema: Option<Bytes>) -> Bytes {
    let any = || Bytes::from(json!({"type": "object"}).to_string());
    // What templates make of the arguments, no schema of another tool says.
    let Some(schema) = schema.filter(|_| of.arguments.is_none()) else { return any() };
    if of.is_plain() {
        return schema;
    }
    let Ok(Value::Object(mut schema)) = serde_json::from_slice(&schema) else { return any() };
    let named = |name: &str, entries: &[(String, Tree)]| entries.iter().any(|(entry, _)| entry == name);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.retain(|name, _| !named(name, &of.fixed));
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| {
            name.as_str().is_none_or(|name| !named(name, &of.fixed) && !named(name, &of.defaults))
        });
    }
    Value::Object(schema).to_string().into()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use mt_proto::{pb::discovery::ServerFacts, template::Names};

    use super::*;
    use crate::mcp::version::LATEST_MODERN;

    fn trees(value: Value) -> Vec<(String, Tree)> {
        let Value::Object(entries) = value else { panic!("no object") };
        let tree = |value| Tree::compile(&value, Names::default()).unwrap();
        entries.into_iter().map(|(name, value)| (name, tree(value))).collect()
    }

    fn mcp(arguments: Option<Value>, defaults: Value, fixed: Value) -> Mcp {
        Mcp {
            backend: "time".parse().unwrap(),
            tool: "convert".into(),
            arguments: arguments.map(|value| Tree::compile(&value, Names::default()).unwrap()),
            defaults: trees(defaults),
            fixed: trees(fixed),
        }
    }

    fn filled(of: &Mcp, given: Value) -> Result<Value, String> {
        let Value::Object(given) = given else { panic!("no object") };
        fill(of, given)
    }

    #[test]
    fn arguments_that_become_too_deep_are_refused() {
        let of = mcp(Some(json!({"a": {"b": {"c": {"d": {"e": "{{x}}"}}}}})), json!({}), json!({}));
        let given = |depth: usize| {
            let x = "[".repeat(depth) + &"]".repeat(depth);
            let params = format!("{{\"name\":\"t\",\"arguments\":{{\"x\":{x}}}}}");
            Params::scan(&params.into(), Limits::CLIENT).unwrap()
        };
        assert!(mapped(&of, &given(10)).is_ok());
        let refused = mapped(&of, &given(60)).unwrap_err();
        let CallError::InvalidParams { reason } = refused else { panic!("{refused}") };
        assert!(reason.starts_with("params.arguments, as the tool set passes them on: "), "{reason}");
    }

    #[test]
    fn arguments_are_replaced_then_completed_then_fixed() {
        let none = || json!({});
        let plain = mcp(None, none(), none());
        assert!(plain.is_plain());
        assert_eq!(filled(&plain, json!({"a": 1})), Ok(json!({"a": 1})));
        let completed = mcp(None, json!({"zone": "UTC"}), json!({"units": "metric"}));
        assert_eq!(
            filled(&completed, json!({"units": "x", "b": [1]})),
            Ok(json!({"units": "metric", "b": [1], "zone": "UTC"}))
        );
        assert_eq!(filled(&completed, json!({"zone": "CET"})), Ok(json!({"zone": "CET", "units": "metric"})));
        let mapped = mcp(Some(json!({"q": "{{text}}", "n": "{{n}}"})), none(), none());
        assert_eq!(
            filled(&mapped, json!({"text": "\",\"x\":1", "n": 7, "other": true})),
            Ok(json!({"q": "\",\"x\":1", "n": 7}))
        );
        assert!(filled(&mapped, json!({"n": 7})).unwrap_err().contains("text"));
    }

    fn shown(own: Value, of: Mcp, original: &'static str) -> Value {
        let entry = Entry { key: "mine".into(), raw: own.to_string().into(), hidden: false, alias: None };
        let tool = Entry {
            key: "convert".into(),
            raw: Bytes::from_static(original.as_bytes()),
            hidden: false,
            alias: None,
        };
        let catalog = Catalog::made(ServerFacts::default(), vec![tool], vec![], vec![], vec![]);
        let alias = Alias { of: Arc::new(of), timeout: Duration::from_secs(300) };
        let raw = definition(&entry, &alias, Some(&catalog));
        serde_json::from_slice(&raw).unwrap()
    }

    const CONVERT: &str = r#"{"name":"convert","description":"Converts","inputSchema":{"type":"object","properties":{"a":{},"zone":{},"units":{}},"required":["a","zone","units"]},"outputSchema":{"type":"object"},"_meta":{"x":1E2}}"#;

    #[test]
    fn what_the_tool_set_does_not_say_is_as_the_other_backend_has_it() {
        let plain = mcp(None, json!({}), json!({}));
        let own = json!({"name": "mine", "description": "My own"});
        let seen = shown(own.clone(), plain.clone(), CONVERT);
        assert_eq!((&seen["name"], &seen["description"]), (&json!("mine"), &json!("My own")));
        assert_eq!(seen["inputSchema"]["required"], json!(["a", "zone", "units"]));
        assert_eq!(seen["outputSchema"], json!({"type": "object"}));
        let said = json!({"name": "mine", "inputSchema": {"type": "object", "title": "T"}});
        assert_eq!(shown(said, plain, CONVERT)["inputSchema"], json!({"type": "object", "title": "T"}));
        let other = r#"{"name":"another"}"#;
        assert_eq!(
            shown(own, mcp(None, json!({}), json!({})), other)["inputSchema"],
            json!({"type": "object"})
        );
    }

    #[test]
    fn what_is_fixed_is_not_asked_for_and_what_has_a_default_need_not_be_given() {
        let of = mcp(None, json!({"zone": "UTC"}), json!({"units": "metric"}));
        let seen = shown(json!({"name": "mine"}), of, CONVERT);
        let schema = json!({"type": "object", "properties": {"a": {}, "zone": {}}, "required": ["a"]});
        assert_eq!(seen["inputSchema"], schema);
        let mapped = mcp(Some(json!({"a": "{{b}}"})), json!({}), json!({}));
        assert_eq!(shown(json!({"name": "mine"}), mapped, CONVERT)["inputSchema"], json!({"type": "object"}));
    }

    #[test]
    fn what_goes_wrong_is_a_result_that_names_the_tool_as_clients_know_it() {
        let seen = |ended: Result<Answer, CallError>| match outcome("mine", LATEST_MODERN, ended) {
            Ok(Answer::Result(raw)) => serde_json::from_slice::<Value>(&raw).unwrap(),
            other => panic!("{other:?}"),
        };
        let result = seen(Err(CallError::Disabled { backend: "time".parse().unwrap() }));
        assert_eq!(result["content"][0]["text"], "tool \"mine\": backend time is switched off");
        assert_eq!((&result["isError"], &result["resultType"]), (&json!(true), &json!("complete")));
        assert_eq!(result["_meta"][ERROR_META]["reason"], "misconfigured");
        let raw = Bytes::from_static(br#"{"code":-32602,"message":"no such zone"}"#);
        assert_eq!(seen(Ok(Answer::Error(raw)))["_meta"][ERROR_META]["reason"], "invalid_arguments");
        // What clients act upon stays what it is.
        let raw = Bytes::from_static(br#"{"code":-32042,"message":"go there","data":{}}"#);
        let kept = outcome("mine", LATEST_MODERN, Ok(Answer::Error(raw.clone())));
        assert!(matches!(kept, Ok(Answer::Error(same)) if same == raw));
        let unknown = Err(CallError::UnknownTool { name: "x".into() });
        assert!(matches!(outcome("mine", LATEST_MODERN, unknown), Err(CallError::UnknownTool { .. })));
    }
}
