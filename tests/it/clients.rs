//! Clients and servers that others have written, all of them through one node.

use std::path::Path;

use futures_util::future::join_all;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, printed};
use crate::fixture::{BINARY, Fixture, Mode};
use crate::manifest::{gateway, over_http, over_stdio};
use crate::peers::{Client, Everything, everything, time_server};
use crate::raw::shows_tool;

const QUESTIONS: &str = "test_input_required_result_multiple_inputs";
const ANSWERED: &str = "Hello, Ada! Greeting: Paris. Roots: file:///workspace";

/// A tool of each server, its arguments, and what its answer holds.
const LEGACY_ONLY: [(&str, &str, &str); 2] =
    [("everything_echo", r#"{"message":"hi"}"#, "hi"), ("everything-http_echo", r#"{"message":"ho"}"#, "ho")];
const BOTH_ERAS: [(&str, &str, &str); 3] = [
    ("time_get_current_time", r#"{"timezone":"Europe/Berlin"}"#, "Europe/Berlin"),
    ("fixture_echo", r#"{"text":"grüße"}"#, "grüße"),
    ("pipe_echo", r#"{"text":"grüße"}"#, "grüße"),
];

struct World {
    _fixture: Fixture,
    _everything: Everything,
    _cluster: Cluster,
    /// All of them.
    url: String,
    /// Those that speak both eras.
    dual: String,
}

/// Five servers behind one node.
async fn world() -> World {
    let (fixture, served) = tokio::join!(Fixture::start(Mode::Dual), Everything::start());
    let (node, program) = everything();
    let names = ["everything", "everything-http", "time", "fixture", "pipe"];
    let members: Vec<Value> = names.iter().map(|name| json!({"backend": name})).collect();
    let text = [
        over_stdio("everything", &node, &[program.to_str().unwrap(), "stdio"]),
        over_http("everything-http", served.url()),
        over_stdio("time", &time_server(), &[]),
        over_http("fixture", fixture.url()),
        over_stdio("pipe", Path::new(BINARY), &["stdio"]),
        gateway("default", &json!({"members": members})),
        gateway("dual", &json!({"members": &members[2..]})),
    ];
    let cluster = Cluster::start(1).await;
    cluster.apply(&text.concat()).await;
    let url = cluster.nodes[0].url("default");
    for (tool, ..) in LEGACY_ONLY.iter().chain(&BOTH_ERAS) {
        shows_tool(&url, tool).await;
    }
    let dual = cluster.nodes[0].url("dual");
    for (tool, ..) in &BOTH_ERAS {
        shows_tool(&dual, tool).await;
    }
    World { _fixture: fixture, _everything: served, _cluster: cluster, url, dual }
}

/// Runs a client against every one of these tools at once.
async fn runs(client: Client, url: &str, version: &str, tools: &[(&str, &str, &str)]) {
    let calls = tools.iter().map(async |(tool, arguments, expected)| {
        let said = client.run(url, &["--tool", tool, "--args", arguments]).await.succeeded();
        assert!(said.text().contains(expected), "{client:?} {tool}: {said:?}");
        for (tool, ..) in tools {
            assert!(said.tools().contains(tool), "{client:?} was not shown {tool}");
        }
        said
    });
    for said in join_all(calls).await {
        assert_eq!(said.protocol_version(), version, "{client:?}");
    }
}

#[tokio::test]
async fn every_client_uses_every_server_of_its_era() {
    let world = world().await;
    let all = [&LEGACY_ONLY[..], &BOTH_ERAS].concat();
    // Each speaks the newest era that it knows, whatever the servers speak.
    for (client, version) in [
        (Client::Py1, "2025-11-25"),
        (Client::Ts1, "2025-11-25"),
        (Client::Py2, "2026-07-28"),
        (Client::Ts2, "2026-07-28"),
    ] {
        runs(client, &world.url, version, &all).await;
    }
}

#[tokio::test]
async fn every_client_answers_questions_through_a_node() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    let members = json!({"members": [{"backend": "fixture"}, {"backend": "pipe"}]});
    let text = over_http("fixture", fixture.url())
        + &over_stdio("pipe", Path::new(BINARY), &["stdio"])
        + &gateway("default", &members);
    cluster.apply(&text).await;
    let url = cluster.nodes[0].url("default");
    let tools = ["fixture", "pipe"].map(|backend| format!("{backend}_{QUESTIONS}"));
    for tool in &tools {
        shows_tool(&url, tool).await;
    }
    for client in Client::ALL {
        let asked = tools.iter().map(async |tool| client.run(&url, &["--tool", tool]).await.succeeded());
        for said in join_all(asked).await {
            assert_eq!(said.text(), ANSWERED, "{client:?}: {said:?}");
        }
    }
}

#[tokio::test]
async fn the_rust_sdk_lists_and_calls_in_both_of_its_lives() {
    let world = world().await;
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let lives = [
        (ClientLifecycleMode::Initialize, &world.url, [&LEGACY_ONLY[..], &BOTH_ERAS].concat()),
        (ClientLifecycleMode::Discover { preferred_versions }, &world.dual, BOTH_ERAS.to_vec()),
    ];
    for (life, url, callable) in lives {
        let transport = StreamableHttpClientTransport::from_uri(url.as_str());
        let client = ().serve_with_lifecycle(transport, life.clone()).await.expect("it opens a conversation");
        let listed = client.list_all_tools().await.unwrap();
        for (tool, arguments, expected) in callable {
            assert!(listed.iter().any(|listed| listed.name == tool), "{life:?}: no {tool}");
            let arguments = serde_json::from_str(arguments).unwrap();
            let call = CallToolRequestParams::new(tool).with_arguments(arguments);
            let result =
                client.call_tool(call).await.unwrap_or_else(|error| panic!("{life:?} {tool}: {error}"));
            assert!(
                serde_json::to_string(&result).unwrap().contains(expected),
                "{life:?} {tool}: {result:?}"
            );
        }
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn the_configuration_of_another_program_is_imported_and_used() {
    let served = Everything::start().await;
    let cluster = Cluster::start(1).await;
    let text = include_str!("../fixtures/claude_desktop_config.json")
        .replace("http://127.0.0.1:3111/mcp", served.url())
        .replace("\"mcp-server-time\"", &json!(time_server()).to_string());
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("claude_desktop_config.json");
    std::fs::write(&file, text).unwrap();
    let node = cluster.nodes[0].url("default");
    printed(&cluster.mtctl(&["import", "--yes", file.to_str().unwrap()]).await);
    shows_tool(&node, "time_get_current_time").await;
    shows_tool(&node, "everything_echo").await;

    let listed = printed(&cluster.mtctl(&["tools", "list", "-o", "name"]).await);
    let listed: Vec<&str> = listed.lines().collect();
    for tool in ["time_get_current_time", "time_convert_time", "everything_echo"] {
        assert!(listed.contains(&tool), "{listed:?}");
    }
    let time = printed(&cluster.mtctl(&["call", "time_get_current_time", "timezone=Europe/Berlin"]).await);
    assert!(time.contains("Europe/Berlin"), "{time}");
    let echo = printed(&cluster.mtctl(&["call", "everything_echo", "message=imported"]).await);
    assert!(echo.contains("imported"), "{echo}");
    let again = cluster.mtctl(&["import", "--yes", file.to_str().unwrap()]).await;
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing to do"), "{again:?}");

    for client in [Client::Py1, Client::Py2] {
        for (tool, arguments, expected) in [
            ("time_get_current_time", r#"{"timezone":"Europe/Berlin"}"#, "Europe/Berlin"),
            ("everything_echo", r#"{"message":"hi"}"#, "hi"),
        ] {
            let said = client.run(&node, &["--tool", tool, "--args", arguments]).await;
            assert!(said.succeeded().text().contains(expected), "{client:?} {tool}");
        }
    }
}
