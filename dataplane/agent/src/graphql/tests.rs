//! The GraphQL agent against a service that answers as it is told. A real
//! GraphQL server is asked in the system tests.

use axum::{
    Json, Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::{
    Reason,
    client::testing::{Service, call, call_and_tell, problems},
};

/// Answers with what the variable `answer` says, or with what it was asked.
async fn answer(Json(asked): Json<Value>) -> Response {
    let answer = asked["variables"]["answer"].clone();
    let status = asked["variables"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = StatusCode::from_u16(status.unwrap_or(200)).unwrap();
    match answer {
        Value::Null => Json(json!({"data": {"asked": asked}})).into_response(),
        Value::String(text) => (status, text).into_response(),
        answer => {
            let kind = [(header::CONTENT_TYPE, "application/graphql-response+json")];
            (status, kind, answer.to_string()).into_response()
        }
    }
}

async fn subscribe(upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["graphql-transport-ws"]).on_upgrade(events)
}

async fn events(mut socket: WebSocket) {
    async fn next(socket: &mut WebSocket) -> Option<Value> {
        while let Some(Ok(message)) = socket.recv().await {
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).ok();
            }
        }
        None
    }
    let Some(init) = next(&mut socket).await else { return };
    assert_eq!(init["type"], "connection_init");
    for message in [json!({"type": "ping"}), json!({"type": "connection_ack"})] {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    assert_eq!(next(&mut socket).await.unwrap()["type"], "pong");
    let subscribe = next(&mut socket).await.unwrap();
    assert_eq!(subscribe["type"], "subscribe");
    let to = subscribe["payload"]["variables"]["to"].as_i64().unwrap();
    for n in 0..to {
        let event = json!({"id": subscribe["id"], "type": "next", "payload": {"data": {"count": n}}});
        if socket.send(Message::text(event.to_string())).await.is_err() {
            return;
        }
    }
    let end = match to {
        0 => json!({"id": subscribe["id"], "type": "error", "payload": [{"message": "nothing to count"}]}),
        _ => json!({"id": subscribe["id"], "type": "complete"}),
    };
    _ = socket.send(Message::text(end.to_string())).await;
    _ = next(&mut socket).await;
}

async fn service() -> Service {
    Service::start(Router::new().route("/", post(answer).merge(get(subscribe)))).await
}

const QUERY: &str = "query($answer: JSON, $status: Int) { whatever(answer: $answer, status: $status) }";

#[tokio::test]
async fn arguments_go_along_as_variables() {
    let service = service().await;
    let hostile = "\") { id } } mutation { drop }";
    let config = json!({"url": service.url("/"), "query": "query Q($id: ID!) { user(id: $id) { name } }", "extract": "/asked"});
    let got = call("graphql", config, json!({"id": hostile, "other": 1})).await.unwrap().structured.unwrap();
    assert_eq!(
        got,
        json!({"query": "query Q($id: ID!) { user(id: $id) { name } }", "variables": {"id": hostile}})
    );
    let config = json!({
        "endpoint": service.url("/"), "query": "mutation A { a } mutation B($in: In!) { b(in: $in) }",
        "operationName": "B", "extract": "$.asked",
        "variables": {"in": {"id": "{{id}}", "tags": "{{tags}}", "gone": "{{gone}}"}},
    });
    let got = call("graphql", config, json!({"id": 7, "tags": ["x"]})).await.unwrap().structured.unwrap();
    assert_eq!(got["operationName"], "B");
    assert_eq!(got["variables"], json!({"in": {"id": 7, "tags": ["x"]}}));
}

