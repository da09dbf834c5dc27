//! Clients over HTTP+SSE, the transport of 2024-11-05: a stream to the client
//! that stays open, and POSTs beside it that belong to it.
//!
//! The stream's first event names where to post to. The handle in that URL is
//! sealed and bound to the gateway and the principal, so it is of no use to
//! anybody else who sees it. The conversation lives as long as its stream.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::{
    body::Body,
    door::{Door, Doors},
    duplex::Duplex,
    elsewhere::{self, Original},
    inbox::Posted,
    meters::{Carrier, Closed},
    outlet::{Queue, STALL_MAX},
    path,
    post::json_body,
    reply::{self, refuse},
    stream::KEEP_ALIVE_EVERY,
    websocket::CONVERSATIONS_MAX,
};
use crate::{
    mcp::{Limits, Message, RpcError, envelope, sse},
    node::Node,
    seal::Purpose,
};

/// Messages of one client that wait for its conversation.
const INBOX_MAX: usize = 64;
/// The longest handle that is looked at.
const HANDLE_BYTES_MAX: usize = 512;

/// What a handle says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The tag of the node that has the stream.
    pub owner: String,
    pub stream: String,
}

impl Handle {
    /// As it stands in the URL.
    fn seal(&self, door: &Door) -> String {
        let plain = format!("{} {}", self.owner, self.stream);
        door.node.keys().seal(Purpose::Stream, &bound_to(door), plain.as_bytes())
    }

    /// The handle in the query of a POST. None: it is not this caller's, or of
    /// another gateway, or no handle at all, which nobody is told apart.
    pub fn open(door: &Door, query: Option<&str>) -> Option<Self> {
        let sealed = query?.split('&').find_map(|pair| pair.strip_prefix("session="))?;
        if sealed.len() > HANDLE_BYTES_MAX {
            return None;
        }
        let plain = door.node.keys().open(Purpose::Stream, &bound_to(door), sealed).ok()?;
        let (owner, stream) = std::str::from_utf8(&plain).ok()?.split_once(' ')?;
        Some(Self { owner: owner.to_owned(), stream: stream.to_owned() })
    }

    /// Whether the stream is, or was, on this node.
    pub fn is_here(&self, node: &Node) -> bool {
        *self.owner == **node.tag()
    }
}

/// Names of gateways hold no line ends.
fn bound_to(door: &Door) -> Vec<u8> {
    format!("{}\n{}", door.view.gateway.name, door.identity.principal).into_bytes()
}

/// Opens the stream of a new conversation.
pub fn open(door: Door) -> Response<Body> {
    let doors = door.doors.clone();
    if doors.conversations.len() >= CONVERSATIONS_MAX {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, None, &RpcError::overloaded());
    }
    let stream = uuid::Uuid::new_v4().simple().to_string();
    let handle = Handle { owner: door.node.tag().to_string(), stream: stream.clone() };
    let endpoint =
        format!("{}?session={}", path::messages(door.view.gateway.name.as_str()), handle.seal(&door));
    let upgrade_to = door.view.gateway.name.clone();

    let (inbox, posted) = mpsc::channel(INBOX_MAX);
    doors.streams.insert(stream.clone().into(), inbox);
    let queue = Queue::new(Some(STALL_MAX));
    let left = CancellationToken::new();
    let duplex = Duplex::begin(&doors, door.view.gateway.name.clone(), door.identity, queue.clone());
    let tracker = doors.conversations.clone();
    doors.meters.opened(Carrier::Sse);
    tracker.spawn(converse(doors, stream, posted, duplex, queue.clone(), left.clone()));

    let first = format!("event: endpoint\ndata: {endpoint}\n\n");
    let reading = Reading { queue, first: Some(first.into()), _left: left.drop_guard() };
    let events = stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) });
    let mut response = reply::events(Body::stream(events));
    deprecated(&mut response, upgrade_to.as_str());
    response
}

