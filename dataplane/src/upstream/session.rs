//! Sessions with a legacy backend over HTTP: who has one, and opening it once.
//!
//! A session of a client is dedicated to it, so the client's own ids are used
//! in it. The node's own session, and those of callers that have none, are
//! numbered by us and opened again behind their backs when they are gone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::{audience::InFlight, elsewhere::Elsewhere, leg_key::LegKey, level::Level, single::Single};
use crate::{
    gateway::call::Call,
    mcp::{
        headers::{PROTOCOL_VERSION, SESSION_ID},
        id::{IdCounter, RawId},
    },
};

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// What the backend says after `initialize`: a raw `InitializeResult`.
    pub facts: Bytes,
    /// Headers of every message in it, besides the endpoint's.
    id: Option<HeaderValue>,
    version: HeaderValue,
    /// Whether a call has been answered in it.
    used: AtomicBool,
    ids: IdCounter,
    /// From which level on the backend was told to log.
    pub level: Level,
    /// Answers that came on its own stream.
    pub elsewhere: Elsewhere,
    /// Calls that run in it now, where it is shared.
    pub in_flight: InFlight,
    /// It is over: its event stream stops.
    pub over: CancellationToken,
}

impl Session {
    pub fn new(facts: Bytes, id: Option<HeaderValue>, version: &str, over: CancellationToken) -> Self {
        Self {
            facts,
            id,
            version: crate::mcp::headers::value(version),
            used: AtomicBool::new(false),
            ids: IdCounter::default(),
            elsewhere: Elsewhere::default(),
            in_flight: InFlight::default(),
            level: Level::default(),
            over,
        }
    }

    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(PROTOCOL_VERSION, self.version.clone());
        if let Some(id) = &self.id {
            headers.insert(SESSION_ID, id.clone());
        }
    }

    /// One that was opened from another node, which is gone, and in which calls
    /// have been answered.
    pub fn adopted(id: &Bytes, version: &str, over: CancellationToken) -> Option<Self> {
        let id = HeaderValue::from_maybe_shared(id.clone()).ok()?;
        let session = Self::new(Bytes::new(), Some(id), version, over);
        session.set_used();
        Some(session)
    }

    /// What another node needs to go on with it; nothing if it has no id.
    pub fn id_and_version(&self) -> Option<(Bytes, String)> {
        let id = Bytes::copy_from_slice(self.id.as_ref()?.as_bytes());
        Some((id, self.version.to_str().unwrap_or_default().to_owned()))
    }

    pub fn has_id(&self) -> bool {
        self.id.is_some()
    }

    /// The id of a call on the wire: ids may not be used twice in a session,
    /// so the client's own is safe only where nobody else calls.
    pub fn id_for(&self, call: &Call, dedicated: bool) -> RawId {
        if dedicated { call.id.clone() } else { RawId::number(self.ids.next()) }
    }

    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub fn set_used(&self) {
        if !self.is_used() {
            self.used.store(true, Ordering::Relaxed);
        }
    }
}

/// The place of one session.
#[derive(Debug)]
pub struct Leg {
    pub key: LegKey,
    pub session: Single<Session>,
}

impl Leg {
    pub fn new(key: LegKey) -> Arc<Self> {
        Arc::new(Self { key, session: Single::default() })
    }
}