#[tokio::test]
async fn errors_are_failures_unless_partial_data_is_enough() {
    let service = service().await;
    let ask = async |partial: bool, arguments: Value| {
        call("graphql", json!({"url": service.url("/"), "query": QUERY, "partial": partial}), arguments).await
    };
    let errors = json!([{"message": "no such user", "path": ["users", 0, "name"]}, {"message": "other"}]);
    let said = "no such user (at users.0.name); other";
    for (partial, data) in [(false, json!(null)), (false, json!({"a": 1})), (true, json!(null))] {
        let failure = ask(partial, json!({"answer": {"data": data, "errors": errors}})).await.unwrap_err();
        assert_eq!((failure.reason, failure.message.as_str()), (Reason::Refused, said));
    }
    let failure = ask(false, json!({"answer": {"errors": errors}, "status": 400})).await.unwrap_err();
    assert_eq!((failure.reason, failure.message.as_str()), (Reason::Refused, said));
    let output = ask(true, json!({"answer": {"data": {"a": 1}, "errors": errors}})).await.unwrap();
    assert_eq!(output.structured, Some(json!({"a": 1})));
    assert_eq!(output.meta["io.magictunnel/graphqlErrors"], errors);
    let many: Vec<Value> = (0..9).map(|n| json!({"message": format!("e{n}")})).collect();
    let failure = ask(false, json!({"answer": {"errors": many}})).await.unwrap_err();
    assert_eq!(failure.message, "e0; e1; e2; e3; e4; and 4 more");
}

#[tokio::test]
async fn what_is_no_answer_of_graphql_is_told_apart() {
    let service = service().await;
    for (arguments, reason, message) in [
        (
            json!({"answer": "oh no", "status": 502}),
            Reason::Refused,
            "the service answered 502 Bad Gateway: oh no",
        ),
        (json!({"answer": "hello"}), Reason::Broken, "the service's answer is not JSON"),
        (json!({"answer": [1]}), Reason::Broken, "the service's answer is not one of GraphQL"),
        (json!({"answer": {"x": 1}}), Reason::Broken, "the service's answer holds neither data nor errors"),
        (
            json!({"answer": {"x": 1}, "status": 500}),
            Reason::Refused,
            "the service answered 500 Internal Server Error: {\"x\":1}",
        ),
    ] {
        let config = json!({"url": service.url("/"), "query": QUERY});
        let failure = call("graphql", config, arguments.clone()).await.unwrap_err();
        assert_eq!((failure.reason, failure.message.as_str()), (reason, message), "{arguments}");
    }
}

#[tokio::test]
async fn a_subscription_is_listened_to() {
    let service = service().await;
    let query = "subscription Count($to: Int!) { count(to: $to) }";
    for (more, expected) in [
        (json!({"extract": "$[*].count"}), json!([0, 1, 2, 3, 4])),
        (json!({"until": {"path": "/count", "equals": 2}, "extract": "$[*].count"}), json!([0, 1, 2])),
        (json!({"maxEvents": 1}), json!([{"count": 0}])),
    ] {
        let mut config = json!({"url": service.url("/"), "query": query});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (outcome, told) = call_and_tell("graphql", config, json!({"to": 5})).await;
        assert_eq!(outcome.unwrap().structured.unwrap(), expected, "{more}");
        assert_eq!(told.progress.lock().len(), expected.as_array().unwrap().len(), "{more}");
    }
    let config = json!({"url": service.ws("/"), "query": query});
    let failure = call("graphql", config, json!({"to": 0})).await.unwrap_err();
    assert_eq!((failure.reason, failure.message.as_str()), (Reason::Refused, "nothing to count"));
}

#[test]
fn a_query_with_a_template_is_refused_when_it_is_applied() {
    for (config, problem) in [
        (json!({"query": "query { user(id: \"{{id}}\") { name } }"}), "a query holds no template"),
        (json!({"query": "{ a }", "operationName": "B"}), "there is no operation \"B\" in the query"),
        (json!({"query": "query A { a } query B { b }"}), "there are several operations in it"),
        (json!({"query": "fragment F on X { a }"}), "there is no operation in it"),
        (json!({}), "`query` is missing"),
    ] {
        let mut config = config;
        config["url"] = "http://127.0.0.1/".into();
        let found = problems("graphql", config.clone());
        assert!(found.iter().any(|found| found.contains(problem)), "{config}: {found:?}");
    }
}
