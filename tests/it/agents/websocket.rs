//! The WebSocket agent: a service that one talks with.

use std::sync::{Arc, atomic::AtomicUsize};

use axum::{
    Router,
    extract::{
        Path, Query, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::HeaderMap,
    response::Response,
    routing::any,
};
use serde_json::{Value, json};

use super::{
    MIB, Served,
    http::{STEP, Working, listen, received},
};

async fn open(
    State(running): State<Arc<AtomicUsize>>,
    Path(path): Path<String>,
    Query(query): Query<Value>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            let Message::Text(text) = message else { continue };
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            match path.as_str() {
                "ok" => say(&mut socket, json!({"said": said["text"]})).await,
                "fail" => {
                    let close = CloseFrame { code: 1008, reason: "not like this".into() };
                    _ = socket.send(Message::Close(Some(close))).await;
                }
                "slow" => {
                    let _working = Working::on(&running);
                    while let Some(Ok(_)) = socket.recv().await {}
                }
                "steps" => {
                    for n in 1..=4 {
                        tokio::time::sleep(STEP).await;
                        say(&mut socket, json!({"step": n})).await;
                    }
                    _ = socket.send(Message::Close(None)).await;
                }
                "big" => _ = socket.send(Message::text("x".repeat(MIB))).await,
                path => say(&mut socket, received(path, &query, &headers, &text)).await,
            }
        }
    })
}

async fn say(socket: &mut WebSocket, value: Value) {
    // Whoever does not listen any more is seen at the next read.
    _ = socket.send(Message::text(value.to_string())).await;
}

pub async fn start() -> Served {
    let running = Arc::new(AtomicUsize::new(0));
    let router = Router::new().route("/{path}", any(open)).with_state(Arc::clone(&running));
    let (address, tasks) = listen(router).await;
    let text = "inputSchema: {type: object, required: [text], properties: {text: {type: string}}}";
    let tools = format!(
        r#"
tools:
  - name: websocket_ok
    {text}
    routing: {{type: websocket, config: {{url: "ws://{address}/ok", message: {{text: "{{{{text}}}}"}}}}}}
  - name: websocket_fail
    routing: {{type: websocket, config: {{url: "ws://{address}/fail", message: go}}}}
  - name: websocket_slow
    routing: {{type: websocket, config: {{url: "ws://{address}/slow", message: go}}}}
  - name: websocket_late
    timeout: 300ms
    routing: {{type: websocket, config: {{url: "ws://{address}/slow", message: go}}}}
  - name: websocket_steps
    routing: {{type: websocket, config: {{url: "ws://{address}/steps", message: go, mode: stream}}}}
  - name: websocket_big
    routing: {{type: websocket, config: {{url: "ws://{address}/big", message: go}}}}
  - name: websocket_echo
    {text}
    routing:
      type: websocket
      config:
        url: "ws://{address}/echo-{{{{text}}}}?text={{{{text}}}}"
        headers: {{X-Text: "{{{{text}}}}"}}
        message: "<{{{{text}}}}>"
"#
    );
    Served { agent: "websocket", tools, more: String::new(), running, keep: Box::new(tasks) }
}
