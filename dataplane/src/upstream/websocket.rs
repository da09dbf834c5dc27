//! A pipe over a WebSocket: one message in one text frame.
//!
//! The upgrade is an ordinary request of the backend's endpoint, so what is
//! shown to be let in, TLS and timeouts are those of HTTP. Everything else is
//! the pipe's.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use http::{
    HeaderValue, Method as HttpMethod, StatusCode,
    header::{
        ACCEPT, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use mt_proto::resource::HttpTransport;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        error::CapacityError,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    client,
    connection::{Tasks, supervise},
    endpoint::{Endpoint, RESULT_BYTES_MAX, Reply},
    message::Outgoing,
    pipe::{Pipe, Queued, Terms},
    pump::Garbage,
};
use crate::{chain, gateway::call::CallError};

/// Servers answer it even where it was not offered, and some insist on it.
const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("mcp");
/// How often the other side is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// The longest silence, pongs included.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Buffers of one connection; more is taken when it is needed.
const READ_BUFFER_BYTES: usize = 16 * 1024;

type Socket = WebSocketStream<TokioIo<client::Stream>>;

pub struct WebSocket {
    endpoint: Endpoint,
}

impl WebSocket {
    /// `endpoint` is that of [`over_http`].
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Opens a connection with the tasks that serve it. Dropping it opens none.
    pub async fn open(&self, terms: Terms, idle_max: Duration) -> Result<Arc<Pipe>, CallError> {
        let socket = self.connect().await?;
        let shared = Arc::clone(&terms.shared);
        let (pipe, queue) = Pipe::new(terms);
        let (sink, stream) = socket.split();
        let tasks = Tasks {
            wrote: shared.tasks.spawn(write(pipe.clone(), queue, sink)),
            read: shared.tasks.spawn(read(pipe.clone(), stream)),
        };
        shared.tasks.spawn(supervise(pipe.clone(), tasks, idle_max));
        Ok(pipe)
    }

    async fn connect(&self) -> Result<Socket, CallError> {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let mut headers = self.endpoint.headers()?;
        headers.remove(ACCEPT);
        headers.remove(CONTENT_TYPE);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).expect("base64 is ASCII"));
        let response = self.endpoint.send(HttpMethod::GET, headers, Outgoing::default()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(match self.endpoint.read(response).await? {
                Reply::Refused(refusal) => self.endpoint.refused(&refusal),
                _ => self.endpoint.protocol("answers an upgrade to WebSocket with something else".to_owned()),
            });
        }
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(self.endpoint.protocol("does not confirm the upgrade to WebSocket".to_owned()));
        }
        let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        if chosen.is_some_and(|chosen| chosen != SUBPROTOCOL) {
            return Err(self.endpoint.protocol("speaks another subprotocol than `mcp`".to_owned()));
        }
        let (stream, read) = response
            .into_body()
            .into_switched()
            .ok_or_else(|| self.endpoint.unreachable("the upgrade broke off".to_owned()))?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(RESULT_BYTES_MAX))
            .max_frame_size(Some(RESULT_BYTES_MAX));
        let stream = TokioIo::new(stream);
        Ok(Socket::from_partially_read(stream, read.into(), Role::Client, Some(config)).await)
    }
}

/// The same place as a request of HTTP reaches it.
pub fn over_http(transport: &HttpTransport) -> HttpTransport {
    let mut transport = transport.clone();
    let scheme = if transport.url.scheme() == "wss" { "https" } else { "http" };
    let changed = transport.url.set_scheme(scheme);
    debug_assert!(changed.is_ok(), "both schemes are special ones");
    transport
}

/// Sends the queue until the pipe is stopped, and pings; then says goodbye.
async fn write(pipe: Arc<Pipe>, mut queue: mpsc::Receiver<Queued>, mut sink: SplitSink<Socket, Message>) {
    let mut pings = interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let send = async {
        loop {
            let message = tokio::select! {
                queued = queue.recv() => match queued {
                    Some(queued) => {
                        let sent = sink.send(Message::Text(text(queued.line.clone()))).await;
                        // Its share of the room is free only now.
                        drop(queued);
                        sent
                    }
                    None => return,
                },
                _ = pings.tick() => sink.send(Message::Ping(Bytes::new())).await,
            };
            if message.is_err() {
                return;
            }
        }
    };
    if pipe.stop.run_until_cancelled(send).await.is_none() {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        // The other side may be gone; the supervisor bounds the wait.
        _ = sink.send(Message::Close(Some(goodbye))).await;
    }
}

/// A line of the queue as the text of a frame. All of them were scanned, so
/// they are UTF-8.
fn text(mut line: Bytes) -> Utf8Bytes {
    line.truncate(line.trim_ascii_end().len());
    Utf8Bytes::try_from(line).unwrap_or_default()
}

/// Reads messages to the end; how it came.
async fn read(pipe: Arc<Pipe>, mut stream: SplitStream<Socket>) -> String {
    let mut garbage = Garbage::default();
    loop {
        let message = match timeout(SILENCE_MAX, stream.next()).await {
            Err(_) => {
                pipe.give_up("it does not answer pings");
                return "it does not answer pings".to_owned();
            }
            Ok(None) => return "it broke off".to_owned(),
            Ok(Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. })))) => {
                pipe.give_up("the backend sent a message that is too long");
                return String::new();
            }
            Ok(Some(Err(error))) => return format!("it broke off: {}", chain(&error)),
            Ok(Some(Ok(message))) => message,
        };
        let bytes: Bytes = match message {
            Message::Text(text) => text.into(),
            // Some send text so.
            Message::Binary(bytes) => bytes,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            Message::Close(None) => return "closed by the backend".to_owned(),
            Message::Close(Some(frame)) => {
                return format!("closed by the backend ({})", u16::from(frame.code));
            }
        };
        if !pipe.take(bytes) && !garbage.one_more(Instant::now()) {
            pipe.give_up("the backend sends too much that is no message");
            return String::new();
        }
    }
}
