//! A provider for tests: it says what it is told to say, in the words of the
//! interface that is asked.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

/// What the provider does when it is asked next.
#[derive(Clone, Default)]
pub struct Turn {
    status: u16,
    words: Vec<String>,
    pause: Duration,
    breaks: bool,
    complains: Option<String>,
    refuses: bool,
    retry_after: Option<String>,
}

impl Turn {
    pub fn says(words: &[&str]) -> Self {
        Self { status: 200, words: words.iter().map(|word| (*word).to_owned()).collect(), ..Self::default() }
    }

    pub fn error(status: u16, message: &str) -> Self {
        Self { status, words: vec![message.to_owned()], ..Self::default() }
    }

    pub fn every(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    pub fn then_breaks(self) -> Self {
        Self { breaks: true, ..self }
    }

    pub fn then_complains(self, message: &str) -> Self {
        Self { complains: Some(message.to_owned()), ..self }
    }

    pub fn refuses(self) -> Self {
        Self { refuses: true, ..self }
    }

    pub fn after(self, seconds: &str) -> Self {
        Self { retry_after: Some(seconds.to_owned()), ..self }
    }
}

/// What the provider was asked.
#[derive(Clone)]
pub struct Asked {
    pub path: String,
    headers: HeaderMap,
    pub body: Value,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

#[derive(Clone, Default)]
struct Shared {
    turns: Arc<Mutex<VecDeque<Turn>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    running: Arc<AtomicUsize>,
}

pub struct Stub {
    address: String,
    shared: Shared,
    /// Answers that are being given.
    pub running: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Stub {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared::default();
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, running: shared.running.clone(), shared, _tasks: tasks }
    }

    /// What is written for `baseUrl`.
    pub fn base(&self, provider: &str) -> String {
        if provider == "openai" { format!("{}/v1", self.address) } else { self.address.clone() }
    }

    pub fn next(&self, turn: Turn) {
        self.shared.turns.lock().push_back(turn);
    }

    /// What was still to be done.
    pub fn forget(&self) {
        self.shared.turns.lock().clear();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().clone()
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let path = parts.uri.path().to_owned();
    shared.asked.lock().push(Asked { path: path.clone(), headers: parts.headers, body: body.clone() });
    let Some(turn) = shared.turns.lock().pop_front() else {
        return (StatusCode::IM_A_TEAPOT, "nothing to say").into_response();
    };
    let words = Words::of(&path);
    if turn.status != 200 {
        let mut response =
            (StatusCode::from_u16(turn.status).unwrap(), words.error(&turn.words.concat())).into_response();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        if let Some(after) = &turn.retry_after {
            response.headers_mut().insert("retry-after", after.parse().unwrap());
        }
        return response;
    }
    if body["stream"] != true {
        return ([("content-type", "application/json")], words.whole(&turn)).into_response();
    }
    shared.running.fetch_add(1, Ordering::SeqCst);
    let running = Running(shared.running);
    let chunks: VecDeque<String> = words.chunks(&turn).into();
    let state = (chunks, turn, running);
    let chunks = stream::unfold(state, async |(mut chunks, turn, running)| {
        tokio::time::sleep(turn.pause).await;
        let chunk = chunks.pop_front()?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), (chunks, turn, running)))
    });
    ([("content-type", words.media_type())], Body::from_stream(chunks)).into_response()
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whose interface is spoken.
#[derive(Clone, Copy)]
enum Words {
    OpenAi,
    Anthropic,
    Ollama,
}

impl Words {
    fn of(path: &str) -> Self {
        match path {
            "/v1/chat/completions" => Words::OpenAi,
            "/v1/messages" => Words::Anthropic,
            "/api/chat" => Words::Ollama,
            other => panic!("asked at {other}"),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Words::Ollama => "application/x-ndjson",
            Words::OpenAi => "text/event-stream; charset=utf-8",
            Words::Anthropic => "text/event-stream",
        }
    }

