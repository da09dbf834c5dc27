//! The doors for programs that speak no MCP, as plain HTTP: who may, what is
//! there, what fails how, and what is told while a tool runs.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    cluster::{Cluster, Node, eventually, printed},
    fixture::{Fixture, Mode},
    manifest::{over_http, policy},
    raw::{Events, Session, http, shows_tool},
};

const MIB: usize = 1 << 20;

/// A node with an MCP server and a tool set behind two gateways: the default one,
/// and `closed`, which wants a key.
pub struct World {
    _fixture: Fixture,
    pub cluster: Cluster,
    pub key: String,
}

const FLOOD: &str =
    "i=0; while [ $i -lt 400 ]; do i=$((i+1)); head -c 200000 /dev/zero | tr '\\0' x; echo; done";
/// What the tool `flood` says, in all.
const FLOOD_BYTES: usize = 400 * 200_000;

/// A tool set: one tool takes a number and gives it back, one is hidden, one is
/// switched off, one is too slow.
fn tool_set() -> Value {
    let shell =
        |script: &str| json!({"type": "subprocess", "config": {"command": "sh", "args": ["-c", script]}});
    let number = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let tools = json!([
        {
            "name": "number", "description": "Gives its number back.", "inputSchema": number,
            "outputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            "annotations": {"readOnlyHint": true},
            "routing": {"type": "subprocess", "config": {"command": "sh", "args": ["-c", "echo \"{\\\"n\\\": $1}\"", "sh", "{{n}}"], "output": "json"}},
        },
        {"name": "veiled", "description": "Is not shown.", "hidden": true, "routing": shell("echo veiled")},
        {"name": "off", "description": "Is switched off.", "enabled": false, "routing": shell("echo off")},
        {"name": "late", "description": "Is too slow.", "timeout": "300ms", "routing": shell("sleep 30")},
        {"name": "flood", "description": "Says a lot.", "timeout": "60s", "routing": {"type": "subprocess", "config": {"command": "sh", "args": ["-c", FLOOD], "stream": true, "truncate": true}}},
        {"name": "no", "description": "Refuses.", "routing": shell("echo no >&2; exit 3")},
    ]);
    json!({"apiVersion": "magictunnel/v1", "kind": "ToolSet", "metadata": {"name": "set"}, "spec": {"tools": tools}})
}

fn labeled(name: &str, spec: &Value) -> String {
    let metadata = json!({"name": name, "labels": {"gateway": name}});
    let document =
        json!({"apiVersion": "magictunnel/v1", "kind": "Gateway", "metadata": metadata, "spec": spec});
    format!("---\n{document}\n")
}

impl World {
    pub async fn start() -> Self {
        Self::with_mode(Mode::Dual).await
    }

    pub async fn with_mode(mode: Mode) -> Self {
        let fixture = Fixture::start(mode).await;
        let cluster = Cluster::start(1).await;
        let spec = json!({
            "title": "Everything",
            "toolName": "{tool}",
            "hide": ["test_image_content"],
            "members": [{"backend": "fixture"}, {"toolSet": "set"}],
        });
        let closed =
            json!({"gateways": {"matchLabels": {"gateway": "closed"}}, "authn": {"anonymous": "refused"}});
        let quick = json!({"tools": ["slow"], "timeout": {"limit": "1s"}});
        let text = format!("---\n{}\n", tool_set())
            + &over_http("fixture", fixture.url())
            + &labeled("default", &spec)
            + &labeled("closed", &spec)
            + &policy("closed", &closed)
            + &policy("quick", &quick);
        cluster.apply(&text).await;
        shows_tool(&cluster.nodes[0].url("default"), "echo").await;
        let key = printed(&cluster.mtctl(&["principal", "create", "ada"]).await);
        cluster.in_service(cluster.control.head().await).await;
        Self { _fixture: fixture, cluster, key: key.trim().to_owned() }
    }

    pub fn node(&self) -> &Node {
        &self.cluster.nodes[0]
    }

    /// `http://localhost:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        let port = self.node().mcp.rsplit_once(':').unwrap().1;
        format!("http://localhost:{port}{path}")
    }

    fn get(&self, path: &str) -> RequestBuilder {
        http().get(self.url(path))
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        http().post(self.url(path)).json(body)
    }

    async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.node().admin);
        let text = http().get(url).send().await.unwrap().text().await.unwrap();
        let values = text.lines().filter(|line| line.starts_with(name));
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

async fn read(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}")))
}

