//! The door of legacy clients over streamable HTTP: `initialize`, sessions,
//! streams that can be resumed, questions to the client.
//!
//! A client that loses its connection has not cancelled anything in these
//! revisions, so its calls go on without it ([`Lasting`]).

use std::{future::ready, sync::Arc};

use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{Abortable, join_all},
    stream,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{
    body::Body,
    door::{Door, Doors},
    lasting::{Ended, Lasting, Work},
    ndjson,
    outlet::{Outlet, Queue, STALL_MAX},
    pump::Pump,
    reply::{self, Answering, at_once, refuse},
    session::{Session, SessionError},
    stream::RETRY_DEFAULT,
};
use crate::{
    gateway::{
        self,
        call::{Answer, Call, CallError, Caller, ToClient},
        subscription::{changed_lists, digests},
    },
    mcp::{
        Era, Key, Limits, Message, Method, Notification, Outcome, Params, RawId, Request,
        Response as RpcResponse, RpcError, envelope, headers, meta::Initialize, splice,
    },
    node::Node,
    relay::change::Change,
};

/// A bound for calls that are answered here; a backend's own comes later.
const LOCAL_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What streamable HTTP has, where a session is known.
pub const METHODS: &str = "POST, GET, DELETE";

/// Takes one message.
pub fn post(door: Door, head: &HeaderMap, message: Message, body: Bytes) -> Answering {
    if let Message::Request(request @ Request { method: Method::Initialize, .. }) = &message {
        return at_once(initialize(&door, request));
    }
    let session = match session(&door, head) {
        Ok(session) => session,
        Err(refusal) => return at_once(refusal.response(reply::id_of(&message))),
    };
    session.touch();
    match message {
        Message::Request(request) => call(&door, session, request, ndjson::is_wanted(head)),
        Message::Notification(notification) => Box::pin(async move {
            notified(&door, &session, notification, body).await;
            reply::accepted()
        }),
        Message::Response(response) => {
            replied(&session, response);
            at_once(reply::accepted())
        }
    }
}

fn initialize(door: &Door, request: &Request) -> Response<Body> {
    match open(door, &request.params) {
        Ok(opened) => {
            let mut response = reply::json(StatusCode::OK, splice::response(&request.id, &opened.result));
            let token = HeaderValue::from_str(&opened.token).expect("tokens are visible ASCII");
            response.headers_mut().insert(headers::SESSION_ID, token);
            response
        }
        Err((status, error)) => refuse(status, Some(&request.id), &error),
    }
}

/// A session that has been opened.
pub struct Opened {
    pub token: String,
    pub session: Arc<Session>,
    /// What `initialize` answers.
    pub result: Bytes,
}

/// Opens a session with the params of `initialize`. Nothing is asked of a
/// backend: what the gateway can do is in the catalog.
///
/// # Errors
/// What the client is told, and the status for doors that have one.
pub fn open(door: &Door, params: &Params) -> Result<Opened, (StatusCode, RpcError)> {
    let asked = Initialize::read(params).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
    let opened = door.doors.sessions.open(
        &door.node.keys(),
        &door.view.gateway.name,
        &door.identity,
        asked.version,
        asked.client_info,
        gateway::client_capabilities(asked.version, &asked.capabilities),
    );
    match opened {
        Ok((token, session)) => {
            Ok(Opened { token, session, result: gateway::initialize(&door.view, asked.version) })
        }
        Err(SessionError::Full) => Err((StatusCode::SERVICE_UNAVAILABLE, RpcError::overloaded())),
        Err(error) => Err((StatusCode::BAD_REQUEST, RpcError::invalid_params(error.to_string()))),
    }
}

/// Why a request has no session to be served in.
enum Refusal {
    Missing,
    Unknown,
    Full,
}

impl Refusal {
    fn response(self, id: Option<&RawId>) -> Response<Body> {
        match self {
            Refusal::Missing => {
                let error = RpcError::invalid_request("Mcp-Session-Id is missing: send initialize first");
                refuse(StatusCode::BAD_REQUEST, id, &error)
            }
            Refusal::Unknown => refuse(StatusCode::NOT_FOUND, id, &RpcError::session_not_found()),
            Refusal::Full => refuse(StatusCode::SERVICE_UNAVAILABLE, id, &RpcError::overloaded()),
        }
    }
}

fn token(head: &HeaderMap) -> Result<&str, Refusal> {
    let value = head.get(headers::SESSION_ID).ok_or(Refusal::Missing)?;
    value.to_str().map_err(|_| Refusal::Unknown)
}

