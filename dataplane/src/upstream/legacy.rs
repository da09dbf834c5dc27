//! Legacy MCP over streamable HTTP: sessions, streams with requests of the
//! backend in them, and streams that are taken up again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dashmap::mapref::entry::Entry;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    answer::is_answer,
    audience::Audience,
    endpoint::{Endpoint, Refusal, Reply},
    events,
    follow::Follow,
    handshake::{self, ErrorHead, Negotiated},
    hints::Hints,
    inherit,
    leg_key::LegKey,
    level,
    message::{self, Outgoing},
    question::Replies,
    session::{Leg, Session},
    shared::Shared,
    single::{Opened, Step, wait},
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Scope},
    hash::DashMap,
    mcp::{
        envelope::{Message, Outcome, Response},
        error::code,
        headers::SESSION_ID,
        id::RawId,
        meta::{self, LogLevel},
        method::Method,
        scan::Limits,
        splice,
        version::ProtocolVersion,
    },
};

/// Sessions with one backend.
const SESSIONS_MAX: usize = 10_000;
/// Of those, sessions that callers without one share.
const POOLED_MAX: usize = 256;
/// How long opening a session may take.
const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the first call of a session waits for the stream on which the
/// backend speaks outside of calls.
const EVENT_STREAM_WAIT: Duration = Duration::from_millis(100);
/// How long a message may take that is no call: a reply, a notification, the
/// end of a session.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Not one that a client would choose: its calls follow in the same session.
const INITIALIZE_ID: &str = "magictunnel-initialize";

/// The legacy side of an HTTP backend.
pub struct Legacy {
    pub endpoint: Arc<Endpoint>,
    pub hints: Arc<Hints>,
    pub shared: Arc<Shared>,
    /// The revision that the configuration demands.
    pin: Option<ProtocolVersion>,
    legs: DashMap<LegKey, Arc<Leg>>,
    /// The backend has said that it has no stream of its own.
    pub no_event_stream: AtomicBool,
}

