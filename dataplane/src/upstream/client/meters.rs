//! What is counted of connections. Handles are made once.

use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::{Counter, Gauge, counter, gauge};

pub struct Meters {
    /// Exact, as a bound needs it.
    open: AtomicUsize,
    gauge: Gauge,
    opened: Counter,
    closed: Counter,
    /// Requests that were sent on a connection that was there.
    pub reused: Counter,
    /// Idle connections that were gone when they were needed.
    pub stale: Counter,
    /// Connections that were good and closed for want of room.
    pub surplus: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            gauge: gauge!("mt_upstream_connections_open"),
            opened: counter!("mt_upstream_connections_opened_total"),
            closed: counter!("mt_upstream_connections_closed_total"),
            reused: counter!("mt_upstream_connections_reused_total"),
            stale: counter!("mt_upstream_connections_stale_total"),
            surplus: counter!("mt_upstream_connections_surplus_total"),
        }
    }
}

impl Meters {
    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn on_open(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.gauge.increment(1.0);
        self.opened.increment(1);
    }

    pub fn on_close(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.gauge.decrement(1.0);
        self.closed.increment(1);
    }
}