fn session(door: &Door, head: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    if let Some(session) = &door.session {
        return Ok(session.clone());
    }
    let token = token(head)?;
    let found = door.doors.sessions.find(&door.node.keys(), &door.view.gateway.name, &door.identity, token);
    found.map_err(|error| match error {
        SessionError::Full => Refusal::Full,
        SessionError::Unknown | SessionError::TooLarge => Refusal::Unknown,
    })
}

/// Answers a request: JSON if the answer comes first, else a stream; of lines if
/// the client wants those.
fn call(door: &Door, session: Arc<Session>, request: Request, lines: bool) -> Answering {
    let (id, began) = (request.id.clone(), Instant::now());
    let (node, doors) = (door.node.clone(), door.doors.clone());
    let Some((work, mut from_call)) = begin(door, &session, request) else {
        let error =
            RpcError::invalid_request("a request with this id is under way, or too many requests are");
        return at_once(refuse(StatusCode::BAD_REQUEST, Some(&id), &error));
    };
    let mut work = Lasting::new(work, node.tracker.clone());
    Box::pin(async move {
        let (first, ended) = tokio::select! {
            biased;
            // What was said before the answer goes before it.
            Some(first) = from_call.recv() => (Some(first), None),
            // It may have said something and ended in one go, before anybody could look.
            ended = &mut work => (from_call.try_recv().ok(), Some(ended)),
        };
        match (first, ended) {
            (Some(first), ended) => {
                let talk = Talk { id, began, doors, session, first, from_call };
                match ended {
                    Some(ended) => talk.stream(&node, ready(ended), lines),
                    None => talk.stream(&node, work, lines),
                }
            }
            (None, Some(Some(answer))) => {
                let (body, ok) = reply::pieces(&id, session.version, &answer);
                doors.meters.answered(Era::Legacy, ok, began.elapsed());
                let status = reply::status(session.version, &answer);
                if lines { ndjson::whole(status, body) } else { reply::json(status, body) }
            }
            // Cancelled by the client, which expects no answer, or by the end of the session.
            (None, _) => refuse(StatusCode::OK, Some(&id), &RpcError::cancelled()),
        }
    })
}

/// A call that says something before it ends.
struct Talk {
    id: RawId,
    began: Instant,
    doors: Arc<Doors>,
    session: Arc<Session>,
    first: ToClient,
    from_call: mpsc::Receiver<ToClient>,
}

impl Talk {
    /// Passes on what it says, in a task: the client may come back for it.
    // Its own frame: the task is large, and is made on the stack.
    #[inline(never)]
    fn stream(
        self,
        node: &Node,
        rest: impl Future<Output = Ended> + Send + 'static,
        lines: bool,
    ) -> Response<Body> {
        let Self { id, began, doors, session, first, from_call } = self;
        let (outlet, response) = if lines { line_stream() } else { event_stream(&session) };
        let version = session.version;
        let pump = Pump { session, outlet };
        node.tracker.spawn(async move {
            let (answer, ()) = tokio::join!(rest, pump.run(Some(first), from_call));
            if let Some(answer) = answer {
                let (message, ok) = reply::message(&id, version, &answer);
                pump.outlet.push(&message).await;
                doors.meters.answered(Era::Legacy, ok, began.elapsed());
            }
            pump.outlet.finish();
        });
        response
    }
}

/// Starts a call in a task of its own, which ends with nothing if it was
/// cancelled. None: its id is in use, or there are too many.
pub fn start(
    door: &Door,
    session: &Arc<Session>,
    request: Request,
) -> Option<(JoinHandle<Ended>, mpsc::Receiver<ToClient>)> {
    let (work, from_call) = begin(door, session, request)?;
    Some((door.node.tracker.spawn(work.map(Result::ok)), from_call))
}

