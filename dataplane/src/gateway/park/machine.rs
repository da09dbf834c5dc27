//! The life of a call that has asked a modern client, as a state machine without
//! I/O.
//!
//! ```text
//!            asked           window over          retried, all answered
//!  Running ────────► Asking ─────────────► Parked ─────────────────────► Running
//!     │  ▲             │                     │ │ retried, some missing: the next round
//!     │  └ withdrawn ──┘                     │ └──────────► Parked
//!     ├─ ended ──► Ended ◄── ended ──────────┤
//!     └─ left ───► Ended (cancelled)         └─ nobody came ─► Refusing ─► Over
//! ```
//!
//! Nothing here sleeps, reads a clock or holds a channel: `park.rs` feeds events
//! in and carries the actions out, so every order of questions, answers, repeats
//! and ends is a unit test. Who may retry is decided before (`state.rs`).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::gateway::call::{Question, Reply};

/// Further questions are waited for so long, to be put together.
pub const WINDOW: Duration = Duration::from_millis(20);
/// How long a client may take to come back with its answers: a person thinks,
/// and may have to be found first.
pub const ROUND_TTL: Duration = Duration::from_secs(600);
/// How long a call may go on asking, over all its rounds.
pub const LIFE_MAX: Duration = Duration::from_secs(3_600);
/// Questions of one call that are open at the same time.
pub const QUESTIONS_MAX: usize = 32;
/// How long an outcome that was sent can be had again.
pub const OUTCOME_KEPT: Duration = Duration::from_secs(60);
/// How long a backend may take to hear that nobody answers, before its call is
/// cancelled.
pub const REFUSAL_GRACE: Duration = Duration::from_secs(1);

/// What a round was answered with, to tell a repeat from something else.
pub type Digest = [u8; 32];

/// One call.
#[derive(Debug)]
pub struct Machine {
    state: State,
    /// Of the questions that were last put to the client; none yet: 0.
    round: u32,
    open: Vec<Open>,
    sets: HashMap<u64, Set>,
    keys: u64,
    /// The last round that was answered, and with what.
    answered: Option<(u32, Digest)>,
    life_until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It works, and somebody listens.
    Running,
    /// It has asked; what else it asks until then goes along.
    Asking {
        until: Instant,
    },
    /// The questions are with the client, nobody listens.
    Parked {
        until: Instant,
    },
    /// Nobody came: the backend is told, and may end the call itself.
    Refusing {
        until: Instant,
    },
    /// There is an outcome, kept until then.
    Ended {
        until: Instant,
    },
    Over,
}

#[derive(Debug)]
struct Open {
    /// Its key is ours, and never used twice.
    question: Question,
    set: u64,
    at: usize,
    /// The client has seen it.
    shown: bool,
}

/// Questions that are replied to together.
#[derive(Debug)]
struct Set {
    replies: Vec<Option<Reply>>,
}

/// What must be done now, in order.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Hand the client's replies to whoever asked.
    Reply {
        set: u64,
        replies: Vec<Reply>,
    },
    /// Tell whoever asked that there will be none.
    Refuse {
        set: u64,
    },
    /// Whoever retries listens from now on.
    Attach,
    /// Everybody who listens gets the open questions, as this round, and stops listening.
    Present {
        round: u32,
    },
    /// Everybody who listens gets the outcome, and stops listening.
    Conclude,
    /// Whoever retries gets the questions that were last presented.
    GiveQuestions,
    /// Whoever retries gets the outcome.
    GiveOutcome,
    Deny(Denial),
    /// Stop the call; it is cancelled.
    Drop,
    /// Nothing is left to be had.
    Forget,
}

/// Why a retry is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The round was answered otherwise.
    OtherAnswers,
    /// It was answered, and so was one after it.
    Spent,
    /// It is too late, or was never asked.
    Invalid,
}

