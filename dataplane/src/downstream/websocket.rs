//! Clients over WebSocket: one message in one text frame, both ways.
//!
//! The handshake is a request like any other, so Host and Origin are checked
//! before it gets here. A connection is closed with a code and a reason; what is
//! in the frames is the conversation's business (duplex.rs).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use mt_proto::resource::ResourceName;
use tokio::{
    io::AsyncReadExt as _,
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::CapacityError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::debug;

use super::{
    body::Body,
    door::{BODY_BYTES_MAX, Door, Doors},
    duplex::Duplex,
    meters::{Carrier, Closed},
    outlet::{Queue, STALL_MAX},
    reply::{self, refuse},
};
use crate::{gateway::call::Identity, mcp::RpcError};

/// Conversations that a node has at once.
pub const CONVERSATIONS_MAX: usize = 8_192;
/// The subprotocol of MCP.
const SUBPROTOCOL: &str = "mcp";
/// How often a client is asked whether it is there. One that has said nothing
/// at all from one time to the next is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a frame may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// How long the client may take to close, once it was told to.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Of what still comes then, so much is read and dropped.
const DISCARD_BYTES_MAX: usize = 8 << 20;
const READ_BUFFER_BYTES: usize = 16 << 10;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Answers the handshake; the conversation begins when it is through. It ends at
/// the latest when the client may call no longer, which `barred` tells.
pub fn upgrade(
    door: Door,
    mut request: Request<Incoming>,
    barred: impl Future<Output = ()> + Send + 'static,
) -> Response<Body> {
    let accept = match handshake(request.headers()) {
        Ok(accept) => accept,
        Err((status, error)) => {
            let mut response = refuse(status, None, &error);
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return response;
        }
    };
    let doors = door.doors.clone();
    if doors.conversations.len() >= CONVERSATIONS_MAX {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, None, &RpcError::overloaded());
    }
    let upgrading = hyper::upgrade::on(&mut request);
    let offered = offers_subprotocol(request.headers());
    let (gateway, identity) = (door.view.gateway.name.clone(), door.identity);
    let tracker = doors.conversations.clone();
    tracker.spawn(async move { converse(doors, gateway, identity, upgrading, barred).await });

    let mut response = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // One that was not offered must not be answered.
    if offered {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// Checks what RFC 6455 §4.2.1 asks of a handshake; the value that accepts it.
fn handshake(head: &HeaderMap) -> Result<HeaderValue, (StatusCode, RpcError)> {
    let refused = |status, why: &'static str| Err((status, RpcError::invalid_request(why)));
    if !has_token(head, &header::CONNECTION, "upgrade") || !has_token(head, &header::UPGRADE, "websocket") {
        return refused(StatusCode::UPGRADE_REQUIRED, "this path serves WebSocket: upgrade the connection");
    }
    if head.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return refused(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken here");
    }
    let Some(key) = head.get(header::SEC_WEBSOCKET_KEY) else {
        return refused(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing");
    };
    let accept = derive_accept_key(key.as_bytes());
    Ok(HeaderValue::from_str(&accept).expect("base64 is visible ASCII"))
}

/// Whether a list header names something, in any case.
fn has_token(head: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    head.get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
}

/// The names of subprotocols are case-sensitive.
fn offers_subprotocol(head: &HeaderMap) -> bool {
    head.get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii() == SUBPROTOCOL.as_bytes())
}

async fn converse(
    doors: Arc<Doors>,
    gateway: ResourceName,
    identity: Arc<Identity>,
    upgrading: OnUpgrade,
    barred: impl Future<Output = ()>,
) {
    let Ok(Ok(upgraded)) = timeout(CLOSE_MAX, upgrading).await else {
        debug!("the client left during the handshake");
        return;
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Each message leaves at once.
        .write_buffer_size(0)
        .max_message_size(Some(BODY_BYTES_MAX))
        .max_frame_size(Some(BODY_BYTES_MAX));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    doors.meters.opened(Carrier::WebSocket);
    let queue = Queue::new(Some(STALL_MAX));
    let duplex = Duplex::begin(&doors, gateway, identity, queue.clone());
    let (mut sink, mut stream) = socket.split();
    let heard = AtomicBool::new(true);
    let closed = tokio::select! {
        closed = read(&mut stream, &duplex, &heard) => closed,
        closed = write(&mut sink, &queue, &heard) => closed.unwrap_or_else(|| duplex.why()),
        () = duplex.drained() => Closed::Drained,
        () = barred => Closed::Barred,
    };
    // What was answered is sent, nothing new is.
    queue.finish();
    if closed == Closed::Drained {
        _ = write(&mut sink, &queue, &heard).await;
    }
    drop(duplex);
    doors.meters.closed(Carrier::WebSocket, closed);
    debug!(reason = closed.as_str(), "a WebSocket is closed");
    close(sink, stream, closed).await;
}

/// Hands what the client says to its conversation, until it stops.
async fn read(stream: &mut SplitStream<Socket>, duplex: &Duplex, heard: &AtomicBool) -> Closed {
    loop {
        let message = stream.next().await;
        heard.store(true, Ordering::Relaxed);
        match message {
            Some(Ok(Message::Text(text))) => duplex.take(Bytes::from(text)).await,
            Some(Ok(Message::Binary(_))) => return Closed::Unsupported,
            // Pings are answered below.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Closed::Client,
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => return Closed::TooLong,
            Some(Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_))) => {
                return Closed::Client;
            }
            Some(Err(error)) => {
                debug!(%error, "a WebSocket client broke the protocol");
                return Closed::Broken;
            }
        }
    }
}

/// Sends what is in the queue, and pings, until one of them cannot be. None: the
/// queue has ended.
async fn write(sink: &mut SplitSink<Socket, Message>, queue: &Queue, heard: &AtomicBool) -> Option<Closed> {
    let mut pings = interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            message = queue.next() => Message::text(text(message?)),
            _ = pings.tick() => {
                if !heard.swap(false, Ordering::Relaxed) {
                    return Some(Closed::Silent);
                }
                Message::Ping(Bytes::new())
            }
        };
        match timeout(WRITE_MAX, sink.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Some(Closed::Client),
            Err(_) => return Some(Closed::Stalled),
        }
    }
}

