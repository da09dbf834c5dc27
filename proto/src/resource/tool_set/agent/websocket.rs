//! Settings of the WebSocket agent.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{fields::Fields, text::Text},
    collect::{self, Collect, Until},
    credential::Credential,
    http::{TIMEOUT_MAX, TIMEOUT_MIN},
    path::JsonPath,
    request::{self, Body},
};
use crate::template::Template;

/// Sent after opening.
const MESSAGES_MAX: usize = 64;
const SUBPROTOCOLS_MAX: usize = 8;
/// Of one message that comes.
const MESSAGE_BYTES_DEFAULT: u64 = 4 << 20;
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// A conversation over a WebSocket of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocket {
    pub url: Template,
    pub headers: Vec<(String, Text)>,
    pub auth: Option<Credential>,
    pub subprotocols: Vec<String>,
    /// What is said after opening: JSON or texts.
    pub messages: Vec<Body>,
    pub mode: WebSocketMode,
    pub timeout: Duration,
    pub message_bytes_max: usize,
    /// The part of the result that is the result.
    pub extract: Option<JsonPath>,
}

/// What of the conversation is the result.
#[derive(Clone, Debug, PartialEq)]
pub enum WebSocketMode {
    /// The first message that meets one of these, or the first at all.
    Request(Vec<Until>),
    Stream(Collect),
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<WebSocket> {
    let url = request::url(fields, &["ws", "wss"], "wss://stream.example.com/{{channel}}");
    let bytes = fields.count("messageBytesMax", 1..=MESSAGE_BYTES_MAX, MESSAGE_BYTES_DEFAULT);
    let message_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    let stream = fields.choice("mode", &["request", "stream"], "request") == "stream";
    let mode = if stream {
        let bytes_max = request::response_bytes_max(fields);
        WebSocketMode::Stream(collect::read(fields, "maxMessages", bytes_max))
    } else {
        WebSocketMode::Request(matching(fields))
    };
    Some(WebSocket {
        headers: request::headers(fields),
        auth: Credential::at(fields, "auth"),
        subprotocols: subprotocols(fields),
        messages: messages(fields),
        mode,
        timeout: fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, TIMEOUT_MAX),
        message_bytes_max,
        extract: collect::json_path(fields, "extract"),
        url: url?,
    })
}

fn matching(fields: &mut Fields<'_, '_>) -> Vec<Until> {
    let wanted = collect::conditions(fields, "match");
    let of_a_message =
        |until: &Until| matches!(until, Until::Contains(_) | Until::Data(_) | Until::Equals { .. });
    if !wanted.iter().all(of_a_message) {
        let hint = "one of `contains`, `data`, and `path` with `equals`";
        fields.problem("match", "says what the answer looks like", Some(hint.to_owned()));
    }
    wanted
}

fn subprotocols(fields: &mut Fields<'_, '_>) -> Vec<String> {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b))
    };
    let items = fields.list("subprotocols");
    let names: Option<Vec<String>> =
        items.iter().map(|item| item.as_str().filter(|name| is_token(name)).map(str::to_owned)).collect();
    match names {
        Some(names) if names.len() <= SUBPROTOCOLS_MAX => names,
        _ => {
            fields.problem("subprotocols", format!("must be at most {SUBPROTOCOLS_MAX} names"), None);
            Vec::new()
        }
    }
}

/// `messages`, or one `message`.
fn messages(fields: &mut Fields<'_, '_>) -> Vec<Body> {
    let mut found = Vec::new();
    found.extend(request::text_or_json(fields, "message", None));
    let path = fields.path("messages");
    let items = fields.list("messages");
    if items.len() > MESSAGES_MAX {
        fields.problem("messages", format!("at most {MESSAGES_MAX} messages are sent"), None);
    }
    for (i, item) in items.into_iter().enumerate() {
        let item = serde_json::Map::from_iter([("message".to_owned(), Value::clone(&item))]);
        // One level less in the path: the object is only how it is read.
        let mut one = fields.object_at(format!("{path}[{i}]"), item);
        found.extend(request::text_or_json(&mut one, "message", None));
    }
    found
}
