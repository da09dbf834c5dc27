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

type Script = Arc<dyn Fn(usize, &Value) -> Vec<Act> + Send + Sync>;

/// What a scripted server has got, by connection.
#[derive(Clone, Default)]
pub struct Log {
    seen: Arc<Mutex<Vec<(usize, Value)>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
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
    transport: Transport,
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

#[tokio::test]
async fn a_call_goes_there_and_back() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("t") => vec![
            Act::Say(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1}}}}"#,
                message["params"]["_meta"]["progressToken"]
            )),
            result_of(message, r#"{"ok":1}"#),
        ],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let facts = upstream.probe().await.unwrap();
        assert_eq!(facts.legacy_version, "2025-06-18");
        let call = call(
            &legacy_client("a"),
            "7",
            Method::ToolsCall,
            r#"{"name":"t","_meta":{"progressToken":"mine"}}"#,
        );
        let (running, mut door) = begin(&upstream, call);
        assert!(next_told(&mut door).await.contains(r#""progressToken":"mine""#));
        assert_eq!(running.await.unwrap().unwrap(), result(r#"{"ok":1}"#));
        assert_eq!(peer.log.methods()[..2], ["initialize", "notifications/initialized"]);
        assert_eq!(peer.log.connections(), 1);
    }
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("echo") => vec![result_of(message, &message["params"]["arguments"].to_string())],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let arguments = format!(r#"{{"text":"{}"}}"#, "x".repeat(3 << 20));
        let params = format!(r#"{{"name":"echo","arguments":{arguments}}}"#);
        let client = legacy_client("a");
        let (one, _a) = begin(&upstream, call(&client, "1", Method::ToolsCall, &params));
        let (two, _b) = begin(&upstream, call(&client, "2", Method::ToolsCall, &params));
        assert_eq!(one.await.unwrap().unwrap(), result(&arguments));
        assert_eq!(two.await.unwrap().unwrap(), result(&arguments));
    }
}

#[tokio::test]
async fn a_connection_that_ends_fails_its_calls_once_and_the_next_call_has_a_new_one() {
    for end in [Act::Cut, Act::Close, Act::Half] {
        for peer in Peer::all({
            let end = end.clone();
            move |_, message| match message["params"]["name"].as_str() {
                Some("end") => vec![end.clone()],
                Some("hold") => vec![],
                _ => legacy(message),
            }
        })
        .await
        {
            let upstream = peer.upstream();
            let client = legacy_client("a");
            let (held, _door) = begin(&upstream, tool(&client, "1", "hold"));
            peer.log.until("the held call", |log| log.count("tools/call") == 1).await;
            let error = run(&upstream, &tool(&client, "2", "end")).await.unwrap_err();
            assert!(matches!(error, CallError::Lost { .. }), "{error}");
            let error = held.await.unwrap().unwrap_err();
            assert!(matches!(error, CallError::Lost { .. }), "{error}");
            assert!(error.to_string().contains("the connection ended"), "{error}");
            run(&upstream, &tool(&client, "3", "t")).await.unwrap();
            assert_eq!(peer.log.connections(), 2);
            assert_eq!(peer.log.count("tools/call"), 3, "nothing is sent twice");
        }
    }
}

#[tokio::test]
async fn garbage_between_messages_is_skipped_and_a_flood_of_it_is_not() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("t") => vec![
            Act::Say("hello".into()),
            Act::Say("[1,2]".into()),
            Act::Say("{}".into()),
            result_of(message, r#"{"ok":1}"#),
        ],
        Some("flood") => vec![Act::Say("noise".into()); 200],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let client = legacy_client("a");
        assert_eq!(run(&upstream, &tool(&client, "1", "t")).await.unwrap(), result(r#"{"ok":1}"#));
        let error = run(&upstream, &tool(&client, "2", "flood")).await.unwrap_err();
        assert!(error.to_string().contains("no message"), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_on_the_connection() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("hold") => vec![],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let (running, door) = begin(&upstream, tool(&legacy_client("a"), "1", "hold"));
        peer.log.until("the held call", |log| log.count("tools/call") == 1).await;
        running.abort();
        drop(door);
        peer.log.until("its end", |log| log.count("notifications/cancelled") == 1).await;
        let seen = peer.log.seen.lock();
        let id = |method: &str| seen.iter().find(|(_, m)| m["method"] == method).unwrap().1.clone();
        assert_eq!(id("notifications/cancelled")["params"]["requestId"], id("tools/call")["id"]);
    }
}

#[tokio::test]
async fn a_question_of_the_server_reaches_the_one_client_of_its_connection() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("ask") => vec![Act::Say(
            r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{"n":1}}"#.into(),
        )],
        _ if message["result"]["yes"] == 1 => {
            vec![Act::Say(r#"{"jsonrpc":"2.0","id":2,"result":{"asked":1}}"#.into())]
        }
        _ => legacy(message),
    })
    .await
    {
        let mut config = peer.backend();
        *sharing(&mut config) = Sharing::PerSession;
        let upstream = upstream(config);
        let client = client(Scope::Session("a".into()), LATEST_LEGACY, r#"{"sampling":{}}"#, None);
        let (running, mut door) = begin(&upstream, tool(&client, "1", "ask"));
        let ToClient::Ask(ask) = next(&mut door).await else { panic!() };
        ask.replies.send(vec![Ok(Bytes::from_static(br#"{"yes":1}"#))]).unwrap();
        // Ids are counted from 1, and the handshake had the first.
        assert_eq!(running.await.unwrap().unwrap(), result(r#"{"asked":1}"#));
    }
}

#[tokio::test]
async fn connections_are_shared_as_configured_and_end_with_their_owner() {
    for peer in Peer::all(|_, message| legacy(message)).await {
        let mut config = peer.backend();
        *sharing(&mut config) = Sharing::PerSession;
        let upstream = upstream(config);
        let (a, b) = (legacy_client("a"), legacy_client("b"));
        run(&upstream, &tool(&a, "1", "t")).await.unwrap();
        run(&upstream, &tool(&b, "1", "t")).await.unwrap();
        run(&upstream, &tool(&a, "2", "t")).await.unwrap();
        assert_eq!(peer.log.connections(), 2);
        upstream.end_scope(&a.scope).await;
        peer.log.until("one connection", |log| log.open.load(Ordering::SeqCst) == 1).await;
        upstream.close(Duration::from_secs(1)).await;
        peer.log.until("no connection", |log| log.open.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn who_is_not_there_or_does_not_let_in_is_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for transport in [
        Transport::WebSocket(remote(format!("ws://{gone}/ws"))),
        Transport::Sse(remote(format!("http://{gone}/sse"))),
    ] {
        let error =
            run(&upstream(backend(transport)), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    }
    let server = Server::start(|_| Say::Status(401, "text/plain", "who are you".into())).await;
    for transport in [
        Transport::WebSocket(remote(format!("ws://{}/ws", server.address))),
        Transport::Sse(remote(format!("http://{}/sse", server.address))),
    ] {
        let error =
            run(&upstream(backend(transport)), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::NeedsAuth { status: 401, .. }), "{error}");
    }
    let page = Server::start(|_| Say::Status(200, "text/html", "<p>hello".into())).await;
    for transport in [
        Transport::WebSocket(remote(format!("ws://{}/ws", page.address))),
        Transport::Sse(remote(format!("http://{}/sse", page.address))),
    ] {
        let error =
            run(&upstream(backend(transport)), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn who_never_says_a_word_costs_a_call_its_time_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    for transport in [
        Transport::WebSocket(remote(format!("ws://{silent}/ws"))),
        Transport::Sse(remote(format!("http://{silent}/sse"))),
    ] {
        let mut call = tool(&legacy_client("a"), "1", "t");
        call.deadline = Instant::now() + Duration::from_millis(300);
        let error = run(&upstream(backend(transport)), &call).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    }
    let script: Script = Arc::new(|_, _| vec![]);
    for peer in [Peer::socket(script.clone()).await, Peer::sse(script, Shape::default()).await] {
        let mut call = tool(&legacy_client("a"), "1", "t");
        call.deadline = Instant::now() + Duration::from_millis(300);
        let error = run(&peer.upstream(), &call).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_server_over_http_with_sse_that_is_configured_as_http_is_said_to_be_one() {
    let script: Script = Arc::new(|_, message| legacy(message));
    let peer = Peer::sse(script, Shape::default()).await;
    let Transport::Sse(remote) = peer.transport.clone() else { unreachable!() };
    let upstream = upstream(backend(Transport::Http(remote)));
    let error = upstream.probe().await.unwrap_err();
    assert!(error.to_string().contains("configure it as `sse:`"), "{error}");
    let error = run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(error.to_string().contains("configure it as `sse:`"), "{error}");
}

#[tokio::test]
async fn a_socket_is_taken_with_the_subprotocol_or_without_one_but_not_with_another() {
    let script: Script = Arc::new(|_, message| legacy(message));
    for (subprotocol, fine) in [(Some("mcp"), true), (None, true), (Some("chat"), false)] {
        let peer = Peer::socket_with(script.clone(), subprotocol).await;
        let outcome = run(&peer.upstream(), &tool(&legacy_client("a"), "1", "t")).await;
        assert_eq!(outcome.is_ok(), fine, "{subprotocol:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_socket_speaks_the_era_of_its_first_message() {
    let script: Script = Arc::new(|_, message| match message["method"].as_str() {
        Some("server/discover") => vec![result_of(
            message,
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{},"ttlMs":0,"cacheScope":"private"}"#,
        )],
        Some("tools/call") => vec![result_of(message, r#"{"resultType":"complete"}"#)],
        _ => legacy(message),
    });
    let peer = Peer::socket(script).await;
    let mut config = peer.backend();
    config.protocol = Protocol::Auto;
    let upstream = upstream(config);
    let params = r#"{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;
    run(&upstream, &call(&modern_client(), "1", Method::ToolsCall, params)).await.unwrap();
    run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    let seen = peer.log.seen.lock();
    let first = |connection| seen.iter().find(|(at, _)| *at == connection).unwrap().1["method"].clone();
    assert_eq!(first(0), "initialize");
    assert_eq!(first(1), "server/discover", "on a connection that is thrown away");
    assert_eq!(first(2), "tools/call");
    assert_eq!(peer.log.connections(), 3);
}

#[tokio::test]
async fn every_way_to_name_the_place_for_messages_is_understood() {
    for (first, message) in [
        ("event: endpoint\ndata: /messages/$id\n\n", "event: message\ndata: $data\n\n"),
        (
            "event: endpoint\r\ndata: $base/messages/$id\r\n\r\n",
            "id: 1\r\nevent: message\r\ndata: $data\r\n\r\n",
        ),
        (": hello\n\nid: 0\nevent: endpoint\ndata:messages/$id?session_id=1\n\n", "data: $data\nid: 7\n\n"),
    ] {
        let script: Script = Arc::new(|_, message| legacy(message));
        let peer = Peer::sse(script, Shape { first, message }).await;
        run(&peer.upstream(), &tool(&legacy_client("a"), "1", "t")).await.expect(first);
    }
}

#[tokio::test]
async fn messages_are_not_posted_to_another_server() {
    let other = Server::start(usual).await;
    let first: &'static str =
        Box::leak(format!("event: endpoint\ndata: http://{}/m\n\n", other.address).into_boxed_str());
    let script: Script = Arc::new(|_, message| legacy(message));
    let peer = Peer::sse(script, Shape { first, ..Shape::default() }).await;
    let error = run(&peer.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    assert!(other.seen.lock().is_empty());
}

#[tokio::test]
async fn what_follows_a_resource_is_said_once_and_told_to_those_who_follow() {
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
    for peer in Peer::all(move |_, message| match message["params"]["name"].as_str() {
        Some("change") => vec![Act::Say(changed.into()), result_of(message, "{}")],
        Some("cut") => vec![Act::Cut],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let with_events = |session: &str| {
            let (events, door) = Caller::channel();
            (client(Scope::Session(session.into()), LATEST_LEGACY, "{}", Some(events)), door)
        };
        let ((a, mut door_a), (b, mut door_b), (c, mut door_c)) =
            (with_events("a"), with_events("b"), with_events("c"));
        let subscribe = |client| call(client, "1", Method::ResourcesSubscribe, r#"{"uri":"a:b"}"#);
        run(&upstream, &subscribe(&a)).await.unwrap();
        run(&upstream, &subscribe(&b)).await.unwrap();
        assert_eq!(peer.log.count("resources/subscribe"), 1);
        run(&upstream, &tool(&c, "2", "change")).await.unwrap();
        assert_eq!(next_told(&mut door_a).await, changed);
        assert_eq!(next_told(&mut door_b).await, changed);
        assert!(door_c.try_recv().is_err());
        // When the connection has been replaced, everything is said again.
        _ = run(&upstream, &tool(&c, "3", "cut")).await.unwrap_err();
        peer.log.until("a new subscription", |log| log.count("resources/subscribe") == 2).await;
        assert_eq!(next_told(&mut door_a).await, changed, "something may have been missed");
        assert_eq!(next_told(&mut door_b).await, changed);
        let unsubscribe = call(&a, "4", Method::ResourcesUnsubscribe, r#"{"uri":"a:b"}"#);
        run(&upstream, &unsubscribe).await.unwrap();
        assert_eq!(peer.log.count("resources/unsubscribe"), 0);
        upstream.end_scope(&b.scope).await;
        peer.log.until("the last one gone", |log| log.count("resources/unsubscribe") == 1).await;
        run(&upstream, &tool(&c, "5", "change")).await.unwrap();
        assert!(door_a.try_recv().is_err() && door_b.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_server_of_one_session_has_one_connection_and_one_call_at_a_time() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = running.clone();
    for peer in Peer::all(|_, message| legacy(message)).await {
        _ = &most;
        let mut config = peer.backend();
        *sharing(&mut config) = Sharing::PerSession;
        config.single_session =
            Some(mt_proto::resource::SingleSession { queue_max: 50, wait_max: Duration::from_secs(20) });
        let upstream = upstream(config);
        let clients: Vec<_> = ["a", "b", "c"].map(legacy_client).into();
        let mut calls = Vec::new();
        for round in 0..3 {
            for client in &clients {
                calls.push(begin(&upstream, tool(client, &round.to_string(), "t")));
            }
        }
        for (call, _door) in calls {
            call.await.unwrap().unwrap();
        }
        upstream.probe().await.unwrap();
        assert_eq!(peer.log.open_most(), 1, "socket: {}", peer.is_socket());
    }
}

#[tokio::test]
async fn a_full_line_refuses_at_once_and_a_wait_ends() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("hold") => vec![],
        _ => legacy(message),
    })
    .await
    {
        let mut config = peer.backend();
        config.single_session =
            Some(mt_proto::resource::SingleSession { queue_max: 1, wait_max: Duration::from_millis(300) });
        let upstream = upstream(config);
        let client = legacy_client("a");
        let (held, _door) = begin(&upstream, tool(&client, "1", "hold"));
        peer.log.until("the held call", |log| log.count("tools/call") == 1).await;
        let (waiting, _door) = begin(&upstream, tool(&client, "2", "t"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        let error = run(&upstream, &tool(&client, "3", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::QueueFull { limit: 1, .. }), "{error}");
        assert!(began.elapsed() < Duration::from_millis(200));
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::QueueTimeout { .. }), "{error}");
        held.abort();
        assert_eq!(peer.log.count("tools/call"), 1, "the server has seen nothing of the others");
    }
}