/// The error of a refused request, whose shape is the same everywhere.
async fn refused(request: RequestBuilder, status: u16) -> Value {
    let (got, body) = read(request).await;
    assert_eq!(got, status, "{body}");
    let error = body["error"].clone();
    // A backend's own error is as the backend has it.
    let ours = error["code"].as_i64().is_some_and(|code| (-31_099..-31_000).contains(&code));
    assert!(error["code"].is_i64() && error["message"].is_string(), "{body}");
    assert!(!ours || error["data"]["side"].is_string(), "{body}");
    error
}

/// Every way to call a tool, with the same meaning.
fn calls(world: &World, prefix: &str, name: &str, arguments: &Value) -> Vec<(&'static str, RequestBuilder)> {
    let body = json!({"name": name, "arguments": arguments});
    let older = json!({"tool": name, "parameters": arguments});
    let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    vec![
        ("call", world.post(&format!("{prefix}/mcp/call"), &body)),
        ("v1", world.post(&format!("{prefix}/v1/mcp/call"), &older)),
        ("stream", world.post(&format!("{prefix}/mcp/call/stream"), &body)),
        ("execute", world.post(&format!("{prefix}/mcp/tools/{encoded}/execute"), arguments)),
        ("dashboard", world.post(&format!("{prefix}/dashboard/api/tools/{encoded}/execute"), arguments)),
    ]
}

/// The result in an answer of any of them.
async fn result_of(door: &str, request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{door}: {text}");
    match door {
        "stream" => {
            let last: Value = serde_json::from_str(text.trim_end().lines().last().unwrap()).unwrap();
            assert_eq!(last["type"], "result", "{last}");
            last["result"].clone()
        }
        _ => serde_json::from_str(&text).unwrap(),
    }
}

#[tokio::test]
async fn a_tool_is_called_through_every_door() {
    let world = World::start().await;
    for (door, request) in calls(&world, "", "echo", &json!({"text": "Grüße 🙂 世界"})) {
        let result = result_of(door, request).await;
        assert_eq!(result["content"][0]["text"], "Grüße 🙂 世界", "{door}");
    }
    for (door, request) in calls(&world, "", "payload", &json!({"bytes": MIB})) {
        let result = result_of(door, request).await;
        assert_eq!(result["content"][0]["text"].as_str().unwrap().len(), MIB, "{door}");
    }
    for (door, request) in calls(&world, "", "veiled", &json!({})) {
        let result = result_of(door, request).await;
        assert_eq!(
            result["content"][0]["text"].as_str().unwrap().trim(),
            "veiled",
            "hidden is not forbidden: {door}"
        );
    }
    // A backend of the modern era wants a header that no such client sends.
    for (door, request) in calls(&world, "", "test_custom_header", &json!({"value": "ü"})) {
        let result = result_of(door, request).await;
        assert!(result.to_string().contains('ü') && result["isError"] != true, "{door}: {result}");
    }
    for (door, request) in calls(&world, "", "number", &json!({"n": 7})) {
        let result = result_of(door, request).await;
        let expected = json!({"n": 7});
        let got =
            if matches!(door, "execute" | "dashboard") { &result } else { &result["structuredContent"] };
        assert_eq!(*got, expected, "{door}: {result}");
    }
    assert!(
        world.metric("mt_downstream_plain_requests_total{door=\"rest\",outcome=\"served\"}").await >= 20.0
    );
}

#[tokio::test]
async fn arguments_and_results_of_a_mebibyte_pass_and_more_than_the_limit_does_not() {
    let world = World::start().await;
    let text = "ü".repeat(MIB / 2);
    for (door, request) in calls(&world, "", "echo", &json!({"text": text})) {
        let result = result_of(door, request).await;
        assert!(result["content"][0]["text"] == text, "{door}");
    }
    for (_, request) in calls(&world, "", "echo", &json!({"text": "x".repeat(5 * MIB)})) {
        assert_eq!(refused(request, 413).await["code"], -31012);
    }
}

