//! Legacy clients in front of a backend that speaks only the modern era.

use std::path::Path;

use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _};
use serde_json::{Value, json};

use crate::cluster::{Background, Cluster, eventually};
use crate::fixture::{BINARY, Fixture, Mode};
use crate::manifest::{gateway, over_http, over_stdio, plain_gateway};
use crate::peers::Client;
use crate::raw::{Events, Session, ask, messages, shows_tool};

const LEGACY: &str = "2025-11-25";
const PROGRESS: &str = "notifications/progress";
const LOG: &str = "notifications/message";
const UPDATED: &str = "notifications/resources/updated";
const WATCHED: &str = "test://watched-resource";

async fn one() -> (Fixture, Cluster, String) {
    let fixture = Fixture::start(Mode::Modern).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "echo").await;
    (fixture, cluster, url)
}

fn call(tool: &str) -> Value {
    json!({"name": tool, "arguments": {}})
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn everything() -> Value {
    json!({"elicitation": {}, "sampling": {}, "roots": {"listChanged": true}})
}

/// Calls a tool and answers what it asks, in whatever order it asks.
async fn answering(session: &mut Session, tool: &str) -> (Vec<String>, Value) {
    let mut stream = Events::of(session.request("tools/call", call(tool)).send().await.unwrap());
    let mut asked = Vec::new();
    loop {
        let message = stream.next().await;
        let Some(method) = message["method"].as_str() else { return (asked, message) };
        let result = match method {
            "elicitation/create" => {
                let wanted = message["params"]["requestedSchema"]["properties"].as_object().unwrap();
                let filled = wanted.keys().map(|key| (key.clone(), json!("Ada")));
                json!({"action": "accept", "content": Value::from_iter(filled)})
            }
            "sampling/createMessage" => {
                json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}})
            }
            "roots/list" => json!({"roots": [{"uri": "file:///workspace"}]}),
            other => panic!("asked {other}"),
        };
        asked.push(method.to_owned());
        let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
        assert_eq!(session.post(&reply).send().await.unwrap().status(), 202);
    }
}

