//! What one era says, in the words of the other: params, results and errors as
//! raw JSON.
//!
//! Pure, and as small as the eras allow: a member that both have keeps its
//! bytes, also where nobody here knows it. Nothing is invented that a peer could
//! take for the word of the other side.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::mcp::{
    Key, Limits, Method, Params, ProtocolVersion,
    error::code,
    meta::{CacheScope, key},
    scan::{ParseError, Scanner},
    splice::Patch,
    text,
};

/// What the keys of `_meta` start with that belong to MCP itself.
const OWN_PREFIX: &str = "io.modelcontextprotocol/";
/// To find such keys, also where the slash is escaped.
const OWN_HINT: &[u8] = b"io.modelcontextprotocol";

/// A modern message's params for the legacy era: without what only modern peers
/// say of themselves, and without what belongs to a question that was answered.
pub fn request_to_legacy(params: &Params) -> Params {
    let mut patch = params.patch();
    match params.meta() {
        Some(meta) => patch = without_own_keys(patch, &meta),
        None if params.raw().is_none() => return params.clone(),
        None => {}
    }
    for key in [Key::InputResponses, Key::RequestState] {
        if params.get(key).is_some() {
            patch = patch.remove(key.as_str());
        }
    }
    if patch.is_empty() {
        return params.clone();
    }
    Params::edited(&patch.finish())
}

/// A legacy backend's result for a modern client. `server_info` is the raw
/// object of who answers.
pub fn result_to_modern(method: &Method, result: Bytes, server_info: &[u8]) -> Bytes {
    let Ok(mut patch) = Patch::of(&result) else { return result };
    patch = patch.set_text("resultType", "complete");
    if method.is_cacheable() {
        // Nobody has said how long it stays true, nor for whom.
        patch = patch.set("ttlMs", &b"0"[..]).set_text("cacheScope", CacheScope::Private.as_str());
    }
    patch.set_in("_meta", key::SERVER_INFO, server_info.to_vec()).finish()
}

/// A modern backend's complete result for a legacy client.
pub fn result_to_legacy(method: &Method, result: Bytes) -> Bytes {
    let Ok(mut patch) = Patch::of(&result) else { return result };
    patch = patch.remove("resultType");
    if method.is_cacheable() {
        patch = patch.remove("ttlMs").remove("cacheScope");
    }
    if *method == Method::ToolsCall
        && memchr::memmem::find(&result, b"structuredContent").is_some()
        && member(&result, "structuredContent").is_some_and(|content| !content.starts_with(b"{"))
    {
        // Only objects have ever been structured there; the content says it too.
        patch = patch.remove("structuredContent");
    }
    if memchr::memmem::find(&result, OWN_HINT).is_some()
        && let Some(meta) = member(&result, "_meta")
    {
        patch = without_own_keys(patch, &meta);
    }
    patch.finish()
}

