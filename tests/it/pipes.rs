//! Backends that the node runs itself: who shares a process, what reaches it,
//! and that none outlives its node.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Background, Cluster, eventually};
use crate::fixture::BINARY;
use crate::manifest::{backend, over_stdio, plain_gateway};
use crate::raw::{Events, Session, ask, messages, modern, shows_tool};

const LEGACY: &str = "2025-11-25";

/// A fixture on a pipe behind one node; the gateway's URL.
async fn one() -> (Cluster, String) {
    let cluster = Cluster::start(1).await;
    let text = over_stdio("pipe", Path::new(BINARY), &["stdio"]) + &plain_gateway("default", "pipe");
    cluster.apply(&text).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "echo").await;
    (cluster, url)
}

fn call(tool: &str) -> Value {
    json!({"name": tool, "arguments": {}})
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

#[tokio::test]
async fn progress_and_questions_pass_a_pipe() {
    let (_cluster, url) = one().await;
    let mut params = call("test_tool_with_progress");
    params["_meta"] = json!({"progressToken": 17});
    let mut session = Session::open(&url, LEGACY, json!({"elicitation": {}})).await;
    let legacy = messages(session.request("tools/call", params.clone()).send().await.unwrap()).await;
    let modern = messages(modern(&url, 5, "tools/call", params).send().await.unwrap()).await;
    for said in [legacy, modern] {
        assert_eq!(said.len(), 4, "{said:?}");
        for message in &said[..3] {
            assert_eq!(message["params"]["progressToken"], 17, "the client's own token: {message}");
        }
        assert_eq!(text(&said[3]), "Progress reported");
    }
    let request = session.request("tools/call", call("test_input_required_result_elicitation"));
    let mut stream = Events::of(request.send().await.unwrap());
    let question = stream.next().await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let result = json!({"action": "accept", "content": {"name": "Ada"}});
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    assert_eq!(session.post(&answer).send().await.unwrap().status(), 202);
    assert_eq!(text(&stream.next().await), "Hello, Ada!");
}

#[tokio::test]
async fn a_cancellation_passes_a_pipe_in_both_eras() {
    let (_cluster, url) = one().await;
    let slow = json!({"name": "slow", "arguments": {"ms": 60_000}});
    let counts = |answer: Value| answer["result"]["structuredContent"].clone();

    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let request = session.request("tools/call", slow.clone());
    let running = Background::run(request.send());
    eventually("the call under way", async || {
        let counts = counts(session.ask("tools/call", call("cancelled_count")).await);
        if counts["started"] == 1 { Ok(()) } else { Err(counts.to_string()) }
    })
    .await;
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    assert_eq!(session.post(&cancel).send().await.unwrap().status(), 202);
    eventually("the cancellation at the backend", async || {
        let counts = counts(session.ask("tools/call", call("cancelled_count")).await);
        if counts["cancelled"] == 1 { Ok(()) } else { Err(counts.to_string()) }
    })
    .await;
    running.end().await.unwrap();

    let before = counts(ask(&url, "tools/call", call("cancelled_count")).await);
    let cancelled = before["cancelled"].as_u64().unwrap();
    let running = Background::run(modern(&url, 9, "tools/call", slow).send());
    eventually("the call under way", async || {
        let counts = counts(ask(&url, "tools/call", call("cancelled_count")).await);
        let started = counts["started"].as_u64() > before["started"].as_u64();
        if started { Ok(()) } else { Err(counts.to_string()) }
    })
    .await;
    drop(running);
    eventually("the cancellation at the backend", async || {
        let counts = counts(ask(&url, "tools/call", call("cancelled_count")).await);
        if counts["cancelled"] == cancelled + 1 { Ok(()) } else { Err(counts.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_process_that_crashes_is_reported_and_started_again() {
    let (_cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let crashed = session.ask("tools/call", call("crash")).await;
    let said = crashed["error"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("backend pipe"), "{crashed}");
    eventually("a new process", async || {
        let answer = session.ask("tools/call", call("echo")).await;
        if answer["result"].is_object() { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn processes_are_shared_as_the_backend_says() {
    let cluster = Cluster::start(1).await;
    let stdio = |sharing: &str| json!({"stdio": {"command": BINARY, "args": ["stdio"], "sharing": sharing}});
    let modes = ["shared", "per-session", "per-call"];
    let resources =
        modes.map(|name| backend(name, &stdio(&name.replace('-', "_"))) + &plain_gateway(name, name));
    cluster.apply(&resources.concat()).await;
    let counter = "test_trigger_resource_update";
    for (name, expected) in modes.into_iter().zip([[1, 2, 3], [1, 2, 1], [1, 1, 1]]) {
        let url = cluster.nodes[0].url(name);
        shows_tool(&url, counter).await;
        let mut first = Session::open(&url, LEGACY, json!({})).await;
        let mut second = Session::open(&url, LEGACY, json!({})).await;
        let counted = [
            first.ask("tools/call", call(counter)).await,
            first.ask("tools/call", call(counter)).await,
            second.ask("tools/call", call(counter)).await,
        ];
        let expected = expected.map(|number| format!("revision {number}"));
        assert_eq!(counted.each_ref().map(text), expected.each_ref().map(String::as_str), "{name}");
    }
}

/// How many processes were started with this argument.
fn alive(argument: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let command_lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    command_lines.filter(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())).count()
}

#[tokio::test]
async fn no_process_outlives_its_node() {
    for gently in [true, false] {
        // No other process has it.
        let mark =
            format!("--page-size={}", 1_000_000_000 + u64::from(std::process::id()) * 2 + u64::from(gently));
        let mut cluster = Cluster::start(1).await;
        let text =
            over_stdio("pipe", Path::new(BINARY), &["stdio", &mark]) + &plain_gateway("default", "pipe");
        cluster.apply(&text).await;
        let url = cluster.nodes[0].url("default");
        shows_tool(&url, "echo").await;
        let mut session = Session::open(&url, LEGACY, json!({})).await;
        assert_eq!(session.ask("tools/call", call("echo")).await["error"], Value::Null);
        assert_ne!(alive(&mark), 0);
        if gently {
            assert_eq!(cluster.nodes[0].process.stop().await, Some(0));
            assert_eq!(alive(&mark), 0, "a node that has stopped has stopped its processes");
        } else {
            cluster.nodes[0].process.kill().await;
            eventually("the end of the processes", async || match alive(&mark) {
                0 => Ok(()),
                alive => Err(format!("{alive} alive")),
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_node_that_is_stopped_finishes_what_is_under_way() {
    let (mut cluster, url) = one().await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let slow = json!({"name": "slow", "arguments": {"ms": 1_000}});
    let running = Background::run(session.request("tools/call", slow).send());
    eventually("the call under way", async || {
        let answer = session.ask("tools/call", call("cancelled_count")).await;
        if answer["result"]["structuredContent"]["started"] == 1 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    assert_eq!(cluster.nodes[0].process.stop().await, Some(0));
    let answer: Value = running.end().await.unwrap().json().await.unwrap();
    assert_eq!(text(&answer), "slept 1000 ms");
}
