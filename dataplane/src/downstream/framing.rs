//! How messages stand beside each other in a body.

use bytes::Bytes;

use crate::mcp::{lines, sse};

/// What is written around each.
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
