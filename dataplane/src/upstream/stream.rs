//! The event stream of a response, as messages.
//!
//! Also keeps what resuming needs: the last event's id and the wait that the
//! server asked for.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::{client::Incoming, endpoint::RESULT_BYTES_MAX};
use crate::{
    chain,
    mcp::sse::{Decoder, Event},
};

/// The longest event id that is sent back.
const EVENT_ID_BYTES_MAX: usize = 1024;

pub struct EventStream {
    body: Incoming,
    decoder: Decoder,
}

/// Where a stream can be taken up again.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    pub last_event_id: Option<Bytes>,
    pub retry: Option<Duration>,
}

/// Why there are no more messages.
#[derive(Debug, thiserror::Error)]
pub enum End {
    #[error("the stream ended")]
    Clean,
    #[error("the stream broke off: {0}")]
    Broken(String),
    #[error("{0}")]
    TooLong(#[from] crate::mcp::sse::TooLong),
}

impl EventStream {
    pub fn new(body: Incoming) -> Self {
        Self { body, decoder: Decoder::new(RESULT_BYTES_MAX) }
    }

    /// The next message; notes ids and waits on the way. Cancel safe.
    pub async fn next(&mut self, cursor: &mut Cursor) -> Result<Bytes, End> {
        loop {
            let event = self.next_event().await?;
            let is_message = event.is_message();
            if let Some(id) = event.id.filter(|id| id.len() <= EVENT_ID_BYTES_MAX) {
                cursor.last_event_id = (!id.is_empty()).then(|| Bytes::copy_from_slice(&id));
            }
            if let Some(retry) = event.retry_ms {
                cursor.retry = Some(Duration::from_millis(retry));
            }
            if let (true, Some(data)) = (is_message, event.data) {
                return Ok(data);
            }
        }
    }

    /// The next event, whatever it is. Cancel safe.
    pub async fn next_event(&mut self) -> Result<Event, End> {
        loop {
            if let Some(event) = self.decoder.next_event()? {
                return Ok(event);
            }
            match self.body.frame().await {
                None => return Err(End::Clean),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.decoder.push(data);
                    }
                }
                Some(Err(error)) => return Err(End::Broken(chain(&error))),
            }
        }
    }
}
