//! What a legacy session would leave with a backend, kept here where the backend
//! is modern and keeps nothing: the log level, and which resources are followed.
//!
//! It ends with the session.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use dashmap::DashMap;
use metrics::counter;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex as SyncMutex;
use tokio::sync::Mutex;
use tokio_util::sync::DropGuard;

use crate::{
    gateway::call::{CallError, Scope},
    mcp::{RpcError, meta::LogLevel},
};

/// Sessions that something is kept of; above what a node takes, because a door
/// forgets a session a moment before this does.
const SESSIONS_MAX: usize = 20_000;

/// What is kept of all sessions.
#[derive(Default)]
pub struct KeptSessions {
    sessions: DashMap<Arc<str>, Arc<Kept>>,
}

/// What is kept of one session.
#[derive(Default)]
pub struct Kept {
    level: SyncMutex<Option<LogLevel>>,
    /// By backend. Locked while a subscription changes: two changes at once
    /// would open the backend's stream twice.
    pub followed: Mutex<HashMap<ResourceName, Followed>>,
}

/// What one session follows at one backend, as long as this lives.
pub struct Followed {
    uris: BTreeSet<String>,
    _stop: DropGuard,
}

impl Followed {
    /// `stop` ends the stream that these are followed on.
    pub fn new(uris: BTreeSet<String>, stop: DropGuard) -> Self {
        Self { uris, _stop: stop }
    }

    pub fn uris(&self) -> &BTreeSet<String> {
        &self.uris
    }
}

impl KeptSessions {
    /// What is kept of a session, from now on.
    ///
    /// # Errors
    /// A call without a session has nowhere to keep anything; too many sessions.
    pub fn of(&self, scope: &Scope) -> Result<Arc<Kept>, CallError> {
        let Scope::Session(id) = scope else {
            return Err(CallError::Rpc(RpcError::invalid_request("this needs a session")));
        };
        if let Some(kept) = self.sessions.get(id) {
            return Ok(kept.clone());
        }
        if self.sessions.len() >= SESSIONS_MAX {
            counter!("mt_bridge_sessions_refused_total").increment(1);
            return Err(CallError::Rpc(RpcError::overloaded()));
        }
        Ok(self.sessions.entry(id.clone()).or_default().clone())
    }

    /// The log level that a session has asked for.
    pub fn level(&self, scope: &Scope) -> Option<LogLevel> {
        let Scope::Session(id) = scope else { return None };
        let kept = self.sessions.get(id)?;
        *kept.level.lock()
    }

    /// The session is over.
    pub fn end(&self, scope: &Scope) {
        if let Scope::Session(id) = scope {
            self.sessions.remove(id);
        }
    }
}

impl Kept {
    pub fn set_level(&self, level: LogLevel) {
        *self.level.lock() = Some(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_lasts_as_long_as_its_session() {
        let sessions = KeptSessions::default();
        let (one, two) = (Scope::Session("1".into()), Scope::Session("2".into()));
        sessions.of(&one).unwrap().set_level(LogLevel::Info);
        assert_eq!(sessions.level(&one), Some(LogLevel::Info));
        assert_eq!((sessions.level(&two), sessions.level(&Scope::Stateless)), (None, None));
        sessions.end(&one);
        assert_eq!(sessions.level(&one), None);
        assert!(sessions.of(&Scope::Stateless).is_err());
    }
}