/// A call as a future that must not be dropped before its end, and what it says
/// on the way. None: its id is in use, or there are too many.
fn begin(
    door: &Door,
    session: &Arc<Session>,
    request: Request,
) -> Option<(Abortable<Work>, mpsc::Receiver<ToClient>)> {
    let (running, cancelled) = session.begin(&request.id)?;
    if session.mark_upstream() {
        attend(door.node.clone(), session.clone(), Outlet::Events(session.inbox().clone()));
    }
    let mut call = Call {
        id: request.id,
        method: request.method,
        params: request.params,
        client: session.client().clone(),
        deadline: Instant::now() + LOCAL_LIMIT,
        param_headers: Vec::new(),
    };
    let (caller, from_call) = Caller::channel();
    let (node, table, view) = (door.node.clone(), door.table.clone(), door.view.clone());
    let work: Work = Box::pin(async move {
        if !call.method.exists_in(call.client.version) || !call.method.is_for_server() {
            let method = call.method.as_str().to_owned();
            return Err(CallError::UnknownMethod { method });
        }
        let change = change_of(&call);
        let answer = gateway::answer(&node, &table, &view, &mut call, &caller).await;
        // Whoever still hears of this answer: the client must start again.
        if let Err(CallError::SessionLost { .. }) = answer {
            running.session.end();
        }
        if let (Some(change), Ok(Answer::Result(_))) = (change, &answer) {
            node.relay().note(&running.session.id, change).await;
        }
        answer
    });
    // A session that has ended opens nothing at a backend any more.
    Some((Abortable::new(work, cancelled), from_call))
}

/// What a call changes that the session's next owner must know, if it succeeds.
fn change_of(call: &Call) -> Option<Change> {
    match call.method {
        Method::SetLevel => call.params.get(Key::Level).map(Change::LogLevel),
        Method::ResourcesSubscribe => Some(Change::Subscribed(call.params.text(Key::Uri)?.into_owned())),
        Method::ResourcesUnsubscribe => Some(Change::Unsubscribed(call.params.text(Key::Uri)?.into_owned())),
        _ => None,
    }
}

/// A stream that the client can come back to.
fn event_stream(session: &Session) -> (Outlet, Response<Body>) {
    let stream = session.open_stream();
    let reader = stream.attach(None);
    if session.version.polls_sse() {
        stream.prime(RETRY_DEFAULT);
    }
    (Outlet::Events(stream), reply::events(body_of(reader)))
}

fn line_stream() -> (Outlet, Response<Body>) {
    let queue = Queue::new(Some(STALL_MAX));
    (Outlet::Lines(queue.clone()), ndjson::follow(queue))
}

fn body_of(reader: super::stream::Reader) -> Body {
    Body::stream(stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|chunk| (chunk, reader))
    }))
}

/// Brings a session what belongs to no call, and tells it of lists that change.
#[inline(never)]
pub fn attend(node: Arc<Node>, session: Arc<Session>, outlet: Outlet) {
    let Some(mut events) = session.take_events() else { return };
    let tracker = node.tracker.clone();
    tracker.spawn(async move {
        let pump = Pump { outlet: outlet.clone(), session: session.clone() };
        let lists = |node: &Node| node.snapshot().gateways.get(&session.gateway).map(|view| digests(view));
        let mut in_service = node.watch();
        let mut shown = lists(&node);
        let said = async {
            if let Some(first) = events.recv().await {
                pump.run(Some(first), events).await;
            }
            std::future::pending::<()>().await;
        };
        let announced = async {
            while in_service.changed().await.is_ok() {
                let now = lists(&node);
                if let (Some(before), Some(now)) = (&shown, &now) {
                    for message in changed_lists(before, now) {
                        outlet.try_push(&message);
                    }
                }
                shown = now;
            }
        };
        tokio::select! {
            () = said => {}
            () = announced => {}
            () = session.ended.cancelled() => {}
            () = node.draining.cancelled() => {}
        }
        outlet.finish();
    });
}

/// Takes what a client tells.
pub async fn notified(door: &Door, session: &Arc<Session>, notification: Notification, body: Bytes) {
    match notification.method {
        // The session has been open since `initialize` was answered.
        Method::Initialized => {}
        Method::Cancelled => {
            if let Some(id) = notification.params.id(Key::RequestId) {
                session.cancel(&id);
            }
        }
        method => gateway::notify(&door.table, &door.view, session.client(), &method, body).await,
    }
}

/// Takes what a client answers to a question.
pub fn replied(session: &Session, response: RpcResponse) {
    let Some(id) = response.id else { return };
    session.reply(
        &id,
        match response.outcome {
            Outcome::Result(result) => Ok(result),
            Outcome::Error(error) => Err(error),
        },
    );
}

/// Takes a batch.
pub fn post_batch(door: Door, head: &HeaderMap, body: Bytes) -> Answering {
    let session = match session(&door, head) {
        Ok(session) => session,
        Err(refusal) => return at_once(refusal.response(None)),
    };
    session.touch();
    Box::pin(async move {
        match batch(&door, &session, &body, None).await {
            Ok(Some(answers)) => reply::json(StatusCode::OK, answers),
            Ok(None) => reply::accepted(),
            Err(error) => refuse(StatusCode::BAD_REQUEST, None, &error),
        }
    })
}

