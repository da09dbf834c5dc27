//! One frame of bytes becomes a request, a notification or a response.
//!
//! The whole message is validated in one pass (see [`scan`](super::scan)) and
//! its parts are slices of the input. Nothing is guessed: what two parsers
//! could read as two messages is refused, by byte offset.

use bytes::Bytes;

use crate::mcp::error::RpcError;
use crate::mcp::id::{ID_BYTES_MAX, RESPONSE_ID_BYTES_MAX, RawId};
use crate::mcp::method::Method;
use crate::mcp::params::{Index, Params};
use crate::mcp::scan::{Limits, ParseError, Quoted, Reason, Scanner, Span};
use crate::mcp::text;

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
    pub fn parse(bytes: Bytes, limits: Limits) -> Result<Self, ParseError> {
        let mut parts = Parts::default();
        let read = parts.read(&bytes, limits).and_then(|()| parts.message(&bytes));
        read.map_err(|error| {
            // Of what is not JSON, and of what may have two ids, none is known.
            let known = !error.reason.is_syntax() && error.reason != Reason::DuplicateKey;
            ParseError { id: known.then(|| parts.id(&bytes)).flatten(), ..error }
        })
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
        if error.reason.is_syntax() {
            RpcError::parse_error(error.to_string())
        } else {
            RpcError::invalid_request(error.to_string())
        }
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

const MEMBERS: [(&str, Member); 6] = [
    ("jsonrpc", Member::Jsonrpc),
    ("id", Member::Id),
    ("method", Member::Method),
    ("params", Member::Params),
    ("result", Member::Result),
    ("error", Member::Error),
];

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
        for (known, member) in MEMBERS {
            if name == known.as_bytes() {
                return Ok(Some(member));
            }
        }
        if MEMBERS.iter().any(|(known, _)| text::folds_to(name, known)) {
            return Err(at(key.span, Reason::KeyCase));
        }
        Ok(None)
    }
}

#[derive(Default)]
struct Parts {
    spans: [Option<Span>; MEMBERS.len()],
    index: Option<Index>,
}

impl Parts {
    fn get(&self, member: Member) -> Option<Span> {
        self.spans[member as usize]
    }

    fn read(&mut self, bytes: &[u8], limits: Limits) -> Result<(), ParseError> {
        let mut scanner = Scanner::new(bytes, limits)?;
        if scanner.peek()? != b'{' {
            // An array or a number is JSON, so say what is wrong with it.
            scanner.value()?;
            return Err(ParseError { offset: 0, reason: Reason::NotAnObject, id: None });
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
                let start = scanner.offset() as u32;
                self.index = Some(Index::read(&mut scanner, bytes)?.relative_to(start));
                Span { start, end: scanner.offset() as u32 }
            } else {
                scanner.value()?
            };
            self.spans[member as usize] = Some(value);
            more = scanner.next_member()?;
        }
        scanner.end()
    }

    fn message(&self, bytes: &Bytes) -> Result<Message, ParseError> {
        match self.get(Member::Jsonrpc) {
            Some(span) if text::decode(&bytes[span.range()]).as_deref() == Some("2.0") => {}
            Some(span) => return Err(at(span, Reason::Jsonrpc)),
            None => return Err(ParseError { offset: 0, reason: Reason::Jsonrpc, id: None }),
        }
        let result = self.get(Member::Result);
        let error = self.get(Member::Error);
        match (self.get(Member::Method), result, error) {
            (Some(method), None, None) => {
                let method_text = text::decode(&bytes[method.range()]).ok_or(at(method, Reason::Method))?;
                let method = Method::parse(&method_text);
                let params = self.params(bytes, &method)?;
                Ok(match self.get(Member::Id) {
                    Some(id) => Message::Request(Request { id: read_id(bytes, id, ID_BYTES_MAX)?, method, params }),
                    None => Message::Notification(Notification { method, params }),
                })
            }
            (None, Some(result), None) => {
                let id = self.get(Member::Id).ok_or(at(result, Reason::Id))?;
                let id = Some(read_id(bytes, id, RESPONSE_ID_BYTES_MAX)?);
                Ok(Message::Response(Response { id, outcome: Outcome::Result(bytes.slice(result.range())) }))
            }
            (None, None, Some(error)) => {
                let id = match self.get(Member::Id) {
                    Some(id) if &bytes[id.range()] != b"null" => Some(read_id(bytes, id, RESPONSE_ID_BYTES_MAX)?),
                    _ => None,
                };
                Ok(Message::Response(Response { id, outcome: Outcome::Error(bytes.slice(error.range())) }))
            }
            _ => Err(ParseError { offset: 0, reason: Reason::Shape, id: None }),
        }
    }

    fn params(&self, bytes: &Bytes, method: &Method) -> Result<Params, ParseError> {
        let Some(span) = self.get(Member::Params) else { return Ok(Params::NONE) };
        let Some(index) = self.index else {
            // Some clients write `"params": null` where they have none.
            return if &bytes[span.range()] == b"null" { Ok(Params::NONE) } else { Err(at(span, Reason::Params)) };
        };
        // An unknown method may have members that only look like ours.
        if let (Some(offset), true) = (index.odd_case, method.is_known()) {
            return Err(ParseError { offset: offset as usize, reason: Reason::KeyCase, id: None });
        }
        Ok(Params::new(bytes.slice(span.range()), index))
    }

    /// For the answer to a bad message.
    fn id(&self, bytes: &[u8]) -> Option<RawId> {
        let span = self.get(Member::Id)?;
        read_id(bytes, span, ID_BYTES_MAX).ok()
    }
}

fn read_id(bytes: &[u8], span: Span, bytes_max: usize) -> Result<RawId, ParseError> {
    let raw = &bytes[span.range()];
    if raw.len() > bytes_max {
        return Err(at(span, Reason::IdLength));
    }
    RawId::from_json(raw).ok_or(at(span, Reason::Id))
}

fn at(span: Span, reason: Reason) -> ParseError {
    ParseError { offset: span.start as usize, reason, id: None }
}
