//! Requests that belong to another node: found, and handed over. What others hand
//! over to this one comes in by `inbound.rs`.
//!
//! A legacy session is served by its owner: who opened it, or who has taken it up
//! from there. If the owner cannot be reached, the session goes to the node that
//! rendezvous hashing names next, which is where its record was copied to. A
//! request that the owner may have begun is not repeated: it ends in one error.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Uri, header};
use mt_proto::pb::node::SessionRecord;
use tokio::time::{Instant, timeout};

use super::{
    body::Body,
    door::Door,
    legacy::attend,
    outlet::Outlet,
    reply::{self, refuse},
    session::{Place, Session},
};
use crate::{
    gateway::{
        self,
        call::{Call, Caller},
    },
    mcp::{
        Limits, Message, Method, Params, RawId, RpcError, error::code, headers, splice, splice::Object, sse,
    },
    relay::{Failure, Relayed, TakenUp, directory::Entry},
};

/// Nodes that are tried for one request.
const ATTEMPTS_MAX: usize = 4;
/// The longest response that is not a stream.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// How long backends may take to be told again what a session had told them.
const REPLAY_MAX: Duration = Duration::from_secs(30);

/// A request as it came, for whoever serves it.
pub struct Original<'a> {
    pub method: &'a HttpMethod,
    pub uri: &'a Uri,
    pub head: &'a HeaderMap,
    pub body: &'a Bytes,
}

impl Original<'_> {
    fn to_request(&self) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.head.clone();
        request
    }

    /// What of it may be told if it fails: the id of its one request, and whether
    /// it does no harm twice.
    fn nature(&self) -> (Option<RawId>, bool) {
        if self.method != HttpMethod::POST {
            return (None, true);
        }
        match Message::parse(self.body.clone(), Limits::CLIENT) {
            Ok(Message::Request(request)) => {
                let harmless = matches!(
                    request.method,
                    Method::Ping
                        | Method::ToolsList
                        | Method::PromptsList
                        | Method::ResourcesList
                        | Method::ResourceTemplatesList
                );
                (Some(request.id), harmless)
            }
            // Nobody waits for an answer, and what is meant by it is said once.
            Ok(_) => (None, true),
            Err(_) => (None, false),
        }
    }
}

/// Has a request of a legacy session served by the node that has the session.
/// None: it is to be served here, and if it was another node's, it is now taken
/// up. The door remembers a session that it has anyway.
pub async fn session(door: &mut Door, original: &Original<'_>) -> Option<Response<Body>> {
    let token = original.head.get(headers::SESSION_ID)?.to_str().ok()?;
    if let Some(here) = door.doors.sessions.here(&door.view.gateway.name, &door.identity, token) {
        door.session = here.ok();
        return None;
    }
    handing_over(door, token, original).await
}

/// Apart: what a session elsewhere needs is no part of every request.
#[cold]
fn handing_over<'a>(
    door: &'a Door,
    token: &'a str,
    original: &'a Original<'_>,
) -> BoxFuture<'a, Option<Response<Body>>> {
    Box::pin(hand_over(door, token, original))
}

async fn hand_over(door: &Door, token: &str, original: &Original<'_>) -> Option<Response<Body>> {
    let (keys, gateway) = (door.node.keys(), &door.view.gateway.name);
    let placed = door.doors.sessions.place(&keys, gateway, &door.identity, token);
    // An unknown one is refused like any other, by the door.
    let Ok(Place::Away { id, opener, good_for }) = placed else { return None };
    if door.relayed {
        // It was taken up before; this is the rest.
        return None;
    }
    let relay = door.node.relay();
    let (request, nature) = (original.to_request(), || original.nature());
    let mut tried: Vec<Arc<str>> = Vec::new();
    let mut wanted: Option<Arc<str>> = relay.hint(&id);
    for _ in 0..ATTEMPTS_MAX {
        let candidate = wanted.take().and_then(|tag| relay.node(&tag)).or_else(|| relay.node(&opener));
        let candidate = candidate.filter(|node| !tried.contains(&node.tag)).or_else(|| {
            relay.order(gateway, id.as_bytes()).into_iter().find(|node| !tried.contains(&node.tag))
        });
        let target = match candidate {
            Some(node) if node.tag != *relay.tag() => node,
            // It is this node's turn, or there is nobody else.
            _ => match take_up(door, token, &id, &opener, good_for).await {
                Ok(()) => return None,
                Err(tag) if tried.contains(&tag) => break,
                Err(tag) => {
                    relay.set_hint(&id, &tag);
                    wanted = Some(tag);
                    continue;
                }
            },
        };
        match relay.send(&target, &request, &door.identity).await {
            Ok(relayed) => {
                if *target.tag != *opener {
                    relay.set_hint(&id, &target.tag);
                }
                return Some(answer(relayed, nature().0).await);
            }
            Err(Failure::Moved(tag)) => {
                relay.set_hint(&id, &tag);
                tried.push(target.tag.clone());
                wanted = Some(tag);
            }
            Err(Failure::Unsent { .. }) => tried.push(target.tag.clone()),
            Err(Failure::Full) => return Some(full(nature().0)),
            Err(Failure::Lost { .. }) => match nature() {
                (_, true) => tried.push(target.tag.clone()),
                (request, false) => return Some(lost(request.as_ref())),
            },
        }
    }
    Some(unreachable(nature().0))
}

