//! Whom a legacy backend means when it speaks to a session outside of calls.
//!
//! A client's own session: the client. A session that calls share: the call
//! that runs in it, as long as that is one; of several nobody can say which is
//! meant, and a question must never reach the wrong one.

use parking_lot::Mutex;

use super::{leg_key::LegKey, sharing::may_be_asked};
use crate::gateway::call::{Caller, Client};

pub enum Audience {
    Client(Caller),
    /// The sole call that runs in the session.
    Running,
    /// The node: it only hears what has changed.
    Node,
}

impl Audience {
    /// None: whatever is said has no receiver, and nobody needs to listen.
    pub fn of(key: &LegKey, client: &Client) -> Option<Self> {
        match key {
            LegKey::Session(_) => client.events.clone().map(Self::Client),
            LegKey::Node => client.events.as_ref().map(|_| Self::Node),
            LegKey::Pooled { capabilities, .. } => may_be_asked(capabilities).then_some(Self::Running),
        }
    }

    /// Who is told what the backend notifies.
    pub fn told(&self) -> Option<&Caller> {
        match self {
            Self::Client(events) => Some(events),
            Self::Running | Self::Node => None,
        }
    }

    /// Who answers what the backend asks now.
    pub fn asked(&self, running: &InFlight) -> Option<Caller> {
        match self {
            Self::Client(events) => Some(events.clone()),
            Self::Running => running.sole(),
            Self::Node => None,
        }
    }

    pub fn is_gone(&self) -> bool {
        self.told().is_some_and(Caller::is_gone)
    }
}

/// The calls that run in a session.
#[derive(Debug, Default)]
pub struct InFlight {
    callers: Mutex<Entered>,
}

#[derive(Debug, Default)]
struct Entered {
    next: u64,
    callers: Vec<(u64, Caller)>,
}

impl InFlight {
    /// Notes a call, until the guard is dropped.
    pub fn enter(&self, caller: &Caller) -> Entry<'_> {
        let mut entered = self.callers.lock();
        entered.next += 1;
        let number = entered.next;
        entered.callers.push((number, caller.clone()));
        Entry { all: self, number }
    }

    fn sole(&self) -> Option<Caller> {
        match self.callers.lock().callers.as_slice() {
            [(_, only)] => Some(only.clone()),
            _ => None,
        }
    }
}

/// A call that runs.
pub struct Entry<'a> {
    all: &'a InFlight,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.all.callers.lock().callers.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_for_the_call_that_runs_alone() {
        let running = InFlight::default();
        assert!(Audience::Running.asked(&running).is_none());
        let (caller, _door) = Caller::channel();
        let first = running.enter(&caller);
        assert!(Audience::Running.asked(&running).is_some());
        let second = running.enter(&caller);
        assert!(Audience::Running.asked(&running).is_none(), "nobody can say which of the two is meant");
        drop(first);
        assert!(Audience::Running.asked(&running).is_some());
        drop(second);
        assert!(running.sole().is_none());
    }
}
