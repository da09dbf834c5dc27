//! Three nodes behind a balancer without affinity: whichever node a request
//! reaches, the client cannot tell, also when one of the nodes is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::balancer::Balancer;
use crate::cluster::{Background, Cluster, eventually, printed};
use crate::fixture::{BINARY, Fixture, Mode};
use crate::manifest::{over_http, over_stdio, plain_gateway};
use crate::raw::{Events, Session, answer, ask, http, messages_to_its_end, modern, shows_tool};

const LEGACY: &str = "2025-11-25";
const NODES: usize = 3;

/// A gateway over a fixture that speaks one era over HTTP, and one (`pipe`) over
/// a fixture that each node runs.
struct World {
    fixture: Fixture,
    cluster: Cluster,
    balancer: Balancer,
}

impl World {
    async fn start(mode: Mode) -> Self {
        let fixture = Fixture::start(mode).await;
        let cluster = Cluster::start(NODES).await;
        let text = [
            over_http("fixture", fixture.url()),
            over_stdio("pipe", Path::new(BINARY), &["stdio", Mode::Legacy.flag()]),
            plain_gateway("default", "fixture"),
            plain_gateway("pipe", "pipe"),
        ];
        cluster.apply(&text.concat()).await;
        for node in &cluster.nodes {
            shows_tool(&node.url("default"), "echo").await;
            shows_tool(&node.url("pipe"), "echo").await;
        }
        let balancer = Balancer::start(cluster.nodes.iter().map(|node| node.mcp.clone())).await;
        let world = Self { fixture, cluster, balancer };
        world.acquainted().await;
        world
    }

    /// Waits until requests that belong together find each other.
    async fn acquainted(&self) {
        let mut session = Session::open(&self.balancer.url("default"), LEGACY, json!({})).await;
        eventually("one session on all nodes", async || {
            let mut seen = Vec::new();
            for _ in 0..NODES {
                seen.push(who(&mut session).await?);
            }
            if seen.iter().all(|one| one == &seen[0]) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }
}

/// Which session of which process the backend has for this client.
async fn who(session: &mut Session) -> Result<String, String> {
    told(session.request("tools/call", call("session")).send().await).await
}

/// As [`who`], with a client that is made only once.
async fn who_with(client: &reqwest::Client, session: &Session, id: usize) -> Result<String, String> {
    let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call("session")});
    let request = client.post(&session.url).headers(session.headers.clone()).json(&body);
    told(request.header("accept", "application/json, text/event-stream").send().await).await
}

async fn told(response: reqwest::Result<reqwest::Response>) -> Result<String, String> {
    let response = response.map_err(|error| error.to_string())?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("{status}: {}", response.text().await.unwrap_or_default()));
    }
    let messages = messages_to_its_end(response).await.map_err(|error| error.to_string())?;
    let Some(said) = messages.last() else { return Err("an empty stream".to_owned()) };
    let told = &said["result"]["structuredContent"];
    match (&told["process"], &told["session"]) {
        (Value::Number(process), Value::Number(session)) => Ok(format!("{process}/{session}")),
        _ => Err(said.to_string()),
    }
}

fn call(tool: &str) -> Value {
    json!({"name": tool, "arguments": {}})
}

