//! Sessions of legacy clients.
//!
//! The session id is a sealed token that holds what was known at `initialize`,
//! so any node of the fleet can take the session up. What comes later (calls in
//! flight, questions to the client, streams) is a record on the node that has
//! it. Sessions never authenticate: the principal of each request must be the
//! one in the token.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use dashmap::DashMap;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::stream::{EventStream, Kept};
use crate::{
    gateway::call::{Caller, Client, Identity, Reply, Scope, ToClient},
    mcp::{ProtocolVersion, RawId},
    seal::{KeyRing, Purpose},
};

/// Sessions with a record on one node.
pub const SESSIONS_MAX: usize = 10_000;
/// A record that nobody has used for so long goes.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// From so many sessions on, a record goes after [`SESSION_IDLE_CROWDED`]: most
/// clients leave without a word, and new ones must not be refused for them.
const SESSIONS_CROWDED: usize = SESSIONS_MAX * 3 / 4;
const SESSION_IDLE_CROWDED: Duration = Duration::from_secs(60);
/// A token is good for so long.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Header values longer than this are refused by many servers and proxies.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Calls under way in one session.
pub const SESSION_CALLS_MAX: usize = 256;
/// Questions to one client that wait for an answer.
pub const SESSION_ASKS_MAX: usize = 64;
/// Streams of one session that can be resumed.
pub const SESSION_STREAMS_MAX: usize = 64;
/// What streams that are done may hold together, for a client that comes back.
pub const SESSION_KEPT_BYTES_MAX: usize = 1 << 20;
/// Ended sessions that are remembered, so that their tokens are refused.
const ENDED_MAX: usize = 100_000;

/// One legacy client's session.
pub struct Session {
    pub id: Arc<str>,
    pub gateway: ResourceName,
    pub client: Arc<Client>,
    /// What the client gets on its GET stream.
    pub inbox: Arc<EventStream>,
    /// Ended by the client or by the node.
    pub ended: CancellationToken,
    events: Mutex<Option<mpsc::Receiver<ToClient>>>,
    running: Mutex<HashMap<RawId, CancellationToken>>,
    asks: Mutex<HashMap<RawId, oneshot::Sender<Reply>>>,
    streams: Mutex<VecDeque<(u64, Arc<EventStream>)>>,
    next_number: AtomicU64,
    last_used: Mutex<Instant>,
    /// When its token is good no longer.
    expires: Instant,
    /// Whether a backend may hold state of it.
    touched: AtomicBool,
    node_tag: Arc<str>,
}

/// What a token holds.
#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    #[serde(rename = "s")]
    id: String,
    #[serde(rename = "g")]
    gateway: String,
    #[serde(rename = "p")]
    principal: String,
    #[serde(rename = "v")]
    version: String,
    /// Seconds since the epoch.
    #[serde(rename = "t")]
    issued: u64,
    #[serde(rename = "i", borrow)]
    info: &'a RawValue,
    #[serde(rename = "c", borrow)]
    capabilities: &'a RawValue,
}

/// Why a session cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Also what a foreign, expired or damaged token answers: no oracle.
    #[error("unknown session: initialize again")]
    Unknown,
    #[error("clientInfo and capabilities are too large: together they may take about {} bytes", TOKEN_BYTES_MAX * 3 / 4 - 200)]
    TooLarge,
    #[error("this node is at its limit of {SESSIONS_MAX} sessions")]
    Full,
}

/// All sessions that have a record on this node.
pub struct Sessions {
    by_token: DashMap<Box<str>, Arc<Session>>,
    ended: Mutex<Ended>,
    /// In event ids, so that another node's stream is not mistaken for ours.
    node_tag: Arc<str>,
}

#[derive(Default)]
struct Ended {
    ids: std::collections::HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Sessions {
    pub fn new(node_id: &str) -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let tag = blake3::hash(format!("{node_id}/{}/{start}", std::process::id()).as_bytes());
        Self { by_token: DashMap::new(), ended: Mutex::default(), node_tag: tag.to_hex()[..8].into() }
    }