enum Failure {
    /// The backend does not know the session; the request was not begun.
    Gone,
    Call(CallError),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Legacy {
    pub fn new(
        endpoint: Arc<Endpoint>,
        hints: Arc<Hints>,
        shared: Arc<Shared>,
        pin: Option<ProtocolVersion>,
    ) -> Arc<Self> {
        let no_event_stream = AtomicBool::new(false);
        Arc::new(Self { endpoint, hints, shared, pin, legs: DashMap::default(), no_event_stream })
    }

    /// Runs one call. Dropping it tells the backend that nobody waits.
    pub async fn call(self: &Arc<Self>, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        let leg = self.leg(&call.client)?;
        let dedicated = leg.key.is_dedicated();
        let mut again = true;
        loop {
            let session = self.session(&leg, &call.client).await?;
            match self.exchange(&session, dedicated, call, caller).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Call(error)) => return Err(error),
                Err(Failure::Gone) => {
                    session.over.cancel();
                    leg.session.gone(&session);
                    if dedicated && session.is_used() {
                        return Err(CallError::SessionLost { backend: self.endpoint.backend.clone() });
                    }
                    if !std::mem::take(&mut again) {
                        return Err(self
                            .endpoint
                            .protocol("ends each session before its first call".to_owned()));
                    }
                }
            }
        }
    }

    /// Passes a client's notification on, if it has a session here.
    pub async fn notify(&self, client: &Client, message: Bytes) {
        let session = self.legs.get(&LegKey::of(client)).and_then(|leg| leg.session.get());
        if let Some(session) = session.filter(|_| matches!(client.scope, Scope::Session(_))) {
            self.post(&session, message).await;
        }
    }

    /// Has the client's session log from this level on, if the backend logs.
    pub async fn raise_level(self: &Arc<Self>, client: &Arc<Client>, level: LogLevel) {
        let Ok(leg) = self.leg(client) else { return };
        let Ok(session) = self.session(&leg, client).await else { return };
        if !level::is_declared(&session.facts) || !session.level.raise(level) {
            return;
        }
        let Ok(headers) = self.session_headers(&session) else { return };
        // Each level is told once, so the id is used once.
        let id = RawId::text(&format!("magictunnel-level-{}", level.as_str()));
        let body = Outgoing::request(&id, &Method::SetLevel, &level::params(level));
        let (nobody, _) = Caller::channel();
        _ = self.run(&session, &id, headers, body, &nobody).await;
    }

    /// Ends the session of a scope, in the background.
    pub fn end(self: &Arc<Self>, scope: &Scope) {
        let key = match scope {
            Scope::Session(id) => LegKey::Session(id.clone()),
            Scope::Node => LegKey::Node,
            Scope::Stateless => return,
        };
        if let Some((_, leg)) = self.legs.remove(&key) {
            self.end_leg(&leg);
        }
    }

    /// Ends every session, in the background.
    pub fn end_all(self: &Arc<Self>) {
        self.legs.retain(|_, leg| {
            self.end_leg(leg);
            false
        });
    }

    #[cold]
    fn end_leg(self: &Arc<Self>, leg: &Leg) {
        if let Some(session) = leg.session.end() {
            let legacy = Arc::clone(self);
            self.shared.tasks.spawn(async move { legacy.delete(&session).await });
        }
    }

    fn leg(self: &Arc<Self>, client: &Client) -> Result<Arc<Leg>, CallError> {
        let key = LegKey::of(client);
        if let Some(leg) = self.legs.get(&key) {
            return Ok(leg.clone());
        }
        if matches!(key, LegKey::Pooled { .. }) {
            self.make_room()?;
        }
        if self.legs.len() >= SESSIONS_MAX {
            return Err(self.overloaded(SESSIONS_MAX));
        }
        Ok(match self.legs.entry(key) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let leg = Leg::new(entry.key().clone());
                entry.insert(leg).clone()
            }
        })
    }

    /// Ends a shared session that nobody uses now, if there are too many.
    fn make_room(self: &Arc<Self>) -> Result<(), CallError> {
        let pooled = || self.legs.iter().filter(|leg| matches!(leg.key, LegKey::Pooled { .. }));
        if pooled().count() < POOLED_MAX {
            return Ok(());
        }
        let idle = pooled().find(|leg| Arc::strong_count(leg.value()) == 1).map(|leg| leg.key().clone());
        let (_, leg) = idle
            .and_then(|key| self.legs.remove_if(&key, |_, leg| Arc::strong_count(leg) == 1))
            .ok_or_else(|| self.overloaded(POOLED_MAX))?;
        self.end_leg(&leg);
        Ok(())
    }

    fn overloaded(&self, limit: usize) -> CallError {
        CallError::Overloaded { backend: self.endpoint.backend.clone(), limit }
    }

    /// The open session of a leg. Opening goes on when the caller that began
    /// it goes away: `initialize` must not be cancelled, and others wait for it.
    async fn session(
        self: &Arc<Self>,
        leg: &Arc<Leg>,
        client: &Arc<Client>,
    ) -> Result<Arc<Session>, CallError> {
        let opened = match leg.session.step() {
            Step::Use(session) => return Ok(session),
            Step::Wait(opened) => opened,
            Step::Ended => return Err(CallError::SessionLost { backend: self.endpoint.backend.clone() }),
            Step::Open(tell, opened) => {
                self.begin_to_open(leg, client, tell);
                opened
            }
        };
        match wait(opened).await {
            Some(Ok(session)) => Ok(session),
            Some(Err(error)) => Err(error.repeat()),
            None => Err(self.endpoint.unreachable("the node is stopping".to_owned())),
        }
    }

    #[cold]
    fn begin_to_open(
        self: &Arc<Self>,
        leg: &Arc<Leg>,
        client: &Arc<Client>,
        tell: watch::Sender<Opened<Session>>,
    ) {
        self.shared.tasks.spawn(Arc::clone(self).open(leg.clone(), client.clone(), tell));
    }

    async fn open(self: Arc<Self>, leg: Arc<Leg>, client: Arc<Client>, tell: watch::Sender<Opened<Session>>) {
        let version = self.pin.unwrap_or(client.version);
        let opening = async {
            if let Some(adopted) = inherit::adopt(&self.shared, &leg.key, &self.endpoint.backend) {
                return adopted;
            }
            let session = self.initialize(version, &client.capabilities, &client.info).await?;
            inherit::note_session(&self.shared, &leg.key, &session, &self.endpoint.backend).await;
            Ok(session)
        };
        let outcome = match timeout(INITIALIZE_TIMEOUT, opening).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self
                .endpoint
                .unreachable(format!("did not answer initialize within {} s", INITIALIZE_TIMEOUT.as_secs()))),
        };
        match outcome.map(Arc::new) {
            Ok(session) if leg.session.opened(Some(&session)) => {
                if let Some(audience) = Audience::of(&leg.key, &client) {
                    let (asked, opened) = oneshot::channel();
                    self.shared.tasks.spawn(events::run(Arc::clone(&self), session.clone(), audience, asked));
                    // What the backend says from its first call on is not missed.
                    _ = timeout(EVENT_STREAM_WAIT, opened).await;
                }
                tell.send_replace(Some(Ok(session)));
            }
            Ok(unwanted) => {
                let ended = CallError::SessionLost { backend: self.endpoint.backend.clone() };
                tell.send_replace(Some(Err(Arc::new(ended))));
                self.delete(&unwanted).await;
            }
            Err(error) => {
                leg.session.opened(None);
                tell.send_replace(Some(Err(Arc::new(error))));
            }
        }
    }

    /// The handshake.
    pub async fn initialize(
        self: &Arc<Self>,
        version: ProtocolVersion,
        capabilities: &Bytes,
        info: &Bytes,
    ) -> Result<Session, CallError> {
        let info = if info.is_empty() { message::own_info() } else { info.clone() };
        let params = meta::initialize_params(version, capabilities, &info);
        let id = RawId::text(INITIALIZE_ID);
        let body = Outgoing::request(&id, &Method::Initialize, &params);
        let response = self.endpoint.send(HttpMethod::POST, self.endpoint.headers()?, body).await?;
        let session_id = response.headers().get(SESSION_ID).cloned();
        let answer = match self.endpoint.read(response).await? {
            Reply::Message(bytes) => self.answer(bytes, &id)?,
            Reply::Events(body) => Follow::new(self, None, &id, None).run(body).await?,
            Reply::Accepted => return Err(self.endpoint.protocol("did not answer initialize".to_owned())),
            Reply::Refused(refusal) => match refusal.rpc().map(|response| response.outcome) {
                Some(Outcome::Error(error)) => Answer::Error(error),
                _ => return Err(self.endpoint.refused(&refusal)),
            },
        };
        let Negotiated { facts, version } = handshake::read(&self.endpoint.backend, answer)?;
        let session = Session::new(facts, session_id, &version, self.shared.shutdown.child_token());
        self.post(&session, splice::notification(&Method::Initialized, None)).await;
        Ok(session)
    }

    async fn exchange(
        self: &Arc<Self>,
        session: &Arc<Session>,
        dedicated: bool,
        call: &Call,
        caller: &Caller,
    ) -> Result<Answer, Failure> {
        let id = session.id_for(call, dedicated);
        let body = Outgoing::request(&id, &call.method, &call.params.object());
        let headers = self.session_headers(session)?;
        let _running = (!dedicated).then(|| session.in_flight.enter(caller));
        let mut cancel = CancelOnDrop { legacy: self, session, id: &id, armed: true };
        let outcome = self.run(session, &id, headers, body, caller).await;
        cancel.armed = false;
        outcome
    }

    async fn run(
        self: &Arc<Self>,
        session: &Arc<Session>,
        id: &RawId,
        headers: HeaderMap,
        body: Outgoing,
        caller: &Caller,
    ) -> Result<Answer, Failure> {
        let response = self.endpoint.send(HttpMethod::POST, headers, body).await?;
        if response.status().is_success() {
            session.set_used();
        }
        match self.endpoint.read(response).await? {
            Reply::Message(bytes) => Ok(self.answer(bytes, id)?),
            Reply::Events(body) => {
                caller.begin().await;
                let follow = Follow::new(self, Some(session), id, Some(caller));
                Ok(Box::pin(follow.run(body)).await?)
            }
            Reply::Accepted => {
                Err(self.endpoint.protocol("took a request and gave no answer".to_owned()).into())
            }
            Reply::Refused(refusal) => self.refused(session, &refusal),
        }
    }

    /// What a refusal of a call says.
    fn refused(&self, session: &Session, refusal: &Refusal) -> Result<Answer, Failure> {
        let rpc = refusal.rpc();
        if session.has_id() && is_session_gone(refusal.status, rpc.as_ref()) {
            return Err(Failure::Gone);
        }
        match refusal.status {
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE => {}
            _ => {
                if let Some(Response { outcome: Outcome::Error(error), .. }) = rpc {
                    return Ok(Answer::Error(error));
                }
            }
        }
        Err(self.endpoint.refused(refusal).into())
    }

    /// Reads the one message that a response consists of.
    fn answer(&self, bytes: Bytes, id: &RawId) -> Result<Answer, CallError> {
        match Message::parse(bytes, Limits::BACKEND) {
            Ok(Message::Response(response)) if is_answer(&response, id) => Ok(response.outcome.into()),
            Ok(_) => {
                self.endpoint.meters.strays.increment(1);
                Err(self.endpoint.protocol("answered something else".to_owned()))
            }
            Err(error) => {
                self.endpoint.meters.garbage.increment(1);
                Err(self.endpoint.protocol(format!("answered with no message: {error}")))
            }
        }
    }

    pub fn session_headers(&self, session: &Session) -> Result<HeaderMap, CallError> {
        let mut headers = self.endpoint.headers()?;
        session.write_headers(&mut headers);
        Ok(headers)
    }

    /// Posts a message that gets no answer. Failures are the backend's: they
    /// are logged and nothing waits for them.
    pub async fn post(&self, session: &Session, message: Bytes) {
        let post = async {
            let headers = self.session_headers(session)?;
            let response = self.endpoint.send(HttpMethod::POST, headers, message.into()).await?;
            // Read to its end, so that the connection can be used again.
            match self.endpoint.read(response).await? {
                Reply::Refused(refusal) => Err(self.endpoint.refused(&refusal)),
                _ => Ok(()),
            }
        };
        self.control(post, "posting a message failed").await;
    }

    /// Tells the backend that the session is over.
    pub async fn delete(&self, session: &Session) {
        session.over.cancel();
        if !session.has_id() {
            return;
        }
        let delete = async {
            let headers = self.session_headers(session)?;
            let response = self.endpoint.send(HttpMethod::DELETE, headers, Outgoing::default()).await?;
            // Whether it knows DELETE or not: the session is over.
            self.endpoint.read(response).await.map(drop)
        };
        self.control(delete, "ending a session failed").await;
    }

    async fn control(&self, work: impl Future<Output = Result<(), CallError>>, what: &'static str) {
        match timeout(CONTROL_TIMEOUT, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(backend = %self.endpoint.backend, %error, "{what}"),
            Err(_) => tracing::debug!(backend = %self.endpoint.backend, error = "timeout", "{what}"),
        }
    }
}