    fn error(self, message: &str) -> String {
        match self {
            Words::OpenAi => json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}),
            Words::Anthropic => json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_1"}),
            Words::Ollama => json!({"error": message}),
        }
        .to_string()
    }

    /// An answer in one piece.
    fn whole(self, turn: &Turn) -> String {
        let text = turn.words.concat();
        let said = if turn.refuses { Value::Null } else { text.clone().into() };
        match self {
            Words::OpenAi => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_763_700_000, "model": "m-1-full",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": said,
                    "refusal": if turn.refuses { Value::from(text) } else { Value::Null }, "annotations": []},
                    "logprobs": null, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
                "service_tier": "default", "system_fingerprint": "fp_1",
            }),
            Words::Anthropic => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1-full",
                "content": [{"type": "text", "text": text}],
                "stop_reason": if turn.refuses { "refusal" } else { "end_turn" }, "stop_sequence": null,
                "usage": {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 3},
            }),
            Words::Ollama => json!({
                "model": "m-1-full", "created_at": "2026-11-21T06:00:00.000000Z",
                "message": {"role": "assistant", "content": text}, "done_reason": "stop", "done": true,
                "total_duration": 5_191_566_416_u64, "load_duration": 2_154_458, "prompt_eval_count": 12,
                "prompt_eval_duration": 383_809_000, "eval_count": 3, "eval_duration": 4_799_921_000_u64,
            }),
        }
        .to_string()
    }

    /// An answer that streams, as it goes over the wire.
    fn chunks(self, turn: &Turn) -> Vec<String> {
        let mut chunks = match self {
            Words::OpenAi => {
                vec![openai(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)]
            }
            Words::Anthropic => vec![
                anthropic(
                    &json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
                    "model": "m-1-full", "content": [], "stop_reason": null, "stop_sequence": null,
                    "usage": {"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 1}}}),
                ),
                anthropic(
                    &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                ),
                anthropic(&json!({"type": "ping"})),
            ],
            Words::Ollama => vec![],
        };
        for word in &turn.words {
            chunks.push(match self {
                Words::OpenAi if turn.refuses => openai(json!({"refusal": word}), Value::Null),
                Words::OpenAi => openai(json!({"content": word}), Value::Null),
                Words::Anthropic => anthropic(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})),
                Words::Ollama => ollama(&json!({"message": {"role": "assistant", "content": word}, "done": false})),
            });
        }
        if let Some(message) = &turn.complains {
            chunks.push(match self {
                Words::OpenAi => format!("data: {}\n\n", json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}})),
                Words::Anthropic => anthropic(&json!({"type": "error", "error": {"type": "overloaded_error", "message": message}})),
                Words::Ollama => format!("{}\n", json!({"error": message})),
            });
        }
        if turn.breaks || turn.complains.is_some() {
            return chunks;
        }
        match self {
            Words::OpenAi => {
                chunks.push(openai(json!({}), "stop".into()));
                let usage = json!({"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15});
                chunks.push(format!(
                    "data: {}\n\n",
                    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_763_700_000, "model": "m-1-full",
                           "system_fingerprint": "fp_1", "choices": [], "usage": usage})
                ));
                chunks.push("data: [DONE]\n\n".to_owned());
            }
            Words::Anthropic => {
                chunks.push(anthropic(&json!({"type": "content_block_stop", "index": 0})));
                let reason = if turn.refuses { "refusal" } else { "end_turn" };
                chunks.push(anthropic(&json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 3}})));
                chunks.push(anthropic(&json!({"type": "message_stop"})));
            }
            Words::Ollama => chunks.push(ollama(
                &json!({"message": {"role": "assistant", "content": ""}, "done_reason": "stop", "done": true,
                "total_duration": 4_883_583_458_u64, "load_duration": 1_334_875, "prompt_eval_count": 12,
                "prompt_eval_duration": 342_546_000, "eval_count": 3, "eval_duration": 4_535_599_000_u64}),
            )),
        }
        chunks
    }
}

fn openai(delta: Value, finish_reason: Value) -> String {
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_763_700_000, "model": "m-1-full",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}], "usage": null,
    });
    format!("data: {chunk}\n\n")
}

fn anthropic(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
}

fn ollama(rest: &Value) -> String {
    let mut line = json!({"model": "m-1-full", "created_at": "2026-11-21T06:00:00.000000Z"});
    line.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    format!("{line}\n")
}