    /// A new session, and its token.
    ///
    /// # Errors
    /// [`SessionError::Full`], [`SessionError::TooLarge`].
    pub fn open(
        &self,
        keys: &KeyRing,
        gateway: &ResourceName,
        identity: &Arc<Identity>,
        version: ProtocolVersion,
        info: Bytes,
        capabilities: Bytes,
    ) -> Result<(String, Arc<Session>), SessionError> {
        if self.by_token.len() >= SESSIONS_MAX {
            return Err(SessionError::Full);
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        let claims = Claims {
            id: id.clone(),
            gateway: gateway.to_string(),
            principal: identity.principal.to_string(),
            version: version.as_str().to_owned(),
            issued: now_seconds(),
            info: raw(&info),
            capabilities: raw(&capabilities),
        };
        let plain = serde_json::to_vec(&claims).expect("claims are strings, a number and valid JSON");
        let token = keys.seal(Purpose::Session, gateway.as_str().as_bytes(), &plain);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(SessionError::TooLarge);
        }
        let session = Session::new(
            &self.node_tag,
            id.into(),
            gateway,
            identity,
            version,
            info,
            capabilities,
            Duration::ZERO,
        );
        self.by_token.insert(token.clone().into(), session.clone());
        Ok((token, session))
    }

    /// The session of a token, for this gateway and principal. A session of
    /// another node gets a record here.
    ///
    /// # Errors
    /// [`SessionError::Unknown`], [`SessionError::Full`].
    pub fn find(
        &self,
        keys: &KeyRing,
        gateway: &ResourceName,
        identity: &Arc<Identity>,
        token: &str,
    ) -> Result<Arc<Session>, SessionError> {
        if let Some(session) = self.by_token.get(token) {
            let same = &session.gateway == gateway && session.client.identity.principal == identity.principal;
            // One that has ended stays until the next sweep.
            return (same && !session.ended.is_cancelled())
                .then(|| session.value().clone())
                .ok_or(SessionError::Unknown);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(SessionError::Unknown);
        }
        let plain = keys
            .open(Purpose::Session, gateway.as_str().as_bytes(), token)
            .map_err(|_| SessionError::Unknown)?;
        let claims: Claims<'_> = serde_json::from_slice(&plain).map_err(|_| SessionError::Unknown)?;
        let version = ProtocolVersion::parse(&claims.version).ok_or(SessionError::Unknown)?;
        let age = Duration::from_secs(now_seconds().saturating_sub(claims.issued));
        if claims.gateway != gateway.as_str()
            || claims.principal != *identity.principal
            || age > SESSION_AGE_MAX
            || self.ended.lock().ids.contains(claims.id.as_str())
        {
            return Err(SessionError::Unknown);
        }
        if self.by_token.len() >= SESSIONS_MAX {
            return Err(SessionError::Full);
        }
        let fresh = Session::new(
            &self.node_tag,
            claims.id.into(),
            gateway,
            identity,
            version,
            Bytes::copy_from_slice(claims.info.get().as_bytes()),
            Bytes::copy_from_slice(claims.capabilities.get().as_bytes()),
            age,
        );
        // Two requests may bring the token at once: the first record stays.
        Ok(self.by_token.entry(token.into()).or_insert(fresh).value().clone())
    }

    /// Ends a session; its token is refused from now on.
    pub fn end(&self, token: &str) -> Option<Arc<Session>> {
        let (_, session) = self.by_token.remove(token)?;
        self.remember_ended(&session);
        Some(session)
    }

    /// Removes the records of sessions that have ended, are too old or idle, and returns
    /// them. Where there are many, a shorter idleness does.
    pub fn sweep(&self, now: Instant) -> Vec<Arc<Session>> {
        let mut gone = Vec::new();
        let crowded = self.by_token.len() > SESSIONS_CROWDED;
        let idle_max = if crowded { SESSION_IDLE_CROWDED } else { SESSION_IDLE_MAX };
        self.by_token.retain(|_, session| {
            let idle = now.saturating_duration_since(*session.last_used.lock());
            let alive = !session.ended.is_cancelled() && now < session.expires;
            let keep = alive && (idle < idle_max || session.is_busy());
            if keep {
                session.prune_streams(now);
            } else {
                gone.push(session.clone());
            }
            keep
        });
        for session in &gone {
            // Without upstream state the token alone can start over.
            if session.touched.load(Ordering::Relaxed) {
                self.remember_ended(session);
            } else {
                session.ended.cancel();
            }
        }
        gone
    }

    fn remember_ended(&self, session: &Session) {
        session.ended.cancel();
        let mut ended = self.ended.lock();
        if ended.ids.insert(session.id.clone()) {
            ended.order.push_back(session.id.clone());
        }
        if ended.order.len() > ENDED_MAX
            && let Some(oldest) = ended.order.pop_front()
        {
            ended.ids.remove(&oldest);
        }
    }

    pub fn len(&self) -> usize {
        self.by_token.len()
    }
}

