//! The sessions of a node, by their tokens: making and opening tokens, who has
//! room, and what is forgotten when.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Session;
use crate::{
    gateway::call::{Identity, Shown},
    hash::DashMap,
    mcp::ProtocolVersion,
    relay::Relay,
    seal::{KeyRing, Purpose},
};

/// Sessions with a record on one node.
pub const SESSIONS_MAX: usize = 10_000;
/// Of those, sessions of one principal; all who show nothing are one.
pub const SESSIONS_PER_PRINCIPAL_MAX: usize = 8_000;
/// Where there is no room for a new session, so many go that were idle longest,
/// if they were for so long; of those who show nothing first.
const EVICTED_AT_ONCE: usize = 100;
const EVICTED_IDLE_MIN: Duration = Duration::from_secs(10);
/// A record that nobody has used for so long goes.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// From so many sessions on, a record goes after [`SESSION_IDLE_CROWDED`]: most
/// clients leave without a word, and new ones must not be refused for them.
pub(super) const SESSIONS_CROWDED: usize = SESSIONS_MAX * 3 / 4;
pub(super) const SESSION_IDLE_CROWDED: Duration = Duration::from_secs(60);
/// A token is good for so long.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Header values longer than this are refused by many servers and proxies.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Ended sessions that are remembered, so that their tokens are refused.
const ENDED_MAX: usize = 100_000;

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
    /// The tag of the node that opened it.
    #[serde(rename = "o", default)]
    opener: String,
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

/// Where a session is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Something may be under way in it.
    Here { busy: bool },
    /// By whoever opened it, or has it from there; here only after it was taken up.
    Away { id: Arc<str>, opener: String, good_for: Duration },
}

/// All sessions that have a record on this node.
pub struct Sessions {
    pub(super) by_token: DashMap<Arc<str>, Arc<Session>>,
    tokens: DashMap<Arc<str>, Arc<str>>,
    of_principals: DashMap<Arc<str>, usize>,
    ended: Mutex<Ended>,
    /// Gone for want of room, until they are swept.
    evicted: Mutex<Vec<Arc<Session>>>,
    relay: Arc<Relay>,
}

#[derive(Default)]
struct Ended {
    ids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Sessions {
    /// Of the node whose relay this is.
    pub fn new(relay: Arc<Relay>) -> Self {
        Self {
            by_token: DashMap::default(),
            tokens: DashMap::default(),
            of_principals: DashMap::default(),
            ended: Mutex::default(),
            evicted: Mutex::default(),
            relay,
        }
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
        self.make_room(identity)?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let claims = Claims {
            id: id.clone(),
            gateway: gateway.to_string(),
            principal: identity.principal.to_string(),
            version: version.as_str().to_owned(),
            issued: now_seconds(),
            opener: self.relay.tag().to_string(),
            info: raw(&info),
            capabilities: raw(&capabilities),
        };
        let plain = serde_json::to_vec(&claims).expect("claims are strings, a number and valid JSON");
        let token = keys.seal(Purpose::Session, gateway.as_str().as_bytes(), &plain);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(SessionError::TooLarge);
        }
        let session = Session::new(
            self.relay.tag(),
            id.into(),
            gateway,
            identity,
            version,
            &info,
            &capabilities,
            Duration::ZERO,
        );
        let session = self.enter(&token, session, SESSION_AGE_MAX);
        Ok((token, session))
    }

    /// The session of a token if it has a record here; the error if this gateway
    /// and principal have no part in it, or it has ended.
    pub fn here(
        &self,
        gateway: &ResourceName,
        identity: &Identity,
        token: &str,
    ) -> Option<Result<Arc<Session>, SessionError>> {
        let session = self.by_token.get(token)?;
        let same = &session.gateway == gateway && session.identity.principal == identity.principal;
        // One that has ended stays until the next sweep.
        let found = (same && !session.ended.is_cancelled()).then(|| session.value().clone());
        Some(found.ok_or(SessionError::Unknown))
    }

    /// Where the session of a token is served, for this gateway and principal.
    ///
    /// # Errors
    /// [`SessionError::Unknown`].
    pub fn place(
        &self,
        keys: &KeyRing,
        gateway: &ResourceName,
        identity: &Arc<Identity>,
        token: &str,
    ) -> Result<Place, SessionError> {
        if let Some(session) = self.by_token.get(token) {
            return Ok(Place::Here { busy: session.is_busy() });
        }
        let plain = self.open_token(keys, gateway, token)?;
        let Claims { id, opener, issued, .. } = self.check(&plain, gateway, identity)?;
        if opener == **self.relay.tag() && self.relay.hint(&id).is_none() {
            return Ok(Place::Here { busy: false });
        }
        let age = Duration::from_secs(now_seconds().saturating_sub(issued));
        Ok(Place::Away { id: id.into(), opener, good_for: SESSION_AGE_MAX.saturating_sub(age) })
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
        if let Some(found) = self.here(gateway, identity, token) {
            return found;
        }
        let plain = self.open_token(keys, gateway, token)?;
        let claims = self.check(&plain, gateway, identity)?;
        let version = ProtocolVersion::parse(&claims.version).ok_or(SessionError::Unknown)?;
        let age = Duration::from_secs(now_seconds().saturating_sub(claims.issued));
        self.make_room(identity)?;
        let fresh = Session::new(
            self.relay.tag(),
            claims.id.into(),
            gateway,
            identity,
            version,
            claims.info.get().as_bytes(),
            claims.capabilities.get().as_bytes(),
            age,
        );
        Ok(self.enter(token, fresh, SESSION_AGE_MAX.saturating_sub(age)))
    }

