//! What a client and a server say to each other besides calls and answers, in
//! both eras, through a node.

use serde_json::{Value, json};

use crate::cluster::{Background, Cluster, eventually};
use crate::fixture::{Fixture, Mode};
use crate::manifest::{backend, over_http, plain_gateway};
use crate::raw::{Events, Session, ask, messages, modern, shows_tool, tool_names};

const LEGACY: &str = "2025-11-25";
const LOG: &str = "notifications/message";

/// A fixture of an era behind one node; the gateway's URL.
async fn one(mode: Mode) -> (Fixture, Cluster, String) {
    let fixture = Fixture::start(mode).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    let url = cluster.nodes[0].url("default");
    // A modern list shows what the catalog holds, whatever the backend speaks.
    shows_tool(&url, "echo").await;
    (fixture, cluster, url)
}

fn call(tool: &str) -> Value {
    json!({"name": tool, "arguments": {}})
}

fn methods(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["method"].as_str().unwrap_or("answer")).collect()
}

/// How many slow calls the fixture has seen cancelled, asked directly.
async fn cancelled(fixture: &Fixture) -> u64 {
    let answer = ask(fixture.url(), "tools/call", call("cancelled_count")).await;
    answer["result"]["structuredContent"]["cancelled"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

async fn started(fixture: &Fixture) -> u64 {
    let answer = ask(fixture.url(), "tools/call", call("cancelled_count")).await;
    answer["result"]["structuredContent"]["started"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn progress_comes_before_the_answer_with_the_clients_token() {
    let (_fixture, _cluster, url) = one(Mode::Dual).await;
    let mut params = call("test_tool_with_progress");
    params["_meta"] = json!({"progressToken": "mine"});
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let legacy = messages(session.request("tools/call", params.clone()).send().await.unwrap()).await;
    let modern = messages(modern(&url, 5, "tools/call", params).send().await.unwrap()).await;
    for said in [legacy, modern] {
        let progress = "notifications/progress";
        assert_eq!(methods(&said), [progress, progress, progress, "answer"], "{said:?}");
        for (message, progress) in said.iter().zip([0.0, 50.0, 100.0]) {
            assert_eq!(message["params"]["progressToken"], "mine");
            assert_eq!(message["params"]["progress"].as_f64(), Some(progress));
        }
    }
}

#[tokio::test]
async fn log_lines_come_where_the_client_wants_them() {
    let (_fixture, _cluster, url) = one(Mode::Dual).await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut own = Events::of(session.stream().await);
    assert_eq!(session.ask("logging/setLevel", json!({"level": "info"})).await["error"], Value::Null);
    session.ask("tools/call", call("test_tool_with_logging")).await;
    for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        let told = own.next().await;
        assert_eq!((&told["method"], &told["params"]["data"]), (&json!(LOG), &json!(line)), "{told}");
    }
    assert_eq!(session.ask("logging/setLevel", json!({"level": "error"})).await["error"], Value::Null);
    session.ask("tools/call", call("test_tool_with_logging")).await;
    session.ask("tools/call", call("test_trigger_tool_change")).await;
    let told = own.next().await;
    assert_eq!(told["method"], "notifications/tools/list_changed", "no line below the level: {told}");

    let mut permitted = call("test_logging_tool");
    let silent = messages(modern(&url, 1, "tools/call", permitted.clone()).send().await.unwrap()).await;
    assert_eq!(methods(&silent), ["answer"], "{silent:?}");
    permitted["_meta"] = json!({"io.modelcontextprotocol/logLevel": "debug"});
    let said = messages(modern(&url, 2, "tools/call", permitted).send().await.unwrap()).await;
    assert_eq!(methods(&said), [LOG, "answer"], "{said:?}");
}

#[tokio::test]
async fn a_legacy_client_cancels_by_telling_so() {
    let (fixture, _cluster, url) = one(Mode::Dual).await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    let request = session.request("tools/call", slow);
    let running = Background::run(async move { request.send().await.unwrap().text().await });
    eventually("the call under way", async || match started(&fixture).await {
        1 => Ok(()),
        other => Err(format!("{other} started")),
    })
    .await;
    // Another id is nobody's: nothing happens.
    for id in [999, 2] {
        let params = json!({"requestId": id, "reason": "enough"});
        let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
        assert_eq!(session.post(&cancel).send().await.unwrap().status(), 202);
    }
    eventually("the cancellation at the backend", async || match cancelled(&fixture).await {
        1 => Ok(()),
        other => Err(format!("{other} cancelled")),
    })
    .await;
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_legacy_client_that_goes_away_cancels_nothing_and_a_modern_one_does() {
    let (fixture, _cluster, url) = one(Mode::Dual).await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let slow = |ms: u64| json!({"name": "slow", "arguments": {"ms": ms}});
    let go_away = async |request: reqwest::RequestBuilder, nth: u64| {
        let running = Background::run(request.send());
        eventually("the call under way", async || match started(&fixture).await {
            started if started == nth => Ok(()),
            other => Err(format!("{other} started")),
        })
        .await;
        drop(running);
    };
    go_away(session.request("tools/call", slow(300)), 1).await;
    let finished = async || {
        let answer = ask(fixture.url(), "tools/call", call("cancelled_count")).await;
        answer["result"]["structuredContent"]["finished"].as_u64()
    };
    eventually("the end of the call", async || match finished().await {
        Some(1) => Ok(()),
        other => Err(format!("{other:?} finished")),
    })
    .await;
    assert_eq!(cancelled(&fixture).await, 0);

    go_away(modern(&url, 9, "tools/call", slow(60_000)), 2).await;
    eventually("the cancellation at the backend", async || match cancelled(&fixture).await {
        1 => Ok(()),
        other => Err(format!("{other} cancelled")),
    })
    .await;
}

#[tokio::test]
async fn a_change_of_a_list_is_told_once_and_after_it_is_in_service() {
    let (_fixture, _cluster, url) = one(Mode::Dual).await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut own = Events::of(session.stream().await);
    let wanted = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let mut listening = Events::of(modern(&url, 3, "subscriptions/listen", wanted).send().await.unwrap());
    let acknowledged = listening.next().await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    assert_eq!(acknowledged["params"]["notifications"]["toolsListChanged"], true, "{acknowledged}");

    for there in [true, false] {
        let answer = session.ask("tools/call", call("test_trigger_tool_change")).await;
        assert_eq!(answer["result"]["content"][0]["text"], format!("dynamic_tool listed: {there}"));
        let told = own.next().await;
        assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
        let names = tool_names(&url).await.unwrap();
        assert_eq!(names.iter().any(|name| name == "dynamic_tool"), there, "told before it was so");
        let told = listening.next().await;
        assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 3, "{told}");
    }
    // What comes next is about prompts: nothing was said twice.
    session.ask("tools/call", call("test_trigger_prompt_change")).await;
    for told in [own.next().await, listening.next().await] {
        assert_eq!(told["method"], "notifications/prompts/list_changed", "{told}");
    }
}

#[tokio::test]
async fn a_watched_resource_is_told_to_who_watches_it() {
    let (_fixture, _cluster, url) = one(Mode::Dual).await;
    let uri = "test://watched-resource";
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut own = Events::of(session.stream().await);
    assert_eq!(session.ask("resources/subscribe", json!({"uri": uri})).await["error"], Value::Null);
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let mut listening = Events::of(modern(&url, 4, "subscriptions/listen", wanted).send().await.unwrap());
    listening.next().await;
    for revision in [1, 2] {
        let answer = session.ask("tools/call", call("test_trigger_resource_update")).await;
        assert_eq!(answer["result"]["content"][0]["text"], format!("revision {revision}"));
        for told in [own.next().await, listening.next().await] {
            assert_eq!(
                (&told["method"], &told["params"]["uri"]),
                (&json!("notifications/resources/updated"), &json!(uri))
            );
        }
        let read = ask(&url, "resources/read", json!({"uri": uri})).await;
        assert_eq!(read["result"]["contents"][0]["text"], format!("revision {revision}"), "{read}");
    }
    assert_eq!(session.ask("resources/unsubscribe", json!({"uri": uri})).await["error"], Value::Null);
    session.ask("tools/call", call("test_trigger_resource_update")).await;
    session.ask("tools/call", call("test_trigger_tool_change")).await;
    let told = own.next().await;
    assert_eq!(told["method"], "notifications/tools/list_changed", "it no longer watches: {told}");
}

#[tokio::test]
async fn questions_reach_the_client_that_called() {
    let (_fixture, _cluster, url) = one(Mode::Dual).await;
    let capabilities = json!({"elicitation": {}, "sampling": {}, "roots": {}});
    let mut asked = Session::open(&url, LEGACY, capabilities).await;
    let request = asked.request("tools/call", call("test_input_required_result_elicitation"));
    let mut stream = Events::of(request.send().await.unwrap());
    let question = stream.next().await;
    assert_eq!(question["method"], "elicitation/create", "{question}");

    // Somebody else's answer is not taken.
    let answer = |name: &str| json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": name}}});
    let other = Session::open(&url, LEGACY, json!({"elicitation": {}})).await;
    assert_eq!(other.post(&answer("Mallory")).send().await.unwrap().status(), 202);
    assert_eq!(asked.post(&answer("Ada")).send().await.unwrap().status(), 202);
    let result = stream.next().await;
    assert_eq!(result["result"]["content"][0]["text"], "Hello, Ada!", "{result}");
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_gets_an_error_and_no_silence() {
    let (_fixture, _cluster, url) = one(Mode::Dual).await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let answer =
        session.ask("tools/call", json!({"name": "test_sampling", "arguments": {"prompt": "?"}})).await;
    assert!(answer["error"].is_object() || answer["result"]["isError"] == true, "{answer}");
}

#[tokio::test]
async fn a_backend_of_either_era_serves_clients_of_both() {
    for mode in [Mode::Modern, Mode::Legacy] {
        let (_fixture, _cluster, url) = one(mode).await;
        let mut session = Session::open(&url, LEGACY, json!({})).await;
        let legacy = session.ask("tools/call", call("test_simple_text")).await;
        let modern = ask(&url, "tools/call", call("test_simple_text")).await;
        for answer in [&legacy, &modern] {
            let text = &answer["result"]["content"][0]["text"];
            assert_eq!(text, "This is a simple text response for testing.", "{mode:?}: {answer}");
        }
        assert_eq!(legacy["result"].get("resultType"), None, "{mode:?}: {legacy}");
        assert_eq!(modern["result"]["resultType"], "complete", "{mode:?}: {modern}");
    }
}

#[tokio::test]
async fn a_pinned_era_is_kept_although_the_backend_speaks_both() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    let pinned = |name: &str, protocol: &str| {
        backend(name, &json!({"http": {"url": fixture.url()}, "protocol": protocol}))
            + &plain_gateway(name, name)
    };
    cluster.apply(&(pinned("legacy", "legacy") + &pinned("modern", "modern"))).await;
    for gateway in ["legacy", "modern"] {
        let url = cluster.nodes[0].url(gateway);
        shows_tool(&url, "session").await;
        // A legacy backend counts the sessions that it has opened; a modern one has none.
        let mut session = Session::open(&url, LEGACY, json!({})).await;
        let mut count = async || {
            let answer = session.ask("tools/call", call("session")).await;
            answer["result"]["structuredContent"]["count"].as_u64().unwrap_or_else(|| panic!("{answer}"))
        };
        let counts = [count().await, count().await];
        assert_eq!(counts, if gateway == "legacy" { [1, 2] } else { [1, 1] }, "{gateway}");
        let answer = ask(&url, "tools/call", call("echo")).await;
        assert_eq!(answer["error"], Value::Null, "{gateway}: {answer}");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_speak_the_era_it_is_pinned_to_is_named() {
    let fixture = Fixture::start(Mode::Modern).await;
    let cluster = Cluster::start(1).await;
    let text = backend("fixture", &json!({"http": {"url": fixture.url()}, "protocol": "legacy"}));
    cluster.apply(&(text + &plain_gateway("default", "fixture"))).await;
    let mut session = Session::open(&cluster.nodes[0].url("default"), LEGACY, json!({})).await;
    let refused = session.ask("skills/list", json!({})).await;
    assert_eq!(refused["error"]["code"], -31018, "{refused}");
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains("backend fixture") && said.contains("legacy") && said.contains("modern"), "{said}");
}