/// What is said was scanned as JSON, or written here: it is UTF-8 but for what a
/// backend has hidden in the strings of a value that nobody looks into.
fn text(message: Bytes) -> String {
    match String::from_utf8(message.into()) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// Says why, and gives the client a moment to hear it.
async fn close(sink: SplitSink<Socket, Message>, stream: SplitStream<Socket>, closed: Closed) {
    let (code, reason) = match closed {
        Closed::Client => (CloseCode::Normal, ""),
        Closed::Drained => (CloseCode::Away, "the node is shutting down"),
        Closed::Stalled => (CloseCode::Policy, "too many messages were not read in time"),
        Closed::Barred => (CloseCode::Policy, "the right to call has ended"),
        Closed::Silent => (CloseCode::Policy, "pings were not answered"),
        Closed::TooLong => (CloseCode::Size, "a message may take 4 MiB"),
        Closed::Unsupported => (CloseCode::Unsupported, "only text frames are taken"),
        Closed::Broken => (CloseCode::Protocol, "that is not WebSocket"),
    };
    let Ok(mut socket) = sink.reunite(stream) else { return };
    let frame = CloseFrame { code, reason: reason.into() };
    if !matches!(timeout(CLOSE_MAX, socket.close(Some(frame))).await, Ok(Ok(()))) {
        return;
    }
    // A socket that is closed over unread bytes is reset, and the reason lost.
    _ = timeout(CLOSE_MAX, discard(socket)).await;
}

async fn discard(mut socket: Socket) {
    let io = socket.get_mut();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut dropped = 0;
    while let Ok(read) = io.read(&mut buffer).await {
        dropped += read;
        if read == 0 || dropped > DISCARD_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    const RIGHT: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_handshake_is_the_one_of_the_rfc() {
        assert_eq!(handshake(&head(&RIGHT)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for (at, (name, _)) in RIGHT.iter().enumerate() {
            let mut pairs = RIGHT.to_vec();
            pairs.remove(at);
            assert!(handshake(&head(&pairs)).is_err(), "without {name}");
        }
    }

    #[test]
    fn the_subprotocol_is_answered_only_where_it_is_offered() {
        let offers = |value| offers_subprotocol(&head(&[("sec-websocket-protocol", value)]));
        assert!(offers("mcp") && offers("other, mcp"));
        assert!(!offers("MCP") && !offers("mcp2") && !offers_subprotocol(&HeaderMap::new()));
    }
}