    fn open_token(
        &self,
        keys: &KeyRing,
        gateway: &ResourceName,
        token: &str,
    ) -> Result<Vec<u8>, SessionError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(SessionError::Unknown);
        }
        let bound_to = gateway.as_str().as_bytes();
        keys.open(Purpose::Session, bound_to, token).map_err(|_| SessionError::Unknown)
    }

    fn check<'a>(
        &self,
        plain: &'a [u8],
        gateway: &ResourceName,
        identity: &Arc<Identity>,
    ) -> Result<Claims<'a>, SessionError> {
        let claims: Claims<'_> = serde_json::from_slice(plain).map_err(|_| SessionError::Unknown)?;
        let good = claims.gateway == gateway.as_str()
            && claims.principal == *identity.principal
            && now_seconds().saturating_sub(claims.issued) <= SESSION_AGE_MAX.as_secs()
            && !self.ended.lock().ids.contains(claims.id.as_str());
        good.then_some(claims).ok_or(SessionError::Unknown)
    }

    /// Gives a session its place here. Two requests may bring a token at once:
    /// the first record stays.
    fn enter(&self, token: &str, session: Arc<Session>, good_for: Duration) -> Arc<Session> {
        let token: Arc<str> = token.into();
        let entered = self.by_token.entry(token.clone()).or_insert(session.clone()).value().clone();
        if Arc::ptr_eq(&entered, &session) {
            self.tokens.insert(session.id.clone(), token);
            *self.of_principals.entry(session.identity.principal.clone()).or_default() += 1;
            self.relay.own(&session.id, &session.gateway, good_for);
        }
        entered
    }

    /// Forgets what is known of a session that has left `by_token`.
    fn leave(&self, session: &Session) {
        self.tokens.remove(&session.id);
        let principal = &session.identity.principal;
        if let Some(mut count) = self.of_principals.get_mut(principal) {
            *count = count.saturating_sub(1);
        }
        self.of_principals.remove_if(principal, |_, count| *count == 0);
    }

    /// Room for one more session of this principal.
    fn make_room(&self, identity: &Identity) -> Result<(), SessionError> {
        let many = |principal: &Arc<str>| {
            self.of_principals.get(principal).is_some_and(|count| *count >= SESSIONS_PER_PRINCIPAL_MAX)
        };
        let crowded = if many(&identity.principal) {
            Some(&identity.principal)
        } else if self.by_token.len() >= SESSIONS_MAX {
            None
        } else {
            return Ok(());
        };
        let now = Instant::now();
        let mut idle: Vec<_> = self
            .by_token
            .iter()
            .filter(|session| crowded.is_none_or(|whose| session.identity.principal == *whose))
            .filter(|session| !session.is_busy())
            .map(|session| {
                (session.identity.shown != Shown::Nothing, *session.last_used.lock(), session.key().clone())
            })
            .filter(|(_, used, _)| now.saturating_duration_since(*used) >= EVICTED_IDLE_MIN)
            .collect();
        if idle.is_empty() {
            return Err(SessionError::Full);
        }
        idle.sort_by_key(|(shown, used, _)| (*shown, *used));
        for (_, _, token) in idle.into_iter().take(EVICTED_AT_ONCE) {
            if let Some((_, session)) = self.by_token.remove(&token) {
                metrics::counter!("mt_downstream_sessions_evicted_total").increment(1);
                self.leave(&session);
                self.let_go(&session);
                self.evicted.lock().push(session);
            }
        }
        Ok(())
    }

    /// Ends a session; its token is refused from now on.
    pub fn end(&self, token: &str) -> Option<Arc<Session>> {
        let (_, session) = self.by_token.remove(token)?;
        self.leave(&session);
        self.remember_ended(&session.id);
        session.end();
        Some(session)
    }

    /// A session is over, as another node knows.
    pub fn is_over(&self, id: &Arc<str>) {
        self.remember_ended(id);
    }

    /// Another node has a session now: what is open for it here ends, and what
    /// backends hold is the other's.
    pub fn displace(&self, id: &str) {
        if let Some((_, token)) = self.tokens.remove(id)
            && let Some((_, session)) = self.by_token.remove(&token)
        {
            self.leave(&session);
            session.end();
        }
    }

    /// Whether a session has its place here, and with `busy`, whether something
    /// is under way in it.
    pub fn has(&self, id: &str, busy: bool) -> bool {
        let Some(token) = self.tokens.get(id).map(|token| token.clone()) else { return false };
        self.by_token
            .get(&token)
            .is_some_and(|session| !session.ended.is_cancelled() && (!busy || session.is_busy()))
    }

    /// Removes the records of sessions that have ended, are too old or idle, and returns
    /// them. Where there are many, a shorter idleness does.
    pub fn sweep(&self, now: Instant) -> Vec<Arc<Session>> {
        let mut gone = Vec::new();
        let evicted = std::mem::take(&mut *self.evicted.lock());
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
            self.leave(session);
            self.let_go(session);
        }
        gone.extend(evicted);
        gone
    }

    /// Without upstream state the token alone can start over.
    fn let_go(&self, session: &Session) {
        if session.touched.load(Ordering::Relaxed) {
            self.remember_ended(&session.id);
        } else {
            self.relay.disown(&session.id);
        }
        session.end();
    }

    fn remember_ended(&self, id: &Arc<str>) {
        let mut ended = self.ended.lock();
        if ended.ids.insert(id.clone()) {
            ended.order.push_back(id.clone());
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

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn raw(object: &Bytes) -> &RawValue {
    serde_json::from_slice(object).unwrap_or(RawValue::NULL)
}
