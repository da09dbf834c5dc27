//! What the doors count. Handles are registered once, when the node starts.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::mcp::Era;

/// How a conversation is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    WebSocket,
    Sse,
    Stdio,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::WebSocket, Self::Sse, Self::Stdio];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Stdio => "stdio",
        }
    }
}

/// Why a conversation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The client has left.
    Client,
    /// The node stops.
    Drained,
    /// The client did not read.
    Stalled,
    /// The client may call no longer.
    Barred,
    /// It answered no ping.
    Silent,
    TooLong,
    /// What came was not what the transport carries.
    Unsupported,
    /// Its frames were wrong, or the connection broke.
    Broken,
}

impl Closed {
    const ALL: [Self; 8] = [
        Self::Client,
        Self::Drained,
        Self::Stalled,
        Self::Barred,
        Self::Silent,
        Self::TooLong,
        Self::Unsupported,
        Self::Broken,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Drained => "drained",
            Self::Stalled => "stalled",
            Self::Barred => "barred",
            Self::Silent => "silent",
            Self::TooLong => "too_long",
            Self::Unsupported => "unsupported",
            Self::Broken => "broken",
        }
    }
}

/// The doors for clients that speak no MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    Rest,
    Lines,
    Events,
    OpenApi,
    Grpc,
}

impl Plain {
    const ALL: [Self; 5] = [Self::Rest, Self::Lines, Self::Events, Self::OpenApi, Self::Grpc];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Lines => "lines",
            Self::Events => "events",
            Self::OpenApi => "openapi",
            Self::Grpc => "grpc",
        }
    }
}

/// The doors' metrics.
pub struct Meters {
    pub connections: Gauge,
    pub sessions: Gauge,
    /// Of clients, that found too many waiting.
    pub notifications_dropped: Counter,
    conversations: [Gauge; Carrier::ALL.len()],
    closed: [[Counter; Closed::ALL.len()]; Carrier::ALL.len()],
    pub batch_messages: Counter,
    /// By era, then answered with a result or an error.
    requests: [[Counter; 2]; 2],
    /// By door, then served or refused.
    plain: [[Counter; 2]; Plain::ALL.len()],
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
            notifications_dropped: counter!("mt_downstream_notifications_dropped_total"),
            conversations: Carrier::ALL
                .map(|carrier| gauge!("mt_downstream_conversations", "transport" => carrier.as_str())),
            closed: Carrier::ALL.map(|carrier| {
                Closed::ALL.map(|closed| {
                    counter!(
                        "mt_downstream_conversations_closed_total",
                        "transport" => carrier.as_str(),
                        "reason" => closed.as_str(),
                    )
                })
            }),
            batch_messages: counter!("mt_downstream_batch_messages_total"),
            requests: eras.map(|e| {
                ["result", "error"].map(
                    |outcome| counter!("mt_downstream_requests_total", "era" => era(e), "outcome" => outcome),
                )
            }),
            plain: Plain::ALL.map(|door| {
                ["served", "refused"].map(|outcome| {
                    counter!("mt_downstream_plain_requests_total", "door" => door.as_str(), "outcome" => outcome)
                })
            }),
            seconds: eras.map(|e| histogram!("mt_downstream_request_seconds", "era" => era(e))),
        }
    }

    /// Counts a conversation that begins.
    pub fn opened(&self, carrier: Carrier) {
        self.conversations[carrier as usize].increment(1.0);
    }

    /// Counts its end.
    pub fn closed(&self, carrier: Carrier, why: Closed) {
        self.conversations[carrier as usize].decrement(1.0);
        self.closed[carrier as usize][why as usize].increment(1);
    }

    /// Counts a request of a client that speaks no MCP.
    pub fn plain(&self, door: Plain, served: bool) {
        self.plain[door as usize][usize::from(!served)].increment(1);
    }

    /// Counts a request that has been answered.
    pub fn answered(&self, era: Era, ok: bool, took: Duration) {
        self.requests[era as usize][usize::from(!ok)].increment(1);
        self.seconds[era as usize].record(took.as_secs_f64());
    }
}
