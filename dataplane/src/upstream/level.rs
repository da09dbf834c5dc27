//! How much a legacy backend logs, where clients say so with each request: a
//! session is told a level when somebody wants more than anybody before, and
//! what one request wants of it is sorted out on the way to its client.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;

use crate::mcp::{meta::LogLevel, splice::Object};

/// What a session was told: the lowest level so far.
#[derive(Debug)]
pub struct Level(AtomicU8);

/// Above every level.
const NONE: u8 = u8::MAX;

impl Default for Level {
    fn default() -> Self {
        Self(AtomicU8::new(NONE))
    }
}

impl Level {
    /// True if the backend has to be told; from now on it counts as told, also
    /// where it refuses.
    pub fn raise(&self, level: LogLevel) -> bool {
        self.0.fetch_min(level as u8, Ordering::Relaxed) > level as u8
    }
}

/// `params` of `logging/setLevel`.
pub fn params(level: LogLevel) -> Bytes {
    Object::default().set_text("level", level.as_str()).finish()
}

/// Whether a server says that it logs: by its raw `InitializeResult`.
pub fn is_declared(facts: &[u8]) -> bool {
    memchr::memmem::find(facts, b"\"logging\"").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_only_what_is_more_than_before() {
        let level = Level::default();
        assert!(level.raise(LogLevel::Emergency));
        assert!(level.raise(LogLevel::Info));
        assert!(!level.raise(LogLevel::Info));
        assert!(!level.raise(LogLevel::Error));
        assert!(level.raise(LogLevel::Debug));
        assert!(!level.raise(LogLevel::Debug));
    }
}
