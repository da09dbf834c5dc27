//! What the doors count. Handles are registered once, when the node starts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::mcp::Era;

/// The doors' metrics.
pub struct Meters {
    pub connections: Gauge,
    pub sessions: Gauge,
    pub batch_messages: Counter,
    /// By era, then answered with a result or an error.
    requests: [[Counter; 2]; 2],
    seconds: [Histogram; 2],
}

impl Meters {
    /// Registers with the recorder that is installed now.
    pub fn new() -> Self {
        let era = |era| match era {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        };
        let eras = [Era::Legacy, Era::Modern];
        Self {
            connections: gauge!("mt_downstream_connections"),
            sessions: gauge!("mt_downstream_sessions"),
            batch_messages: counter!("mt_downstream_batch_messages_total"),
            requests: eras.map(|e| {
                ["result", "error"].map(
                    |outcome| counter!("mt_downstream_requests_total", "era" => era(e), "outcome" => outcome),
                )
            }),
            seconds: eras.map(|e| histogram!("mt_downstream_request_seconds", "era" => era(e))),
        }
    }

    /// Counts a request that has been answered.
    pub fn answered(&self, era: Era, ok: bool, took: Duration) {
        self.requests[era as usize][usize::from(!ok)].increment(1);
        self.seconds[era as usize].record(took.as_secs_f64());
    }
}
