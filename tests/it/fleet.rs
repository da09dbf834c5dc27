//! A fleet of real processes: what one command changes everywhere, and what
//! stays when a part of the fleet dies.

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, printed};
use crate::fixture::{Fixture, Mode};
use crate::manifest::{over_http, plain_gateway};
use crate::raw::{Session, ask, http, shows_tool, tool_names};

/// What `mtctl nodes` shows of a node.
async fn shown(cluster: &Cluster, id: &str) -> Value {
    let nodes: Value =
        serde_json::from_str(&printed(&cluster.mtctl(&["nodes", "-o", "json"]).await)).unwrap();
    let nodes = nodes["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["node"] == id).unwrap_or_else(|| panic!("no {id} in {nodes:?}")).clone()
}

/// Writes a file and applies it with `mtctl`.
async fn apply(cluster: &Cluster, text: &str) -> std::process::Output {
    let file = cluster.folder.path().join("applied.yaml");
    std::fs::write(&file, text).unwrap();
    cluster.mtctl(&["apply", "-f", file.to_str().unwrap()]).await
}

/// The newest generation.
async fn head(cluster: &Cluster) -> u64 {
    let history: Value =
        serde_json::from_str(&printed(&cluster.mtctl(&["history", "-o", "json"]).await)).unwrap();
    history[0]["generation"].as_u64().unwrap_or(0)
}

async fn echoes(url: &str, text: &str) {
    let answer = ask(url, "tools/call", json!({"name": "echo", "arguments": {"text": text}})).await;
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

#[tokio::test]
async fn an_applied_file_reaches_every_node_and_is_seen_to() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(2).await;
    let text = over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture");
    printed(&apply(&cluster, &text).await);
    let generation = head(&cluster).await;
    assert_eq!(generation, 1);
    cluster.in_service(generation).await;
    for node in &cluster.nodes {
        let shown = shown(&cluster, &node.id).await;
        assert_eq!(shown["generation_acked"], generation, "{shown}");
        assert_eq!((&shown["connected"], &shown["state"]), (&json!(true), &json!("synced")), "{shown}");
        let url = node.url("default");
        shows_tool(&url, "echo").await;
        echoes(&url, &node.id).await;
    }
    let table = printed(&cluster.mtctl(&["nodes"]).await);
    assert!(table.contains("node-0") && table.contains("node-1") && table.contains("synced"), "{table}");
}

#[tokio::test]
async fn nodes_serve_on_without_a_control_plane_even_after_a_restart() {
    let fixture = Fixture::start(Mode::Dual).await;
    let mut cluster = Cluster::start(2).await;
    let text = over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture");
    let generation = cluster.apply(&text).await;
    for node in &cluster.nodes {
        shows_tool(&node.url("default"), "echo").await;
    }
    let before = tool_names(&cluster.nodes[1].url("default")).await.unwrap();
    let mut session = Session::open(&cluster.nodes[1].url("default"), "2025-11-25", json!({})).await;

    cluster.control.process.kill().await;
    for node in &cluster.nodes {
        echoes(&node.url("default"), "without").await;
    }
    cluster.nodes[1].restart().await;
    let restarted = cluster.nodes[1].url("default");
    assert_eq!(tool_names(&restarted).await.unwrap(), before, "the lists come from the disk too");
    echoes(&restarted, "restarted").await;
    let listed = session.ask("tools/list", json!({})).await;
    assert!(listed["result"]["tools"].is_array(), "the session outlived its node: {listed}");

    cluster.control.start_again().await;
    assert_eq!(head(&cluster).await, generation);
    cluster.in_service(generation).await;
    let generation = cluster.apply(&plain_gateway("more", "fixture")).await;
    assert!(generation > 1);
    for node in &cluster.nodes {
        shows_tool(&node.url("more"), "echo").await;
    }
}

#[tokio::test]
async fn a_session_goes_on_at_another_node() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(2).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    for node in &cluster.nodes {
        shows_tool(&node.url("default"), "echo").await;
    }
    let mut session = Session::open(&cluster.nodes[0].url("default"), "2025-11-25", json!({})).await;
    let call = |text: &str| json!({"name": "echo", "arguments": {"text": text}});
    let here = session.ask("tools/call", call("here")).await;
    assert_eq!(here["result"]["content"][0]["text"], "here", "{here}");
    session.url = cluster.nodes[1].url("default");
    let there = session.ask("tools/call", call("there")).await;
    assert_eq!(there["result"]["content"][0]["text"], "there", "{there}");
    assert_eq!(session.ask("tools/list", json!({})).await["error"], Value::Null);
}