/// Makes a session this node's, with what is known of it.
///
/// # Errors
/// The tag of a node that serves it.
pub async fn take_up(
    door: &Door,
    token: &str,
    id: &Arc<str>,
    opener: &str,
    good_for: Duration,
) -> Result<(), Arc<str>> {
    let gateway = &door.view.gateway.name;
    match door.node.relay().take_up(id, gateway, opener, good_for).await? {
        TakenUp::Over => door.doors.sessions.is_over(id),
        TakenUp::Already => {}
        TakenUp::Now(record) => {
            let found = door.doors.sessions.find(&door.node.keys(), gateway, &door.identity, token);
            if let Ok(session) = found {
                replay(door, &session, &record);
            }
        }
    }
    Ok(())
}

/// Tells the backends again what the session had told them: they may know it
/// only from the node before.
fn replay(door: &Door, session: &Arc<Session>, record: &SessionRecord) {
    let level = (!record.log_level.is_empty())
        .then(|| (Method::SetLevel, Object::default().set("level", &record.log_level).finish()));
    let subscribe =
        |uri: &String| (Method::ResourcesSubscribe, Object::default().set_text("uri", uri).finish());
    let mut again: Vec<_> = level.into_iter().collect();
    again.extend(record.subscriptions.iter().map(subscribe));
    if again.is_empty() && record.upstream.is_empty() {
        return;
    }
    // What backends say on streams of their own is said from here now.
    if session.mark_upstream() {
        attend(door.node.clone(), session.clone(), Outlet::Events(session.inbox().clone()));
    }
    let (node, table, view) = (door.node.clone(), door.table.clone(), door.view.clone());
    let session = session.clone();
    let work = async move {
        for (number, (method, params)) in again.into_iter().enumerate() {
            let Ok(params) = Params::scan(&params, Limits::CLIENT) else { continue };
            let mut call = Call {
                id: RawId::text(&format!("magictunnel-again-{number}")),
                method,
                params,
                client: session.client().clone(),
                deadline: Instant::now() + REPLAY_MAX,
                param_headers: Vec::new(),
            };
            let (nobody, _) = Caller::channel();
            _ = gateway::answer(&node, &table, &view, &mut call, &nobody).await;
        }
    };
    door.node.tracker.spawn(async move { _ = timeout(REPLAY_MAX, work).await });
}

/// Has a request served by the node with this tag, for what is nowhere else.
/// None: it is this node, or it is not there.
pub async fn owner(door: &Door, tag: &str, original: &Original<'_>) -> Option<Response<Body>> {
    if door.relayed || *tag == **door.node.tag() {
        return None;
    }
    let node: Arc<Entry> = door.node.relay().node(tag)?;
    let id = original.nature().0;
    match door.node.relay().send(&node, &original.to_request(), &door.identity).await {
        Ok(relayed) => Some(answer(relayed, id).await),
        Err(Failure::Full) => Some(full(id)),
        Err(Failure::Lost { .. }) => Some(lost(id.as_ref())),
        Err(Failure::Unsent { .. } | Failure::Moved(_)) => None,
    }
}

/// A response of another node as one of ours. If it breaks off, the request that
/// it answers is told so.
async fn answer(relayed: Relayed, request: Option<RawId>) -> Response<Body> {
    let Relayed { status, headers, body } = relayed;
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let (events, lines) = (kind.starts_with(b"text/event-stream"), kind.starts_with(b"application/x-ndjson"));
    let body = if events || lines {
        let chunks = body.map(move |chunk| match (chunk, &request) {
            (Ok(chunk), _) => chunk,
            (Err(_), Some(id)) => {
                let message = splice::error_response(Some(id), &reply::gone());
                let mut last = Vec::new();
                if lines {
                    last.extend_from_slice(&message);
                    last.push(b'\n');
                } else {
                    sse::encode(None, &message, &mut last);
                }
                last.into()
            }
            (Err(_), None) => Bytes::new(),
        });
        Body::stream(chunks)
    } else {
        match whole(body).await {
            Ok(body) => Body::full(body),
            Err(Broken) => return lost(request.as_ref()),
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

struct Broken;

async fn whole<E>(mut body: BoxStream<'static, Result<Bytes, E>>) -> Result<Bytes, Broken> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Broken)?;
        if first.len() + rest.len() + chunk.len() > RESPONSE_BYTES_MAX {
            return Err(Broken);
        }
        if first.is_empty() && rest.is_empty() {
            first = chunk;
        } else {
            rest.extend_from_slice(&chunk);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    Ok(all.freeze())
}

fn lost(request: Option<&RawId>) -> Response<Body> {
    // A legacy client reads an error only from a 200.
    let status = if request.is_some() { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    refuse(status, request, &reply::gone())
}

fn full(request: Option<RawId>) -> Response<Body> {
    refuse(StatusCode::SERVICE_UNAVAILABLE, request.as_ref(), &RpcError::overloaded())
}

fn unreachable(request: Option<RawId>) -> Response<Body> {
    let error =
        RpcError::new(code::OWNER_LOST, "the node that has this session cannot be reached; try again");
    refuse(StatusCode::SERVICE_UNAVAILABLE, request.as_ref(), &error)
}
