//! What a modern call says while it runs, as the chunks of a response.
//!
//! Whatever is there when a chunk is asked for goes into it: a backend that says
//! much in little time costs its client a few reads and not one for each message.
//! A chunk is asked for when the socket has taken the one before, so a client that
//! reads slowly holds the call back.

use bytes::Bytes;
use futures_util::stream;

use super::{
    body::Body,
    pieces::Pieces,
    running::{Running, Step},
    silence::Silence,
    stream::KEEP_ALIVE_EVERY,
};
use crate::mcp::{lines, sse};

/// A chunk that is as long takes no further message.
pub const CHUNK_BYTES_MAX: usize = 16 << 10;

/// How messages stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events without ids.
    Events,
    Lines,
}

impl Framing {
    /// Means nothing, and shows that somebody is there.
    pub fn keep_alive(self) -> Bytes {
        Bytes::from_static(match self {
            Framing::Events => sse::KEEP_ALIVE,
            // Readers skip an empty line.
            Framing::Lines => b"\n",
        })
    }

    /// Writes a message behind others.
    pub fn write(self, message: &[u8], chunk: &mut Vec<u8>) {
        match self {
            Framing::Events => sse::encode(None, message, chunk),
            Framing::Lines => lines::encode(message, chunk),
        }
    }
}

/// What a call says from its first message on. Dropping it cancels the call.
pub fn body(running: Running, first: Bytes, framing: Framing) -> Body {
    let silence = Silence::new(KEEP_ALIVE_EVERY);
    let saying = Saying { running, first: Some(first), framing, silence };
    Body::stream(stream::unfold(saying, |mut saying| async move { Some((saying.next().await?, saying)) }))
}

struct Saying {
    running: Running,
    first: Option<Bytes>,
    framing: Framing,
    silence: Silence,
}

impl Saying {
    async fn next(&mut self) -> Option<Pieces> {
        let mut step = match self.first.take() {
            Some(first) => Step::Said(first),
            None => match self.silence.around(self.running.next()).await {
                Some(step) => step?,
                None => return Some(self.framing.keep_alive().into()),
            },
        };
        self.silence.break_now();
        let mut chunk = Vec::new();
        loop {
            match step {
                Step::Said(message) => self.framing.write(&message, &mut chunk),
                Step::Ended { message, .. } => return Some(message.framed(self.framing, chunk)),
            }
            if chunk.len() >= CHUNK_BYTES_MAX {
                break;
            }
            match self.running.ready() {
                Some(next) => step = next,
                None => break,
            }
        }
        Some(Bytes::from(chunk).into())
    }
}
