//! The door of modern clients: every request stands alone.
//!
//! The call runs inside the response, so a client that goes away cancels it:
//! that is what the revision asks for, and nothing has to be remembered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{HeaderMap, Response, StatusCode};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Door, Doors,
    body::Body,
    reply::{self, refuse},
    stream::KEEP_ALIVE_EVERY,
};
use crate::{
    gateway::{
        self,
        call::{Answer, Call, CallError, Caller, Client, Scope, ToClient},
    },
    mcp::{Era, Message, ProtocolVersion, RawId, Request, RpcError, error::code, headers, meta::Meta, sse},
};

/// A bound for calls that are answered here; a backend's own comes later.
const LOCAL_LIMIT: Duration = Duration::from_secs(60);
/// Headers that repeat arguments, forwarded at most.
const PARAM_HEADERS_MAX: usize = 64;

/// Takes one message.
pub async fn post(door: Door, head: &HeaderMap, message: Message, meta: &Meta) -> Response<Body> {
    match message {
        Message::Request(request) => match admit(&door, head, &request, meta) {
            Ok(call) => run(door, call).await,
            Err((status, error)) => refuse(status, Some(&request.id), &error),
        },
        // Closing the response cancels; nothing else is told by notifications over HTTP.
        Message::Notification(_) => reply::accepted(),
        Message::Response(_) => {
            let error = RpcError::invalid_request("clients send no responses in this revision");
            refuse(StatusCode::BAD_REQUEST, None, &error)
        }
    }
}

/// Checks what a modern request must say, in its body and around it.
fn admit(
    door: &Door,
    head: &HeaderMap,
    request: &Request,
    meta: &Meta,
) -> Result<Call, (StatusCode, RpcError)> {
    let bad = |error: RpcError| (StatusCode::BAD_REQUEST, error);
    // Before the body's version is judged: a header that says something else is
    // a mismatch, whatever either of them names.
    if let Some(claimed) = meta.protocol_version() {
        headers::check_version(head, &claimed).map_err(bad)?;
    }
    let modern = meta.modern().map_err(|error| match meta.protocol_version() {
        // The gateway names what it advertises.
        Some(claimed) if error.code == code::UNSUPPORTED_VERSION => {
            bad(RpcError::unsupported_version(&claimed, door.view.versions()))
        }
        _ => bad(error),
    })?;
    headers::check(head, modern.version.as_str(), &request.method, &request.params).map_err(bad)?;
    if !request.method.exists_in(modern.version) || !(request.method.is_for_server()) {
        return Err((StatusCode::NOT_FOUND, RpcError::method_not_found(request.method.as_str())));
    }
    let param_headers: Vec<_> = head
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(headers::PARAM_PREFIX))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if param_headers.len() > PARAM_HEADERS_MAX {
        return Err(bad(RpcError::invalid_request(format!(
            "more than {PARAM_HEADERS_MAX} Mcp-Param headers"
        ))));
    }
    Ok(Call {
        id: request.id.clone(),
        method: request.method.clone(),
        params: request.params.clone(),
        client: Arc::new(Client {
            principal: door.principal.clone(),
            version: modern.version,
            info: modern.client_info.unwrap_or_default(),
            capabilities: modern.capabilities,
            scope: Scope::Stateless,
            events: None,
        }),
        deadline: Instant::now() + LOCAL_LIMIT,
        param_headers,
    })
}

/// A call that has said something before its answer.
struct Running {
    id: RawId,
    version: ProtocolVersion,
    call: Option<BoxFuture<'static, Result<Answer, CallError>>>,
    from_call: mpsc::Receiver<ToClient>,
    first: Option<ToClient>,
    doors: Arc<Doors>,
    began: Instant,
}

/// Runs a call: a JSON response if the answer comes first, else a stream.
async fn run(door: Door, call: Call) -> Response<Body> {
    let (id, version, began) = (call.id.clone(), call.client.version, Instant::now());
    let doors = door.doors.clone();
    let (caller, mut from_call) = Caller::channel();
    let mut running: BoxFuture<'static, _> = Box::pin(async move {
        let Door { node, table, view, .. } = door;
        gateway::answer(&node, &table, &view, call, &caller).await
    });
    tokio::select! {
        biased;
        // What was said before the answer goes before it.
        Some(first) = from_call.recv() => {
            let running = Running { id, version, call: Some(running), from_call, first: Some(first), doors, began };
            reply::events(Body::stream(stream::unfold(running, |mut running| async move {
                running.next().await.map(|chunk| (chunk, running))
            })))
        }
        answer = &mut running => {
            let said = left_behind(&mut from_call);
            let (message, ok) = reply::message(&id, version, &answer);
            doors.meters.answered(Era::Modern, ok, began.elapsed());
            if said.is_empty() {
                return reply::json(reply::status(version, &answer), message);
            }
            reply::events(Body::full(last_event(said, &message)))
        }
    }
}

impl Running {
    /// The next chunk of the stream; the answer is the last.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().and_then(notification) {
            return Some(event(&first));
        }
        loop {
            let call = self.call.as_mut()?;
            tokio::select! {
                biased;
                Some(said) = self.from_call.recv() => {
                    if let Some(message) = notification(said) {
                        return Some(event(&message));
                    }
                }
                answer = call => return Some(self.finish(&answer)),
                () = tokio::time::sleep(KEEP_ALIVE_EVERY) => return Some(Bytes::from_static(sse::KEEP_ALIVE)),
            }
        }
    }

    fn finish(&mut self, answer: &Result<Answer, CallError>) -> Bytes {
        self.call = None;
        let (message, ok) = reply::message(&self.id, self.version, answer);
        self.doors.meters.answered(Era::Modern, ok, self.began.elapsed());
        last_event(left_behind(&mut self.from_call), &message)
    }
}

/// What a call that has ended said last, as events. It may have said it and
/// ended in one go, before anybody could look.
fn left_behind(from_call: &mut mpsc::Receiver<ToClient>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Ok(said) = from_call.try_recv() {
        if let Some(message) = notification(said) {
            sse::encode(None, &message, &mut out);
        }
    }
    out
}

/// The answer, after what was said before it.
fn last_event(mut said: Vec<u8>, answer: &[u8]) -> Bytes {
    sse::encode(None, answer, &mut said);
    said.into()
}

/// A question cannot be put to a modern client here: dropping it tells the
/// callee so. The stream begins with whatever comes first, and never pauses.
fn notification(said: ToClient) -> Option<Bytes> {
    match said {
        ToClient::Notify(message) => Some(message),
        ToClient::Begin | ToClient::Ask(_) | ToClient::Pause { .. } => None,
    }
}

fn event(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 16);
    sse::encode(None, message, &mut out);
    out.into()
}
