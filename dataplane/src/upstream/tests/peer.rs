//! Servers behind a WebSocket, and over HTTP+SSE, that follow a script.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::IntoResponse,
    routing::get,
};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{Request as Upgrade, Response as Upgraded},
    },
};

use super::*;

/// What a server does about one message.
#[derive(Clone, Debug)]
pub enum Act {
    /// Says this text, whatever it is.
    Say(String),
    /// Closes as its transport has it.
    Close,
    /// Ends without a word.
    Cut,
    /// Says the beginning of something, and ends.
    Half,
}

pub fn result_of(message: &Value, result: &str) -> Act {
    Act::Say(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, message["id"]))
}

/// What every legacy server does.
pub fn legacy(message: &Value) -> Vec<Act> {
    match message["method"].as_str() {
        Some("initialize") => vec![result_of(
            message,
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#,
        )],
        Some("server/discover") => vec![Act::Say(format!(
            r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"Method not found"}}}}"#,
            message["id"]
        ))],
        Some(_) if message["id"].is_null() => vec![],
        Some(_) => vec![result_of(message, "{}")],
        None => vec![],
    }
}

pub type Script = Arc<dyn Fn(usize, &Value) -> Vec<Act> + Send + Sync>;

/// What a scripted server has got, by connection.
#[derive(Clone, Default)]
pub struct Log {
    pub seen: Arc<Mutex<Vec<(usize, Value)>>>,
    connections: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    open_most: Arc<AtomicUsize>,
}

impl Log {
    fn connect(&self) -> (usize, Gone) {
        let now = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.open_most.fetch_max(now, Ordering::SeqCst);
        (self.connections.fetch_add(1, Ordering::SeqCst), Gone(self.open.clone()))
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn open_most(&self) -> usize {
        self.open_most.load(Ordering::SeqCst)
    }

    pub fn methods(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.iter().filter_map(|(_, message)| Some(message["method"].as_str()?.to_owned())).collect()
    }

    pub fn count(&self, method: &str) -> usize {
        self.methods().iter().filter(|seen| *seen == method).count()
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.seen.lock());
    }
}

/// Counts a connection out.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct Peer {
    pub log: Log,
    pub transport: Transport,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// The same script, on every transport with one connection.
    pub async fn all(script: impl Fn(usize, &Value) -> Vec<Act> + Send + Sync + 'static) -> Vec<Self> {
        let script: Script = Arc::new(script);
        vec![Self::socket(script.clone()).await, Self::sse(script, Shape::default()).await]
    }

    pub fn backend(&self) -> Backend {
        let mut config = backend(self.transport.clone());
        config.protocol = Protocol::Legacy;
        config
    }

    pub fn upstream(&self) -> Arc<Upstream> {
        upstream(self.backend())
    }

    pub fn is_socket(&self) -> bool {
        matches!(self.transport, Transport::WebSocket(_))
    }

    pub async fn socket(script: Script) -> Self {
        Self::socket_with(script, Some("mcp")).await
    }

    pub async fn socket_with(script: Script, subprotocol: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let seen = log.clone();
        let task = TaskTracker::new().spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (log, script) = (seen.clone(), script.clone());
                served.spawn(async move { serve_socket(tcp, log, script, subprotocol).await });
            }
        });
        Self { log, transport: Transport::WebSocket(remote(format!("ws://{address}/ws"))), task }
    }

    pub async fn sse(script: Script, shape: Shape) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let server = SseServer { log: log.clone(), script, shape, address, streams: Arc::default() };
        let app = Router::new()
            .route("/sse", get(sse_stream).post(|| async { StatusCode::METHOD_NOT_ALLOWED }))
            .route("/messages/{id}", axum::routing::post(sse_post))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(server);
        let task = TaskTracker::new().spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { log, transport: Transport::Sse(remote(format!("http://{address}/sse"))), task }
    }
}

pub fn remote(url: String) -> HttpTransport {
    HttpTransport {
        url: url.parse().unwrap(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        auth: None,
        sharing: Sharing::Shared,
    }
}

pub fn sharing(backend: &mut Backend) -> &mut Sharing {
    match &mut backend.transport {
        Transport::Sse(remote) | Transport::WebSocket(remote) => &mut remote.sharing,
        _ => panic!("nothing is shared"),
    }
}

#[expect(clippy::result_large_err, reason = "the library has it so")]
async fn serve_socket(
    tcp: tokio::net::TcpStream,
    log: Log,
    script: Script,
    subprotocol: Option<&'static str>,
) {
    let (connection, _gone) = log.connect();
    let choose = |request: &Upgrade, mut response: Upgraded| {
        assert_eq!(request.headers()["sec-websocket-protocol"], "mcp");
        if let Some(subprotocol) = subprotocol {
            response.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        }
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async_with_config(tcp, choose, None).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        log.seen.lock().push((connection, message.clone()));
        for act in script(connection, &message) {
            match act {
                Act::Say(text) => socket.send(Message::text(text)).await.unwrap(),
                Act::Close => _ = socket.close(None).await,
                Act::Cut => return,
                Act::Half => {
                    // A text frame of 256 bytes, of which four come.
                    socket.get_mut().write_all(&[0x81, 0x7e, 1, 0, b'{', b'"', b'a', b'"']).await.unwrap();
                    return;
                }
            }
        }
    }
}

/// In what servers over HTTP+SSE differ.
#[derive(Clone)]
pub struct Shape {
    /// The first event, with `$id` and `$base`.
    pub first: &'static str,
    /// A message, with `$data`.
    pub message: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            first: "event: endpoint\r\ndata: /messages/$id\r\n\r\n",
            message: "event: message\r\ndata: $data\r\n\r\n",
        }
    }
}

type Streams = Arc<Mutex<Vec<Option<mpsc::Sender<String>>>>>;

#[derive(Clone)]
struct SseServer {
    log: Log,
    script: Script,
    shape: Shape,
    address: SocketAddr,
    streams: Streams,
}

async fn sse_stream(State(server): State<SseServer>) -> impl IntoResponse {
    let (to_stream, events) = mpsc::channel(1024);
    let (id, gone) = {
        let mut streams = server.streams.lock();
        streams.push(Some(to_stream.clone()));
        server.log.connect()
    };
    let base = format!("http://{}", server.address);
    let first = server.shape.first.replace("$id", &id.to_string()).replace("$base", &base);
    to_stream.try_send(first).unwrap();
    let events = stream::unfold((events, gone), |(mut events, gone)| async {
        events.recv().await.map(|text| (Ok::<_, Infallible>(Bytes::from(text)), (events, gone)))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(events))
}

async fn sse_post(State(server): State<SseServer>, uri: Uri, body: Bytes) -> (StatusCode, &'static str) {
    let id: usize = uri.path().rsplit('/').next().unwrap().parse().unwrap();
    let stream = server.streams.lock()[id].clone();
    let Some(stream) = stream.filter(|stream| !stream.is_closed()) else {
        return (StatusCode::NOT_FOUND, "no such session");
    };
    let message: Value = serde_json::from_slice(&body).unwrap();
    server.log.seen.lock().push((id, message.clone()));
    for act in (server.script)(id, &message) {
        match act {
            Act::Say(text) => {
                let event = server.shape.message.replace("$data", &text);
                stream.send(event).await.unwrap();
            }
            Act::Half => {
                stream.send("event: message\ndata: {\"jsonrpc\":\"2.0\",".into()).await.unwrap();
                server.streams.lock()[id] = None;
            }
            Act::Close | Act::Cut => server.streams.lock()[id] = None,
        }
    }
    (StatusCode::ACCEPTED, "Accepted")
}
