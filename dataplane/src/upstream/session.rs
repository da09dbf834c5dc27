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
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    gateway::call::{Call, CallError, Client, Scope},
    mcp::{
        headers::{PROTOCOL_VERSION, SESSION_ID},
        id::{IdCounter, RawId},
        version::ProtocolVersion,
    },
};

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LegKey {
    /// A legacy client's own, by its session.
    Session(Arc<str>),
    /// The node's.
    Node,
    /// Shared by the calls of a principal that have no session, if they would
    /// open it with the same words.
    Pooled { principal: Arc<str>, version: ProtocolVersion, capabilities: Bytes, info: Bytes },
}

impl LegKey {
    pub fn of(client: &Client) -> Self {
        match &client.scope {
            Scope::Session(id) => Self::Session(id.clone()),
            Scope::Node => Self::Node,
            Scope::Stateless => Self::Pooled {
                principal: client.principal.clone(),
                version: client.version,
                capabilities: client.capabilities.clone(),
                info: client.info.clone(),
            },
        }
    }

    /// Whether the session belongs to one client, which may have state in it.
    pub fn is_dedicated(&self) -> bool {
        matches!(self, Self::Session(_))
    }
}

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
            over,
        }
    }

    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(PROTOCOL_VERSION, self.version.clone());
        if let Some(id) = &self.id {
            headers.insert(SESSION_ID, id.clone());
        }
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

/// A failure that several callers hear of.
pub type SharedError = Arc<CallError>;
/// What the task that opens a session reports.
pub type Opened = Option<Result<Arc<Session>, SharedError>>;

/// The place of one session.
#[derive(Debug)]
pub struct Leg {
    pub key: LegKey,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Idle,
    Opening(watch::Receiver<Opened>),
    Open(Arc<Session>),
    Ended,
}

/// What somebody who needs the session must do.
pub enum Step {
    Use(Arc<Session>),
    Wait(watch::Receiver<Opened>),
    /// Open it, and tell the others.
    Open(watch::Sender<Opened>, watch::Receiver<Opened>),
    /// It was ended for good.
    Ended,
}

impl Leg {
    pub fn new(key: LegKey) -> Arc<Self> {
        Arc::new(Self { key, state: Mutex::new(State::Idle) })
    }

    /// The first who needs the session opens it, the others wait for that.
    pub fn step(&self) -> Step {
        let mut state = self.state.lock();
        match &*state {
            State::Open(session) => Step::Use(session.clone()),
            // While its sender lives, somebody is opening it.
            State::Opening(opened) if opened.has_changed().is_ok() => Step::Wait(opened.clone()),
            State::Ended => Step::Ended,
            State::Idle | State::Opening(_) => {
                let (tell, opened) = watch::channel(None);
                *state = State::Opening(opened.clone());
                Step::Open(tell, opened)
            }
        }
    }

    /// The session, if it is open.
    pub fn open_session(&self) -> Option<Arc<Session>> {
        match &*self.state.lock() {
            State::Open(session) => Some(session.clone()),
            _ => None,
        }
    }

    /// Ends the opening; false if nobody wants the session any more.
    pub fn opened(&self, session: Option<&Arc<Session>>) -> bool {
        let mut state = self.state.lock();
        if matches!(&*state, State::Ended) {
            return false;
        }
        *state = session.map_or(State::Idle, |session| State::Open(session.clone()));
        true
    }

    /// The backend no longer knows this session; another one may be open by now.
    pub fn gone(&self, session: &Arc<Session>) {
        session.over.cancel();
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(open, session)) {
            *state = State::Idle;
        }
    }

    /// Nobody needs it any more; the session that is to be closed, if any.
    pub fn end(&self) -> Option<Arc<Session>> {
        let before = std::mem::replace(&mut *self.state.lock(), State::Ended);
        match before {
            State::Open(session) => {
                session.over.cancel();
                Some(session)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<Session> {
        Arc::new(Session::new(Bytes::new(), None, "2025-11-25", CancellationToken::new()))
    }

    #[test]
    fn one_opens_and_the_others_wait() {
        let leg = Leg::new(LegKey::Node);
        let Step::Open(tell, _) = leg.step() else { panic!("nobody has opened it") };
        assert!(matches!(leg.step(), Step::Wait(_)));
        drop(tell);
        assert!(matches!(leg.step(), Step::Open(..)), "whoever opened it is gone");
        let open = session();
        assert!(leg.opened(Some(&open)));
        assert!(matches!(leg.step(), Step::Use(session) if Arc::ptr_eq(&session, &open)));
    }

    #[test]
    fn a_failed_opening_is_tried_again_by_the_next() {
        let leg = Leg::new(LegKey::Node);
        assert!(matches!(leg.step(), Step::Open(..)));
        assert!(leg.opened(None));
        assert!(matches!(leg.step(), Step::Open(..)));
    }

    #[test]
    fn late_news_of_an_old_session_does_not_close_the_new_one() {
        let leg = Leg::new(LegKey::Node);
        let (old, new) = (session(), session());
        leg.opened(Some(&old));
        leg.gone(&old);
        leg.opened(Some(&new));
        leg.gone(&old);
        assert!(leg.open_session().is_some_and(|open| Arc::ptr_eq(&open, &new)));
        assert!(old.over.is_cancelled());
    }

    #[test]
    fn a_session_that_opens_after_the_end_is_unwanted() {
        let leg = Leg::new(LegKey::Session("s".into()));
        assert!(matches!(leg.step(), Step::Open(..)));
        assert!(leg.end().is_none());
        assert!(!leg.opened(Some(&session())));
        assert!(matches!(leg.step(), Step::Ended));
    }

    #[test]
    fn a_shared_session_never_sees_a_clients_id() {
        let own = session();
        assert_eq!(own.ids.next(), 1);
    }
}
