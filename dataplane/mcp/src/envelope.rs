//! One frame of bytes becomes a request, a notification or a response.
//!
//! The whole message is validated in one pass (see [`scan`](super::scan)) and
//! its parts are slices of the input. Nothing is guessed: what two parsers
//! could read as two messages is refused, by byte offset.

use bytes::Bytes;

use crate::error::{RpcError, code};
use crate::id::{ID_BYTES_MAX, RESPONSE_ID_BYTES_MAX, RawId};
use crate::key::Index;
use crate::method::Method;
use crate::params::Params;
use crate::scan::{BadMessage, Limits, ParseError, Quoted, Reason, Scanner, Span, or_not_utf8};
use crate::text;

/// The most messages in one batch.
pub const BATCH_MAX: usize = 100;

/// A JSON-RPC message.
#[derive(Clone, Debug)]
pub enum Message {
    Request(Request),
    Notification(Notification),
    Response(Response),
}

/// Wants an answer.
#[derive(Clone, Debug)]
pub struct Request {
    pub id: RawId,
    pub method: Method,
    pub params: Params,
}

/// Wants none.
#[derive(Clone, Debug)]
pub struct Notification {
    pub method: Method,
    pub params: Params,
}

/// The end of a request.
#[derive(Clone, Debug)]
pub struct Response {
    /// `None` only for errors about something that was not a request.
    pub id: Option<RawId>,
    pub outcome: Outcome,
}

/// What a response says, as raw JSON.
#[derive(Clone, Debug)]
pub enum Outcome {
    Result(Bytes),
    Error(Bytes),
}

impl Message {
    /// Reads one message; its parts share the memory of `bytes`.
    pub fn parse(bytes: Bytes, limits: Limits) -> Result<Self, BadMessage> {
        let mut parts = Parts::EMPTY;
        match parts.read(&bytes, limits) {
            Ok(()) => parts.message(&bytes),
            Err(error) => Err(parts.refuse(&bytes, error)),
        }
    }

    /// The method, unless it is a response.
    pub fn method(&self) -> Option<&Method> {
        match self {
            Self::Request(request) => Some(&request.method),
            Self::Notification(notification) => Some(&notification.method),
            Self::Response(_) => None,
        }
    }
}

impl From<&ParseError> for RpcError {
    fn from(error: &ParseError) -> Self {
        let code = if error.reason.is_syntax() { code::PARSE_ERROR } else { code::INVALID_REQUEST };
        RpcError::new(code, error.to_string())
    }
}

impl From<&BadMessage> for RpcError {
    fn from(error: &BadMessage) -> Self {
        RpcError::from(&ParseError { offset: error.offset, reason: error.reason })
    }
}