fn note(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

#[tokio::test]
async fn a_session_is_one_session_wherever_its_requests_arrive() {
    let world = World::start(Mode::Legacy).await;
    for gateway in ["default", "pipe"] {
        let mut session = Session::open(&world.balancer.url(gateway), LEGACY, json!({})).await;
        let first = who(&mut session).await.unwrap();
        for _ in 0..9 {
            assert_eq!(who(&mut session).await.unwrap(), first, "{gateway}");
        }
    }
    assert!(world.balancer.answered().iter().all(|count| *count > 3), "{:?}", world.balancer.answered());
}

#[tokio::test]
async fn an_answer_to_a_question_may_arrive_at_another_node() {
    let world = World::start(Mode::Legacy).await;
    let capabilities = json!({"elicitation": {}});
    let mut session = Session::open(&world.balancer.url("default"), LEGACY, capabilities).await;
    for _ in 0..4 {
        let params = json!({"name": "test_elicitation", "arguments": {"message": "who?"}});
        let mut events = Events::of(session.request("tools/call", params).send().await.unwrap());
        let asked = events.next().await;
        assert_eq!(asked["method"], "elicitation/create", "{asked}");
        let content = json!({"username": "ada", "email": "ada@example.com"});
        let result = json!({"action": "accept", "content": content});
        let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        assert_eq!(session.post(&reply).send().await.unwrap().status(), 202);
        let said = events.next().await;
        assert!(said["result"]["content"].to_string().contains("ada"), "{said}");
    }
}

#[tokio::test]
async fn a_call_may_be_cancelled_at_another_node() {
    let world = World::start(Mode::Dual).await;
    let mut session = Session::open(&world.balancer.url("default"), LEGACY, json!({})).await;
    let counts = async |what: &str| {
        let said = ask(world.fixture.url(), "tools/call", call("cancelled_count")).await;
        said["result"]["structuredContent"][what].as_u64().unwrap_or_else(|| panic!("{said}"))
    };
    let (id, params) = (2, json!({"name": "slow", "arguments": {"ms": 60_000}}));
    let request = session.request("tools/call", params);
    let running = Background::run(async move { request.send().await.unwrap().text().await });
    eventually("the call under way", async || match counts("started").await {
        1 => Ok(()),
        other => Err(format!("{other} started")),
    })
    .await;
    let cancel = note("notifications/cancelled", json!({"requestId": id}));
    assert_eq!(session.post(&cancel).send().await.unwrap().status(), 202);
    eventually("the cancellation at the backend", async || match counts("cancelled").await {
        1 => Ok(()),
        other => Err(format!("{other} cancelled")),
    })
    .await;
    running.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_may_be_read_at_another_node() {
    let world = World::start(Mode::Legacy).await;
    let mut session = Session::open(&world.balancer.url("default"), LEGACY, json!({})).await;
    let mut own = Events::of(session.stream().await);
    let uri = "test://watched-resource";
    let subscribed = session.ask("resources/subscribe", json!({"uri": uri})).await;
    assert_eq!(subscribed["error"], Value::Null, "{subscribed}");
    for _ in 0..3 {
        session.ask("tools/call", call("test_trigger_resource_update")).await;
        let told = own.next().await;
        assert_eq!(told["params"]["uri"], uri, "{told}");
    }
}

#[tokio::test]
async fn a_stream_may_be_taken_up_again_at_another_node_and_only_in_its_session() {
    let world = World::start(Mode::Legacy).await;
    let url = world.balancer.url("default");
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let other = Session::open(&url, LEGACY, json!({})).await;
    let mut params = call("test_tool_with_progress");
    params["_meta"] = json!({"progressToken": "mine"});
    let text = session.request("tools/call", params).send().await.unwrap().text().await.unwrap();
    let first =
        text.lines().find_map(|line| line.strip_prefix("id:")).expect("events have ids").trim().to_owned();
    let again = async |session: &Session| {
        let request = http().get(&url).headers(session.headers.clone()).header("accept", "text/event-stream");
        request.header("last-event-id", &first).timeout(Duration::from_secs(2)).send().await.unwrap()
    };
    for _ in 0..3 {
        let resumed = again(&session).await.text().await.unwrap();
        assert!(resumed.contains("\"result\""), "{resumed}");
    }
    // Another session gets its own stream, on which nothing is said.
    let foreign = again(&other).await.text().await;
    assert!(!foreign.is_ok_and(|text| text.contains("\"result\"")));
}

#[tokio::test]
async fn what_was_ended_at_one_node_is_unknown_at_all() {
    let mut world = World::start(Mode::Legacy).await;
    let mut session = Session::open(&world.balancer.url("default"), LEGACY, json!({})).await;
    who(&mut session).await.unwrap();
    let unused = Session::open(&world.balancer.url("default"), LEGACY, json!({})).await;
    for session in [&session, &unused] {
        let delete = http().delete(&session.url).headers(session.headers.clone());
        assert_eq!(delete.send().await.unwrap().status(), 204);
    }
    let refused = async |node: &crate::cluster::Node| {
        for session in [&session, &unused] {
            let ping = json!({"jsonrpc": "2.0", "id": 77, "method": "ping"});
            let request = http().post(node.url("default")).headers(session.headers.clone()).json(&ping);
            let response =
                request.header("accept", "application/json, text/event-stream").send().await.unwrap();
            assert_eq!(response.status(), 404, "{}", node.id);
        }
    };
    for node in &world.cluster.nodes {
        refused(node).await;
    }
    // Also when whoever ended it is gone, whichever node that was.
    world.cluster.nodes[0].process.kill().await;
    for node in &world.cluster.nodes[1..] {
        refused(node).await;
    }
}

#[tokio::test]
async fn a_token_that_was_changed_opens_nothing_anywhere() {
    let world = World::start(Mode::Legacy).await;
    let session = Session::open(&world.balancer.url("default"), LEGACY, json!({})).await;
    let token = session.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let (kept, last) = token.split_at(token.len() - 1);
    let forged = format!("{kept}{}", if last == "A" { "B" } else { "A" });
    for node in &world.cluster.nodes {
        // The right token of another gateway is as wrong as a forged one.
        for (gateway, token) in [("default", &forged), ("pipe", &token)] {
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
            let request = http().post(node.url(gateway)).header("mcp-session-id", token).json(&ping);
            let response =
                request.header("accept", "application/json, text/event-stream").send().await.unwrap();
            assert_eq!(response.status(), 404, "{} {gateway}", node.id);
        }
    }
}

#[tokio::test]
async fn modern_calls_of_a_stateful_backend_find_the_same_upstream_session() {
    let world = World::start(Mode::Legacy).await;
    let url = world.balancer.url("default");
    let mut seen = std::collections::BTreeSet::new();
    for id in 0..9 {
        let said = answer(modern(&url, id, "tools/call", call("session")).send().await.unwrap()).await;
        let told = &said["result"]["structuredContent"];
        assert!(told["session"].is_number(), "{said}");
        seen.insert(format!("{}/{}", told["process"], told["session"]));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// What sessions under load have seen.
#[derive(Default, Debug)]
struct Seen {
    calls: usize,
    failures: Vec<(Instant, String)>,
}

/// Calls without a pause until told to stop; every call names the same upstream session.
async fn load(url: String, ready: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Seen {
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let (client, mut seen) = (http(), Seen::default());
    let upstream = who(&mut session).await.unwrap();
    ready.fetch_add(1, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        seen.calls += 1;
        match who_with(&client, &session, 1_000 + seen.calls).await {
            Ok(now) => assert_eq!(now, upstream, "the backend has a new session for this client"),
            Err(failure) => seen.failures.push((Instant::now(), failure)),
        }
    }
    seen
}

const CLIENTS: usize = 16;
/// How long after a kill nothing fails any more.
const SETTLED: Duration = Duration::from_secs(1);

async fn all_under_way(ready: &AtomicUsize, clients: usize) {
    eventually("all clients under way", async || match ready.load(Ordering::Relaxed) {
        ready if ready == clients => Ok(()),
        ready => Err(format!("{ready} are")),
    })
    .await;
}

async fn all(running: &mut JoinSet<Seen>) -> Vec<Seen> {
    let mut all = Vec::new();
    while let Some(ended) = running.join_next().await {
        all.push(ended.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_survive_the_node_that_opened_them_with_what_the_backend_has_of_them() {
    let mut world = World::start(Mode::Legacy).await;
    let (ready, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    for _ in 0..CLIENTS {
        running.spawn(load(world.balancer.url("default"), ready.clone(), stop.clone()));
    }
    all_under_way(&ready, CLIENTS).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.cluster.nodes[1].process.kill().await;
    let killed = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    stop.store(true, Ordering::Relaxed);
    let seen = all(&mut running).await;
    let failures: Vec<_> = seen.iter().flat_map(|seen| &seen.failures).collect();
    let calls: usize = seen.iter().map(|seen| seen.calls).sum();
    println!("{calls} calls, {} failures: {failures:?}", failures.len());
    assert!(calls > 10 * CLIENTS, "only {calls} calls");
    // Each had been written to the dead node: by the balancer, or by another node, which says so.
    let told = failures.iter().filter(|(_, failure)| failure.contains("-31010")).count();
    assert!(failures.len() - told <= world.balancer.broken(), "{failures:?}");
    // A process that is being killed still accepts connections for a moment.
    assert!(failures.len() <= 2 * CLIENTS, "{failures:?}");
    let late = failures.iter().filter(|(at, _)| at.saturating_duration_since(killed) > SETTLED).count();
    assert_eq!(late, 0, "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_are_changed_under_load_and_nobody_notices() {
    let world = World::start(Mode::Legacy).await;
    let mut before = Session::open(&world.balancer.url("default"), LEGACY, json!({})).await;
    let upstream = who(&mut before).await.unwrap();
    let (ready, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut running = JoinSet::new();
    for _ in 0..4 {
        running.spawn(load(world.balancer.url("default"), ready.clone(), stop.clone()));
    }
    all_under_way(&ready, 4).await;
    let key = |session: &Session| {
        session.headers["mcp-session-id"].to_str().unwrap().split_once('.').unwrap().0.to_owned()
    };
    printed(&world.cluster.mtctl(&["keys", "rotate", "--settle", "1s"]).await);
    let url = world.balancer.url("default");
    let mut sealed_by = BTreeMap::new();
    eventually("the new key seals on every node", async || {
        let mut all_new = true;
        for node in &world.cluster.nodes {
            let fresh = Session::open(&node.url("default"), LEGACY, json!({})).await;
            all_new &= key(&fresh) != key(&before);
            sealed_by.insert(node.id.clone(), key(&fresh));
        }
        if all_new { Ok(()) } else { Err(format!("{sealed_by:?}")) }
    })
    .await;
    assert_eq!(who(&mut before).await.unwrap(), upstream);
    let mut after = Session::open(&url, LEGACY, json!({})).await;
    who(&mut after).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for seen in all(&mut running).await {
        assert!(seen.failures.is_empty() && seen.calls > 0, "{seen:?}");
    }
}
