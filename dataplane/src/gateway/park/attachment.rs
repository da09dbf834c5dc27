//! Listening to a parked call.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    gateway::call::Answer,
    mcp::{Key, Limits, Message, Method, RawId, RpcError, error::code, splice},
};

/// Messages to whoever listens that wait until they are taken. A full queue
/// holds the backend back.
const HEARD_MAX: usize = 64;

/// What somebody hears who listens to a call.
#[derive(Debug)]
pub enum Heard {
    Said(Bytes),
    Ended(Outcome),
}

/// An answer for the client: the call's own, or its questions.
pub type Outcome = Result<Answer, RpcError>;

/// Listens to a call that has asked. Dropping it before the outcome cancels the
/// call, unless somebody else listens.
#[derive(Debug)]
pub struct Attachment {
    heard: mpsc::Receiver<Heard>,
    /// Progress is told under the listener's own token, if it wants to hear of
    /// any. None: it began the call, and the token is its own.
    token: Option<Option<RawId>>,
}

/// What an attached client is told next.
#[derive(Debug)]
pub enum Told {
    Said(Bytes),
    Ended(Outcome),
}

impl Attachment {
    /// Of whoever began the call.
    pub fn first() -> (mpsc::Sender<Heard>, Self) {
        let (listener, heard) = mpsc::channel(HEARD_MAX);
        (listener, Self { heard, token: None })
    }

    /// Of whoever came back, with the token of the retry.
    pub fn again(token: Option<RawId>) -> (mpsc::Sender<Heard>, Self) {
        let (listener, heard) = mpsc::channel(HEARD_MAX);
        (listener, Self { heard, token: Some(token) })
    }

    /// Never again after the outcome. Safe to drop while it waits.
    pub async fn next(&mut self) -> Told {
        loop {
            match self.heard.recv().await {
                Some(Heard::Said(message)) => match &self.token {
                    None => return Told::Said(message),
                    Some(token) => match renamed(message, token.as_ref()) {
                        Some(message) => return Told::Said(message),
                        None => continue,
                    },
                },
                Some(Heard::Ended(outcome)) => return Told::Ended(outcome),
                None => return Told::Ended(Err(lost())),
            }
        }
    }
}

/// Progress under another token; none if nobody wants to hear of it.
fn renamed(message: Bytes, token: Option<&RawId>) -> Option<Bytes> {
    if memchr::memmem::find(&message, b"progress").is_none() {
        return Some(message);
    }
    match Message::parse(message.clone(), Limits::BACKEND) {
        Ok(Message::Notification(told)) if told.method == Method::Progress => {
            let own = Bytes::copy_from_slice(token?.as_bytes());
            let params = told.params.patch().set(Key::ProgressToken.as_str(), own).finish();
            Some(splice::notification(&told.method, Some(&params)))
        }
        _ => Some(message),
    }
}

/// The call was held by a process that is gone, or for longer than it is held.
pub fn lost() -> RpcError {
    RpcError::new(code::OWNER_LOST, "the call that asked is no longer held; it may have taken effect")
}
