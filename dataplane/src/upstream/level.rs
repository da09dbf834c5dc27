//! How much a legacy backend logs, where clients say so with each request: a
//! session is told a level when somebody wants more than anybody before, and
//! what one request wants of it is sorted out on the way to its client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Leg, Upstream};
use crate::{
    gateway::call::Client,
    mcp::{meta::LogLevel, splice::Object},
};

/// What a session was told: the lowest level so far.
#[derive(Debug)]
pub struct Level(AtomicU8);

/// How long is waited for a server that bears one call at a time.
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);
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

impl Upstream {
    /// Has what serves this client log from `level` on, if it logs. That it does
    /// not is no failure: whoever wants log lines gets those that there are.
    pub async fn raise_level(&self, client: &Arc<Client>, level: LogLevel) {
        let Ok(_turn) = self.turn(Instant::now() + TURN_WAIT_MAX).await else { return };
        match &self.leg {
            Leg::Http(http) => http.legacy.raise_level(client, level).await,
            Leg::Pipes(pipes) => pipes.raise_level(client, level).await,
            // A call says its level itself.
            Leg::Agents(_) => {}
        }
    }
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