/// Whether a body is an array of messages.
pub fn is_batch(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Splits an array into its messages, each still to be parsed (so that one bad
/// message does not silence the others).
pub fn split_batch(bytes: &Bytes, limits: Limits) -> Result<Vec<Bytes>, ParseError> {
    let mut scanner = Scanner::new(bytes, limits)?;
    let mut messages = Vec::new();
    let mut more = scanner.open_array()?;
    while more {
        if messages.len() == BATCH_MAX {
            return Err(scanner.error(Reason::BatchLength));
        }
        messages.push(bytes.slice(scanner.value()?.range()));
        more = scanner.next_element()?;
    }
    scanner.end()?;
    if messages.is_empty() {
        return Err(scanner.error(Reason::BatchLength));
    }
    Ok(messages)
}

/// The members that make an envelope.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
}

const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

impl Member {
    fn of(key: Quoted, bytes: &[u8]) -> Result<Option<Self>, ParseError> {
        let decoded;
        let name = if key.escaped {
            // Half a surrogate pair is in none of ours.
            let Some(text) = text::decode(&bytes[key.span.range()]) else { return Ok(None) };
            decoded = text;
            decoded.as_bytes()
        } else {
            key.inner(bytes)
        };
        Ok(Some(match name {
            b"jsonrpc" => Self::Jsonrpc,
            b"id" => Self::Id,
            b"method" => Self::Method,
            b"params" => Self::Params,
            b"result" => Self::Result,
            b"error" => Self::Error,
            _ if MEMBERS.iter().any(|known| text::folds_to(name, known)) => {
                return Err(at(key.span, Reason::KeyCase));
            }
            _ => return Ok(None),
        }))
    }
}

struct Parts {
    spans: [Span; MEMBERS.len()],
    /// Of params, if they are an object.
    index: Index,
    params_are_object: bool,
}

impl Parts {
    const EMPTY: Self =
        Self { spans: [Span::NONE; MEMBERS.len()], index: Index::EMPTY, params_are_object: false };

    #[inline]
    fn get(&self, member: Member) -> Option<Span> {
        self.spans[member as usize].or_none()
    }

    fn read(&mut self, bytes: &[u8], limits: Limits) -> Result<(), ParseError> {
        let mut scanner = Scanner::new(bytes, limits)?;
        if scanner.peek()? != b'{' {
            // An array or a number is JSON, so say what is wrong with it.
            scanner.value()?;
            return Err(ParseError { offset: 0, reason: Reason::NotAnObject });
        }
        let mut more = scanner.open_object()?;
        while more {
            let key = scanner.key()?;
            let Some(member) = Member::of(key, bytes)? else {
                scanner.value()?;
                more = scanner.next_member()?;
                continue;
            };
            if self.get(member).is_some() {
                return Err(at(key.span, Reason::DuplicateKey));
            }
            let value = if member == Member::Params && scanner.peek()? == b'{' {
                self.params_are_object = true;
                self.index.read(&mut scanner, bytes)?
            } else {
                scanner.value()?
            };
            self.spans[member as usize] = value;
            more = scanner.next_member()?;
        }
        scanner.end()
    }

    /// Fails with what the caller returns, so that a message is not moved once
    /// it is made.
    fn message(&self, bytes: &Bytes) -> Result<Message, BadMessage> {
        let bad = |error| self.refuse(bytes, error);
        match self.get(Member::Jsonrpc) {
            Some(span) if text::is(&bytes[span.range()], "2.0") => {}
            Some(span) => return Err(bad(at(span, Reason::Jsonrpc))),
            None => return Err(bad(ParseError { offset: 0, reason: Reason::Jsonrpc })),
        }
        let result = self.get(Member::Result);
        let error = self.get(Member::Error);
        match (self.get(Member::Method), result, error) {
            (Some(method), None, None) => {
                let method = read_method(bytes, method).map_err(bad)?;
                let object = self.object(bytes, &method).map_err(bad)?;
                let id = match self.get(Member::Id) {
                    Some(id) => Some(read_id(bytes, id, ID_BYTES_MAX).map_err(bad)?),
                    None => None,
                };
                let params =
                    object.map_or(Params::NONE, |span| Params::new(bytes.slice(span.range()), self.index));
                Ok(match id {
                    Some(id) => Message::Request(Request { id, method, params }),
                    None => Message::Notification(Notification { method, params }),
                })
            }
            (None, Some(result), None) => {
                let id = self.get(Member::Id).ok_or(at(result, Reason::Id)).map_err(bad)?;
                let id = Some(read_id(bytes, id, RESPONSE_ID_BYTES_MAX).map_err(bad)?);
                Ok(Message::Response(Response { id, outcome: Outcome::Result(bytes.slice(result.range())) }))
            }
            (None, None, Some(error)) => {
                let id = match self.get(Member::Id) {
                    Some(id) if &bytes[id.range()] != b"null" => {
                        Some(read_id(bytes, id, RESPONSE_ID_BYTES_MAX).map_err(bad)?)
                    }
                    _ => None,
                };
                Ok(Message::Response(Response { id, outcome: Outcome::Error(bytes.slice(error.range())) }))
            }
            _ => Err(bad(ParseError { offset: 0, reason: Reason::Shape })),
        }
    }

    /// Where the params are, unless there are none.
    fn object(&self, bytes: &[u8], method: &Method) -> Result<Option<Span>, ParseError> {
        let Some(span) = self.get(Member::Params) else { return Ok(None) };
        if !self.params_are_object {
            // Some clients write `"params": null` where they have none.
            return if &bytes[span.range()] == b"null" { Ok(None) } else { Err(at(span, Reason::Params)) };
        }
        // An unknown method may have members that only look like ours.
        if let (Some(offset), true) = (self.index.odd_case, method.is_known()) {
            return Err(ParseError { offset: offset as usize, reason: Reason::KeyCase });
        }
        Ok(Some(span))
    }

    #[cold]
    fn refuse(&self, bytes: &[u8], error: ParseError) -> BadMessage {
        let ParseError { offset, reason } = or_not_utf8(bytes, error);
        // Of what is not JSON, and of what may have two ids, none is known.
        let known = !reason.is_syntax() && reason != Reason::DuplicateKey;
        BadMessage { offset, reason, id: known.then(|| self.id(bytes)).flatten() }
    }

    /// For the answer to a bad message.
    fn id(&self, bytes: &[u8]) -> Option<RawId> {
        let span = self.get(Member::Id)?;
        read_id(bytes, span, ID_BYTES_MAX).ok()
    }
}

fn read_method(bytes: &[u8], span: Span) -> Result<Method, ParseError> {
    let raw = &bytes[span.range()];
    Method::from_json(raw).ok_or(at(span, Reason::Method))
}

fn read_id(bytes: &[u8], span: Span, bytes_max: usize) -> Result<RawId, ParseError> {
    let raw = &bytes[span.range()];
    if raw.len() > bytes_max {
        return Err(at(span, Reason::IdLength));
    }
    RawId::from_json(raw).ok_or(at(span, Reason::Id))
}

fn at(span: Span, reason: Reason) -> ParseError {
    ParseError { offset: span.start as usize, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::key::Key;

    fn parse(text: &str) -> Result<Message, BadMessage> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::CLIENT)
    }

    fn refuse(text: &str, reason: Reason, offset: usize) {
        let error = parse(text).unwrap_err();
        assert_eq!((error.reason, error.offset), (reason, offset), "{text}");
    }

    #[test]
    fn a_request_is_read_in_place() {
        let text = br#" {"params":{"name":"t\u002fx","arguments":{"name":1}},"x":[],"id":"7","method":"tools\/call","jsonrpc":"2.0"} "#;
        let bytes = Bytes::from_static(text);
        let Ok(Message::Request(request)) = Message::parse(bytes.clone(), Limits::CLIENT) else { panic!() };
        assert_eq!(request.id.as_bytes(), b"\"7\"");
        assert_eq!(request.method, Method::ToolsCall);
        assert_eq!(request.params.name().unwrap(), "t/x");
        let arguments = request.params.arguments().unwrap();
        assert_eq!(&arguments[..], br#"{"name":1}"#);
        assert!(bytes.as_ptr_range().contains(&arguments.as_ptr()));
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        assert!(matches!(parse(r#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#), Ok(Message::Request(_))));
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","method":"notifications/initialized","params":null}"#),
            Ok(Message::Notification(Notification { method: Method::Initialized, .. }))
        ));
        assert!(matches!(
            parse(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
            Ok(Message::Response(Response { id: Some(_), outcome: Outcome::Result(_) }))
        ));
        for text in
            [r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#, r#"{"jsonrpc":"2.0","error":{"code":1}}"#]
        {
            assert!(matches!(
                parse(text),
                Ok(Message::Response(Response { id: None, outcome: Outcome::Error(error) })) if error == r#"{"code":1}"#
            ));
        }
    }

    #[test]
    fn what_two_parsers_could_read_as_two_messages_is_refused() {
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, Reason::DuplicateKey, 37);
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":"a","m\u0065thod":"b"}"#, Reason::DuplicateKey, 37);
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#, Reason::KeyCase, 37);
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}"#, Reason::KeyCase, 37);
        refuse("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"param\u{17f}\":{}}", Reason::KeyCase, 37);
        refuse(r#"{"method":"tools/call","params":{"name":"a","name":"b"}}"#, Reason::DuplicateKey, 44);
        refuse(r#"{"jsonrpc":"2.0","method":"tools/call","params":{"Name":"b"}}"#, Reason::KeyCase, 49);
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#, Reason::Shape, 0);
        refuse(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, Reason::Shape, 0);
        refuse(r#"{"jsonrpc":"2.0","id":1}"#, Reason::Shape, 0);
    }

    #[test]
    fn unknown_methods_may_have_members_that_look_like_ours() {
        assert!(parse(r#"{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"Name":"b","URI":1}}"#).is_ok());
    }

    #[test]
    fn the_envelope_must_be_what_json_rpc_says() {
        refuse("[]", Reason::NotAnObject, 0);
        refuse("7", Reason::NotAnObject, 0);
        refuse(r#"{"id":1,"method":"a"}"#, Reason::Jsonrpc, 0);
        refuse(r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#, Reason::Jsonrpc, 11);
        refuse(r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, Reason::Id, 22);
        refuse(r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#, Reason::Id, 22);
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, Reason::Method, 33);
        refuse(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#, Reason::Params, 46);
        refuse(r#"{"jsonrpc":"2.0","result":{}}"#, Reason::Id, 26);
        let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "x".repeat(ID_BYTES_MAX));
        refuse(&long, Reason::IdLength, 22);
    }

    #[test]
    fn an_error_carries_the_id_where_it_is_certain() {
        let id = |text| parse(text).unwrap_err().id.map(|id| id.to_string());
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":"a","method":7}"#).as_deref(), Some("\"a\""));
        assert_eq!(id(r#"{"jsonrpc":"1.0","id":3,"method":"a"}"#).as_deref(), Some("3"));
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":3,"id":4,"method":"a"}"#), None);
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":3,"method":"a""#), None);
    }

    #[test]
    fn a_batch_is_split_and_bounded() {
        let split = |text: String| split_batch(&Bytes::from(text), Limits::CLIENT);
        assert!(is_batch(b" \n[") && !is_batch(b" {") && !is_batch(b""));
        assert_eq!(split(r#" [ {"a":[1]} , 2 ] "#.into()).unwrap(), [r#"{"a":[1]}"#, "2"]);
        assert_eq!(split("[]".into()).unwrap_err().reason, Reason::BatchLength);
        assert!(split(format!("[1{}]", ",1".repeat(BATCH_MAX - 1))).is_ok());
        assert_eq!(split(format!("[1{}]", ",1".repeat(BATCH_MAX))).unwrap_err().reason, Reason::BatchLength);
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        let key = prop_oneof![".{0,4}", Just("name".to_owned()), Just("id".to_owned())];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..4)
                    .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
            ]
        })
    }

    /// Members of a message: mostly right, often not, in any order.
    fn members() -> impl Strategy<Value = Vec<(String, Value)>> {
        let envelope = prop_oneof![
            4 => Just(("jsonrpc".to_owned(), Value::from("2.0"))),
            4 => prop::sample::select(vec!["tools/call", "ping", "notifications/progress", "é"])
                .prop_map(|method| ("method".to_owned(), method.into())),
            3 => prop_oneof![any::<u64>().prop_map(Value::from), ".{0,5}".prop_map(Value::from)]
                .prop_map(|id| ("id".to_owned(), id)),
            3 => json().prop_map(|params| ("params".to_owned(), params)),
            1 => json().prop_map(|result| ("result".to_owned(), result)),
            1 => (".{0,4}", json()),
        ];
        prop::collection::vec(envelope, 1..8)
    }

    fn write(members: &[(String, Value)], pretty: bool) -> String {
        let write = |value: &Value| {
            if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap()
        };
        let members: Vec<_> = members
            .iter()
            .map(|(key, value)| format!("{}:{}", write(&key.as_str().into()), write(value)))
            .collect();
        format!("{{{}}}", members.join(","))
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_means_the_same_to_serde_json(members in members(), pretty in any::<bool>()) {
            let text = write(&members, pretty);
            let view: Value = serde_json::from_str(&text).unwrap();
            let parsed = parse(&text);
            let keys: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
            let twice = MEMBERS.iter().any(|known| keys.iter().filter(|key| *key == known).count() > 1);
            prop_assert!(!(twice && parsed.is_ok()));
            let (id, params) = match parsed {
                Ok(Message::Request(request)) => {
                    prop_assert_eq!(request.method.as_str(), view["method"].as_str().unwrap());
                    (Some(request.id), Some(request.params))
                }
                Ok(Message::Notification(note)) => {
                    prop_assert_eq!(note.method.as_str(), view["method"].as_str().unwrap());
                    (None, Some(note.params))
                }
                Ok(Message::Response(response)) => {
                    let Outcome::Result(result) = response.outcome else { panic!() };
                    prop_assert_eq!(&serde_json::from_slice::<Value>(&result).unwrap(), &view["result"]);
                    (response.id, None)
                }
                Err(_) => return Ok(()),
            };
            let id = id.map(|id| serde_json::from_slice::<Value>(id.as_bytes()).unwrap());
            prop_assert_eq!(id.as_ref(), view.get("id"));
            if let Some(params) = params {
                let name = params.name().map(|name| Value::from(name.into_owned()));
                prop_assert_eq!(name.as_ref(), view["params"].get("name").filter(|name| name.is_string()));
                let raw = params.peek(Key::Name).map(|raw| serde_json::from_slice::<Value>(raw).unwrap());
                prop_assert_eq!(raw.as_ref(), view["params"].get("name"));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Message::parse(Bytes::from(bytes), Limits::CLIENT);
        }

        #[test]
        fn a_damaged_message_never_panics(members in members(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = write(&members, false).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(Message::Request(request)) = Message::parse(Bytes::from(bytes.clone()), Limits::CLIENT) {
                let view: Value = serde_json::from_slice(&bytes).unwrap();
                prop_assert_eq!(request.method.as_str(), view["method"].as_str().unwrap());
            }
        }
    }
}