#[derive(Deserialize)]
struct Failure {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

impl Failure {
    /// What an error says, its code, and the object to edit; none for anything that
    /// is no such object.
    fn read(error: &Bytes) -> Option<(Self, i32, Patch)> {
        let patch = Patch::of(error).ok()?;
        let failure: Self = serde_json::from_slice(error).ok()?;
        let code = i32::try_from(failure.code).ok()?;
        Some((failure, code, patch))
    }
}

/// A legacy backend's error for a modern client. `uri` is the resource that was
/// asked for, if one was.
pub fn error_to_modern(error: Bytes, uri: Option<&str>) -> Bytes {
    let Some((failure, code, patch)) = Failure::read(&error) else { return error };
    match code {
        code::RESOURCE_NOT_FOUND => {
            let mut patch = with_code(patch, code::INVALID_PARAMS);
            // Its place tells the client that it is about a resource.
            if let (Some(uri), None) = (uri, failure.data.get("uri")) {
                patch = patch.set_in("data", "uri", text::encode(uri));
            }
            patch.finish()
        }
        // Nothing asked the client for the visit, so it cannot be made.
        code::URL_ELICITATION_REQUIRED => {
            let required = &br#"{"elicitation":{"url":{}}}"#[..];
            with_code(patch, code::MISSING_CAPABILITY)
                .set_in("data", "requiredCapabilities", required)
                .finish()
        }
        // The modern era has given these a meaning that a legacy server cannot have had in mind.
        code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION => {
            with_code(patch, code::INTERNAL).finish()
        }
        _ => error,
    }
}

/// A modern backend's error for a legacy client.
pub fn error_to_legacy(method: &Method, error: Bytes, version: ProtocolVersion) -> Bytes {
    let Some((failure, code, patch)) = Failure::read(&error) else { return error };
    match code {
        code::INVALID_PARAMS
            if *method == Method::ResourcesRead
                && version.has_resource_not_found_code()
                && failure.data.get("uri").is_some() =>
        {
            with_code(patch, code::RESOURCE_NOT_FOUND).finish()
        }
        code::MISSING_CAPABILITY => {
            let required = failure.data.get("requiredCapabilities").map(Value::to_string).unwrap_or_default();
            let message = format!(
                "the backend needs capabilities that the client has not declared: {required} ({})",
                failure.message
            );
            with_code(patch, code::CANNOT_ASK).set_text("message", &message).finish()
        }
        _ => error,
    }
}

fn with_code(patch: Patch, code: i32) -> Patch {
    patch.set("code", code.to_string())
}

/// The edits that take MCP's own keys out of the member `_meta`; a task's stays,
/// which the legacy era knows too.
fn without_own_keys(patch: Patch, meta: &Bytes) -> Patch {
    if memchr::memmem::find(meta, OWN_HINT).is_none() {
        return patch;
    }
    let mut own = Vec::new();
    let mut others = false;
    let read = each_member(meta, |name, _| {
        if name.starts_with(OWN_PREFIX) && name != key::RELATED_TASK {
            own.push(name.into_owned());
        } else {
            others = true;
        }
    });
    match read {
        Err(_) => patch,
        Ok(()) if own.is_empty() => patch,
        Ok(()) if !others => patch.remove("_meta"),
        Ok(()) => own.iter().fold(patch, |patch, key| patch.remove_in("_meta", key)),
    }
}

/// Calls `found` with each member of an object, its value raw.
pub fn each_member(object: &Bytes, mut found: impl FnMut(Cow<'_, str>, Bytes)) -> Result<(), ParseError> {
    let mut scanner = Scanner::new(object, Limits::BACKEND)?;
    let mut more = scanner.open_object()?;
    while more {
        let quoted = scanner.key()?;
        let value = scanner.value()?;
        if let Some(name) = text::decode(&object[quoted.span.range()]) {
            found(name, object.slice(value.range()));
        }
        more = scanner.next_member()?;
    }
    scanner.end()
}

/// The raw value of a member of an object; the last, where it is there twice.
pub fn member(object: &Bytes, key: &str) -> Option<Bytes> {
    let mut value = None;
    each_member(object, |name, raw| {
        if name == key {
            value = Some(raw);
        }
    })
    .ok()?;
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::mcp::{
        Message,
        version::{LATEST_LEGACY, LATEST_MODERN},
    };

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn text(raw: &Bytes) -> &str {
        std::str::from_utf8(raw).unwrap()
    }

    #[test]
    fn an_unknown_method_may_have_what_only_looks_like_ours() {
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"Name":1,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let Ok(Message::Request(request)) = Message::parse(bytes(message), Limits::CLIENT) else {
            panic!("it is a request")
        };
        assert_eq!(text(&request_to_legacy(&request.params).object()), r#"{"Name":1}"#);
    }

    #[test]
    fn an_error_that_is_no_object_stays_as_it_is() {
        for code in [-32002, -32021, -32042, -32602] {
            let error = bytes(&format!(r#"[{code},"m",{{"uri":"x"}}]"#));
            assert_eq!(error_to_modern(error.clone(), Some("x")), error);
            assert_eq!(error_to_legacy(&Method::ResourcesRead, error.clone(), LATEST_LEGACY), error);
        }
    }

    #[test]
    fn a_request_loses_what_only_the_modern_era_has() {
        let check = |from: &str, to: &str| {
            let params = Params::scan(&bytes(from), Limits::CLIENT).unwrap();
            assert_eq!(text(&request_to_legacy(&params).object()), to);
        };
        check(
            r#"{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":1E1,"traceparent":"x","io.modelcontextprotocol\/clientCapabilities":{}},"arguments":{"a":1.0}}"#,
            r#"{"name":"t","_meta":{"progressToken":1E1,"traceparent":"x"},"arguments":{"a":1.0}}"#,
        );
        check(r#"{"_meta":{"io.modelcontextprotocol/logLevel":"info"},"uri":"x"}"#, r#"{"uri":"x"}"#);
        check(
            r#"{"inputResponses":{},"uri":"x","requestState":"s","_meta":{"mine":1}}"#,
            r#"{"uri":"x","_meta":{"mine":1}}"#,
        );
        check(
            r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}"#,
            r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}}}"#,
        );
        assert!(request_to_legacy(&Params::NONE).raw().is_none());
    }

    #[test]
    fn a_result_says_what_its_era_demands() {
        let info = br#"{"name":"g"}"#;
        let modern = result_to_modern(&Method::ResourcesRead, bytes(r#"{"contents":[1.0]}"#), info);
        assert_eq!(
            serde_json::from_slice::<Value>(&modern).unwrap(),
            json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "contents": [1.0],
                   "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "g"}}})
        );
        assert_eq!(text(&result_to_legacy(&Method::ResourcesRead, modern)), r#"{"contents":[1.0]}"#);
        let called = result_to_modern(&Method::ToolsCall, bytes(r#"{"content":[],"_meta":{"a":1}}"#), info);
        assert_eq!(
            serde_json::from_slice::<Value>(&called).unwrap(),
            json!({"resultType": "complete", "content": [],
                   "_meta": {"a": 1, "io.modelcontextprotocol/serverInfo": {"name": "g"}}})
        );
        assert_eq!(text(&result_to_legacy(&Method::ToolsCall, called)), r#"{"content":[],"_meta":{"a":1}}"#);
    }

    #[test]
    fn structured_content_that_is_no_object_stays_in_its_era() {
        let check = |from: &str, to: &str| {
            assert_eq!(text(&result_to_legacy(&Method::ToolsCall, bytes(from))), to);
        };
        check(r#"{"content":[],"structuredContent":[1],"resultType":"complete"}"#, r#"{"content":[]}"#);
        check(r#"{"structuredContent":{"a":1.0}}"#, r#"{"structuredContent":{"a":1.0}}"#);
    }

    #[test]
    fn errors_have_the_codes_of_their_era() {
        let modern = |error: &str| -> Value {
            serde_json::from_slice(&error_to_modern(bytes(error), Some("f:x"))).unwrap()
        };
        assert_eq!(
            modern(r#"{"code":-32002,"message":"gone"}"#),
            json!({"code": -32602, "message": "gone", "data": {"uri": "f:x"}})
        );
        assert_eq!(modern(r#"{"code":-32002,"message":"m","data":{"uri":"own"}}"#)["data"]["uri"], "own");
        assert_eq!(modern(r#"{"code":-32042,"message":"m","data":{}}"#)["code"], -32021);
        assert_eq!(modern(r#"{"code":-32020,"message":"m"}"#)["code"], -32603);
        assert_eq!(modern(r#"{"code":-32001,"message":"m"}"#)["code"], -32001);

        let legacy = |method: &Method, error: &str| -> Value {
            serde_json::from_slice(&error_to_legacy(method, bytes(error), LATEST_LEGACY)).unwrap()
        };
        let unknown = r#"{"code":-32602,"message":"m","data":{"uri":"f:x"}}"#;
        assert_eq!(legacy(&Method::ResourcesRead, unknown)["code"], -32002);
        assert_eq!(legacy(&Method::ToolsCall, unknown)["code"], -32602);
        assert_eq!(legacy(&Method::ResourcesRead, r#"{"code":-32602,"message":"m"}"#)["code"], -32602);
        let lacks = r#"{"code":-32021,"message":"no","data":{"requiredCapabilities":{"sampling":{}}}}"#;
        let told = legacy(&Method::ToolsCall, lacks);
        assert_eq!(told["code"], -31017);
        assert!(told["message"].as_str().unwrap().contains(r#"{"sampling":{}}"#), "{told}");
        let same = error_to_legacy(&Method::ResourcesRead, bytes(unknown), LATEST_MODERN);
        assert_eq!(text(&same), unknown);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z/]{0,6}", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_result_that_went_there_and_back_is_the_same_bytes(
            members in prop::collection::btree_map("[a-z]{1,6}", value(), 0..5),
            meta in prop::option::of(prop::collection::btree_map("[a-z/]{1,6}", value(), 1..4)),
        ) {
            let mut whole = Value::from_iter(members);
            if let Some(meta) = meta {
                whole["_meta"] = Value::from_iter(meta);
            }
            let raw = bytes(&whole.to_string());
            for method in [Method::ToolsCall, Method::ResourcesRead] {
                let modern = result_to_modern(&method, raw.clone(), b"{}");
                prop_assert_eq!(&result_to_legacy(&method, modern), &raw);
            }
        }

        #[test]
        fn whatever_the_bytes_are_no_translation_panics(raw in "[ -~]{0,40}") {
            let raw = bytes(&raw);
            result_to_modern(&Method::ToolsCall, raw.clone(), b"{}");
            result_to_legacy(&Method::ToolsCall, raw.clone());
            error_to_modern(raw.clone(), Some("x"));
            error_to_legacy(&Method::ResourcesRead, raw, LATEST_LEGACY);
        }
    }
}