/// Until the client leaves or the node stops.
async fn converse(
    doors: Arc<Doors>,
    stream: String,
    mut posted: mpsc::Receiver<Posted>,
    duplex: Duplex,
    queue: Arc<Queue>,
    left: CancellationToken,
) {
    let taking = async {
        while let Some(Posted { message, body }) = posted.recv().await {
            match message {
                Some(message) => duplex.take_parsed(message, body).await,
                None => duplex.take(body).await,
            }
        }
    };
    let closed = tokio::select! {
        () = left.cancelled() => Closed::Client,
        () = queue.ended() => duplex.why(),
        () = duplex.drained() => Closed::Drained,
        () = taking => Closed::Client,
    };
    doors.streams.remove(stream.as_str());
    // The stream ends when what is in the queue is read.
    drop(duplex);
    doors.meters.closed(Carrier::Sse, closed);
    debug!(reason = closed.as_str(), "an event stream is closed");
}

/// What the body of the stream reads.
struct Reading {
    queue: Arc<Queue>,
    first: Option<Bytes>,
    _left: DropGuard,
}

impl Reading {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match timeout(KEEP_ALIVE_EVERY, self.queue.next()).await {
            Ok(message) => Some(event(&message?)),
            Err(_) => Some(Bytes::from_static(sse::KEEP_ALIVE)),
        }
    }
}

/// Clients of this transport look for the name.
fn event(message: &[u8]) -> Bytes {
    let mut out = b"event: message\n".to_vec();
    sse::encode(None, message, &mut out);
    out.into()
}

/// Takes a message for the conversation of a stream.
pub async fn post<B>(door: Door, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let (head, incoming) = request.into_parts();
    let gateway = door.view.gateway.name.clone();
    let mut response = match json_body(&head.headers, incoming).await {
        Ok(body) => {
            let owner = Handle::open(&door, head.uri.query()).map(|handle| handle.owner).unwrap_or_default();
            let original =
                Original { method: &head.method, uri: &head.uri, head: &head.headers, body: &body };
            match elsewhere::owner(&door, &owner, &original).await {
                Some(response) => return response,
                None => take(&door, head.uri.query(), body),
            }
        }
        Err((status, error)) => refuse(status, None, &error),
    };
    deprecated(&mut response, gateway.as_str());
    response
}

fn take(door: &Door, query: Option<&str>, body: Bytes) -> Response<Body> {
    let unknown = |error| refuse(StatusCode::NOT_FOUND, None, &error);
    let Some(handle) = Handle::open(door, query) else { return unknown(RpcError::session_not_found()) };
    if !handle.is_here(&door.node) {
        return unknown(RpcError::owner_lost());
    }
    let message = if envelope::is_batch(&body) {
        None
    } else {
        match Message::parse(body.clone(), Limits::CLIENT) {
            Ok(message) => Some(message),
            Err(error) => return refuse(StatusCode::BAD_REQUEST, error.id.as_ref(), &RpcError::from(&error)),
        }
    };
    let Some(inbox) = door.doors.streams.get(handle.stream.as_str()).map(|inbox| inbox.clone()) else {
        return unknown(RpcError::session_not_found());
    };
    match inbox.try_send(Posted { message, body }) {
        Ok(()) => reply::accepted(),
        Err(mpsc::error::TrySendError::Full(_)) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, None, &RpcError::overloaded())
        }
        Err(mpsc::error::TrySendError::Closed(_)) => unknown(RpcError::session_not_found()),
    }
}

/// Says that this transport goes, and what to use instead.
fn deprecated(response: &mut Response<Body>, gateway: &str) {
    let headers = response.headers_mut();
    headers.insert("x-mcp-transport", HeaderValue::from_static("sse"));
    headers.insert("x-mcp-version", HeaderValue::from_static("2024-11-05"));
    headers.insert("x-mcp-deprecated", HeaderValue::from_static("true"));
    headers.insert("x-mcp-upgrade-to", HeaderValue::from_static("streamable-http"));
    let successor = format!("<{}>; rel=\"successor-version\"", path::streamable(gateway));
    if let Ok(successor) = HeaderValue::from_str(&successor) {
        headers.insert(http::header::LINK, successor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_events_with_the_name_that_old_clients_want() {
        assert!(event(b"{}").starts_with(b"event: message\ndata: {}\n"));
    }
}
