//! The description of a gateway as an API, judged by those who read such
//! descriptions: a validator, and a generator of clients, both of others.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, eventually},
    fixture::{Fixture, Mode},
    manifest::{gateway, over_http},
    peers::openapi,
    raw::{http, shows_tool},
    rest::World,
};

async fn document(url: &str) -> Value {
    let response = http().get(url).send().await.unwrap();
    assert_eq!(response.status(), 200, "{url}");
    response.json().await.unwrap()
}

/// Puts a document where a program finds it.
fn saved(folder: &Path, name: &str, document: &Value) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

fn operations(document: &Value) -> Vec<&Value> {
    let paths = document["paths"].as_object().unwrap().values();
    paths.flat_map(|path| path.as_object().unwrap().values()).collect()
}

fn ids(document: &Value) -> Vec<&str> {
    operations(document).into_iter().map(|operation| operation["operationId"].as_str().unwrap()).collect()
}

/// Tools whose names and schemas are as bad as they come.
fn odd_tools() -> Value {
    let tool = |name: &str, schema: Value| json!({"name": name, "inputSchema": schema, "routing": {"type": "subprocess", "config": {"command": "cat", "stdin": "{{json args}}"}}});
    let tree = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/tree.json",
        "type": "object",
        "$defs": {
            "Node": {"type": "object", "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}},
            "a/b~c": {"type": "string"},
        },
        "properties": {"root": {"$ref": "#/$defs/Node"}, "odd": {"$ref": "#/$defs/a~1b~0c"}, "again": {"$ref": "#/properties/root"}},
        "required": ["root"],
    });
    let old = json!({
        "type": "object",
        "definitions": {"Id": {"type": "integer"}},
        "properties": {"id": {"$ref": "#/definitions/Id"}},
    });
    let tools = [
        tool("a.b", tree.clone()),
        tool("a_b", old),
        tool("A_B", json!({"type": "object"})),
        tool("tree", tree),
    ];
    json!({"apiVersion": "magictunnel/v1", "kind": "ToolSet", "metadata": {"name": "odd"}, "spec": {"tools": tools}})
}

