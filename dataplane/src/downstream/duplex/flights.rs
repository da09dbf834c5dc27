//! Which calls of a conversation are under way. Pure.
//!
//! An id gets one answer, and none once it is cancelled; an id that is in use is
//! not given out again. So nobody can take one call's answer for another's.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

use crate::mcp::RawId;

/// Calls of one connection.
pub const FLIGHTS_MAX: usize = 256;

/// The calls under way.
#[derive(Debug, Default)]
pub struct Flights {
    by_id: HashMap<RawId, Flight>,
    next: u64,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Running(CancellationToken),
    /// Its answer is on its way: too late to cancel it.
    Answering,
}

/// One call; an id may be used again by a later one.
#[derive(Clone, Debug)]
pub struct Ticket {
    pub id: RawId,
    number: u64,
}

/// Why a call cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a request with this id is under way")]
    InUse,
    #[error("{FLIGHTS_MAX} requests are under way on this connection, no more are taken")]
    TooMany,
}

impl Flights {
    /// Notes a call, which `cancelled` ends.
    ///
    /// # Errors
    /// The id is in use, or there are too many.
    pub fn begin(&mut self, id: &RawId, cancelled: CancellationToken) -> Result<Ticket, Refused> {
        if self.by_id.contains_key(id) {
            return Err(Refused::InUse);
        }
        if self.by_id.len() >= FLIGHTS_MAX {
            return Err(Refused::TooMany);
        }
        self.next += 1;
        let number = self.next;
        self.by_id.insert(id.clone(), Flight { number, stage: Stage::Running(cancelled) });
        Ok(Ticket { id: id.clone(), number })
    }

    /// Whether an answer with this id could be taken for that of a call.
    pub fn is_in_use(&self, id: &RawId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether the call may be answered, which it then is. False: it was cancelled.
    pub fn claim(&mut self, ticket: &Ticket) -> bool {
        let Some(flight) = self.by_id.get_mut(&ticket.id).filter(|flight| flight.number == ticket.number)
        else {
            return false;
        };
        matches!(std::mem::replace(&mut flight.stage, Stage::Answering), Stage::Running(_))
    }

    /// The client wants no answer; nothing if it has none to come.
    pub fn cancel(&mut self, id: &RawId) {
        if matches!(self.by_id.get(id), Some(Flight { stage: Stage::Running(_), .. }))
            && let Some(Flight { stage: Stage::Running(cancelled), .. }) = self.by_id.remove(id)
        {
            cancelled.cancel();
        }
    }

    /// The call is over, however it ended.
    pub fn end(&mut self, ticket: &Ticket) {
        if self.by_id.get(&ticket.id).is_some_and(|flight| flight.number == ticket.number) {
            self.by_id.remove(&ticket.id);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Event {
        Ask(u64),
        Cancel(u64),
        /// The call with this number, of those that ever ran, has an answer.
        Answer(prop::sample::Index),
        End(prop::sample::Index),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => (0..4_u64).prop_map(Event::Ask),
            1 => (0..4_u64).prop_map(Event::Cancel),
            2 => any::<prop::sample::Index>().prop_map(Event::Answer),
            2 => any::<prop::sample::Index>().prop_map(Event::End),
        ];
        prop::collection::vec(event, 0..60)
    }

    proptest! {
        #[test]
        fn an_id_is_answered_once_for_each_time_it_was_asked_and_never_after_its_cancellation(events in events()) {
            let mut flights = Flights::default();
            // Every call that ever ran: ticket, token, answered, cancelled.
            let mut calls: Vec<(Ticket, CancellationToken, bool)> = Vec::new();
            let mut open: HashMap<u64, usize> = HashMap::new();
            for event in events {
                match event {
                    Event::Ask(number) => {
                        let token = CancellationToken::new();
                        match flights.begin(&RawId::number(number), token.clone()) {
                            Ok(ticket) => {
                                prop_assert!(!open.contains_key(&number), "two calls have one id");
                                open.insert(number, calls.len());
                                calls.push((ticket, token, false));
                            }
                            Err(refused) => {
                                prop_assert_eq!(refused, Refused::InUse);
                                prop_assert!(open.contains_key(&number));
                            }
                        }
                    }
                    Event::Cancel(number) => {
                        flights.cancel(&RawId::number(number));
                        if let Some(at) = open.get(&number).copied() {
                            prop_assert_ne!(calls[at].1.is_cancelled(), calls[at].2, "cancelled, or answered before");
                            if !calls[at].2 {
                                open.remove(&number);
                            }
                        }
                    }
                    Event::Answer(index) if !calls.is_empty() => {
                        let at = index.index(calls.len());
                        let (ticket, token, answered) = &mut calls[at];
                        let is_open = open.values().any(|open| *open == at);
                        let claimed = flights.claim(ticket);
                        prop_assert_eq!(claimed, is_open && !*answered);
                        prop_assert!(!(claimed && token.is_cancelled()));
                        *answered |= claimed;
                    }
                    Event::End(index) if !calls.is_empty() => {
                        let at = index.index(calls.len());
                        flights.end(&calls[at].0);
                        open.retain(|_, open| *open != at);
                    }
                    Event::Answer(_) | Event::End(_) => {}
                }
                prop_assert_eq!(flights.is_empty(), open.is_empty());
            }
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let mut flights = Flights::default();
        for number in 0..FLIGHTS_MAX as u64 {
            assert!(flights.begin(&RawId::number(number), CancellationToken::new()).is_ok());
        }
        let refused = flights.begin(&RawId::text("one more"), CancellationToken::new()).unwrap_err();
        assert_eq!(refused, Refused::TooMany);
    }
}
