//! What is counted about a backend. Handles are made once: a call only adds.

use metrics::{Counter, Gauge, counter, gauge};

use crate::gateway::call::{Answer, CallError};

macro_rules! outcomes {
    ($($field:ident)*) => {
        /// Calls by how they ended.
        struct Outcomes { $($field: Counter,)* }

        impl Outcomes {
            fn new(backend: &str) -> Self {
                Self { $($field: counter!(
                    "mt_upstream_calls_total", "backend" => backend.to_owned(), "outcome" => stringify!($field)
                ),)* }
            }
        }
    };
}

outcomes! {
    result error timeout unreachable lost protocol needs_auth overloaded refused abandoned
}

pub struct Meters {
    outcomes: Outcomes,
    in_flight: Gauge,
    /// Connections or processes that could not be opened.
    pub connect_errors: Counter,
    /// Processes that run now.
    pub processes: Gauge,
    /// Processes started.
    pub started: Counter,
    /// Those of them started in the place of one that died.
    pub restarts: Counter,
    /// Processes that ended for want of memory, as far as can be told.
    pub out_of_memory: Counter,
    /// Lines or events that are no messages.
    pub garbage: Counter,
    /// Messages that belong to nobody: late, repeated, or not allowed.
    pub strays: Counter,
}

impl Meters {
    pub fn new(backend: &str) -> Self {
        let count = |name: &'static str| counter!(name, "backend" => backend.to_owned());
        Self {
            outcomes: Outcomes::new(backend),
            in_flight: gauge!("mt_upstream_calls_in_flight", "backend" => backend.to_owned()),
            connect_errors: count("mt_upstream_connect_errors_total"),
            processes: gauge!("mt_upstream_processes", "backend" => backend.to_owned()),
            started: count("mt_upstream_processes_started_total"),
            restarts: count("mt_upstream_restarts_total"),
            out_of_memory: count("mt_upstream_out_of_memory_total"),
            garbage: count("mt_upstream_garbage_total"),
            strays: count("mt_upstream_stray_messages_total"),
        }
    }

    /// Counts a call that begins; it counts as abandoned unless it is told
    /// how it ended.
    pub fn begin(&self) -> Running<'_> {
        self.in_flight.increment(1.0);
        Running { meters: self, outcome: &self.outcomes.abandoned }
    }
}

/// A call that is being counted.
pub struct Running<'a> {
    meters: &'a Meters,
    outcome: &'a Counter,
}

impl Running<'_> {
    pub fn end(mut self, outcome: &Result<Answer, CallError>) {
        let outcomes = &self.meters.outcomes;
        self.outcome = match outcome {
            Ok(Answer::Result(_)) => &outcomes.result,
            Ok(Answer::Error(_)) => &outcomes.error,
            Err(CallError::Timeout { .. }) => &outcomes.timeout,
            Err(CallError::Unreachable { .. }) => {
                self.meters.connect_errors.increment(1);
                &outcomes.unreachable
            }
            Err(CallError::Lost { .. } | CallError::SessionLost { .. }) => &outcomes.lost,
            Err(CallError::Protocol { .. }) => &outcomes.protocol,
            Err(CallError::NeedsAuth { .. }) => &outcomes.needs_auth,
            Err(CallError::Overloaded { .. }) => &outcomes.overloaded,
            Err(_) => &outcomes.refused,
        };
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.meters.in_flight.decrement(1.0);
        self.outcome.increment(1);
    }
}
