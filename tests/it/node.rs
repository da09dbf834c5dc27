//! One node as a process: what it lists, what it keeps, what it tells operators,
//! and how it ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::cluster::{Cluster, ControlPlane, Node, eventually};
use crate::fixture::{Fixture, Mode, stdio_command};
use crate::manifest::{backend, gateway, over_http, over_stdio, plain_gateway};
use crate::raw::{ask, http, modern, shows_tool, tool_names};

/// Until a backend's change is shown by another node than the one that lists it.
/// It takes some tens of milliseconds on an idle machine; this one may not be.
const CHANGE_MAX: Duration = Duration::from_secs(3);

async fn page(node: &Node, path: &str) -> (u16, String) {
    let response = http().get(format!("http://{}{path}", node.admin)).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Lets a fixture add or remove its dynamic tool, and waits until every node
/// shows that.
async fn change_is_shown(cluster: &Cluster, prefix: &str) {
    let dynamic = format!("{prefix}_dynamic_tool");
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("default")).collect();
    let shown = async |url: &str| tool_names(url).await.unwrap().contains(&dynamic);
    let before = shown(&urls[0]).await;
    let change = json!({"name": format!("{prefix}_test_trigger_tool_change"), "arguments": {}});
    let changed = ask(&urls[0], "tools/call", change).await;
    assert!(changed["error"].is_null(), "{changed}");
    let began = Instant::now();
    for url in &urls {
        eventually(&format!("{dynamic} at {url}"), async || {
            if shown(url).await == before { Err("as before".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    assert!(began.elapsed() < CHANGE_MAX, "{prefix} took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_backend_that_says_its_tools_have_changed_is_listed_again_at_once() {
    let (legacy, modern) = (Fixture::start(Mode::Legacy).await, Fixture::start(Mode::Modern).await);
    let cluster = Cluster::start(2).await;
    let members = json!({"members": [{"backend": "legacy"}, {"backend": "modern"}]});
    let text = over_http("legacy", legacy.url()) + &over_http("modern", modern.url());
    cluster.apply(&(text + &gateway("default", &members))).await;
    for node in &cluster.nodes {
        shows_tool(&node.url("default"), "modern_echo").await;
        shows_tool(&node.url("default"), "legacy_echo").await;
    }
    // The requests of this test are modern: a legacy backend is changed directly.
    for _ in 0..2 {
        change_is_shown(&cluster, "modern").await;
    }
    let mut session = crate::raw::Session::open(legacy.url(), "2025-11-25", json!({})).await;
    let changed =
        session.ask("tools/call", json!({"name": "test_trigger_tool_change", "arguments": {}})).await;
    assert!(changed["error"].is_null(), "{changed}");
    let began = Instant::now();
    for node in &cluster.nodes {
        shows_tool(&node.url("default"), "legacy_dynamic_tool").await;
    }
    assert!(began.elapsed() < CHANGE_MAX, "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_backend_of_many_pages_and_a_process_are_listed_whole() {
    let paged = Fixture::start_with(Mode::Dual, &["--page-size=3"]).await;
    let (program, arguments) = stdio_command(Mode::Legacy);
    let cluster = Cluster::start(1).await;
    let text = over_http("paged", paged.url()) + &over_stdio("piped", program, &arguments);
    cluster.apply(&(text + &plain_gateway("paged", "paged") + &plain_gateway("piped", "piped"))).await;
    let paged = shows_tool(&cluster.nodes[0].url("paged"), "echo").await;
    let piped = shows_tool(&cluster.nodes[0].url("piped"), "echo").await;
    assert_eq!(paged, piped);
}

#[tokio::test]
async fn a_backend_that_comes_up_late_is_listed_when_it_does() {
    let fixture = Fixture::start(Mode::Dual).await;
    let url = fixture.url().to_owned();
    let port = url.trim_end_matches("/mcp").rsplit(':').next().unwrap().to_owned();
    fixture.kill().await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("late", &url) + &plain_gateway("default", "late"))).await;
    let status = eventually("the backend is missed", async || {
        let (_, dump) = page(&cluster.nodes[0], "/config_dump").await;
        let dump: Value = serde_json::from_str(&dump).unwrap();
        let state = dump["backends"]["late"].as_str().unwrap_or_default().to_owned();
        if state.starts_with("unavailable") { Ok(state) } else { Err(state) }
    })
    .await;
    assert!(status.contains("refused"), "{status}");
    let _fixture = Fixture::start_with(Mode::Dual, &[&format!("--port={port}")]).await;
    shows_tool(&cluster.nodes[0].url("default"), "echo").await;
}

#[tokio::test]
async fn the_listing_of_a_backend_moves_when_its_node_dies() {
    let fixture = Fixture::start(Mode::Modern).await;
    let mut cluster = Cluster::start(2).await;
    cluster
        .apply(
            &(over_http("a", fixture.url()) + &gateway("default", &json!({"members": [{"backend": "a"}]}))),
        )
        .await;
    for node in &cluster.nodes {
        shows_tool(&node.url("default"), "a_echo").await;
    }
    let listed = |node: &Node| {
        let log = std::fs::read_to_string(cluster.folder.path().join(format!("{}.log", node.id))).unwrap();
        log.contains("listed")
    };
    let lister = cluster.nodes.iter().position(listed).expect("one of them has listed it");
    let mut dead = cluster.nodes.remove(lister);
    dead.process.kill().await;
    eventually("the other node lists it", async || {
        let log = std::fs::read_to_string(cluster.folder.path().join(format!("{}.log", cluster.nodes[0].id)));
        if log.unwrap().contains("listed") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    change_is_shown(&cluster, "a").await;
}

#[tokio::test]
async fn a_node_that_is_killed_again_and_again_always_starts_with_something_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = ControlPlane::start(folder.path()).await;
    let text = backend("off", &json!({"disabled": true, "http": {"url": "http://127.0.0.1:1/mcp"}}));
    control.apply(&(text + &plain_gateway("default", "off"))).await;
    let mut node = Node::start(folder.path(), "node", &control.grpc, &[]).await;
    eventually("something in service", async || match page(&node, "/readyz").await {
        (200, text) if text.contains("generation 1") => Ok(()),
        (status, text) => Err(format!("{status} {text}")),
    })
    .await;
    // Each start has a log of its own.
    let skipped = || std::fs::read_to_string(folder.path().join("node.log")).unwrap().contains("skipped");
    for round in 0..12_u64 {
        for change in 0..4 {
            control.apply(&plain_gateway(&format!("g{round}-{change}"), "off")).await;
        }
        // Somewhere in the writing of one of them.
        sleep(Duration::from_millis(round * 3)).await;
        node.restart().await;
        let (status, text) = page(&node, "/readyz").await;
        assert_eq!((status, skipped()), (200, false), "{text}");
    }
    control.process.kill().await;
    node.restart().await;
    let (status, text) = page(&node, "/readyz").await;
    assert!(status == 200 && text.contains("last-known-good generation"), "{text}");
    assert!(!skipped());
}

#[tokio::test]
async fn a_node_without_anything_waits_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), "node", "127.0.0.1:1", &[]).await;
    assert_eq!(page(&node, "/livez").await.0, 200);
    let (status, text) = page(&node, "/readyz").await;
    assert!(status == 503 && text.contains("waiting for the control plane"), "{status} {text}");
}

#[tokio::test]
async fn a_node_is_not_ready_before_the_first_configuration() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0];
    eventually("an empty configuration", async || match page(node, "/readyz").await {
        (503, text) if text.contains("no configuration yet") => Ok(()),
        (status, text) => Err(format!("{status} {text}")),
    })
    .await;
    let text = backend("off", &json!({"disabled": true, "http": {"url": "http://127.0.0.1:1/mcp"}}));
    cluster.apply(&(text + &plain_gateway("default", "off"))).await;
    assert_eq!(page(node, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_refused_request_leaves_its_connection_open() {
    let cluster = Cluster::start(1).await;
    let node = &cluster.nodes[0].mcp;
    let body = "2\r\n{}\r\n0\r\n\r\n";
    for (path, origin, status) in
        [("/nowhere", "", "404"), ("/mcp", "origin: http://evil.example\r\n", "403")]
    {
        let mut socket = TcpStream::connect(node).await.unwrap();
        for _ in 0..2 {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\n{origin}transfer-encoding: chunked\r\n\r\n"
            );
            socket.write_all((head + body).as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let n = timeout(Duration::from_secs(10), socket.read(&mut answer)).await.expect(path).unwrap();
            let answer = String::from_utf8_lossy(&answer[..n]).to_lowercase();
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{path}: {answer}");
            assert!(!answer.contains("connection: close"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn operators_see_what_is_in_service_and_no_secret() {
    let cluster = Cluster::start(1).await;
    let spec = json!({"disabled": true, "http": {
        "url": "http://127.0.0.1:1/mcp",
        "headers": [{"name": "authorization", "value": {"text": "Bearer hush"}}],
    }});
    let generation = cluster.apply(&(backend("a", &spec) + &plain_gateway("default", "a"))).await;
    let node = &cluster.nodes[0];
    let (status, text) = page(node, "/readyz").await;
    assert_eq!(
        (status, text.as_str()),
        (200, format!("ready: generation {generation}, catalog revision 0\n").as_str())
    );
    let (_, dump) = page(node, "/config_dump").await;
    assert!(dump.contains("authorization") && !dump.contains("hush"), "{dump}");
    let dump: Value = serde_json::from_str(&dump).unwrap();
    assert_eq!((&dump["node"], &dump["generation"]), (&json!("node-0"), &json!(generation)));
    assert_eq!(dump["backends"]["a"], "disabled");
    let (_, metrics) = page(node, "/metrics").await;
    assert!(metrics.contains(&format!("mt_config_generation {generation}\n")), "{metrics}");
    assert!(metrics.contains("mt_config_age_seconds 0\n"), "{metrics}");

    let rebound =
        http().get(format!("http://{}/config_dump", node.admin)).header("host", "evil.example:9901");
    assert_eq!(rebound.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_node_that_is_asked_to_stop_finishes_its_calls() {
    let fixture = Fixture::start(Mode::Dual).await;
    let mut cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("a", fixture.url()) + &plain_gateway("default", "a"))).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "slow").await;
    let slow = modern(&url, 1, "tools/call", json!({"name": "slow", "arguments": {"ms": 1500}}));
    let mut session = crate::raw::Session::open(&url, "2025-11-25", json!({})).await;
    assert!(session.ask("ping", json!({})).await["error"].is_null());
    let stream = session.stream().await;
    let began = Instant::now();
    let (answered, code) =
        tokio::join!(async { crate::raw::answer(slow.send().await.unwrap()).await }, async {
            sleep(Duration::from_millis(500)).await;
            cluster.nodes[0].process.stop().await
        },);
    assert!(answered["result"]["content"].is_array(), "{answered}");
    assert_eq!(code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "an idle stream held it up for {:?}", began.elapsed());
    drop(stream);
}

#[tokio::test]
async fn other_machines_are_refused_unless_told_otherwise() {
    let node = tokio::process::Command::new(crate::cluster::program("mt-dataplane"))
        .args(["--node-id", "n", "--listen", "0.0.0.0:0"])
        .output()
        .await
        .unwrap();
    assert_eq!(node.status.code(), Some(2));
    let text = String::from_utf8_lossy(&node.stderr);
    assert!(text.contains("0.0.0.0:0") && text.contains("--insecure"), "{text}");
}
