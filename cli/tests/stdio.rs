//! `mtctl stdio` against an endpoint that behaves as a test wants: what the
//! bridge adds, what it hides, and what it must not repeat.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response},
    routing::any,
};
use futures_util::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Notify,
    task::JoinSet,
};

/// Nothing here takes long; what does is stuck.
const DEADLINE: Duration = Duration::from_secs(20);

type Answer = Response<Body>;

type Respond = Box<dyn Fn(&Method, &HeaderMap, &Value) -> Answer + Send + Sync>;

/// What the endpoint has seen, and how it answers.
struct Endpoint {
    seen: Mutex<Vec<(Method, HeaderMap, Value)>>,
    answer: Respond,
    server: Mutex<JoinSet<()>>,
}

impl Endpoint {
    async fn start(
        answer: impl Fn(&Method, &HeaderMap, &Value) -> Answer + Send + Sync + 'static,
    ) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        (Self::serve(listener, answer), url)
    }

    fn serve(
        listener: TcpListener,
        answer: impl Fn(&Method, &HeaderMap, &Value) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        let endpoint =
            Arc::new(Self { seen: Mutex::default(), answer: Box::new(answer), server: Mutex::default() });
        let router = Router::new().route("/mcp", any(take)).with_state(Arc::clone(&endpoint));
        endpoint.server.lock().spawn(async move { axum::serve(listener, router).await.unwrap() });
        endpoint
    }

    /// The requests with this method of MCP, as headers and body.
    fn posted(&self, method: &str) -> Vec<(HeaderMap, Value)> {
        let seen = self.seen.lock();
        let wanted = seen.iter().filter(|(_, _, body)| body["method"] == method);
        wanted.map(|(_, headers, body)| (headers.clone(), body.clone())).collect()
    }

    fn methods(&self) -> Vec<Method> {
        self.seen.lock().iter().map(|(method, _, _)| method.clone()).collect()
    }
}

async fn take(
    State(endpoint): State<Arc<Endpoint>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    endpoint.seen.lock().push((method.clone(), headers.clone(), body.clone()));
    (endpoint.answer)(&method, &headers, &body)
}

