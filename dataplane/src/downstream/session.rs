//! Sessions of legacy clients.
//!
//! The session id is a sealed token that holds what was known at `initialize`,
//! so any node of the fleet can take the session up. What comes later (calls in
//! flight, questions to the client, streams) is on the node that has it, its
//! owner; which one that is, and what the next one must know, is in the ledger
//! of the relay. Sessions never authenticate: the principal of each request must
//! be the one in the token.

mod live;
mod table;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{AbortHandle, AbortRegistration};
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::live::Live;
pub use self::table::{Place, SESSION_AGE_MAX, SessionError, Sessions};
use super::stream::{EventStream, Kept};
use crate::{
    gateway::call::{Client, Identity, Reply, ToClient},
    mcp::{ProtocolVersion, RawId},
};

/// Calls under way in one session.
pub const SESSION_CALLS_MAX: usize = 256;
/// Questions to one client that wait for an answer.
pub const SESSION_ASKS_MAX: usize = 64;
/// Streams of one session that can be resumed.
pub const SESSION_STREAMS_MAX: usize = 64;
/// What streams that are done may hold together, for a client that comes back.
pub const SESSION_KEPT_BYTES_MAX: usize = 1 << 20;

/// One legacy client's session.
pub struct Session {
    pub id: Arc<str>,
    pub gateway: ResourceName,
    pub identity: Arc<Identity>,
    pub version: ProtocolVersion,
    /// Ended by the client or by the node.
    pub ended: CancellationToken,
    /// What the client has told of itself, and behind it what it can do.
    told: Bytes,
    info_bytes: usize,
    /// None while nothing has happened in it.
    live: OnceLock<Box<Live>>,
    last_used: Mutex<Instant>,
    /// When its token is good no longer.
    expires: Instant,
    /// Whether a backend may hold state of it.
    touched: AtomicBool,
    node_tag: Arc<str>,
}

