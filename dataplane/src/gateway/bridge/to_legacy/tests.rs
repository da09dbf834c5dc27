use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    gateway::call::Identity,
    mcp::{Limits, Params, RawId, meta::LogLevel, version::LATEST_MODERN},
};

fn call(capabilities: &Value, meta: &Value) -> Call {
    let params = json!({"name": "t", "_meta": meta});
    Call {
        id: RawId::number(1),
        method: Method::ToolsCall,
        params: Params::scan(&Bytes::from(params.to_string()), Limits::CLIENT).unwrap(),
        client: Arc::new(Client {
            identity: Identity::anonymous(),
            version: LATEST_MODERN,
            info: Bytes::new(),
            capabilities: Bytes::from(capabilities.to_string()),
            scope: Scope::Stateless,
            events: None,
        }),
        deadline: Instant::now(),
        param_headers: Vec::new(),
    }
}

fn terms(capabilities: &Value) -> Terms {
    Terms::of(&call(capabilities, &json!({})))
}

fn question(method: Method, params: &Value) -> Question {
    Question { key: "0".into(), method, params: Bytes::from(params.to_string()) }
}

#[test]
fn a_legacy_client_can_do_what_the_request_declares() {
    let check = |declared: Value, expected: &str| {
        assert_eq!(terms(&declared).capabilities(), expected.as_bytes());
    };
    check(json!({}), "{}");
    check(
        json!({"sampling": {"tools": {}}, "roots": {"listChanged": true}, "elicitation": {"form": {}},
               "extensions": {"io.modelcontextprotocol/tasks": {}}}),
        r#"{"elicitation":{"form":{}},"roots":{},"sampling":{"tools":{}}}"#,
    );
    check(json!({"sampling": null, "roots": true}), "{}");
}

#[test]
fn what_was_not_declared_is_refused() {
    let refused = |declared: Value, question: &Question| terms(&declared).refusal(question).is_some();
    let sample = question(Method::CreateMessage, &json!({}));
    let roots = question(Method::RootsList, &json!({}));
    let form = question(Method::Elicit, &json!({"message": "m"}));
    let visit = question(Method::Elicit, &json!({"mode": "url", "url": "https://example.com"}));
    for question in [&sample, &roots, &form, &visit] {
        assert!(refused(json!({}), question), "{question:?}");
    }
    assert!(!refused(json!({"sampling": {}}), &sample));
    assert!(!refused(json!({"roots": {}}), &roots));
    assert!(!refused(json!({"elicitation": {}}), &form));
    assert!(refused(json!({"elicitation": {}}), &visit));
    assert!(refused(json!({"elicitation": {"url": {}}}), &form));
    assert!(!refused(json!({"elicitation": {"url": {}}}), &visit));
    let both = json!({"elicitation": {"form": {}, "url": {}}});
    assert!(!refused(both.clone(), &form) && !refused(both, &visit));
    let all = json!({"sampling": {}, "roots": {}, "elicitation": {}});
    assert!(refused(all, &question(Method::Other("x/y".into()), &json!({}))));
}

#[test]
fn a_question_loses_what_only_the_legacy_era_has() {
    let asked = question(
        Method::Elicit,
        &json!({"mode": "url", "elicitationId": "1", "task": {}, "_meta": {"progressToken": 0, "mine": 1}}),
    );
    let params: Value = serde_json::from_slice(&terms::modern(asked).params).unwrap();
    assert_eq!(params, json!({"mode": "url", "_meta": {"mine": 1}}));
}

#[test]
fn log_lines_pass_from_the_level_that_the_request_names() {
    let message = |method: &str, level: &str| {
        Bytes::from(json!({"jsonrpc": "2.0", "method": method, "params": {"level": level}}).to_string())
    };
    let with =
        |level: &str| Terms::of(&call(&json!({}), &json!({"io.modelcontextprotocol/logLevel": level})));
    let log = "notifications/message";
    assert!(!terms(&json!({})).lets_pass(&message(log, "emergency")));
    assert_eq!(with("warning").level, Some(LogLevel::Warning));
    assert!(!with("warning").lets_pass(&message(log, "info")));
    assert!(with("warning").lets_pass(&message(log, "warning")));
    assert!(with("warning").lets_pass(&message(log, "critical")));
    assert!(terms(&json!({})).lets_pass(&message("notifications/progress", "")));
    for other in [
        "notifications/resources/updated",
        "notifications/elicitation/complete",
        "notifications/tasks/status",
    ] {
        assert!(!with("debug").lets_pass(&message(other, "")), "{other}");
    }
}

#[test]
fn urls_to_visit_become_questions() {
    let error = json!({"code": -32042, "message": "m", "data": {"elicitations": [
        {"mode": "url", "elicitationId": "one", "url": "https://example.com/1", "message": "sign in"},
        {"elicitationId": "two", "url": "https://example.com/2", "message": "pay"},
    ]}});
    let required = visits::required(&Bytes::from(error.to_string())).unwrap();
    let required: Value = serde_json::from_slice(&required).unwrap();
    assert_eq!(required["resultType"], "input_required");
    assert_eq!(
        required["inputRequests"]["url-2"],
        json!({"method": "elicitation/create",
               "params": {"mode": "url", "url": "https://example.com/2", "message": "pay"}})
    );
    let state: Value = serde_json::from_str(required["requestState"].as_str().unwrap()).unwrap();
    assert_eq!(state, json!({"elicitationIds": ["one", "two"]}));
    for other in [json!({"code": -32042, "message": "m"}), json!({"code": 1, "data": error["data"]})] {
        assert_eq!(visits::required(&Bytes::from(other.to_string())), None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_stands_still_while_its_client_thinks() {
    let start = Instant::now();
    let mut clock = Clock::new(start, Duration::from_secs(60));
    clock.stop(start + Duration::from_secs(50));
    assert!(timeout(LIFE_MAX, clock.over()).await.is_err());
    let later = Instant::now();
    clock.go_on(later);
    clock.over().await;
    assert_eq!(Instant::now() - later, Duration::from_secs(10));
}
