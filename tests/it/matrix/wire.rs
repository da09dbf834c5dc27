//! How a client's messages get to a gateway and back, on four transports.
//!
//! A wire carries messages and understands none: what comes back, on whichever
//! stream, goes into one inbox in the order in which it came. Nothing is tried
//! again and no odd answer is forgiven, so that nothing hides a fault.

mod pipe;
mod socket;
mod sse;
mod streamable;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use self::{pipe::Pipe, socket::Socket, sse::Sse, streamable::Streamable};

/// What may wait for the client to read it.
pub const INBOX_MAX: usize = 1024;

pub type Inbox = mpsc::Sender<Value>;
pub type Opened = Result<Arc<dyn Wire>, String>;

pub trait Wire: Send + Sync {
    /// Hands a message over.
    fn send<'a>(&'a self, message: &'a Value) -> BoxFuture<'a, Result<(), String>>;

    /// Ends the response to a request, where that is how it is cancelled; false
    /// where a notification is.
    fn hang_up(&self, _id: u64) -> bool {
        false
    }
}

/// Whether the message says that it is of the era without sessions.
pub fn is_modern(message: &Value) -> bool {
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string()
}

/// What the client sees instead of an answer.
pub fn failure(id: &Value, reason: impl Into<String>) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": 0, "message": reason.into()}})
}

/// The events of a stream as they come: the name and the data of each.
pub struct Events {
    response: Response,
    bytes: Vec<u8>,
}

impl Events {
    pub fn of(response: Response) -> Self {
        Self { response, bytes: Vec::new() }
    }

    /// None at the end; an event without data is passed over, as a comment is.
    pub async fn next(&mut self) -> Result<Option<(String, String)>, String> {
        let (mut name, mut data) = (String::from("message"), String::new());
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" if data.is_empty() => value.clone_into(&mut data),
                "data" => data = format!("{data}\n{value}"),
                _ if line.is_empty() && !data.is_empty() => return Ok(Some((name, data))),
                _ if line.is_empty() => "message".clone_into(&mut name),
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> Result<Option<String>, String> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = self.bytes[looked_at..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=looked_at + end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return String::from_utf8(line.to_vec()).map(Some).map_err(|error| error.to_string());
            }
            looked_at = self.bytes.len();
            match self.response.chunk().await.map_err(|error| format!("the stream broke: {error:?}"))? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// Every message of the stream, into the inbox.
    pub async fn into_inbox(mut self, inbox: &Inbox) -> Result<(), String> {
        while let Some((name, data)) = self.next().await? {
            if name != "message" {
                return Err(format!("event {name:?} has no meaning"));
            }
            let message =
                serde_json::from_str(&data).map_err(|error| format!("{error} in event {data:?}"))?;
            _ = inbox.send(message).await; // A client that went away reads nothing.
        }
        Ok(())
    }
}
