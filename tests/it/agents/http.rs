//! The HTTP agent: a web service, and what is shown to it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{MIB, Served, serve, text_of};
use crate::raw;

/// A slow call that the service works on.
pub struct Working(Arc<AtomicUsize>);

impl Working {
    pub fn on(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(running))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long a slow call takes if nobody ends it.
pub const SLOW: Duration = Duration::from_secs(30);
/// Between the steps of a call that tells of them.
pub const STEP: Duration = Duration::from_millis(20);

/// A web service on loopback, until what is given beside its address is dropped.
pub async fn listen(router: Router) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, tasks)
}

/// What a service has received where arguments go.
pub fn received(path: &str, query: &Value, headers: &HeaderMap, body: &str) -> Value {
    let header = headers.get("x-text").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    json!({"path": path, "query": query, "header": header, "body": body})
}

async fn slow(State(running): State<Arc<AtomicUsize>>) -> &'static str {
    let _working = Working::on(&running);
    tokio::time::sleep(SLOW).await;
    "at last"
}

async fn steps() -> Response {
    let lines = stream::unfold(1, |n| async move {
        tokio::time::sleep(STEP).await;
        (n <= 4).then(|| (Ok::<_, Infallible>(format!("{{\"step\":{n}}}\n")), n + 1))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn echo(
    Path(path): Path<String>,
    Query(query): Query<Value>,
    headers: HeaderMap,
    body: String,
) -> Json<Value> {
    Json(received(&path, &query, &headers, &body))
}

fn router(running: Arc<AtomicUsize>) -> Router {
    let refused = || async { (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"error": "not like this"}))) };
    Router::new()
        .route("/ok", get(|Query(query): Query<Value>| async move { Json(json!({"said": query["text"]})) }))
        .route("/fail", any(refused))
        .route("/slow", get(slow))
        .route("/steps", get(steps))
        .route("/big", get(|| async { "x".repeat(MIB) }))
        .route("/echo/{text}", post(echo))
        .with_state(running)
}

pub async fn start() -> Served {
    let running = Arc::new(AtomicUsize::new(0));
    let (address, tasks) = listen(router(Arc::clone(&running))).await;
    let text = "inputSchema: {type: object, required: [text], properties: {text: {type: string}}}";
    let tools = format!(
        r#"
tools:
  - name: http_ok
    {text}
    routing: {{type: http, config: {{url: "http://{address}/ok", query: {{text: "{{{{text}}}}"}}}}}}
  - name: http_fail
    routing: {{type: http, config: {{url: "http://{address}/fail", method: POST, retries: 2}}}}
  - name: http_slow
    routing: {{type: http, config: {{url: "http://{address}/slow"}}}}
  - name: http_late
    timeout: 300ms
    routing: {{type: http, config: {{url: "http://{address}/slow"}}}}
  - name: http_steps
    routing: {{type: http, config: {{url: "http://{address}/steps", stream: true}}}}
  - name: http_big
    routing: {{type: http, config: {{url: "http://{address}/big"}}}}
  - name: http_echo
    {text}
    routing:
      type: http
      config:
        url: "http://{address}/echo/{{{{text}}}}"
        query: {{text: "{{{{text}}}}"}}
        headers: {{X-Text: "{{{{text}}}}"}}
        bodyText: "{{{{text}}}}"
        contentType: text/plain
"#
    );
    Served { agent: "http", tools, more: String::new(), running, keep: Box::new(tasks) }
}

/// Where the secret of the nodes is.
const SECRET: &str = "mt-test-s3cret";

/// A node that may read a secret, and a service that says what it is shown.
async fn shown(auth: &str) -> Value {
    async fn shown(headers: HeaderMap, Query(query): Query<Value>) -> Response {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let shown = json!({"authorization": header("authorization"), "key": header("x-key"), "query": query});
        match query.get("fail") {
            Some(_) => (StatusCode::UNAUTHORIZED, Json(shown)).into_response(),
            None => Json(shown).into_response(),
        }
    }
    let (address, _tasks) = listen(Router::new().fallback(any(shown))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let tool = |name: &str, query: &str| {
        format!(
            "  - name: {name}\n    routing: {{type: http, config: {{url: \"http://{address}/{query}\", auth: {auth}}}}}\n"
        )
    };
    let served = Served {
        agent: "http",
        tools: format!("tools:\n{}{}", tool("works", ""), tool("fails", "?fail=1")),
        more: format!(
            "---\n{}\n",
            json!({
                "apiVersion": "magictunnel/v1", "kind": "Secret",
                "metadata": {"name": "token"}, "spec": {"file": file},
            })
        ),
        running: Arc::default(),
        keep: Box::new(()),
    };
    let cluster = serve(std::slice::from_ref(&served)).await;
    let url = cluster.nodes[0].url("http");
    raw::shows_tool(&url, "works").await;
    let call = async |name: &str| raw::ask(&url, "tools/call", json!({"name": name, "arguments": {}})).await;
    let failed = call("fails").await;
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    let told = text_of(&failed["result"]);
    assert!(told.starts_with("the service answered 401 Unauthorized: ") && told.contains("***"), "{told}");
    assert!(!failed.to_string().contains(SECRET), "{failed}");
    let worked = call("works").await;
    worked["result"]["structuredContent"].clone()
}

#[tokio::test]
async fn a_secret_of_the_nodes_is_shown_to_the_service_and_to_nobody_else() {
    let bearer = shown("{bearer: {secret: token}}").await;
    assert_eq!(bearer["authorization"], format!("Bearer {SECRET}"));
    let header = shown("{header: {name: X-Key, value: {secret: token}}}").await;
    assert_eq!(header["key"], SECRET);
    let query = shown("{query: {name: key, value: {secret: token}}}").await;
    assert_eq!(query["query"]["key"], SECRET);
}
