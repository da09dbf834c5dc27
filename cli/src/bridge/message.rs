//! What the bridge reads of a message, and the few it writes itself. Pure.

use std::error::Error as _;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::mcp_client::{Message, http::Error};

/// Stands for the id of what has none.
pub const NO_ID: &str = "";

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    /// The client's answer to a request of the server.
    Answer,
    /// An array of messages, as revision 2025-03-26 allows.
    Batch,
}

/// A message of the client.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub kind: Kind,
    pub method: String,
    /// The text of the id, as it came.
    pub id: String,
    /// The text of the params.
    pub params: String,
    /// The revision that a modern message names.
    pub modern: Option<String>,
    /// The text of the id that a cancellation names.
    pub cancels: Option<String>,
    pub body: Bytes,
}

impl Parsed {
    pub fn is_modern(&self) -> bool {
        self.modern.is_some()
    }
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(rename = "_meta", borrow)]
    meta: Option<&'a RawValue>,
    #[serde(rename = "requestId", borrow)]
    request_id: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<String>,
}

/// Reads a line; none if it is empty.
///
/// # Errors
/// Why it is no message.
pub fn parse(line: &Bytes) -> Result<Option<Parsed>, &'static str> {
    let text = line.trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    let mut parsed = Parsed {
        kind: Kind::Batch,
        method: String::new(),
        id: NO_ID.to_owned(),
        params: String::new(),
        modern: None,
        cancels: None,
        body: line.clone(),
    };
    if text[0] == b'[' {
        return Ok(Some(parsed));
    }
    let message: Message = serde_json::from_slice(text).map_err(|_| "this is not a JSON-RPC message")?;
    parsed.kind = match (&message.method, message.id) {
        (Some(_), Some(_)) => Kind::Request,
        (Some(_), None) => Kind::Notification,
        (None, _) => Kind::Answer,
    };
    if let Some(params) = message.params {
        parsed.params = params.get().to_owned();
        // Params that are not an object are for the gateway to refuse.
        let params: Params = serde_json::from_str(params.get()).unwrap_or_default();
        let meta: Meta =
            params.meta.and_then(|meta| serde_json::from_str(meta.get()).ok()).unwrap_or_default();
        parsed.modern = meta.version;
        parsed.cancels = params.request_id.map(|id| id.get().to_owned());
    }
    parsed.id = message.id.map_or(NO_ID, RawValue::get).to_owned();
    parsed.method = message.method.unwrap_or_default();
    Ok(Some(parsed))
}

/// Whether a message is the answer to the request with this id.
pub fn answers(body: &[u8], id: &str) -> bool {
    let Ok(message) = serde_json::from_slice::<Message>(body) else { return false };
    message.method.is_none() && message.id.is_some_and(|found| same_id(found.get(), id))
}

/// Texts may be escaped differently and still be the same.
fn same_id(a: &str, b: &str) -> bool {
    a == b || serde_json::from_str::<Value>(a).ok() == serde_json::from_str::<Value>(b).ok()
}

/// An error answer. `id` is JSON.
pub fn error(id: &str, code: i64, message: &str) -> Bytes {
    let id = json_id(id);
    let error = json!({"code": code, "message": message});
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}").into()
}

fn json_id(id: &str) -> &str {
    if id == NO_ID { "null" } else { id }
}

/// Said when a stream ends before its time.
pub fn no_answer(id: &str) -> Bytes {
    error(id, -32603, "the gateway closed the connection before it answered; the call may have taken effect")
}

/// The end of a subscription that the client has cancelled.
pub fn listen_end(id: &str) -> Bytes {
    let key = "io.modelcontextprotocol/subscriptionId";
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"_meta\":{{\"{key}\":{id}}}}}}}").into()
}