#[tokio::test]
async fn a_validator_finds_nothing_wrong() {
    let world = World::start().await;
    world
        .cluster
        .apply(&format!(
            "---\n{}\n{}",
            odd_tools(),
            gateway("odd", &json!({"toolName": "{tool}", "members": [{"toolSet": "odd"}]}))
        ))
        .await;
    shows_tool(&world.node().url("odd"), "a.b").await;
    for path in [
        "/openapi.json",
        "/openapi-smart.json",
        "/dashboard/api/openapi.json",
        "/dashboard/api/openapi-smart.json",
        "/g/odd/openapi.json",
        "/g/odd/openapi-smart.json",
    ] {
        let document = document(&world.url(path)).await;
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["servers"][0]["url"], world.url("").trim_end_matches('/'));
        let file = saved(world.cluster.folder.path(), "openapi.json", &document);
        openapi(&["validate", &file.display().to_string()]).await.succeeded();
        let ids = ids(&document);
        let mut unique: Vec<String> = ids.iter().map(|id| id.to_lowercase()).collect();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "{ids:?}");
        for name in ["veiled", "off", "test_image_content"] {
            assert!(!document.to_string().contains(&format!("\"{name}\"")), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn a_generated_client_calls_tools() {
    let world = World::start().await;
    let folder = world.cluster.folder.path();
    let described = http().get(world.url("/g/closed/openapi.json")).bearer_auth(&world.key);
    let document: Value = described.send().await.unwrap().json().await.unwrap();
    let file = saved(folder, "openapi.json", &document);
    let calls = json!([["echo", {"text": "Grüße 🙂"}], ["number", {"n": 41}], ["number", {"n": 42}]]);
    let target = folder.join("client").display().to_string();
    let (file, base, calls) = (file.display().to_string(), world.url(""), calls.to_string());
    let arguments =
        ["call", &file, "--target", &target, "--url", &base, "--key", &world.key, "--calls", &calls];
    let said = openapi(&arguments).await.succeeded();
    let answers = said.events("answer");
    assert_eq!(answers[0]["body"]["content"][0]["text"], "Grüße 🙂", "{answers:?}");
    assert_eq!((&answers[1]["body"], &answers[2]["body"]), (&json!({"n": 41}), &json!({"n": 42})));
}

#[tokio::test]
async fn it_follows_what_is_in_service_and_is_sent_once() {
    let world = World::start().await;
    let url = world.url("/openapi.json");
    let first = http().get(&url).send().await.unwrap();
    let etag = first.headers()["etag"].clone();
    assert!(!ids(&first.json().await.unwrap()).contains(&"dynamic_tool"));
    let again = http().get(&url).header("if-none-match", etag.clone()).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.headers()["etag"].clone()), (304, etag.clone()));
    let elsewhere = url.replace("localhost", "127.0.0.1");
    let elsewhere = http().get(&elsewhere).header("if-none-match", etag.clone()).send().await.unwrap();
    assert_eq!(elsewhere.status(), 200, "it names another server");

    let call = json!({"name": "test_trigger_tool_change"});
    http().post(world.url("/mcp/call")).json(&call).send().await.unwrap();
    eventually("the tool in the description", async || {
        let now = http().get(&url).header("if-none-match", etag.clone()).send().await.unwrap();
        if now.status() == 304 {
            return Err("nothing has changed".to_owned());
        }
        let document: Value = now.json().await.unwrap();
        if ids(&document).contains(&"dynamic_tool") { Ok(()) } else { Err(document.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_smart_description_keeps_within_the_limits_of_custom_gpts() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    let tool = |number: usize| {
        json!({
            "name": format!("tool_{number}"),
            "description": "Ä".repeat(1_000),
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string", "description": "p".repeat(1_000)}}},
            "annotations": {"readOnlyHint": number.is_multiple_of(2)},
            "routing": {"type": "subprocess", "config": {"command": "echo", "args": ["{{text}}"]}},
        })
    };
    let tools: Vec<Value> = (0..60).map(tool).collect();
    let set = json!({"apiVersion": "magictunnel/v1", "kind": "ToolSet", "metadata": {"name": "many"}, "spec": {"tools": tools}});
    let members = json!({"toolName": "{tool}", "members": [{"toolSet": "many"}, {"backend": "fixture"}]});
    cluster
        .apply(
            &(format!("---\n{set}\n") + &over_http("fixture", fixture.url()) + &gateway("default", &members)),
        )
        .await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "echo").await;
    let base = url.trim_end_matches("/mcp");
    let document = document(&format!("{base}/openapi-smart.json")).await;
    let file = saved(cluster.folder.path(), "openapi.json", &document);
    openapi(&["validate", &file.display().to_string()]).await.succeeded();
    let operations = operations(&document);
    assert_eq!(operations.len(), 30);
    for operation in &operations {
        assert!(operation["description"].as_str().unwrap().chars().count() <= 300);
        assert!(operation["summary"].as_str().unwrap().chars().count() <= 300);
        assert!(operation["operationId"].as_str().unwrap().len() <= 64);
    }
    let ids = ids(&document);
    assert_eq!(ids[..3], ["list_tools", "call_tool", "tool_0"]);
    let consequential = |name: &str| {
        let operation = operations.iter().find(|operation| operation["operationId"] == name).unwrap();
        operation["x-openai-isConsequential"].clone()
    };
    assert_eq!((consequential("tool_0"), consequential("tool_1")), (json!(false), json!(true)));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = &schemas["tool_0_input"]["properties"]["text"]["description"];
    assert_eq!(text.as_str().unwrap().chars().count(), 700);

    // What has no operation of its own is reached by the two that stand for all.
    let calls = json!([["call_tool", {"name": "echo", "arguments": {"text": "there"}}]]);
    let target = cluster.folder.path().join("client").display().to_string();
    let file = file.display().to_string();
    let calls = calls.to_string();
    let arguments = ["call", &file, "--target", &target, "--url", base, "--calls", &calls];
    let said = openapi(&arguments).await.succeeded();
    assert_eq!(said.event("answer")["body"]["content"][0]["text"], "there");
}

/// The commands in the documentation of these doors.
fn commands() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/doors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_documented_commands_work() {
    let world = World::start().await;
    let commands = commands();
    assert_eq!(commands.len(), 7);
    let base = world.url("");
    for command in commands {
        let output = tokio::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", &command])
            .env("URL", base.trim_end_matches('/'))
            .env("KEY", &world.key)
            .output();
        let output = output.await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.is_empty(), "{command}: {output:?}");
        assert!(
            said.contains("echo")
                || said.contains("hello")
                || said.contains("level")
                || said.contains("connected"),
            "{said}"
        );
    }
}
