//! Modern clients on backends that speak only the legacy era, over HTTP and on a
//! pipe: what a backend asks on the way ends the response, and the retry goes on
//! with the same call.

use std::path::Path;

use reqwest::RequestBuilder;
use serde_json::{Map, Value, json};

use crate::cluster::{Background, Cluster, eventually};
use crate::fixture::{BINARY, Fixture, Mode};
use crate::manifest::{over_http, over_stdio, plain_gateway};
use crate::peers::Client;
use crate::raw::{Events, answer, http, messages, shows_tool};

const WATCHED: &str = "test://watched-resource";

/// A legacy backend behind one node.
struct Bridge {
    url: String,
    _fixture: Option<Fixture>,
    _cluster: Cluster,
}

impl Bridge {
    async fn over_http() -> Self {
        let fixture = Fixture::start(Mode::Legacy).await;
        let manifest = over_http("old", fixture.url());
        Self::start(Some(fixture), manifest).await
    }

    async fn over_stdio() -> Self {
        Self::start(None, over_stdio("old", Path::new(BINARY), &["stdio", Mode::Legacy.flag()])).await
    }

    async fn both() -> [Self; 2] {
        [Self::over_http().await, Self::over_stdio().await]
    }

    async fn start(fixture: Option<Fixture>, manifest: String) -> Self {
        let cluster = Cluster::start(1).await;
        cluster.apply(&(manifest + &plain_gateway("default", "old"))).await;
        let url = cluster.nodes[0].url("default");
        shows_tool(&url, "echo").await;
        Self { url, _fixture: fixture, _cluster: cluster }
    }

    /// A request of a client that can be asked everything.
    fn request(&self, id: u64, method: &str, params: Value) -> RequestBuilder {
        let all = json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}});
        self.request_with(&all, id, method, params)
    }

    fn request_with(&self, capabilities: &Value, id: u64, method: &str, mut params: Value) -> RequestBuilder {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities.clone();
        let mut request = http()
            .post(&self.url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method);
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
            request = request.header("mcp-name", name);
        }
        request.json(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        answer(self.request(1, method, params).send().await.unwrap()).await
    }

    async fn call(&self, params: Value) -> Value {
        self.ask("tools/call", params).await
    }

    async fn count(&self, of: &str) -> u64 {
        let answer = self.call(tool("cancelled_count")).await;
        answer["result"]["structuredContent"][of].as_u64().unwrap_or_else(|| panic!("{answer}"))
    }
}

fn tool(name: &str) -> Value {
    json!({"name": name, "arguments": {}})
}

/// What a client of ours says to a question.
fn reply(question: &Value) -> Value {
    match question["method"].as_str().unwrap() {
        "sampling/createMessage" => {
            json!({"role": "assistant", "model": "none", "content": {"type": "text", "text": "Paris"}})
        }
        "roots/list" => json!({"roots": [{"uri": "file:///workspace"}]}),
        _ => json!({"action": "accept", "content": {"name": "Ada", "color": "blue", "ok": true}}),
    }
}

