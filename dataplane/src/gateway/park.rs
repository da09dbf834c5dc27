//! Calls that have asked a modern client and wait for it to come back.
//!
//! A modern client cannot be sent a request: its response ends with the questions
//! (`input_required`), and it sends the same request again with the answers. The
//! call at the backend is still open meanwhile. So from its first question on, a
//! task owns it and keeps driving it, and whoever retries with the sealed
//! `requestState` hears it again.
//!
//! ```text
//!  Running (the door) ─ first question ─► adopt ─► Driver: the call, its questions
//!           ▲                                        ▲   │   machine.rs decides
//!           └── Attachment: notifications, outcome ──┼───┘
//!  a retry ─────────────► retry ─────────────────────┘
//! ```
//!
//! A client need never come back: every park ends by itself. A connection that
//! closes while somebody listens cancels the call, as for every modern call.

mod driver;
pub mod machine;
pub mod state;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics::{counter, gauge};
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use self::state::owner;
use self::{driver::Driver, state::Ticket};
use super::{
    call::{Answer, Ask, Call, CallError, ToClient},
    view::GatewayView,
};
use crate::{
    mcp::{Key, Method, Params, RawId, RpcError, error::code, meta::Meta},
    node::Node,
};

/// Calls of a node that wait for their clients, or go on after they did.
pub const PARKS_MAX: usize = 4_096;
/// The same of one principal.
pub const PRINCIPAL_PARKS_MAX: usize = 1_024;
/// Calls of a node that are over, with an outcome that can still be had.
pub const OUTCOMES_MAX: usize = 8_192;
/// Bytes of questions and outcomes that a node keeps.
pub const KEPT_BYTES_MAX: usize = 64 << 20;
/// Messages to whoever listens that wait until they are taken. A full queue
/// holds the backend back.
const HEARD_MAX: usize = 64;
/// Retries of one call that wait to be looked at.
const RETRIES_MAX: usize = 16;

/// A call that runs, and what it says.
pub struct Work {
    pub call: BoxFuture<'static, Result<Answer, CallError>>,
    pub from_call: mpsc::Receiver<ToClient>,
}

/// Whose request it is, and for what.
#[derive(Clone, Debug)]
pub struct Subject {
    pub principal: Arc<str>,
    view: Arc<GatewayView>,
    pub method: Method,
    /// As the client wrote them.
    pub params: Params,
}

impl Subject {
    /// None for a request that may not be answered with questions.
    pub fn of(view: &Arc<GatewayView>, call: &Call) -> Option<Self> {
        call.method.may_ask().then(|| Self {
            principal: call.client.identity.principal.clone(),
            view: view.clone(),
            method: call.method.clone(),
            params: call.params.clone(),
        })
    }

    fn gateway(&self) -> &str {
        self.view.gateway.name.as_str()
    }

    /// The member that serves it.
    pub fn backend(&self) -> Option<ResourceName> {
        Some(match self.method {
            Method::ToolsCall => self.view.tools.get(&*self.params.name()?)?.backend.clone(),
            Method::PromptsGet => self.view.prompts.get(&*self.params.name()?)?.backend.clone(),
            _ => self.view.resource(&self.params.uri()?)?.backend,
        })
    }
}

/// What somebody hears who listens to a call.
#[derive(Debug)]
enum Heard {
    Said(Bytes),
    Ended(Outcome),
}

/// An answer for the client: the call's own, or its questions.
pub type Outcome = Result<Answer, RpcError>;

/// Listens to a call that has asked. Dropping it before the outcome cancels the
/// call, unless somebody else listens.
#[derive(Debug)]
pub struct Attachment {
    heard: mpsc::Receiver<Heard>,
    /// Progress is told under the listener's own token, if it wants to hear of
    /// any. None: it began the call, and the token is its own.
    token: Option<Option<RawId>>,
}

/// What an attached client is told next.
#[derive(Debug)]
pub enum Told {
    Said(Bytes),
    Ended(Outcome),
}