fn status(code: u16) -> Answer {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

fn result(request: &Value, result: Value) -> Answer {
    let body = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
    // Pretty, as some servers write it: on stdio it has to become one line.
    Response::builder().header("content-type", "application/json").body(format!("{body:#}").into()).unwrap()
}

fn opened(request: &Value, session: &str) -> Answer {
    let mut answer = result(request, json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
    answer.headers_mut().insert("mcp-session-id", session.parse().unwrap());
    answer
}

fn events(events: impl Stream<Item = String> + Send + 'static) -> Answer {
    let body = Body::from_stream(events.map(Ok::<_, std::convert::Infallible>));
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

fn event(message: &Value) -> String {
    format!("data: {message}\n\n")
}

/// A legacy endpoint with one session that answers everything with `{}`.
fn plain(method: &Method, _: &HeaderMap, body: &Value) -> Answer {
    match (method, body["method"].as_str()) {
        (&Method::GET, _) => status(405),
        (_, Some("initialize")) => opened(body, "s1"),
        _ if body["id"].is_null() => status(202),
        _ => result(body, json!({})),
    }
}

/// The bridge, as a client sees it.
struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mtctl"))
            .args(["stdio", "--url", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, stdout }
    }

    async fn send(&mut self, message: Value) {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(DEADLINE, self.stdout.next_line()).await.expect("an answer in time");
        serde_json::from_str(&line.unwrap().expect("an answer")).expect("only protocol is on stdout")
    }

    async fn ask(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        self.next().await
    }

    async fn open(&mut self) {
        let answer = self.ask(json!(0), "initialize", json!({"protocolVersion": "2025-06-18"})).await;
        assert!(answer["result"].is_object(), "{answer}");
        self.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    }

    /// Closes stdin and waits for the end.
    async fn close(mut self) -> (Option<i32>, Vec<String>) {
        drop(self.stdin);
        let mut rest = Vec::new();
        while let Some(line) = self.stdout.next_line().await.unwrap() {
            rest.push(line);
        }
        let status =
            tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it ends in time").unwrap();
        (status.code(), rest)
    }
}

fn modern(mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    params
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_legacy_client_gets_a_session_and_ends_it() {
    let (endpoint, url) = Endpoint::start(plain).await;
    let mut client = Client::start(&url);
    client.open().await;
    client.ask(json!("one"), "tools/list", json!({})).await;
    let (headers, body) = endpoint.posted("tools/list").pop().unwrap();
    assert_eq!(header(&headers, "mcp-session-id"), Some("s1"));
    assert_eq!(header(&headers, "mcp-protocol-version"), Some("2025-06-18"));
    assert_eq!(body["id"], "one");
    assert_eq!(header(&endpoint.posted("initialize")[0].0, "mcp-session-id"), None);
    assert_eq!(client.close().await, (Some(0), vec![]));
    assert!(endpoint.methods().contains(&Method::DELETE));
}

#[tokio::test]
async fn a_lost_session_is_opened_again_behind_the_client() {
    let sessions = AtomicUsize::new(0);
    let (endpoint, url) = Endpoint::start(move |method, headers, body| match body["method"].as_str() {
        Some("initialize") => opened(body, &format!("s{}", sessions.fetch_add(1, Ordering::SeqCst))),
        Some("tools/list") if header(headers, "mcp-session-id") == Some("s0") => status(404),
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    client.open().await;
    let answer = client.ask(json!(7), "tools/list", json!({})).await;
    assert_eq!((&answer["id"], &answer["result"]), (&json!(7), &json!({})));
    let sessions: Vec<_> = endpoint
        .posted("tools/list")
        .iter()
        .map(|(headers, _)| header(headers, "mcp-session-id").unwrap().to_owned())
        .collect();
    assert_eq!(sessions, ["s0", "s1"]);
    assert_eq!(endpoint.posted("notifications/initialized").len(), 2);
}

#[tokio::test]
async fn what_the_client_wants_of_its_session_is_told_to_the_next_one() {
    let sessions = AtomicUsize::new(0);
    let (endpoint, url) = Endpoint::start(move |method, headers, body| match body["method"].as_str() {
        Some("initialize") => opened(body, &format!("s{}", sessions.fetch_add(1, Ordering::SeqCst))),
        Some("tools/list") if header(headers, "mcp-session-id") == Some("s0") => status(404),
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    client.open().await;
    client.ask(json!(1), "logging/setLevel", json!({"level": "debug"})).await;
    client.ask(json!(2), "resources/subscribe", json!({"uri": "a:b"})).await;
    assert_eq!(client.ask(json!(3), "tools/list", json!({})).await["id"], 3);
    for (method, params) in
        [("logging/setLevel", json!({"level": "debug"})), ("resources/subscribe", json!({"uri": "a:b"}))]
    {
        let posted = endpoint.posted(method);
        let said: Vec<_> = posted
            .iter()
            .map(|(headers, body)| (header(headers, "mcp-session-id").unwrap(), &body["params"]))
            .collect();
        assert_eq!(said, [("s0", &params), ("s1", &params)], "{method}");
    }
}

#[tokio::test]
async fn what_the_server_asks_reaches_the_client_and_comes_back() {
    let answered = Arc::new(Notify::new());
    let (endpoint, url) = Endpoint::start(move |method, headers, body| match body["method"].as_str() {
        Some("tools/call") => {
            let (request, answered) = (body.clone(), Arc::clone(&answered));
            let ask =
                event(&json!({"jsonrpc": "2.0", "id": "ask", "method": "elicitation/create", "params": {}}));
            let last = async move {
                answered.notified().await;
                event(&json!({"jsonrpc": "2.0", "id": request["id"], "result": {"done": true}}))
            };
            events(stream::iter([ask]).chain(stream::once(last)))
        }
        None if body["id"] == "ask" => {
            answered.notify_one();
            status(202)
        }
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    client.open().await;
    let asked = client.ask(json!(1), "tools/call", json!({"name": "t"})).await;
    assert_eq!(asked["method"], "elicitation/create");
    client.send(json!({"jsonrpc": "2.0", "id": "ask", "result": {"action": "accept"}})).await;
    assert_eq!(client.next().await["result"]["done"], true);
    let seen = endpoint.seen.lock();
    let answer = seen.iter().find(|(_, _, body)| body["id"] == "ask").unwrap();
    assert_eq!(header(&answer.1, "mcp-session-id"), Some("s1"));
}

#[tokio::test]
async fn a_broken_stream_is_continued_and_the_call_is_not_sent_twice() {
    let (endpoint, url) = Endpoint::start(|method, headers, body| {
        if *method == Method::GET && header(headers, "last-event-id") == Some("e1") {
            return events(stream::iter([event(
                &json!({"jsonrpc": "2.0", "id": 1, "result": {"after": true}}),
            )]));
        }
        match body["method"].as_str() {
            Some("tools/call") => events(stream::iter(["id: e1\nretry: 10\ndata:\n\n".to_owned()])),
            _ => plain(method, headers, body),
        }
    })
    .await;
    let mut client = Client::start(&url);
    client.open().await;
    let answer = client.ask(json!(1), "tools/call", json!({"name": "t"})).await;
    assert_eq!(answer["result"]["after"], true);
    assert_eq!(endpoint.posted("tools/call").len(), 1);
}

#[tokio::test]
async fn a_stream_that_cannot_be_continued_is_an_error_and_the_call_is_not_sent_twice() {
    let (endpoint, url) = Endpoint::start(|method, headers, body| match body["method"].as_str() {
        Some("tools/call") => events(stream::iter([": nothing\n\n".to_owned()])),
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    client.open().await;
    let answer = client.ask(json!(1), "tools/call", json!({"name": "t"})).await;
    assert!(answer["error"]["message"].as_str().unwrap().contains("may have taken effect"), "{answer}");
    assert_eq!(endpoint.posted("tools/call").len(), 1);
}

#[tokio::test]
async fn messages_on_the_stream_of_the_session_reach_the_client() {
    let (_, url) = Endpoint::start(|method, headers, body| {
        if *method == Method::GET {
            let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            return events(stream::iter([event(&news)]).chain(stream::pending()));
        }
        plain(method, headers, body)
    })
    .await;
    let mut client = Client::start(&url);
    client.open().await;
    assert_eq!(client.next().await["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn a_modern_request_gets_its_headers_from_its_body() {
    let (endpoint, url) = Endpoint::start(|_, _, body| {
        let schema = json!({"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}});
        result(body, json!({"tools": [{"name": "t", "inputSchema": schema}]}))
    })
    .await;
    let mut client = Client::start(&url);
    client.ask(json!(1), "tools/list", modern(json!({}))).await;
    client.ask(json!(2), "tools/call", modern(json!({"name": "t", "arguments": {"region": "eu"}}))).await;
    let (headers, _) = endpoint.posted("tools/call").pop().unwrap();
    let wanted = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "t"),
        ("mcp-param-region", "eu"),
    ];
    for (name, value) in wanted {
        assert_eq!(header(&headers, name), Some(value), "{name}");
    }
    assert_eq!(header(&headers, "mcp-session-id"), None);
}

#[tokio::test]
async fn both_eras_may_be_spoken_in_any_order() {
    let (endpoint, url) = Endpoint::start(plain).await;
    let mut client = Client::start(&url);
    client.ask(json!(1), "server/discover", modern(json!({}))).await;
    client.open().await;
    client.ask(json!(2), "tools/list", modern(json!({}))).await;
    client.ask(json!(3), "tools/list", json!({})).await;
    let lists = endpoint.posted("tools/list");
    let sessions: Vec<_> = lists.iter().map(|(headers, _)| header(headers, "mcp-session-id")).collect();
    assert_eq!(sessions, [None, Some("s1")]);
}

#[tokio::test]
async fn a_cancelled_modern_request_closes_its_connection() {
    struct Gone(Arc<AtomicUsize>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let gone = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&gone);
    let (endpoint, url) = Endpoint::start(move |method, headers, body| match body["method"].as_str() {
        Some("tools/call") => {
            let gone = Gone(Arc::clone(&counter));
            events(stream::once(async move {
                let _gone = gone;
                std::future::pending::<String>().await
            }))
        }
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    let call =
        json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": modern(json!({"name": "t"}))});
    client.send(call).await;
    eventually("the call arrives", || !endpoint.posted("tools/call").is_empty()).await;
    client
        .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}))
        .await;
    eventually("the connection closes", || gone.load(Ordering::SeqCst) == 1).await;
    // Nothing was posted for it, and its id is free again.
    assert!(endpoint.posted("notifications/cancelled").is_empty());
    assert!(client.ask(json!(5), "tools/list", modern(json!({}))).await["result"].is_object());
}

#[tokio::test]
async fn a_legacy_cancellation_is_passed_on() {
    let (endpoint, url) = Endpoint::start(plain).await;
    let mut client = Client::start(&url);
    client.open().await;
    client
        .send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}))
        .await;
    eventually("it arrives", || endpoint.posted("notifications/cancelled").len() == 1).await;
}

#[tokio::test]
async fn a_gateway_that_comes_late_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut client = Client::start(&format!("http://{address}/mcp"));
    client
        .send(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": modern(json!({}))}))
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _endpoint = Endpoint::serve(TcpListener::bind(address).await.unwrap(), plain);
    assert!(client.next().await["result"].is_object());
}

#[tokio::test]
async fn a_refusal_that_had_no_effect_is_tried_again_and_another_is_passed_on() {
    let tries = AtomicUsize::new(0);
    let (endpoint, url) = Endpoint::start(move |_, _, body| {
        let retry = body["method"] == "tools/list";
        if retry && tries.fetch_add(1, Ordering::SeqCst) > 0 {
            return result(body, json!({}));
        }
        let error = json!({"code": -31009, "message": "draining", "data": {"retry": retry}});
        let body = json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string();
        let response = Response::builder().status(503).header("content-type", "application/json");
        response.body(body.into()).unwrap()
    })
    .await;
    let mut client = Client::start(&url);
    assert!(client.ask(json!(1), "tools/list", modern(json!({}))).await["result"].is_object());
    let refused = client.ask(json!(2), "tools/call", modern(json!({"name": "t"}))).await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(2), &json!(-31009)));
    assert_eq!(endpoint.posted("tools/call").len(), 1);
}

#[tokio::test]
async fn garbage_and_doubled_ids_are_answered_and_do_no_harm() {
    let (_, url) = Endpoint::start(|method, headers, body| match body["method"].as_str() {
        Some("slow") => events(stream::pending()),
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    client.stdin.write_all(b"nonsense\n\n").await.unwrap();
    assert_eq!(client.next().await["error"]["code"], -32700);
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "slow", "params": {}})).await;
    assert_eq!(client.ask(json!(1), "tools/list", json!({})).await["error"]["code"], -32600);
    assert!(client.ask(json!(2), "tools/list", json!({})).await["result"].is_object());
}

#[tokio::test]
async fn answers_under_way_are_awaited_when_stdin_closes() {
    let (_, url) = Endpoint::start(|method, headers, body| match body["method"].as_str() {
        Some("slow") => {
            let answer = event(&json!({"jsonrpc": "2.0", "id": body["id"], "result": {"late": true}}));
            events(stream::once(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                answer
            }))
        }
        _ => plain(method, headers, body),
    })
    .await;
    let mut client = Client::start(&url);
    client.send(json!({"jsonrpc": "2.0", "id": 1, "method": "slow", "params": {}})).await;
    let (code, rest) = client.close().await;
    assert_eq!((code, rest.len()), (Some(0), 1));
    assert!(rest[0].contains("late"));
}
