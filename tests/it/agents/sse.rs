//! The agent for server-sent events: a web service that tells of its work.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, atomic::AtomicUsize},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    MIB, Served,
    http::{STEP, Working, listen, received},
};

fn events(events: impl Stream<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(events.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn event(name: &str, data: &str) -> String {
    let lines: String = data.split('\n').map(|line| format!("data: {line}\n")).collect();
    format!("event: {name}\n{lines}\n")
}

async fn ok(Query(query): Query<HashMap<String, String>>) -> Response {
    let said = json!({"said": query["text"]}).to_string();
    // It goes on: only the condition ends it.
    events(stream::iter([event("said", &said), event("done", "ok")]).chain(stream::pending()))
}

async fn slow(State(running): State<Arc<AtomicUsize>>) -> Response {
    let working = Working::on(&running);
    events(stream::unfold(working, |working| async move {
        tokio::time::sleep(STEP * 10).await;
        Some((": still at it\n\n".to_owned(), working))
    }))
}

async fn steps() -> Response {
    events(stream::unfold(1, |n| async move {
        tokio::time::sleep(STEP).await;
        (n <= 4).then(|| (event("step", &json!({"step": n}).to_string()), n + 1))
    }))
}

async fn big() -> Response {
    let part = event("part", &"x".repeat(MIB / 16));
    events(stream::iter(vec![part; 17]))
}

async fn echo(
    Path(path): Path<String>,
    Query(query): Query<Value>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let got = received(&path, &query, &headers, &body).to_string();
    events(stream::iter([event("got", &got)]))
}

pub async fn start() -> Served {
    let running = Arc::new(AtomicUsize::new(0));
    let router = Router::new()
        .route("/ok", get(ok))
        .route("/fail", any(|| async { (StatusCode::FORBIDDEN, "not for you") }))
        .route("/slow", get(slow))
        .route("/steps", get(steps))
        .route("/big", get(big))
        .route("/echo/{text}", post(echo))
        .with_state(Arc::clone(&running));
    let (address, tasks) = listen(router).await;
    let text = "inputSchema: {type: object, required: [text], properties: {text: {type: string}}}";
    let tools = format!(
        r#"
tools:
  - name: sse_ok
    {text}
    routing:
      type: sse
      config: {{url: "http://{address}/ok", query: {{text: "{{{{text}}}}"}}, until: {{event: done}}}}
  - name: sse_fail
    routing: {{type: sse, config: {{url: "http://{address}/fail"}}}}
  - name: sse_slow
    routing: {{type: sse, config: {{url: "http://{address}/slow"}}}}
  - name: sse_late
    timeout: 300ms
    routing: {{type: sse, config: {{url: "http://{address}/slow"}}}}
  - name: sse_steps
    routing: {{type: sse, config: {{url: "http://{address}/steps"}}}}
  - name: sse_big
    routing: {{type: sse, config: {{url: "http://{address}/big"}}}}
  - name: sse_echo
    {text}
    routing:
      type: sse
      config:
        url: "http://{address}/echo/{{{{text}}}}"
        query: {{text: "{{{{text}}}}"}}
        headers: {{X-Text: "{{{{text}}}}"}}
        bodyText: "{{{{text}}}}"
        contentType: text/plain
        extract: $[0].data
"#
    );
    Served { agent: "sse", tools, more: String::new(), running, keep: Box::new(tasks) }
}