#[tokio::test]
async fn what_fails_has_the_status_of_its_kind() {
    let world = World::start().await;
    for name in ["nothing", "off", "set_off"] {
        for (_, request) in calls(&world, "", name, &json!({})) {
            let error = refused(request, 404).await;
            assert_eq!(error["message"], format!("unknown tool {name:?}"));
        }
    }
    for (door, request) in calls(&world, "", "slow", &json!({"ms": 30_000})) {
        let error = refused(request, 504).await;
        assert_eq!(
            (&error["code"], &error["data"]["side"]),
            (&json!(-31001), &json!("backend fixture")),
            "{door}"
        );
    }
    for (_, request) in calls(&world, "", "fail", &json!({"code": -32602, "message": "bad"})) {
        refused(request, 400).await;
    }
    for (_, request) in calls(&world, "", "fail", &json!({"code": 42, "message": "odd"})) {
        assert_eq!(refused(request, 502).await["code"], 42);
    }
    // What a tool says of itself is a result, and a failed request where the tool
    // is an operation of its own.
    for (tool, arguments, status, reason) in [
        ("number", json!({"n": "x"}), 400, "invalid_arguments"),
        ("number", json!({}), 400, "invalid_arguments"),
        ("late", json!({}), 504, "timeout"),
        ("no", json!({}), 422, "refused"),
        ("test_error_handling", json!({}), 422, ""),
    ] {
        for (door, request) in calls(&world, "", tool, &arguments) {
            if matches!(door, "execute" | "dashboard") {
                let error = refused(request, status).await;
                assert_eq!(error["code"], -31021, "{error}");
                assert_eq!(error["data"]["reason"].as_str().unwrap_or_default(), reason, "{error}");
                assert_eq!(error["data"]["result"]["isError"], true, "{error}");
            } else {
                assert_eq!(result_of(door, request).await["isError"], true, "{door}");
            }
        }
    }
    for (path, body) in [
        ("/mcp/call", "[]"),
        ("/mcp/call", "{"),
        ("/mcp/call", "{}"),
        ("/mcp/call", r#"{"name":"echo","arguments":[]}"#),
        ("/mcp/call", r#"{"name":"echo","name":"slow"}"#),
        ("/mcp/call/stream?level=loud", r#"{"name":"echo"}"#),
        ("/mcp/tools/echo/execute", "[]"),
        ("/mcp/tools/echo/execute", "{} {}"),
        ("/mcp/tools/echo/execute", r#"{"a":1},"_meta":{}"#),
        ("/mcp/logging/setLevel", r#"{"level":"loud"}"#),
        ("/mcp/logging/setLevel", r#"{}"#),
    ] {
        let request = http().post(world.url(path)).header("content-type", "application/json").body(body);
        refused(request, 400).await;
    }
    refused(http().post(world.url("/mcp/call")).body("{}"), 415).await;
    refused(world.get("/mcp/tools?cursor=x"), 400).await;
    refused(world.get("/g/none/mcp/tools"), 404).await;
    assert_eq!(world.get("/mcp/nothing").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn methods_are_told_and_pages_of_others_are_refused() {
    let world = World::start().await;
    for (path, allowed) in [
        ("/mcp/call", "POST"),
        ("/v1/mcp/call", "POST"),
        ("/mcp/call/stream", "POST"),
        ("/mcp/tools/echo/execute", "POST"),
        ("/mcp/logging/setLevel", "POST"),
        ("/mcp/tools", "GET, HEAD"),
        ("/mcp/tools/echo", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/mcp/stream", "GET"),
    ] {
        let response = http().request(Method::DELETE, world.url(path)).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["allow"].to_str().unwrap()),
            (405, allowed)
        );
        refused(world.get(path).header("origin", "http://evil.example"), 403).await;
    }
    let head = http().head(world.url("/mcp/tools")).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().len()), (200, 0));
    let asked =
        http().request(Method::OPTIONS, world.url("/mcp/call")).header("origin", "http://localhost:5173");
    let asked = asked.header("access-control-request-method", "POST").send().await.unwrap();
    assert_eq!(asked.status(), 204);
    let page = world.get("/mcp/tools").header("origin", "http://localhost:5173").send().await.unwrap();
    assert_eq!(page.headers()["access-control-allow-origin"], "http://localhost:5173");
}

#[tokio::test]
async fn without_a_key_nobody_gets_in_and_nothing_is_told() {
    let world = World::start().await;
    let all = || {
        let mut all: Vec<(String, RequestBuilder)> =
            calls(&world, "/g/closed", "echo", &json!({"text": "x"}))
                .into_iter()
                .map(|(door, request)| (door.to_owned(), request))
                .collect();
        for path in [
            "/mcp/tools",
            "/mcp/tools/echo",
            "/openapi.json",
            "/openapi-smart.json",
            "/dashboard/api/tools",
            "/dashboard/api/openapi.json",
            "/dashboard/api/openapi-smart.json",
            "/mcp/stream",
        ] {
            all.push((path.to_owned(), world.get(&format!("/g/closed{path}"))));
        }
        let level = json!({"level": "info"});
        all.push(("level".to_owned(), world.post("/g/closed/mcp/logging/setLevel", &level)));
        all
    };
    for (door, request) in all() {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{door}");
        assert!(response.headers().contains_key("www-authenticate"), "{door}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], -31015, "{door}");
    }
    for (door, request) in all() {
        let response = request.bearer_auth("mt_wrong").send().await.unwrap();
        assert_eq!(response.status(), 401, "{door}");
    }
    for (door, request) in all() {
        let response = request.header("x-api-key", &world.key).send().await.unwrap();
        assert_eq!(response.status(), 200, "{door}");
    }
}

#[tokio::test]
async fn tools_are_listed_in_pages_found_by_a_text_and_shown_alone() {
    let world = World::start().await;
    let (_, all) = read(world.get("/mcp/tools")).await;
    let names = |page: &Value| -> Vec<String> {
        let tools = page["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let everything = names(&all);
    assert!(everything.contains(&"echo".to_owned()) && everything.contains(&"number".to_owned()));
    for name in ["veiled", "off", "test_image_content"] {
        assert!(!everything.contains(&name.to_owned()), "{name}");
        let request = world.get(&format!("/mcp/tools/{name}"));
        refused(request, 404).await;
    }
    let (_, found) = read(world.get("/mcp/tools?q=GIVES%20its")).await;
    assert_eq!(names(&found), ["number"]);
    let (_, one) = read(world.get("/dashboard/api/tools/number")).await;
    assert_eq!(one["inputSchema"]["required"], json!(["n"]));

    let small = json!({"toolName": "{tool}", "pageSize": 3, "members": [{"backend": "fixture"}, {"toolSet": "set"}], "hide": ["test_image_content"]});
    world.cluster.apply(&labeled("small", &small)).await;
    let (mut seen, mut path) = (Vec::new(), "/g/small/mcp/tools".to_owned());
    loop {
        let (_, page) = read(world.get(&path)).await;
        assert!(page["tools"].as_array().unwrap().len() <= 3);
        seen.extend(names(&page));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/g/small/mcp/tools?cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, everything);
    let (_, found) = read(world.get("/g/small/mcp/tools?q=gives")).await;
    assert_eq!(names(&found), ["number"], "on whichever page it is");
}

#[tokio::test]
async fn a_call_streams_its_progress_and_log_before_its_result() {
    let world = World::start().await;
    let call = |path: &str, name: &str| world.post(path, &json!({"name": name, "arguments": {}}));
    let lines = async |request: RequestBuilder| -> Vec<Value> {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let text = response.text().await.unwrap();
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let said = lines(call("/mcp/call/stream", "test_tool_with_progress")).await;
    let kinds: Vec<&str> = said.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["progress", "progress", "progress", "result"], "{said:?}");
    assert!(said[0]["progress"].as_f64() < said[2]["progress"].as_f64());
    let said = lines(call("/mcp/call/stream", "test_tool_with_logging")).await;
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!((&said[0]["type"], &said[0]["level"]), (&json!("log"), &json!("info")));
    let said = lines(call("/mcp/call/stream?level=error", "test_tool_with_logging")).await;
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn a_call_whose_client_goes_away_is_cancelled() {
    let world = World::start().await;
    let count = async |which: &str| {
        let body = json!({"name": "cancelled_count", "arguments": {}});
        let (_, result) = read(world.post("/mcp/call", &body)).await;
        result["structuredContent"][which].as_u64().unwrap_or_else(|| panic!("{result}"))
    };
    world.cluster.apply(&policy("quick", &json!({"tools": ["slow"], "timeout": {"limit": "60s"}}))).await;
    for (at, (_, request)) in calls(&world, "", "slow", &json!({"ms": 30_000})).into_iter().enumerate() {
        let sent = request.timeout(Duration::from_millis(700)).send();
        // The stream answers with its head first.
        if let Ok(response) = sent.await {
            assert!(response.text().await.is_err());
        }
        eventually("the end of the call", async || {
            let cancelled = count("cancelled").await;
            if cancelled == at as u64 + 1 { Ok(()) } else { Err(cancelled.to_string()) }
        })
        .await;
    }
}

#[tokio::test]
async fn changes_and_logs_are_events() {
    let world = World::start().await;
    let open = async |query: &str| {
        let response = world.get(&format!("/mcp/stream{query}")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events::of(response)
    };
    let mut events = open("?uri=test://watched-resource&level=info").await;
    let connected = events.next().await;
    assert_eq!(connected["type"], "connected", "{connected}");
    assert_eq!(connected["lists"], json!(["tools", "prompts", "resources"]));
    assert_eq!(connected["uris"], json!(["test://watched-resource"]));
    let call = async |name: &str| read(world.post("/mcp/call", &json!({"name": name}))).await;
    let next_of = async |events: &mut Events, kind: &str| loop {
        let event = events.next().await;
        if event["type"] == kind {
            return event;
        }
    };
    call("test_trigger_resource_update").await;
    let event = next_of(&mut events, "resource_updated").await;
    assert_eq!(event["uri"], "test://watched-resource");
    call("test_trigger_tool_change").await;
    assert_eq!(next_of(&mut events, "list_changed").await["list"], "tools");
    call("test_tool_with_logging").await;
    let event = next_of(&mut events, "log").await;
    assert_eq!((&event["level"], &event["data"]), (&json!("info"), &json!("Tool execution started")));

    // The caller's own streams change their level; those of others do not.
    let (status, set) = read(world.post("/mcp/logging/setLevel", &json!({"level": "emergency"}))).await;
    assert_eq!((status, &set["streams"]), (200, &json!(1)), "{set}");
    let mut closed = Events::of(
        world.get("/g/closed/mcp/stream?level=debug").header("x-api-key", &world.key).send().await.unwrap(),
    );
    assert_eq!(closed.next().await["type"], "connected");
    call("test_tool_with_logging").await;
    call("test_logging_tool").await;
    let event = loop {
        let event = next_of(&mut events, "log").await;
        if event["level"] != "info" {
            break event;
        }
    };
    assert_eq!(event["level"], "emergency");
    let theirs = tokio::time::timeout(Duration::from_millis(300), closed.next()).await;
    assert!(theirs.is_err(), "another principal's log: {theirs:?}");
    assert_eq!(world.metric("mt_downstream_followers ").await, 2.0);
    drop((events, closed));
    eventually("no followers", async || match world.metric("mt_downstream_followers ").await {
        0.0 => Ok(()),
        left => Err(left.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_session_is_told_its_level_over_rest() {
    let world = World::start().await;
    let mut session = Session::open(&world.node().url("default"), "2025-11-25", json!({})).await;
    let id = session.headers["mcp-session-id"].clone();
    let set = |level: &str| world.post("/mcp/logging/setLevel", &json!({"level": level}));
    let (status, body) = read(set("error").header("mcp-session-id", id.clone())).await;
    assert_eq!((status, &body["level"]), (200, &json!("error")), "{body}");
    let mut stream = Events::of(session.stream().await);
    let call = json!({"name": "test_tool_with_logging", "arguments": {}});
    session.ask("tools/call", call.clone()).await;
    assert_eq!(read(set("debug").header("mcp-session-id", id)).await.0, 200);
    session.ask("tools/call", call).await;
    for _ in 0..3 {
        assert_eq!(stream.next().await["method"], "notifications/message");
    }
    let more = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
    assert!(more.is_err(), "nothing was told of the first call: {more:?}");
    refused(set("debug").header("mcp-session-id", "nobody"), 404).await;
}

#[tokio::test]
async fn what_a_tool_asks_is_refused_for_there_is_nobody_to_ask() {
    for mode in [Mode::Legacy, Mode::Modern] {
        let world = World::with_mode(mode).await;
        for (door, request) in calls(&world, "", "test_input_required_result_multiple_inputs", &json!({})) {
            let response = request.send().await.unwrap();
            let (status, text) = (response.status(), response.text().await.unwrap());
            let told = ["-32021", "-31017", "isError\":true", "has not declared"];
            let honest = told.iter().any(|told| text.contains(told));
            assert!(honest && !text.contains("input_required"), "{mode:?} {door} {status}: {text}");
        }
    }
}

#[tokio::test]
async fn health_says_enough_and_no_names() {
    let world = World::start().await;
    let (status, health) = read(world.get("/health")).await;
    assert_eq!((status, &health["status"], &health["gateways"]), (200, &json!("ready"), &json!(2)));
    assert!(health["version"].is_string() && !health.to_string().contains("closed"), "{health}");
}

/// How much memory a process has, in bytes.
fn resident(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn a_slow_reader_holds_the_tool_back_and_costs_no_memory() {
    let world = World::start().await;
    // It says four times as much as may wait anywhere, in lines of 200 kB.
    let body = json!({"name": "flood", "arguments": {}}).to_string();
    let before = resident(world.node().process.pid());
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(&world.node().mcp).await.unwrap();
        let head = format!(
            "POST /mcp/call/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = resident(world.node().process.pid()).saturating_sub(before);
    assert!(grown < 20 * FLOOD_BYTES / 2, "{grown}");
    let (_, result) =
        read(world.post("/mcp/call", &json!({"name": "echo", "arguments": {"text": "x"}}))).await;
    assert_eq!(result["content"][0]["text"], "x", "others are served");
    let mut first = [0; 15];
    sockets[0].read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
}