#[tokio::test]
async fn every_method_of_a_legacy_client_has_its_answer() {
    let (_fixture, _cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let called = session.ask("tools/call", call("test_simple_text")).await;
    assert_eq!(text(&called), "This is a simple text response for testing.");
    for modern in ["resultType", "ttlMs", "cacheScope", "_meta"] {
        assert!(called["result"].get(modern).is_none(), "{modern}: {called}");
    }
    let read = session.ask("resources/read", json!({"uri": "test://static-text"})).await;
    assert_eq!(read["result"]["contents"][0]["mimeType"], "text/plain", "{read}");
    assert!(read["result"].get("ttlMs").is_none() && read["result"].get("cacheScope").is_none(), "{read}");
    let prompt = json!({"name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}});
    let prompt = session.ask("prompts/get", prompt).await;
    assert!(prompt["result"]["messages"].is_array(), "{prompt}");
    let reference = json!({"type": "ref/resource", "uri": "test://template/{id}/data"});
    let wanted = json!({"ref": reference, "argument": {"name": "id", "value": "1"}});
    let completed = session.ask("completion/complete", wanted).await;
    assert_eq!(completed["result"]["completion"]["values"], json!(["1", "12"]), "{completed}");
    assert_eq!(session.ask("ping", json!({})).await["result"], json!({}));
    for list in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        let listed = session.ask(list, json!({})).await;
        assert!(listed["result"].get("resultType").is_none() && listed["error"].is_null(), "{listed}");
    }

    let missing = session.ask("resources/read", json!({"uri": "test://nothing"})).await;
    assert_eq!(missing["error"]["code"], -32002, "{missing}");
    let failed = session.ask("tools/call", call("test_error_handling")).await;
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    let unknown = session.ask("tasks/list", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
}

#[tokio::test]
async fn initialize_tells_what_the_backend_can_do() {
    let (_fixture, _cluster, url) = one().await;
    let info = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": info});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let response = crate::raw::http().post(&url).header("accept", "application/json, text/event-stream");
    let answer = crate::raw::answer(response.json(&request).send().await.unwrap()).await;
    let declared = &answer["result"]["capabilities"];
    assert_eq!(declared["resources"]["subscribe"], true, "{answer}");
    for capability in ["logging", "completions", "prompts", "tools"] {
        assert!(declared[capability].is_object(), "{capability}: {answer}");
    }
    assert!(declared.get("tasks").is_none() && declared.get("extensions").is_none(), "{answer}");
    assert_eq!(answer["result"]["instructions"], "A backend for tests of MCP gateways.");
}

#[tokio::test]
async fn arguments_are_repeated_in_headers_where_the_schema_says_so() {
    let (_fixture, _cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    for value in ["plain", "grüße ", "=?base64?x?="] {
        let params = json!({"name": "test_custom_header", "arguments": {"value": value}});
        assert_eq!(text(&session.ask("tools/call", params).await), value);
    }
}

#[tokio::test]
async fn what_the_backend_needs_to_know_is_asked_on_the_stream_of_the_call() {
    let (_fixture, _cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, everything()).await;
    for (tool, methods, said) in [
        ("test_input_required_result_elicitation", &["elicitation/create"][..], "Hello, Ada!"),
        ("test_input_required_result_sampling", &["sampling/createMessage"], "The model says: Paris"),
        ("test_input_required_result_list_roots", &["roots/list"], "Roots: file:///workspace"),
        ("test_input_required_result_request_state", &["elicitation/create"], "state-ok"),
        ("test_input_required_result_multi_round", &["elicitation/create"; 2], "Ada likes Ada"),
        (
            "test_input_required_result_multiple_inputs",
            &["elicitation/create", "roots/list", "sampling/createMessage"],
            "Hello, Ada! Greeting: Paris. Roots: file:///workspace",
        ),
    ] {
        let (mut asked, answer) = answering(&mut session, tool).await;
        asked.sort();
        assert_eq!(asked, methods, "{tool}");
        assert_eq!(text(&answer), said, "{tool}");
    }
    // The oldest revision that has what is asked.
    let mut session = Session::open(&url, "2024-11-05", everything()).await;
    let (asked, answer) = answering(&mut session, "test_input_required_result_sampling").await;
    assert_eq!((asked.len(), text(&answer)), (1, "The model says: Paris"));
}

#[tokio::test]
async fn what_a_client_has_not_declared_is_named_and_not_asked() {
    let (_fixture, _cluster, url) = one().await;
    for (version, capabilities, tool, missing) in [
        (LEGACY, json!({}), "test_input_required_result_elicitation", "elicitation"),
        (LEGACY, json!({"elicitation": {}}), "test_sampling", "sampling"),
        // This revision has no elicitation, whatever its client says.
        ("2025-03-26", everything(), "test_input_required_result_elicitation", "elicitation"),
        (LEGACY, json!({}), "test_missing_capability", "sampling"),
    ] {
        let mut session = Session::open(&url, version, capabilities).await;
        let answer = session.ask("tools/call", json!({"name": tool, "arguments": {"prompt": "?"}})).await;
        assert_eq!(answer["error"]["code"], -31017, "{tool}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(missing), "{tool}: {answer}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_client_reaches_the_backend_or_ends_the_call() {
    let (_fixture, _cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, everything()).await;
    let refused = async |session: &mut Session, tool: &str| {
        let params = json!({"name": tool, "arguments": {"message": "m", "prompt": "p"}});
        let mut stream = Events::of(session.request("tools/call", params).send().await.unwrap());
        let question = stream.next().await;
        let error = json!({"code": -1, "message": "not now"});
        let reply = json!({"jsonrpc": "2.0", "id": question["id"], "error": error});
        assert_eq!(session.post(&reply).send().await.unwrap().status(), 202);
        stream.next().await
    };
    let answer = refused(&mut session, "test_elicitation").await;
    assert_eq!(text(&answer), "User response: action=cancel, content=null");
    let answer = refused(&mut session, "test_sampling").await;
    assert_eq!(answer["error"]["code"], -31017, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("not now"), "{answer}");
}

#[tokio::test]
async fn progress_and_log_lines_come_before_the_answer() {
    let (_fixture, _cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut params = call("test_tool_with_progress");
    params["_meta"] = json!({"progressToken": "mine"});
    let said = messages(session.request("tools/call", params).send().await.unwrap()).await;
    assert_eq!(said.len(), 4, "{said:?}");
    for message in &said[..3] {
        assert_eq!(
            (&message["method"], &message["params"]["progressToken"]),
            (&json!(PROGRESS), &json!("mine"))
        );
    }

    let logged = async |session: &mut Session| {
        let said =
            messages(session.request("tools/call", call("test_tool_with_logging")).send().await.unwrap());
        said.await.iter().filter(|message| message["method"] == LOG).count()
    };
    assert_eq!(logged(&mut session).await, 0, "nobody has asked for them");
    for (level, lines) in [("info", 3), ("error", 0), ("debug", 3)] {
        assert_eq!(session.ask("logging/setLevel", json!({"level": level})).await["result"], json!({}));
        assert_eq!(logged(&mut session).await, lines, "{level}");
    }
    let mut other = Session::open(&url, LEGACY, json!({})).await;
    assert_eq!(logged(&mut other).await, 0, "the level is of one session");
    let loud = session.ask("logging/setLevel", json!({"level": "loud"})).await;
    assert_eq!(loud["error"]["code"], -32602, "{loud}");
}

#[tokio::test]
async fn a_followed_resource_is_announced_on_the_sessions_own_stream() {
    let (_fixture, _cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut own = Events::of(session.stream().await);
    for uri in [WATCHED, "test://static-text", WATCHED] {
        assert_eq!(
            session.ask("resources/subscribe", json!({"uri": uri})).await["result"],
            json!({}),
            "{uri}"
        );
    }
    for _ in 0..2 {
        session.ask("tools/call", call("test_trigger_resource_update")).await;
        let told = own.next().await;
        assert_eq!((&told["method"], &told["params"]), (&json!(UPDATED), &json!({"uri": WATCHED})), "{told}");
    }
    assert_eq!(session.ask("resources/unsubscribe", json!({"uri": WATCHED})).await["result"], json!({}));
    session.ask("tools/call", call("test_trigger_resource_update")).await;
    session.ask("tools/call", call("test_trigger_tool_change")).await;
    let told = own.next().await;
    assert_eq!(told["method"], "notifications/tools/list_changed", "it no longer follows: {told}");
}

#[tokio::test]
async fn a_cancelled_call_ends_at_the_backend() {
    let (fixture, _cluster, url) = one().await;
    let counted = async |what: &str| {
        let answer = ask(fixture.url(), "tools/call", call("cancelled_count")).await;
        answer["result"]["structuredContent"][what].as_u64().unwrap_or_else(|| panic!("{answer}"))
    };
    let until = async |what: &str| {
        eventually(&format!("one call {what}"), async || match counted(what).await {
            1 => Ok(()),
            other => Err(format!("{other} {what}")),
        })
        .await;
    };
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let request = session.request("tools/call", json!({"name": "slow", "arguments": {"ms": 60_000}}));
    let running = Background::run(async move { request.send().await.unwrap().text().await });
    until("started").await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    assert_eq!(session.post(&cancel).send().await.unwrap().status(), 202);
    until("cancelled").await;
    running.end().await.unwrap();
}

#[tokio::test]
async fn old_revisions_get_as_text_what_they_do_not_have() {
    let (_fixture, _cluster, url) = one().await;
    for (version, kind) in [("2024-11-05", "text"), ("2025-03-26", "audio")] {
        let mut session = Session::open(&url, version, json!({})).await;
        let answer = session.ask("tools/call", call("test_audio_content")).await;
        assert_eq!(answer["result"]["content"][0]["type"], kind, "{version}: {answer}");
    }
}

#[tokio::test]
async fn legacy_libraries_use_it_over_http_and_stdio() {
    let fixture = Fixture::start(Mode::Modern).await;
    let cluster = Cluster::start(1).await;
    let members = json!({"members": [{"backend": "fixture"}, {"backend": "pipe"}]});
    let text = over_http("fixture", fixture.url())
        + &over_stdio("pipe", Path::new(BINARY), &["stdio", Mode::Modern.flag()])
        + &gateway("default", &members);
    cluster.apply(&text).await;
    let url = cluster.nodes[0].url("default");
    for backend in ["fixture", "pipe"] {
        let questions = format!("{backend}_test_input_required_result_multiple_inputs");
        shows_tool(&url, &questions).await;
        for client in [Client::Py1, Client::Ts1] {
            let said = client.run(&url, &["--tool", &questions]).await.succeeded();
            assert_eq!(said.protocol_version(), LEGACY, "{client:?}");
            assert_eq!(said.text(), "Hello, Ada! Greeting: Paris. Roots: file:///workspace", "{client:?}");
        }
    }
    let transport = StreamableHttpClientTransport::from_uri(url.as_str());
    let client = ().serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await.unwrap();
    assert!(client.list_all_tools().await.unwrap().iter().any(|tool| tool.name == "pipe_echo"));
    client.cancel().await.unwrap();
}