impl Attachment {
    /// Never again after the outcome. Safe to drop while it waits.
    pub async fn next(&mut self) -> Told {
        loop {
            match self.heard.recv().await {
                Some(Heard::Said(message)) => match &self.token {
                    None => return Told::Said(message),
                    Some(token) => match driver::renamed(message, token.as_ref()) {
                        Some(message) => return Told::Said(message),
                        None => continue,
                    },
                },
                Some(Heard::Ended(outcome)) => return Told::Ended(outcome),
                None => return Told::Ended(Err(lost())),
            }
        }
    }
}

/// Somebody comes back.
#[derive(Debug)]
struct Retry {
    round: u32,
    /// The raw `inputResponses`.
    responses: Bytes,
    listener: mpsc::Sender<Heard>,
}

/// The parked calls of a node.
#[derive(Debug, Default)]
pub struct Parks {
    table: Mutex<Table>,
    kept_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    inboxes: HashMap<u64, mpsc::Sender<Retry>>,
    /// Those of `inboxes` whose calls are not over, by principal.
    live: HashMap<Arc<str>, usize>,
    live_total: usize,
}

impl Parks {
    /// Takes over a call that asks its first question; whoever began it listens.
    ///
    /// # Errors
    /// The call, if there are too many: then it cannot ask.
    pub fn adopt(
        self: &Arc<Self>,
        node: &Arc<Node>,
        subject: Subject,
        work: Work,
        first: Ask,
    ) -> Result<Attachment, Box<Work>> {
        let (inbox, retries) = mpsc::channel(RETRIES_MAX);
        let Some(place) = self.enter(&subject.principal, inbox) else {
            return Err(Box::new(work));
        };
        let (listener, heard) = mpsc::channel(HEARD_MAX);
        let driver = Driver::new(node.clone(), place, subject, work, retries, listener, first);
        node.tracker.spawn(driver.run());
        Ok(Attachment { heard, token: None })
    }

    /// Brings a retry to its call.
    ///
    /// # Errors
    /// If the call is not here (any more).
    pub fn retry(&self, node: &Node, ticket: &Ticket, params: &Params) -> Result<Attachment, RpcError> {
        if ticket.node != **node.tag() {
            counter!("mt_park_retries_total", "outcome" => "elsewhere").increment(1);
            return Err(lost());
        }
        let inbox = self.table.lock().inboxes.get(&ticket.park).cloned();
        let (listener, heard) = mpsc::channel(HEARD_MAX);
        let responses = params.get(Key::InputResponses).unwrap_or(Bytes::from_static(b"{}"));
        let retry = Retry { round: ticket.round, responses, listener };
        match inbox.map(|inbox| inbox.try_send(retry)) {
            Some(Ok(())) => {}
            Some(Err(mpsc::error::TrySendError::Full(_))) => return Err(RpcError::overloaded()),
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => {
                counter!("mt_park_retries_total", "outcome" => "lost").increment(1);
                return Err(lost());
            }
        }
        let token = Meta::of(params).ok().and_then(|meta| meta.progress_token());
        Ok(Attachment { heard, token: Some(token) })
    }

    fn enter(self: &Arc<Self>, principal: &Arc<str>, inbox: mpsc::Sender<Retry>) -> Option<Place> {
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
struct Place {
    parks: Arc<Parks>,
    id: u64,
    live: Option<Live>,
    kept: usize,
}

impl Place {
    /// Counts bytes that are kept; false if there is no room for them.
    fn keep(&mut self, bytes: usize) -> bool {
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
    fn let_go(&mut self) {
        let before = self.parks.kept_bytes.fetch_sub(self.kept, Ordering::Relaxed);
        gauge!("mt_parks_kept_bytes").set(before.saturating_sub(self.kept) as f64);
        self.kept = 0;
    }

    /// The call is over; only its outcome stays. False if there are too many.
    fn rest(&mut self) -> bool {
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

/// The call was held by a process that is gone, or for longer than it is held.
fn lost() -> RpcError {
    RpcError::new(code::OWNER_LOST, "the call that asked is no longer held; it may have taken effect")
}

#[cfg(test)]
mod tests;