impl Session {
    fn new(
        node_tag: &Arc<str>,
        id: Arc<str>,
        gateway: &ResourceName,
        identity: &Arc<Identity>,
        version: ProtocolVersion,
        info: &[u8],
        capabilities: &[u8],
        age: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway: gateway.clone(),
            identity: identity.clone(),
            version,
            ended: CancellationToken::new(),
            // Copied: a part of what came would hold on to all that was read with it.
            told: [info, capabilities].concat().into(),
            info_bytes: info.len(),
            live: OnceLock::new(),
            last_used: Mutex::new(Instant::now()),
            expires: Instant::now() + SESSION_AGE_MAX.saturating_sub(age),
            touched: AtomicBool::new(false),
            node_tag: node_tag.clone(),
            id,
        })
    }

    fn live(&self) -> &Live {
        self.live.get_or_init(|| Box::new(Live::of(self)))
    }

    /// Who its calls come from.
    pub fn client(&self) -> &Arc<Client> {
        &self.live().client
    }

    /// What the client gets on its GET stream.
    pub fn inbox(&self) -> &Arc<EventStream> {
        &self.live().inbox
    }

    /// Notes that the client is there.
    pub fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    /// Whether a backend may hold state of it.
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Notes that a backend may hold state of this session from now on. True
    /// the first time: somebody must read [`take_events`](Self::take_events).
    pub fn mark_upstream(&self) -> bool {
        !self.touched.swap(true, Ordering::Relaxed)
    }

    /// The door of messages that belong to no call; once.
    pub fn take_events(&self) -> Option<mpsc::Receiver<ToClient>> {
        self.live().events.lock().take()
    }

    /// Notes a call, until the guard is dropped. Its work is to be abortable: the
    /// client may want no answer any more, and the session may end. None: the id
    /// is in use, or there are too many.
    pub fn begin(self: &Arc<Self>, id: &RawId) -> Option<(Running, AbortRegistration)> {
        let mut running = self.live().running.lock();
        if running.len() >= SESSION_CALLS_MAX || running.contains_key(id) {
            return None;
        }
        let (cancel, cancelled) = AbortHandle::new_pair();
        running.insert(id.clone(), cancel.clone());
        drop(running);
        // Whoever ends the session from now on finds the call.
        if self.ended.is_cancelled() {
            cancel.abort();
        }
        Some((Running { session: self.clone(), id: id.clone() }, cancelled))
    }

    /// Ends it, and the calls that are under way in it.
    pub fn end(&self) {
        self.ended.cancel();
        if let Some(live) = self.live.get() {
            live.running.lock().values().for_each(AbortHandle::abort);
        }
    }

    /// The client cancels a call; one that it has not is nobody's.
    pub fn cancel(&self, id: &RawId) {
        if let Some(cancel) = self.live().running.lock().get(id) {
            cancel.abort();
        }
    }

    /// A new id for a question, and where its reply will arrive. None: too many wait.
    pub fn ask(&self) -> Option<(RawId, oneshot::Receiver<Reply>)> {
        let live = self.live();
        let mut asks = live.asks.lock();
        asks.retain(|_, reply| !reply.is_closed());
        if asks.len() >= SESSION_ASKS_MAX {
            return None;
        }
        let number = live.next_number.fetch_add(1, Ordering::Relaxed);
        let id = RawId::text(&format!("{}.ask.{number}", live.label));
        let (reply, answer) = oneshot::channel();
        asks.insert(id.clone(), reply);
        Some((id, answer))
    }

    /// The client replies. False: nobody has asked, or nobody waits any more.
    pub fn reply(&self, id: &RawId, reply: Reply) -> bool {
        self.live().asks.lock().remove(id).is_some_and(|waiting| waiting.send(reply).is_ok())
    }

    /// A new stream that the client can resume.
    pub fn open_stream(&self) -> Arc<EventStream> {
        let live = self.live();
        let number = live.next_number.fetch_add(1, Ordering::Relaxed);
        let stream = EventStream::new(format!("{}.{number}", live.label));
        self.prune_streams(Instant::now());
        let mut streams = live.streams.lock();
        if streams.len() >= SESSION_STREAMS_MAX {
            streams.pop_front();
        }
        streams.push_back((number, stream.clone()));
        stream
    }

    /// Lets streams go that are done, when they are old or the newer ones hold
    /// enough already.
    fn prune_streams(&self, now: Instant) {
        let Some(live) = self.live.get() else { return };
        let mut streams = live.streams.lock();
        let mut kept = 0;
        for at in (0..streams.len()).rev() {
            let keep = match streams[at].1.kept_bytes(now) {
                Kept::Working => true,
                Kept::Bytes(bytes) => {
                    kept += bytes;
                    kept <= SESSION_KEPT_BYTES_MAX
                }
                Kept::Nothing => false,
            };
            if !keep {
                streams.remove(at);
            }
        }
    }

    /// The stream of an event id, and the event's number in it.
    pub fn resume(&self, event_id: &str) -> Option<(Arc<EventStream>, u64)> {
        let live = self.live();
        let mut parts = event_id.split('.');
        let (tag, stream, event) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || tag != live.label {
            return None;
        }
        let (stream, event) = (stream.parse::<u64>().ok()?, event.parse::<u64>().ok()?);
        if stream == 0 {
            return Some((live.inbox.clone(), event));
        }
        let streams = live.streams.lock();
        streams.iter().find(|(number, _)| *number == stream).map(|(_, stream)| (stream.clone(), event))
    }

    fn is_busy(&self) -> bool {
        self.live.get().is_some_and(|live| live.inbox.is_attached() || !live.running.lock().is_empty())
    }
}

/// A call that is under way; forgotten when dropped.
pub struct Running {
    pub session: Arc<Session>,
    id: RawId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.session.live().running.lock().remove(&self.id);
        self.session.touch();
    }
}

#[cfg(test)]
mod tests;