impl Machine {
    /// A call that runs and has somebody who listens.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Running,
            round: 0,
            open: Vec::new(),
            sets: HashMap::new(),
            keys: 0,
            answered: None,
            life_until: now + LIFE_MAX,
        }
    }

    /// The call asks a set of questions.
    pub fn asked(&mut self, now: Instant, set: u64, questions: Vec<Question>) -> Vec<Action> {
        if questions.is_empty() {
            return vec![Action::Reply { set, replies: Vec::new() }];
        }
        match self.state {
            State::Running => self.state = State::Asking { until: now + WINDOW },
            State::Asking { .. } | State::Parked { .. } => {}
            State::Refusing { .. } | State::Ended { .. } | State::Over => {
                return vec![Action::Refuse { set }];
            }
        }
        if self.open.len() + questions.len() > QUESTIONS_MAX {
            self.settle();
            return vec![Action::Refuse { set }];
        }
        self.sets.insert(set, Set { replies: vec![None; questions.len()] });
        for (at, mut question) in questions.into_iter().enumerate() {
            self.keys += 1;
            question.key = format!("q{}", self.keys);
            self.open.push(Open { question, set, at, shown: false });
        }
        Vec::new()
    }

    /// Whoever asked a set does not want to know any more.
    pub fn withdrawn(&mut self, set: u64) {
        self.sets.remove(&set);
        self.open.retain(|open| open.set != set);
        self.settle();
    }

    /// Somebody who may comes back with answers to a round, by key.
    pub fn retried(
        &mut self,
        now: Instant,
        round: u32,
        digest: Digest,
        answers: &BTreeMap<String, Bytes>,
    ) -> Vec<Action> {
        let repeats = self.answered.filter(|(answered, _)| *answered == round);
        match (repeats, self.state) {
            (_, State::Refusing { .. } | State::Over) => vec![Action::Deny(Denial::Invalid)],
            (Some((_, before)), _) if before != digest => vec![Action::Deny(Denial::OtherAnswers)],
            (Some(_), State::Running | State::Asking { .. }) => vec![Action::Attach],
            (Some(_), State::Parked { .. }) => vec![Action::GiveQuestions],
            (Some(_), State::Ended { .. }) => vec![Action::GiveOutcome],
            (None, _) if round > self.round => vec![Action::Deny(Denial::Invalid)],
            (None, _) if round < self.round => vec![Action::Deny(Denial::Spent)],
            (None, State::Parked { .. }) => {
                self.answered = Some((round, digest));
                self.take(now, answers)
            }
            // It has ended while its questions were with the client.
            (None, State::Ended { .. }) => {
                self.answered = Some((round, digest));
                self.state = State::Ended { until: now + OUTCOME_KEPT };
                vec![Action::GiveOutcome]
            }
            (None, State::Running | State::Asking { .. }) => vec![Action::Deny(Denial::Spent)],
        }
    }

    fn take(&mut self, now: Instant, answers: &BTreeMap<String, Bytes>) -> Vec<Action> {
        let mut actions = vec![Action::Attach];
        let sets = &mut self.sets;
        self.open.retain(|open| match answers.get(&open.question.key).filter(|_| open.shown) {
            Some(answer) => {
                if let Some(set) = sets.get_mut(&open.set) {
                    set.replies[open.at] = Some(Ok(answer.clone()));
                }
                false
            }
            None => true,
        });
        let mut complete: Vec<u64> = sets
            .iter()
            .filter(|(_, set)| set.replies.iter().all(Option::is_some))
            .map(|(id, _)| *id)
            .collect();
        complete.sort_unstable();
        for set in complete {
            let replies = sets.remove(&set).into_iter().flat_map(|set| set.replies).flatten().collect();
            actions.push(Action::Reply { set, replies });
        }
        if self.open.iter().any(|open| open.shown) {
            actions.extend(self.present(now));
        } else if self.open.is_empty() {
            self.state = State::Running;
        } else {
            self.state = State::Asking { until: now + WINDOW };
        }
        actions
    }

    fn present(&mut self, now: Instant) -> Vec<Action> {
        self.round += 1;
        for open in &mut self.open {
            open.shown = true;
        }
        self.state = State::Parked { until: (now + ROUND_TTL).min(self.life_until) };
        vec![Action::Present { round: self.round }]
    }

    /// The call has come to its end.
    pub fn ended(&mut self, now: Instant) -> Vec<Action> {
        self.open.clear();
        self.sets.clear();
        match self.state {
            State::Running | State::Asking { .. } => {
                self.state = State::Ended { until: now + OUTCOME_KEPT };
                vec![Action::Conclude]
            }
            // The client will come for it.
            State::Parked { until } => {
                self.state = State::Ended { until };
                Vec::new()
            }
            State::Refusing { .. } => {
                self.state = State::Over;
                vec![Action::Forget]
            }
            State::Ended { .. } | State::Over => Vec::new(),
        }
    }

    /// Nobody listens any more, and nobody was told to come back: that is a
    /// client that cancels.
    pub fn left(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Running | State::Asking { .. } => {
                self.open.clear();
                self.sets.clear();
                self.state = State::Ended { until: now + OUTCOME_KEPT };
                vec![Action::Drop]
            }
            _ => Vec::new(),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        match self.state {
            State::Asking { until } if until <= now => self.present(now),
            State::Parked { until } if until <= now => {
                self.open.clear();
                let mut sets: Vec<u64> = self.sets.drain().map(|(set, _)| set).collect();
                sets.sort_unstable();
                self.state = State::Refusing { until: now + REFUSAL_GRACE };
                sets.into_iter().map(|set| Action::Refuse { set }).collect()
            }
            State::Refusing { until } if until <= now => {
                self.state = State::Over;
                vec![Action::Drop, Action::Forget]
            }
            State::Ended { until } if until <= now => {
                self.state = State::Over;
                vec![Action::Forget]
            }
            _ => Vec::new(),
        }
    }

    /// Without questions there is nothing to wait for.
    fn settle(&mut self) {
        if matches!(self.state, State::Asking { .. }) && self.open.is_empty() {
            self.state = State::Running;
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn wake(&self) -> Option<Instant> {
        match self.state {
            State::Running | State::Over => None,
            State::Asking { until }
            | State::Parked { until }
            | State::Refusing { until }
            | State::Ended { until } => Some(until),
        }
    }

    /// The questions that are open.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.open.iter().map(|open| &open.question)
    }

    /// Whether somebody should listen.
    pub fn has_listener(&self) -> bool {
        matches!(self.state, State::Running | State::Asking { .. })
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }
}

#[cfg(test)]
mod tests;