/// Replies to a backend's requests are POSTed in the session.
#[derive(Clone)]
pub struct PostReplies {
    pub legacy: Arc<Legacy>,
    /// None before there is a session: then nobody can be asked either.
    pub session: Option<Arc<Session>>,
}

impl Replies for PostReplies {
    async fn send(&self, message: Bytes) {
        if let Some(session) = &self.session {
            self.legacy.post(session, message).await;
        }
    }
}

/// Tells the backend that nobody waits any more, unless the call has ended.
struct CancelOnDrop<'a> {
    legacy: &'a Arc<Legacy>,
    session: &'a Arc<Session>,
    id: &'a RawId,
    armed: bool,
}

impl CancelOnDrop<'_> {
    #[cold]
    fn tell(&self) {
        // Without a runtime the node itself is going.
        let Ok(runtime) = Handle::try_current() else { return };
        let (legacy, session) = (Arc::clone(self.legacy), Arc::clone(self.session));
        let message = message::cancelled(self.id);
        self.legacy.shared.tasks.spawn_on(async move { legacy.post(&session, message).await }, &runtime);
    }
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.tell();
        }
    }
}

/// Servers say in two ways that they do not know a session: 404 as the
/// specification has it, or 400 with an error that names it. A 404 that says
/// that a method is unknown is about the method.
fn is_session_gone(status: StatusCode, rpc: Option<&Response>) -> bool {
    let error = match rpc {
        Some(Response { outcome: Outcome::Error(error), .. }) => {
            serde_json::from_slice::<ErrorHead>(error).ok()
        }
        _ => None,
    };
    match (status, error) {
        (StatusCode::NOT_FOUND, error) => {
            error.is_none_or(|head| head.code != i64::from(code::METHOD_NOT_FOUND))
        }
        (StatusCode::BAD_REQUEST, Some(head)) => {
            head.code == -32000 && head.message.to_ascii_lowercase().contains("session")
        }
        _ => false,
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Result(result) => Self::Result(result),
            Outcome::Error(error) => Self::Error(error),
        }
    }
}

