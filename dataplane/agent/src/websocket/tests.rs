//! The WebSocket agent against a service over a real socket.

use std::time::Duration;

use axum::{
    Router,
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::{Value, json};

use crate::{
    Content, Reason,
    client::testing::{SECRET, Service, call, call_and_tell, problems},
    collect::ENDED_META,
};

/// Does what it is told.
async fn converse(mut socket: WebSocket, key: String) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let answers: Vec<Message> = match said["op"].as_str() {
            Some("key") => vec![Message::text(json!({"key": key}).to_string())],
            Some("count") => (0..said["to"].as_u64().unwrap_or(3))
                .map(|n| Message::text(json!({"op": "counted", "n": n}).to_string()))
                .collect(),
            Some("bytes") => vec![Message::binary(vec![1, 2, 3])],
            Some("huge") => vec![Message::text("x".repeat(2 << 20))],
            Some("ping") => vec![Message::Ping("are you there".into())],
            Some("close") => vec![Message::Close(Some(CloseFrame { code: 1000, reason: "bye".into() }))],
            Some("trouble") => {
                let reason = format!("no more for {key}").into();
                vec![Message::Close(Some(CloseFrame { code: 1008, reason }))]
            }
            Some("silence") => Vec::new(),
            _ => vec![Message::text(text.as_str())],
        };
        for answer in answers {
            if socket.send(answer).await.is_err() {
                return;
            }
        }
        if said["op"] == "ping" {
            while let Some(Ok(message)) = socket.recv().await {
                if let Message::Pong(bytes) = message {
                    _ = socket.send(Message::text(String::from_utf8_lossy(&bytes).into_owned())).await;
                    break;
                }
            }
        }
    }
}

async fn open(headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    let key = headers.get("x-key").map_or("", |key| key.to_str().unwrap()).to_owned();
    if key == "wrong" {
        return (StatusCode::FORBIDDEN, "this key is wrong").into_response();
    }
    upgrade.protocols(["chat.v1"]).on_upgrade(|socket| converse(socket, key))
}

async fn service() -> Service {
    Service::start(Router::new().fallback(any(open))).await
}