/// What a failed exchange means to the client: the gateway's own error under
/// the id of the request, if it has sent one.
pub fn failure(id: &str, error: &Error) -> Bytes {
    if let Some((_, body)) = error.status() {
        if answers(body, id) {
            return body.clone();
        }
        let inner = serde_json::from_slice::<Message>(body).ok().and_then(|message| message.error);
        if let Some(inner) = inner {
            let error = json!({"code": inner.code, "message": inner.message, "data": inner.data});
            let id = json_id(id);
            return format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}").into();
        }
    }
    self::error(id, -32603, &chain(error))
}

/// Whether a refusal says that the same request may be sent again.
pub fn may_repeat(body: &[u8]) -> bool {
    let error = serde_json::from_slice::<Message>(body).ok().and_then(|message| message.error);
    error.is_some_and(|error| error.data["retry"] == true)
}

/// An error and its causes on one line.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Line feeds may stand between the tokens of JSON, and must not on stdio.
/// Inside texts they are escaped, so each one can become a space.
pub fn one_line(body: Bytes) -> Bytes {
    if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return body;
    }
    body.iter()
        .map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte })
        .collect::<Vec<u8>>()
        .into()
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &'static str) -> Parsed {
        parse(&Bytes::from_static(text.as_bytes())).unwrap().unwrap()
    }

    #[test]
    fn each_kind_of_message_is_told_apart() {
        assert_eq!(parsed(r#"{"id":1,"method":"ping"}"#).kind, Kind::Request);
        assert_eq!(parsed(r#"{"method":"notifications/initialized"}"#).kind, Kind::Notification);
        assert_eq!(parsed(r#"{"id":"a","result":{}}"#).kind, Kind::Answer);
        assert_eq!(parsed(r#" [{"id":1,"method":"ping"}]"#).kind, Kind::Batch);
        assert!(parse(&Bytes::from_static(b"  \r")).unwrap().is_none());
        assert!(parse(&Bytes::from_static(b"nonsense")).is_err());
    }

    #[test]
    fn the_era_and_the_id_are_read_from_the_message() {
        let message = parsed(
            r#"{"id":"x\u0041","method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        assert_eq!((message.modern.as_deref(), message.id.as_str()), (Some("2026-07-28"), r#""x\u0041""#));
        assert!(!parsed(r#"{"id":1,"method":"m","params":{"_meta":{"progressToken":1}}}"#).is_modern());
        assert!(!parsed(r#"{"id":1,"method":"m","params":[1]}"#).is_modern());
        assert_eq!(parsed(r#"{"method":"m","params":{"requestId":7}}"#).cancels.as_deref(), Some("7"));
    }

    #[test]
    fn answers_are_found_by_id_however_it_is_written() {
        assert!(answers(br#"{"id":"xA","result":{}}"#, r#""x\u0041""#));
        assert!(!answers(br#"{"id":"1","result":{}}"#, "1"));
        assert!(!answers(br#"{"id":1,"method":"ping"}"#, "1"));
    }

    #[test]
    fn a_refusal_keeps_its_error_and_gets_the_id() {
        let body = Bytes::from_static(
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-31009,"message":"x","data":{"retry":true}}}"#,
        );
        assert!(may_repeat(&body));
        let url = "http://x/".to_owned();
        let error = Error::Status { url, status: reqwest::StatusCode::SERVICE_UNAVAILABLE, body };
        let answer: Value = serde_json::from_slice(&failure("\"q\"", &error)).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("q"), &json!(-31009)));
    }

    #[test]
    fn messages_are_one_line_and_mean_the_same() {
        let pretty = Bytes::from_static(b"{\r\n \"a\": \"x\\ny\"\n}");
        let line = one_line(pretty.clone());
        assert!(!line.contains(&b'\n'));
        assert_eq!(
            serde_json::from_slice::<Value>(&line).unwrap(),
            serde_json::from_slice::<Value>(&pretty).unwrap()
        );
    }

    #[test]
    fn our_own_messages_are_json() {
        for bytes in [error(NO_ID, 1, "a\"b"), no_answer("1"), listen_end("\"s\"")] {
            assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }
}