impl Legacy {
    /// Whether to look for a stream of the backend's own.
    pub fn may_have_event_stream(&self) -> bool {
        !self.no_event_stream.load(Ordering::Relaxed)
    }

    /// Headers of a GET that takes a stream up after an event.
    pub fn stream_headers(&self, session: &Session, after: Option<&Bytes>) -> Result<HeaderMap, CallError> {
        let mut headers = self.session_headers(session)?;
        headers.remove(http::header::CONTENT_TYPE);
        if let Some(id) = after.and_then(|id| HeaderValue::from_bytes(id).ok()) {
            headers.insert(crate::mcp::headers::LAST_EVENT_ID, id);
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &'static [u8]) -> Option<Response> {
        match Message::parse(Bytes::from_static(body), Limits::BACKEND) {
            Ok(Message::Response(response)) => Some(response),
            _ => None,
        }
    }

    #[test]
    fn both_ways_to_say_that_a_session_is_gone_are_understood() {
        assert!(is_session_gone(StatusCode::NOT_FOUND, None));
        let everything = refusal(
            br#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#,
        );
        assert!(is_session_gone(StatusCode::BAD_REQUEST, everything.as_ref()));
        let version = refusal(br#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Unsupported protocol version"},"id":null}"#);
        assert!(!is_session_gone(StatusCode::BAD_REQUEST, version.as_ref()));
        assert!(!is_session_gone(StatusCode::BAD_REQUEST, None));
        let method =
            refusal(br#"{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}"#);
        assert!(!is_session_gone(StatusCode::NOT_FOUND, method.as_ref()));
    }
}