impl Session {
    fn new(
        node_tag: &Arc<str>,
        id: Arc<str>,
        gateway: &ResourceName,
        identity: &Arc<Identity>,
        version: ProtocolVersion,
        info: Bytes,
        capabilities: Bytes,
        age: Duration,
    ) -> Arc<Self> {
        let (caller, events) = Caller::channel();
        let client = Arc::new(Client {
            identity: identity.clone(),
            version,
            info,
            capabilities,
            scope: Scope::Session(id.clone()),
            events: Some(caller),
        });
        Arc::new(Self {
            gateway: gateway.clone(),
            client,
            inbox: EventStream::new(format!("{node_tag}.0")),
            ended: CancellationToken::new(),
            events: Mutex::new(Some(events)),
            running: Mutex::default(),
            asks: Mutex::default(),
            streams: Mutex::default(),
            next_number: AtomicU64::new(1),
            last_used: Mutex::new(Instant::now()),
            expires: Instant::now() + SESSION_AGE_MAX.saturating_sub(age),
            touched: AtomicBool::new(false),
            node_tag: node_tag.clone(),
            id,
        })
    }

    /// Notes that the client is there.
    pub fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    /// Notes that a backend may hold state of this session from now on. True
    /// the first time: somebody must read [`take_events`](Self::take_events).
    pub fn mark_upstream(&self) -> bool {
        !self.touched.swap(true, Ordering::Relaxed)
    }

    /// The door of messages that belong to no call; once.
    pub fn take_events(&self) -> Option<mpsc::Receiver<ToClient>> {
        self.events.lock().take()
    }

    /// Notes a call, until the guard is dropped. None: the id is in use, or
    /// there are too many.
    pub fn begin(self: &Arc<Self>, id: &RawId) -> Option<Running> {
        let mut running = self.running.lock();
        if running.len() >= SESSION_CALLS_MAX || running.contains_key(id) {
            return None;
        }
        let cancelled = CancellationToken::new();
        running.insert(id.clone(), cancelled.clone());
        Some(Running { session: self.clone(), id: id.clone(), cancelled })
    }

    /// The client cancels a call; one that it has not is nobody's.
    pub fn cancel(&self, id: &RawId) {
        if let Some(cancelled) = self.running.lock().get(id) {
            cancelled.cancel();
        }
    }

    /// A new id for a question, and where its reply will arrive. None: too many wait.
    pub fn ask(&self) -> Option<(RawId, oneshot::Receiver<Reply>)> {
        let mut asks = self.asks.lock();
        asks.retain(|_, reply| !reply.is_closed());
        if asks.len() >= SESSION_ASKS_MAX {
            return None;
        }
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let id = RawId::text(&format!("{}.ask.{number}", self.node_tag));
        let (reply, answer) = oneshot::channel();
        asks.insert(id.clone(), reply);
        Some((id, answer))
    }

    /// The client replies. False: nobody has asked, or nobody waits any more.
    pub fn reply(&self, id: &RawId, reply: Reply) -> bool {
        self.asks.lock().remove(id).is_some_and(|waiting| waiting.send(reply).is_ok())
    }

    /// A new stream that the client can resume.
    pub fn open_stream(&self) -> Arc<EventStream> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let stream = EventStream::new(format!("{}.{number}", self.node_tag));
        self.prune_streams(Instant::now());
        let mut streams = self.streams.lock();
        if streams.len() >= SESSION_STREAMS_MAX {
            streams.pop_front();
        }
        streams.push_back((number, stream.clone()));
        stream
    }

    /// Lets streams go that are done, when they are old or the newer ones hold
    /// enough already.
    fn prune_streams(&self, now: Instant) {
        let mut streams = self.streams.lock();
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
        let mut parts = event_id.split('.');
        let (tag, stream, event) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || tag != &*self.node_tag {
            return None;
        }
        let (stream, event) = (stream.parse::<u64>().ok()?, event.parse::<u64>().ok()?);
        if stream == 0 {
            return Some((self.inbox.clone(), event));
        }
        let streams = self.streams.lock();
        streams.iter().find(|(number, _)| *number == stream).map(|(_, stream)| (stream.clone(), event))
    }

    fn is_busy(&self) -> bool {
        self.inbox.is_attached() || !self.running.lock().is_empty()
    }
}

/// A call that is under way; forgotten when dropped.
pub struct Running {
    session: Arc<Session>,
    id: RawId,
    /// The client wants no answer any more.
    pub cancelled: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.session.running.lock().remove(&self.id);
        self.session.touch();
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn raw(object: &Bytes) -> &RawValue {
    serde_json::from_slice(object).unwrap_or(RawValue::NULL)
}

#[cfg(test)]
mod tests;
