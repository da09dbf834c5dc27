//! What a node knows of a backend: which eras it speaks, and how it is doing.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, Protocol, Transport},
};
use tokio::sync::watch;

use crate::{
    gateway::call::CallError,
    mcp::version::{Era, ProtocolVersion},
};

/// Which eras a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eras {
    pub legacy: bool,
    pub modern: bool,
}

impl Eras {
    pub fn speaks(self, era: Era) -> bool {
        match era {
            Era::Legacy => self.legacy,
            Era::Modern => self.modern,
        }
    }

    /// What the configuration says; `None` if it leaves it open.
    fn pinned(protocol: &Protocol) -> Option<Self> {
        let era = match protocol {
            Protocol::Auto => return None,
            Protocol::Legacy => Era::Legacy,
            Protocol::Modern => Era::Modern,
            Protocol::Revision(revision) => ProtocolVersion::parse(revision)?.era(),
        };
        Some(Self { legacy: era == Era::Legacy, modern: era == Era::Modern })
    }

    /// What the configuration leaves no choice about; `None` if it leaves it
    /// open.
    pub fn fixed(config: &Backend) -> Option<Self> {
        match config.transport {
            // There is no modern revision over HTTP+SSE.
            Transport::Sse(_) => Some(Self { legacy: true, modern: false }),
            _ => Self::pinned(&config.protocol),
        }
    }

    /// What the facts say; `None` if they say nothing.
    pub fn of(facts: &ServerFacts) -> Option<Self> {
        let eras = Self { legacy: facts.legacy, modern: !facts.modern_versions.is_empty() };
        (eras.legacy || eras.modern).then_some(eras)
    }
}

/// The word for an era in what people read.
pub fn era_name(era: Era) -> &'static str {
    match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
    }
}

/// How a backend is doing, as the node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamState {
    /// Nothing has been heard of it yet.
    Starting,
    /// Its last answer was fine.
    Ready,
    /// It is there, but something went wrong.
    Degraded { reason: String },
    /// It cannot be reached.
    Unavailable { reason: String },
    /// It refuses the node's credentials, or the node has none to show.
    NeedsAuth { reason: String },
    /// Switched off by configuration.
    Disabled,
}

/// Keeps an [`UpstreamState`] by the outcomes of calls.
#[derive(Debug)]
pub struct StateKeeper {
    sender: watch::Sender<UpstreamState>,
    /// So that the common case, one more good answer, takes no lock.
    ready: AtomicBool,
}

impl StateKeeper {
    pub fn new(disabled: bool) -> Self {
        let state = if disabled { UpstreamState::Disabled } else { UpstreamState::Starting };
        Self { sender: watch::Sender::new(state), ready: AtomicBool::new(false) }
    }

    pub fn subscribe(&self) -> watch::Receiver<UpstreamState> {
        self.sender.subscribe()
    }

    pub fn answered(&self) {
        if !self.ready.load(Ordering::Relaxed) {
            self.ready.store(true, Ordering::Relaxed);
            self.sender.send_if_modified(|state| replace(state, UpstreamState::Ready));
        }
    }

    /// Notes a failure, if it says anything about the backend.
    pub fn failed(&self, error: &CallError) {
        let Some(next) = verdict(error) else { return };
        self.ready.store(false, Ordering::Relaxed);
        self.sender.send_if_modified(|state| replace(state, next));
    }
}

fn replace(state: &mut UpstreamState, next: UpstreamState) -> bool {
    if *state == next || *state == UpstreamState::Disabled {
        return false;
    }
    *state = next;
    true
}

fn verdict(error: &CallError) -> Option<UpstreamState> {
    Some(match error {
        CallError::Unreachable { reason, .. } => UpstreamState::Unavailable { reason: reason.clone() },
        CallError::Lost { reason, .. } | CallError::Protocol { reason, .. } => {
            UpstreamState::Degraded { reason: reason.clone() }
        }
        CallError::Timeout { limit, .. } => {
            UpstreamState::Degraded { reason: format!("did not answer within {}", seconds(*limit)) }
        }
        CallError::NeedsAuth { reason, .. } => UpstreamState::NeedsAuth { reason: reason.clone() },
        _ => return None,
    })
}

fn seconds(limit: Duration) -> String {
    format!("{:.1} s", limit.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> CallError {
        CallError::Unreachable { backend: "a".parse().unwrap(), reason: "connection refused".into() }
    }

    #[test]
    fn a_backend_is_as_good_as_its_last_outcome() {
        let keeper = StateKeeper::new(false);
        let state = keeper.subscribe();
        assert_eq!(*state.borrow(), UpstreamState::Starting);
        keeper.answered();
        assert_eq!(*state.borrow(), UpstreamState::Ready);
        keeper.failed(&unreachable());
        assert_eq!(*state.borrow(), UpstreamState::Unavailable { reason: "connection refused".into() });
        keeper.answered();
        assert_eq!(*state.borrow(), UpstreamState::Ready);
    }

    #[test]
    fn being_busy_says_nothing_about_health() {
        let keeper = StateKeeper::new(false);
        keeper.answered();
        keeper.failed(&CallError::Overloaded { backend: "a".parse().unwrap(), limit: 1 });
        assert_eq!(*keeper.subscribe().borrow(), UpstreamState::Ready);
    }

    #[test]
    fn a_disabled_backend_stays_disabled() {
        let keeper = StateKeeper::new(true);
        keeper.failed(&unreachable());
        keeper.answered();
        assert_eq!(*keeper.subscribe().borrow(), UpstreamState::Disabled);
    }

    #[test]
    fn facts_without_an_era_are_no_facts() {
        assert_eq!(Eras::of(&ServerFacts::default()), None);
        let facts = ServerFacts { legacy: true, ..Default::default() };
        assert_eq!(Eras::of(&facts), Some(Eras { legacy: true, modern: false }));
    }
}