#[tokio::test]
async fn ten_mistakes_are_ten_diagnostics_and_change_nothing() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/ten_mistakes.yaml");
    let cluster = Cluster::start(1).await;
    let generation = cluster.apply(&over_http("kept", "http://127.0.0.1:1/mcp")).await;
    for command in ["apply", "validate", "diff"] {
        let output = cluster.mtctl(&[command, "-f", file]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{command}: {said}");
        let places = said.lines().filter(|line| {
            line.split_once("ten_mistakes.yaml:").is_some_and(|(_, place)| {
                let mut numbers = place.split(':');
                let mut number = || numbers.next().is_some_and(|n| n.trim().parse::<u32>().is_ok());
                number() && number()
            })
        });
        assert_eq!(places.count(), 10, "{command}: {said}");
    }
    assert_eq!(head(&cluster).await, generation);
}

#[tokio::test]
async fn a_refused_change_reaches_no_node() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    let good = over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture");
    let generation = cluster.apply(&good).await;
    let url = cluster.nodes[0].url("default");
    let tools = shows_tool(&url, "echo").await;

    // One good change beside a bad one: all of it is refused.
    let bad = over_http("other", "http://127.0.0.1:1/mcp") + &plain_gateway("default", "absent");
    let output = apply(&cluster, &bad).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("absent") && said.contains("applied.yaml:"), "{said}");
    assert_eq!(head(&cluster).await, generation);
    assert_eq!(shown(&cluster, "node-0").await["generation_acked"], generation);
    assert_eq!(tool_names(&url).await.unwrap(), tools);
    let listed = printed(&cluster.mtctl(&["get", "all", "-o", "name"]).await);
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["gateway/default", "backend/fixture"]);
}

#[tokio::test]
async fn what_was_done_is_undone_and_deleted_on_the_nodes_too() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    cluster.apply(&plain_gateway("more", "fixture")).await;
    let more = cluster.nodes[0].url("more");
    shows_tool(&more, "echo").await;

    printed(&cluster.mtctl(&["undo"]).await);
    cluster.in_service(3).await;
    assert_eq!(http().post(&more).json(&json!({})).send().await.unwrap().status(), 404);
    printed(&cluster.mtctl(&["undo"]).await);
    cluster.in_service(4).await;
    shows_tool(&more, "echo").await;

    let refused = cluster.mtctl(&["delete", "backend", "fixture"]).await;
    assert!(!refused.status.success(), "two gateways need it");
    printed(&cluster.mtctl(&["delete", "gateway", "more", "default"]).await);
    printed(&cluster.mtctl(&["delete", "backend", "fixture"]).await);
    cluster.in_service(6).await;
    assert_eq!(http().post(&more).json(&json!({})).send().await.unwrap().status(), 404);
    assert_eq!(head(&cluster).await, 6);
    let absent = cluster.mtctl(&["delete", "backend", "fixture"]).await;
    assert_eq!(absent.status.code(), Some(5), "{}", String::from_utf8_lossy(&absent.stderr));
}

#[tokio::test]
async fn a_node_whose_cache_is_deleted_gets_it_all_again() {
    let fixture = Fixture::start(Mode::Dual).await;
    let mut cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    shows_tool(&cluster.nodes[0].url("default"), "echo").await;
    cluster.nodes[0].process.kill().await;
    std::fs::remove_dir_all(cluster.folder.path().join("node-0")).unwrap();
    cluster.nodes[0].restart().await;
    let url = cluster.nodes[0].url("default");
    eventually("serving again", async || tool_names(&url).await).await;
    echoes(&url, "again").await;
}
