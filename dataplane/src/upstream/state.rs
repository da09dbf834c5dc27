//! What a node knows of a backend: which eras it speaks, and how it is doing.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, Protocol, Transport},
};
use tokio::{sync::watch, time::Instant};

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
            Transport::Agents(_) => Some(Self { legacy: false, modern: true }),
            _ => Self::pinned(&config.protocol),
        }
    }

    /// What the facts say; `None` if they say nothing.
    pub fn of(facts: &ServerFacts) -> Option<Self> {
        let eras = Self { legacy: facts.legacy, modern: !facts.modern_versions.is_empty() };
        (eras.legacy || eras.modern).then_some(eras)
    }
}

/// How long after a fruitless look the next one may follow.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Which eras a backend is known to speak, and since when: a server may be
/// another one tomorrow, and what is believed of it must not work badly and
/// quietly for ever. Reading takes no lock.
#[derive(Debug)]
pub struct Known {
    bits: AtomicU8,
    /// What others have found out last.
    told: AtomicU8,
    born: Instant,
    /// In milliseconds since then.
    learned: AtomicU64,
    looked: AtomicU64,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            bits: AtomicU8::new(0),
            told: AtomicU8::new(0),
            born: Instant::now(),
            learned: AtomicU64::new(0),
            looked: AtomicU64::new(0),
        }
    }
}

impl Known {
    const KNOWN: u8 = 1;
    const LEGACY: u8 = 2;
    const MODERN: u8 = 4;

    pub fn get(&self) -> Option<Eras> {
        let bits = self.bits.load(Ordering::Relaxed);
        let eras = Eras { legacy: bits & Self::LEGACY != 0, modern: bits & Self::MODERN != 0 };
        (bits & Self::KNOWN != 0).then_some(eras)
    }

    /// They have been found out just now.
    pub fn learn(&self, eras: Eras) {
        self.bits.store(Self::bits(eras), Ordering::Relaxed);
        self.learned.store(self.now(), Ordering::Relaxed);
    }

    /// Somebody else has found them out. What is told again is no news: what
    /// was found out here in between counts more.
    pub fn hear(&self, eras: Eras) {
        let bits = Self::bits(eras);
        if self.told.swap(bits, Ordering::Relaxed) != bits {
            self.learn(eras);
        }
    }

    /// Whether somebody has to look again, because what is known is older than
    /// `max_age`. True for one caller only, and not again before long.
    pub fn is_due(&self, max_age: Duration) -> bool {
        if self.bits.load(Ordering::Relaxed) & Self::KNOWN == 0 {
            return false;
        }
        let (now, looked) = (self.now(), self.looked.load(Ordering::Relaxed));
        let since = |ms: u64| Duration::from_millis(now.saturating_sub(ms));
        since(self.learned.load(Ordering::Relaxed)) >= max_age
            && since(looked) >= LOOK_AGAIN.min(max_age)
            && self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn bits(eras: Eras) -> u8 {
        let legacy = if eras.legacy { Self::LEGACY } else { 0 };
        let modern = if eras.modern { Self::MODERN } else { 0 };
        Self::KNOWN | legacy | modern
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
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

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_looked_up_again_once_it_is_old() {
        let (day, both) = (Duration::from_secs(86_400), Eras { legacy: true, modern: true });
        let known = Known::default();
        assert!(!known.is_due(Duration::ZERO), "nothing is known");
        known.learn(Eras { legacy: true, modern: false });
        tokio::time::advance(day - Duration::from_millis(1)).await;
        assert!(!known.is_due(day));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(known.is_due(day));
        assert!(!known.is_due(day), "somebody looks already");
        tokio::time::advance(LOOK_AGAIN).await;
        assert!(known.is_due(day), "it has led to nothing");
        known.learn(both);
        tokio::time::advance(LOOK_AGAIN).await;
        assert!(!known.is_due(day));
        assert_eq!(known.get(), Some(both));
    }

    #[tokio::test(start_paused = true)]
    async fn old_news_do_not_replace_what_was_found_out_since() {
        let (old, new) = (Eras { legacy: true, modern: false }, Eras { legacy: true, modern: true });
        let known = Known::default();
        known.hear(old);
        known.learn(new);
        known.hear(old);
        assert_eq!(known.get(), Some(new));
        known.hear(Eras { legacy: false, modern: true });
        assert_eq!(known.get(), Some(Eras { legacy: false, modern: true }));
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