/// The answers to a batch, as one array; none if nothing in it wants one. Only
/// the one revision that has batches takes them, and never with `initialize`.
/// What is said on the way goes to the outlet, if there is one.
///
/// # Errors
/// Why none of it was taken.
pub async fn batch(
    door: &Door,
    session: &Arc<Session>,
    body: &Bytes,
    outlet: Option<&Outlet>,
) -> Result<Option<Bytes>, RpcError> {
    if !session.version.allows_batch() {
        return Err(RpcError::invalid_request("this protocol version has no batches: send one message"));
    }
    let messages = envelope::split_batch(body, Limits::CLIENT).map_err(|error| RpcError::from(&error))?;
    door.doors.meters.batch_messages.increment(messages.len() as u64);
    let version = session.version;
    let mut running = Vec::new();
    let mut answers: Vec<Bytes> = Vec::new();
    for bytes in messages {
        match Message::parse(bytes.clone(), Limits::CLIENT) {
            Ok(Message::Request(Request { id, method: Method::Initialize, .. })) => {
                let error = RpcError::invalid_request("initialize must not be part of a batch");
                answers.push(splice::error_response(Some(&id), &error));
            }
            Ok(Message::Request(request)) => {
                let id = request.id.clone();
                match start(door, session, request) {
                    Some((task, from_call)) => running.push((id, task, from_call)),
                    None => {
                        let error =
                            RpcError::invalid_request("the id is in use, or too many requests are under way");
                        answers.push(splice::error_response(Some(&id), &error));
                    }
                }
            }
            Ok(Message::Notification(notification)) => notified(door, session, notification, bytes).await,
            Ok(Message::Response(response)) => replied(session, response),
            Err(error) => answers.push(splice::error_response(error.id.as_ref(), &RpcError::from(&error))),
        }
    }
    let running = running.into_iter().map(|(id, task, mut from_call)| async move {
        match outlet {
            Some(outlet) => {
                let pump = Pump { session: session.clone(), outlet: outlet.clone() };
                pump.run(None, from_call).await;
            }
            // One JSON array has no place for what is said on the way; what comes is
            // taken, so that no backend waits, and dropped questions tell it so.
            None => while from_call.recv().await.is_some() {},
        }
        let answer = task.await.ok().flatten()?;
        Some(reply::message(&id, version, &answer).0)
    });
    // All at once: a call that waits for its turn may wait for one behind it.
    answers.extend(join_all(running).await.into_iter().flatten());
    if answers.is_empty() {
        return Ok(None);
    }
    let mut array = vec![b'['];
    for (at, answer) in answers.iter().enumerate() {
        if at > 0 {
            array.push(b',');
        }
        array.extend_from_slice(answer);
    }
    array.push(b']');
    Ok(Some(array.into()))
}

/// The session's own stream, or one that the client comes back to.
pub fn get(door: Door, head: &HeaderMap) -> Response<Body> {
    let session = match session(&door, head) {
        Ok(session) => session,
        // Without a session there is nothing to stream: modern clients have no GET.
        Err(Refusal::Missing) => return reply::method_not_allowed(METHODS),
        Err(refusal) => return refusal.response(None),
    };
    session.touch();
    if session.mark_upstream() {
        attend(door.node.clone(), session.clone(), Outlet::Events(session.inbox().clone()));
    }
    let wanted = head.get(headers::LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let reader = match wanted.and_then(|id| session.resume(id)) {
        Some((stream, event)) => stream.attach(Some(event)),
        None => session.inbox().attach(None),
    };
    reply::events(body_of(reader))
}

/// Ends a session.
pub async fn delete(door: Door, head: &HeaderMap) -> Response<Body> {
    let found = token(head).and_then(|token| session(&door, head).map(|session| (token, session)));
    match found {
        Ok((token, session)) => {
            door.doors.sessions.end(token);
            door.node.relay().end(&session.id).await;
            close_upstream(&door.node, &session);
            reply::empty(StatusCode::NO_CONTENT)
        }
        Err(Refusal::Missing) => reply::method_not_allowed(METHODS),
        Err(refusal) => refusal.response(None),
    }
}

/// Closes what backends hold for a session that has ended.
pub fn close_upstream(node: &Arc<Node>, session: &Arc<Session>) {
    let (node, client) = (node.clone(), session.client().clone());
    let (id, touched) = (session.id.clone(), session.is_touched());
    node.tracker.clone().spawn(async move {
        if touched {
            node.relay().end(&id).await;
        }
        gateway::end_session(&node, &client).await;
    });
}
