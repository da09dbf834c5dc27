//! The parked calls of a node: how many there may be, and the way to each.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::attachment::Heard;

/// Calls of a node that wait for their clients, or go on after they did.
pub const PARKS_MAX: usize = 4_096;
/// The same of one principal.
pub const PRINCIPAL_PARKS_MAX: usize = 1_024;
/// Calls of a node that are over, with an outcome that can still be had.
pub const OUTCOMES_MAX: usize = 8_192;
/// Bytes of questions and outcomes that a node keeps.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// Somebody comes back.
#[derive(Debug)]
pub struct Retry {
    pub round: u32,
    /// The raw `inputResponses`.
    pub responses: Bytes,
    pub listener: mpsc::Sender<Heard>,
}

/// The parked calls of a node.
#[derive(Debug, Default)]
pub struct Parks {
    pub(super) table: Mutex<Table>,
    pub(super) kept_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) inboxes: HashMap<u64, mpsc::Sender<Retry>>,
    /// Those of `inboxes` whose calls are not over, by principal.
    pub(super) live: HashMap<Arc<str>, usize>,
    pub(super) live_total: usize,
}

impl Parks {
    /// The way to a call that is held here.
    pub fn inbox(&self, park: u64) -> Option<mpsc::Sender<Retry>> {
        self.table.lock().inboxes.get(&park).cloned()
    }

    /// A place for a call that asks; none if there are too many.
    pub fn enter(self: &Arc<Self>, principal: &Arc<str>, inbox: mpsc::Sender<Retry>) -> Option<Place> {
        let refuse = |limit: &'static str| {
            counter!("mt_parks_refused_total", "limit" => limit).increment(1);
            tracing::warn!(limit, "a call cannot ask its client, too many wait for theirs");
        };
        let mut table = self.table.lock();
        if table.live_total >= PARKS_MAX {
            refuse("node");
            return None;
        }
        let live = table.live.entry(principal.clone()).or_default();
        if *live >= PRINCIPAL_PARKS_MAX {
            refuse("principal");
            return None;
        }
        *live += 1;
        table.live_total += 1;
        let id = loop {
            let id = rand::random();
            if !table.inboxes.contains_key(&id) {
                break id;
            }
        };
        table.inboxes.insert(id, inbox);
        gauge!("mt_parks").set(table.live_total as f64);
        let live = Live { parks: self.clone(), principal: principal.clone() };
        Some(Place { parks: self.clone(), id, live: Some(live), kept: 0 })
    }
}

/// A call's place among the parked ones; leaves it when dropped.
#[derive(Debug)]
pub struct Place {
    parks: Arc<Parks>,
    pub id: u64,
    live: Option<Live>,
    kept: usize,
}

impl Place {
    /// Counts bytes that are kept; false if there is no room for them.
    pub fn keep(&mut self, bytes: usize) -> bool {
        let before = self.parks.kept_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > KEPT_BYTES_MAX {
            self.parks.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counter!("mt_parks_refused_total", "limit" => "bytes").increment(1);
            return false;
        }
        self.kept += bytes;
        gauge!("mt_parks_kept_bytes").set((before + bytes) as f64);
        true
    }

    /// What was kept so far is of no use any more.
    pub fn let_go(&mut self) {
        let before = self.parks.kept_bytes.fetch_sub(self.kept, Ordering::Relaxed);
        gauge!("mt_parks_kept_bytes").set(before.saturating_sub(self.kept) as f64);
        self.kept = 0;
    }

    /// Whether its call is not over.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// The call is over; only its outcome stays. False if there are too many.
    pub fn rest(&mut self) -> bool {
        self.live = None;
        let table = self.parks.table.lock();
        table.inboxes.len() - table.live_total <= OUTCOMES_MAX
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live = None;
        self.let_go();
        self.parks.table.lock().inboxes.remove(&self.id);
    }
}

/// Counts a call that is not over.
#[derive(Debug)]
struct Live {
    parks: Arc<Parks>,
    principal: Arc<str>,
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut table = self.parks.table.lock();
        table.live_total -= 1;
        if let Some(live) = table.live.get_mut(&self.principal) {
            *live -= 1;
            if *live == 0 {
                table.live.remove(&self.principal);
            }
        }
        gauge!("mt_parks").set(table.live_total as f64);
    }
}