fn with(service: &Service, more: Value) -> Value {
    let mut config = json!({"url": service.ws("/")});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[tokio::test]
async fn one_message_is_the_answer() {
    let service = service().await;
    let count = json!({"op": "count", "to": 5});
    for (more, structured, text) in [
        (json!({"message": {"op": "say", "text": "{{text}}"}}), json!({"op": "say", "text": "a\"b\n"}), None),
        (json!({"message": "plain {{text}}"}), Value::Null, Some("plain a\"b\n")),
        (json!({"message": "{\"t\": \"{{text}}\"}"}), json!({"t": "a\"b\n"}), None),
        (
            json!({"messages": [count], "match": {"path": "/n", "equals": 3}, "extract": "/n"}),
            json!(3),
            Some("3"),
        ),
        (
            json!({"message": count, "match": {"contains": "\"n\":{{n}}"}}),
            json!({"op": "counted", "n": 2}),
            None,
        ),
        (json!({"message": {"op": "bytes"}}), json!({"base64": "AQID"}), None),
        (json!({"message": {"op": "ping"}}), Value::Null, Some("are you there")),
        (
            json!({"message": {"op": "key"}, "auth": {"header": {"name": "X-Key", "value": {"secret": "token"}}}}),
            json!({"key": SECRET}),
            None,
        ),
        (json!({"message": "hi", "subprotocols": ["chat.v0", "chat.v1"]}), Value::Null, Some("hi")),
    ] {
        let outcome =
            call("websocket", with(&service, more.clone()), json!({"text": "a\"b\n", "n": 2})).await;
        let output = outcome.unwrap_or_else(|failure| panic!("{more}: {failure:?}"));
        assert_eq!(output.structured.unwrap_or_default(), structured, "{more}");
        if let Some(text) = text {
            assert_eq!(output.content, [Content::Text(text.to_owned())], "{more}");
        }
    }
}

#[tokio::test]
async fn a_stream_is_collected_and_told() {
    let service = service().await;
    let counted: Vec<Value> = (0..4).map(|n| json!({"op": "counted", "n": n})).collect();
    let count = json!({"op": "count", "to": 4});
    for (more, expected, ended) in [
        (json!({"until": {"path": "$.n", "equals": 2}}), json!(counted[..3]), "condition"),
        (json!({"until": {"idle": "150ms"}}), json!(counted), "idle"),
        (json!({"maxMessages": 2}), json!(counted[..2]), "limit"),
        (json!({"timeout": "400ms"}), json!(counted), "timeout"),
        (json!({"messages": [{"op": "close"}]}), json!(counted), "closed"),
    ] {
        let mut config = with(&service, json!({"mode": "stream", "message": count}));
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (outcome, told) = call_and_tell("websocket", config, json!({})).await;
        let output = outcome.unwrap_or_else(|failure| panic!("{more}: {failure:?}"));
        assert_eq!(output.structured.unwrap(), expected, "{more}");
        assert_eq!(output.meta[ENDED_META], ended, "{more}");
        assert_eq!(told.progress.lock().len(), expected.as_array().unwrap().len(), "{more}");
    }
}

#[tokio::test]
async fn what_goes_wrong_is_said_without_secrets() {
    let service = service().await;
    let gone = { self::service().await.ws("/private") };
    let key = |value: Value| json!({"header": {"name": "X-Key", "value": value}});
    for (more, reason, message) in [
        (json!({"auth": key(json!("wrong"))}), Reason::Refused, "the service answered 403 Forbidden"),
        (json!({"subprotocols": ["other"]}), Reason::Refused, "the service speaks none of the subprotocols"),
        (json!({"url": gone}), Reason::Unreachable, "the service cannot be reached"),
        (
            json!({"message": {"op": "close"}}),
            Reason::Broken,
            "the service closed the conversation without an answer",
        ),
        (
            json!({"message": {"op": "trouble"}, "auth": key(json!({"secret": "token"}))}),
            Reason::Refused,
            "the service closed the conversation with 1008: no more for ***",
        ),
        (
            json!({"message": {"op": "huge"}, "messageBytesMax": 1_000_000}),
            Reason::TooLarge,
            "the service answers more than 1000000 bytes",
        ),
        (json!({"message": {"op": "silence"}, "timeout": "300ms"}), Reason::Timeout, ""),
    ] {
        let failure = call("websocket", with(&service, more.clone()), json!({})).await.unwrap_err();
        assert_eq!(failure.reason, reason, "{more}: {failure:?}");
        assert!(failure.message.starts_with(message), "{more}: {failure}");
    }
}

#[tokio::test]
async fn a_conversation_ends_with_its_call() {
    let (ended, mut ends) = tokio::sync::mpsc::channel(1);
    let router = Router::new().fallback(any(move |upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(async move |mut socket: WebSocket| {
            while let Some(Ok(_)) = socket.recv().await {}
            _ = ended.send(()).await;
        })
    }));
    let service = Service::start(router).await;
    let config = with(&service, json!({"message": "hello"}));
    let pending = call("websocket", config, json!({}));
    assert!(tokio::time::timeout(Duration::from_millis(300), pending).await.is_err());
    assert!(tokio::time::timeout(Duration::from_secs(5), ends.recv()).await.is_ok());
}

#[test]
fn what_makes_no_sense_is_refused_when_it_is_applied() {
    for (more, problem) in [
        (json!({"url": "http://127.0.0.1/"}), "is not a url that can be asked"),
        (json!({"url": "ws://{{host}}/"}), "an argument decides which host is asked"),
        (json!({"match": {"event": "x"}}), "says what the answer looks like"),
        (json!({"subprotocols": ["a b"]}), "must be at most 8 names"),
        (json!({"headers": {"Sec-WebSocket-Protocol": "x"}}), "the connection itself decides"),
        (json!({"mode": "request", "maxMessages": 3}), "unknown setting"),
    ] {
        let mut config = json!({"url": "ws://127.0.0.1/"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = problems("websocket", config);
        assert!(found.iter().any(|found| found.contains(problem)), "{more}: {found:?}");
    }
}