/// The request with answers to what was asked.
fn again(params: &Value, asked: &Value) -> Value {
    let asked = &asked["result"];
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let questions = asked["inputRequests"].as_object().unwrap_or_else(|| panic!("{asked}"));
    let replies: Map<_, _> = questions.iter().map(|(key, question)| (key.clone(), reply(question))).collect();
    let mut retry = params.clone();
    retry["inputResponses"] = replies.into();
    retry["requestState"] = asked["requestState"].clone();
    retry
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

#[tokio::test]
async fn answers_are_what_the_modern_era_demands() {
    for bridge in Bridge::both().await {
        let said = bridge.call(json!({"name": "echo", "arguments": {"text": "x", "n": 1}})).await;
        assert_eq!((text(&said), &said["result"]["resultType"]), ("x", &json!("complete")), "{said}");
        let read = bridge.ask("resources/read", json!({"uri": "test://static-text"})).await;
        assert_eq!(read["result"]["cacheScope"], "private", "{read}");
        let missing = bridge.ask("resources/read", json!({"uri": "test://nothing"})).await;
        assert_eq!(missing["error"]["code"], -32602, "{missing}");
        assert_eq!(missing["error"]["data"]["uri"], "test://nothing", "{missing}");
        let task = bridge.ask("tasks/get", json!({"taskId": "1"})).await;
        assert!([json!(-32601), json!(-32020)].contains(&task["error"]["code"]), "{task}");
    }
}

#[tokio::test]
async fn every_kind_of_question_reaches_the_client() {
    for bridge in Bridge::both().await {
        for (name, kinds, said) in [
            ("test_input_required_result_elicitation", vec!["elicitation/create"], "Hello, Ada!"),
            ("test_input_required_result_sampling", vec!["sampling/createMessage"], "The model says: Paris"),
            ("test_input_required_result_list_roots", vec!["roots/list"], "Roots: file:///workspace"),
            (
                "test_input_required_result_multiple_inputs",
                vec!["elicitation/create", "roots/list", "sampling/createMessage"],
                "Hello, Ada! Greeting: Paris. Roots: file:///workspace",
            ),
        ] {
            let asked = bridge.call(tool(name)).await;
            let questions = asked["result"]["inputRequests"].as_object().unwrap_or_else(|| panic!("{asked}"));
            let mut methods: Vec<_> = questions.values().map(|q| q["method"].as_str().unwrap()).collect();
            methods.sort_unstable();
            assert_eq!(methods, kinds, "questions of one moment come together");
            let answer = bridge.call(again(&tool(name), &asked)).await;
            assert_eq!((text(&answer), &answer["result"]["resultType"]), (said, &json!("complete")));
        }
    }
}

#[tokio::test]
async fn a_call_may_ask_in_rounds_and_its_questions_be_answered_one_by_one() {
    for bridge in Bridge::both().await {
        let rounds = tool("test_input_required_result_multi_round");
        let second = bridge.call(again(&rounds, &bridge.call(rounds.clone()).await)).await;
        assert_eq!(text(&bridge.call(again(&rounds, &second)).await), "Ada likes blue");

        let many = tool("test_input_required_result_multiple_inputs");
        let mut asked = bridge.call(many.clone()).await;
        for left in [2, 1] {
            let mut retry = again(&many, &asked);
            let replies = retry["inputResponses"].as_object_mut().unwrap();
            let first = replies.keys().next().unwrap().clone();
            replies.retain(|key, _| *key == first);
            replies.insert("unasked".to_owned(), json!({}));
            asked = bridge.call(retry).await;
            assert_eq!(asked["result"]["inputRequests"].as_object().unwrap().len(), left, "{asked}");
        }
        let said = text(&bridge.call(again(&many, &asked)).await).to_owned();
        assert_eq!(said, "Hello, Ada! Greeting: Paris. Roots: file:///workspace");
    }
}

#[tokio::test]
async fn a_client_is_asked_only_what_it_has_declared() {
    for bridge in Bridge::both().await {
        let params = tool("test_input_required_result_elicitation");
        let request = bridge.request_with(&json!({}), 1, "tools/call", params);
        let refused = answer(request.send().await.unwrap()).await;
        assert!(refused["error"]["code"].is_i64(), "{refused}");
        let params = tool("test_input_required_result_capabilities");
        let request = bridge.request_with(&json!({"roots": {}}), 1, "tools/call", params.clone());
        let asked = answer(request.send().await.unwrap()).await;
        let questions = asked["result"]["inputRequests"].as_object().unwrap_or_else(|| panic!("{asked}"));
        assert!(questions.values().all(|question| question["method"] == "roots/list"), "{asked}");
    }
}

#[tokio::test]
async fn a_state_serves_its_request_and_no_other() {
    let bridge = Bridge::over_http().await;
    let params = tool("test_input_required_result_elicitation");
    let retry = again(&params, &bridge.call(params.clone()).await);
    let mut other_arguments = retry.clone();
    other_arguments["arguments"] = json!({"x": 1});
    let mut other_tool = retry.clone();
    other_tool["name"] = "test_input_required_result_sampling".into();
    let mut forged = retry.clone();
    forged["requestState"] = format!("{}x", retry["requestState"].as_str().unwrap()).into();
    for stolen in [other_arguments, other_tool, forged] {
        let refused = bridge.call(stolen).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    assert_eq!(text(&bridge.call(retry.clone()).await), "Hello, Ada!");
    assert_eq!(text(&bridge.call(retry.clone()).await), "Hello, Ada!", "the same again gets the same");
    let mut other_answers = retry;
    for (_, reply) in other_answers["inputResponses"].as_object_mut().unwrap() {
        reply["content"]["name"] = "Grace".into();
    }
    let refused = bridge.call(other_answers).await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
}

#[tokio::test]
async fn urls_to_visit_are_asked_for() {
    let bridge = Bridge::over_http().await;
    let visit =
        json!({"mode": "url", "elicitationId": "1", "url": "https://example.com/", "message": "Sign in"});
    let arguments = json!({"code": -32042, "message": "visit", "data": {"elicitations": [visit]}});
    let params = json!({"name": "fail", "arguments": arguments});
    let asked = bridge.call(params.clone()).await;
    assert_eq!(
        asked["result"]["inputRequests"]["url-1"],
        json!({"method": "elicitation/create",
               "params": {"mode": "url", "url": "https://example.com/", "message": "Sign in"}}),
        "{asked}"
    );
    let state = asked["result"]["requestState"].as_str().unwrap();
    assert!(!state.contains("elicitationIds"), "it is sealed: {state}");
    // The same call is sent again, and fails again.
    assert_eq!(bridge.call(again(&params, &asked)).await["result"]["resultType"], "input_required");
    let forms = bridge.request_with(&json!({"elicitation": {}}), 1, "tools/call", params);
    assert_eq!(answer(forms.send().await.unwrap()).await["error"]["code"], -32021);
}

#[tokio::test]
async fn progress_and_log_lines_come_as_the_request_wants_them() {
    for bridge in Bridge::both().await {
        let said = async |name: &str, meta: Value| {
            let params = json!({"name": name, "arguments": {}, "_meta": meta});
            messages(bridge.request(1, "tools/call", params).send().await.unwrap()).await
        };
        let progress = said("test_tool_with_progress", json!({"progressToken": "mine"})).await;
        assert_eq!(progress.len(), 4, "{progress:?}");
        assert!(progress[..3].iter().all(|told| told["params"]["progressToken"] == "mine"), "{progress:?}");
        let level = async |level: &str| {
            let level = json!({"io.modelcontextprotocol/logLevel": level});
            said("test_tool_with_logging", level).await.len()
        };
        assert_eq!(said("test_tool_with_logging", json!({})).await.len(), 1, "it wants no log lines");
        let lines = [level("error").await, level("info").await, level("error").await, level("debug").await];
        assert_eq!(lines, [1, 4, 1, 4]);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_at_the_backend() {
    let bridge = Bridge::over_http().await;
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    let running = Background::run(bridge.request(1, "tools/call", slow).send());
    eventually("the call under way", async || match bridge.count("started").await {
        1 => Ok(()),
        other => Err(format!("{other} started")),
    })
    .await;
    drop(running);
    eventually("the cancellation at the backend", async || match bridge.count("cancelled").await {
        1 => Ok(()),
        other => Err(format!("{other} cancelled")),
    })
    .await;
}

#[tokio::test]
async fn who_listens_hears_of_resources() {
    for bridge in Bridge::both().await {
        let filter = json!({"notifications": {"resourceSubscriptions": [WATCHED]}});
        let response = bridge.request(77, "subscriptions/listen", filter).send().await.unwrap();
        let mut events = Events::of(response);
        let acknowledged = events.next().await;
        assert_eq!(acknowledged["params"]["notifications"]["resourceSubscriptions"], json!([WATCHED]));
        // On a pipe the change is one of the process, which is shared by who cannot be asked.
        let change = tool("test_trigger_resource_update");
        bridge.request_with(&json!({}), 1, "tools/call", change).send().await.unwrap();
        let told = events.next().await;
        assert_eq!(told["method"], "notifications/resources/updated", "{told}");
        assert_eq!(told["params"]["uri"], WATCHED);
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 77);
    }
}

#[tokio::test]
async fn an_official_client_answers_what_a_legacy_backend_asks() {
    for bridge in Bridge::both().await {
        for client in [Client::Py2, Client::Ts2] {
            let tool = ["--era", "modern", "--tool", "test_input_required_result_multiple_inputs"];
            let said = client.run(&bridge.url, &tool).await.succeeded();
            assert_eq!(said.protocol_version(), "2026-07-28", "{client:?}");
            assert_eq!(said.text(), "Hello, Ada! Greeting: Paris. Roots: file:///workspace", "{client:?}");
        }
    }
}
