//! Backends that follow a script, and callers, for the tests of this folder.

mod auth;
mod carriers;
mod cut;
mod legacy;
mod modern;
mod peer;
mod stdio;
mod stdio_asks;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use bytes::Bytes;
use http::HeaderMap;
use mt_proto::resource::{Backend, HttpTransport, Protocol, Sharing, StdioTransport, Transport};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Shared, Upstream};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Identity, Scope, ToClient},
    mcp::{
        id::RawId,
        method::Method,
        params::Params,
        scan::Limits,
        version::{LATEST_LEGACY, LATEST_MODERN, ProtocolVersion},
    },
};

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SESSION: &str = "session-1";

/// A request that a scripted server has got.
#[derive(Clone, Debug)]
struct Seen {
    verb: String,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The JSON-RPC method, or the verb where there is no message.
    fn is(&self, method: &str) -> bool {
        self.json()["method"] == method || (self.body.is_empty() && self.verb == method)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What a scripted server says.
enum Say {
    Accepted,
    /// A result for the request, as JSON.
    Result(&'static str),
    /// Status, content type, body.
    Status(u16, &'static str, String),
    /// A whole event stream, then its end.
    Events(String),
    /// An event stream that goes on.
    Live(mpsc::Receiver<Bytes>),
    /// Nothing, ever.
    Silence,
}

struct Server {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    news: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(script: impl Fn(&Seen) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let news = Arc::new(Notify::new());
        let (log, bell, script) = (seen.clone(), news.clone(), Arc::new(script));
        let handler = move |request: Request| {
            let (log, bell, script) = (log.clone(), bell.clone(), script.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, 1 << 25).await.unwrap_or_default();
                let seen = Seen {
                    verb: head.method.to_string(),
                    headers: head.headers,
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                log.lock().push(seen.clone());
                bell.notify_waiters();
                respond(&seen, script(&seen)).await
            }
        };
        let app = Router::new().fallback(handler);
        let task = TaskTracker::new().spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, news, task }
    }

    /// A legacy server; the script may leave the usual things to it.
    async fn legacy(script: impl Fn(&Seen) -> Option<Say> + Send + Sync + 'static) -> Self {
        Self::start(move |seen| script(seen).unwrap_or_else(|| usual(seen))).await
    }

    fn all(&self, method: &str) -> Vec<Seen> {
        self.seen.lock().iter().filter(|seen| seen.is(method)).cloned().collect()
    }

    /// Waits until a request matches.
    async fn until(&self, matches: impl Fn(&Seen) -> bool) -> Seen {
        timeout(PATIENCE, async {
            loop {
                let news = self.news.notified();
                if let Some(seen) = self.seen.lock().iter().find(|seen| matches(seen)) {
                    return seen.clone();
                }
                // A notification between the look and the wait would be missed.
                _ = timeout(Duration::from_millis(20), news).await;
            }
        })
        .await
        .expect("the server has not got what it should")
    }

    fn upstream(&self) -> Arc<Upstream> {
        self.upstream_as(|_| {})
    }

    fn upstream_as(&self, change: impl FnOnce(&mut Backend)) -> Arc<Upstream> {
        let mut config = backend(Transport::Http(HttpTransport {
            url: format!("http://{}/mcp", self.address).parse().unwrap(),
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            auth: None,
            sharing: Sharing::Shared,
        }));
        change(&mut config);
        upstream(config)
    }
}

async fn respond(seen: &Seen, say: Say) -> Result<Response, Infallible> {
    let response = Response::builder();
    let id = seen.json()["id"].to_string();
    Ok(match say {
        Say::Accepted => response.status(202).body(Body::empty()),
        Say::Result(result) => {
            let response = response.header("content-type", "application/json");
            let response =
                if seen.is("initialize") { response.header("mcp-session-id", SESSION) } else { response };
            response.body(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into())
        }
        Say::Status(status, kind, body) => {
            response.status(status).header("content-type", kind).body(body.replace("$id", &id).into())
        }
        Say::Events(events) => {
            response.header("content-type", "text/event-stream").body(events.replace("$id", &id).into())
        }
        Say::Live(events) => {
            let stream = futures_util::stream::unfold(events, |mut events| async {
                events.recv().await.map(|bytes| (Ok::<_, Infallible>(bytes), events))
            });
            response.header("content-type", "text/event-stream").body(Body::from_stream(stream))
        }
        Say::Silence => return std::future::pending().await,
    }
    .unwrap())
}

/// What every legacy server says to these.
fn usual(seen: &Seen) -> Say {
    match seen.json()["method"].as_str() {
        Some("initialize") => Say::Result(
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#,
        ),
        Some(method) if !method.starts_with("notifications/") => Say::Result("{}"),
        Some(_) => Say::Accepted,
        None if seen.verb == "GET" => Say::Status(405, "text/plain", "no stream here".into()),
        None => Say::Accepted,
    }
}

fn backend(transport: Transport) -> Backend {
    Backend {
        name: "peer".parse().unwrap(),
        labels: BTreeMap::new(),
        transport,
        protocol: Protocol::Auto,
        call_timeout: Duration::from_secs(60),
        concurrent_calls_max: 256,
        disabled: false,
        trust_hints: false,
        single_session: None,
        probe_max_age: Duration::from_secs(86_400),
    }
}

/// A backend that is a shell script.
fn script(script: &str) -> Backend {
    backend(Transport::Stdio(StdioTransport {
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: Vec::new(),
        cwd: None,
        sharing: Sharing::Shared,
        start_timeout: Duration::from_secs(10),
        line_bytes_max: 64 * 1024,
        memory_bytes_max: None,
        processes_max: 64,
        idle_max: None,
    }))
}

fn stdio(backend: &mut Backend) -> &mut StdioTransport {
    match &mut backend.transport {
        Transport::Stdio(stdio) => stdio,
        _ => panic!("not a process"),
    }
}

fn upstream(config: Backend) -> Arc<Upstream> {
    let secrets = Arc::new(|name: &mt_proto::resource::ResourceName| Ok(format!("value-of-{name}")));
    Upstream::new(Arc::new(config), secrets, Shared::new(TaskTracker::new(), CancellationToken::new()))
}

fn client(
    scope: Scope,
    version: ProtocolVersion,
    capabilities: &'static str,
    events: Option<Caller>,
) -> Arc<Client> {
    Arc::new(Client {
        identity: Identity::anonymous(),
        version,
        info: Bytes::from_static(br#"{"name":"client","version":"9"}"#),
        capabilities: Bytes::from_static(capabilities.as_bytes()),
        scope,
        events,
    })
}

fn legacy_client(session: &str) -> Arc<Client> {
    client(Scope::Session(session.into()), LATEST_LEGACY, "{}", None)
}

fn modern_client() -> Arc<Client> {
    client(Scope::Stateless, LATEST_MODERN, "{}", None)
}

fn call(client: &Arc<Client>, id: &str, method: Method, params: &str) -> Call {
    Call {
        id: RawId::from_json(id.as_bytes()).unwrap(),
        method,
        params: Params::scan(&Bytes::copy_from_slice(params.as_bytes()), Limits::CLIENT).unwrap(),
        client: client.clone(),
        deadline: Instant::now() + PATIENCE,
        param_headers: Vec::new(),
    }
}

fn tool(client: &Arc<Client>, id: &str, name: &str) -> Call {
    call(client, id, Method::ToolsCall, &format!(r#"{{"name":"{name}","arguments":{{}}}}"#))
}

/// Runs a call that needs nobody to talk to.
async fn run(upstream: &Upstream, call: &Call) -> Result<Answer, CallError> {
    let (caller, _door) = Caller::channel();
    timeout(PATIENCE * 2, upstream.call(call, &caller)).await.expect("neither an answer nor an error")
}

/// Runs a call in the background, with what reaches the client meanwhile.
fn begin(
    upstream: &Arc<Upstream>,
    call: Call,
) -> (JoinHandle<Result<Answer, CallError>>, mpsc::Receiver<ToClient>) {
    let (caller, door) = Caller::channel();
    let upstream = upstream.clone();
    (TaskTracker::new().spawn(async move { upstream.call(&call, &caller).await }), door)
}

/// What reaches the client next, besides the news that a stream has begun.
async fn next(door: &mut mpsc::Receiver<ToClient>) -> ToClient {
    loop {
        match timeout(PATIENCE, door.recv())
            .await
            .expect("nothing reaches the client")
            .expect("the call is over")
        {
            ToClient::Begin => {}
            other => return other,
        }
    }
}

async fn next_told(door: &mut mpsc::Receiver<ToClient>) -> String {
    match next(door).await {
        ToClient::Notify(message) => String::from_utf8(message.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn result(text: &str) -> Answer {
    Answer::Result(Bytes::copy_from_slice(text.as_bytes()))
}
