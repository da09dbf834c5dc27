//! Nothing that a node has started outlives it or its use: not what a server
//! has started in turn, however it hides, and not after a thousand of them.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Node, eventually};
use crate::fixture::BINARY;
use crate::manifest::{backend, plain_gateway};
use crate::raw::{Session, ask, shows_tool};

/// What the kernel and a busy machine may take to see all of it gone.
const GONE_MAX: Duration = Duration::from_secs(1);
/// How often processes are started and stopped where nothing else is said.
const CYCLES: u64 = 200;
/// Says how often instead; these are for long runs by hand.
const CYCLES_VARIABLE: &str = "MT_PROCESS_CYCLES";
/// A command line, as JSON, to run instead of the fixture's.
const SERVER_VARIABLE: &str = "MT_PROCESS_SERVER";
/// The params of a `tools/call` for it.
const CALL_VARIABLE: &str = "MT_PROCESS_CALL";
/// Before anything is measured.
const WARM_UP: usize = 20;
/// Connections of the test that are opened in between.
const DESCRIPTORS_MORE_MAX: usize = 4;
/// What the allocator may keep, whatever the number of cycles.
const RESIDENT_KIB_MORE_MAX: u64 = 16 * 1024;
const LEGACY: &str = "2025-11-25";

/// Names that no other process has: seconds for `sleep`, unique to a test.
fn marks(test: u64) -> [String; 4] {
    [1, 2, 3, 4].map(|n| (1_000_000_000 + u64::from(std::process::id()) * 100 + test * 10 + n).to_string())
}

/// A fixture that has started four processes first: one as usual, one that
/// ignores SIGTERM and the like, one in a session of its own, and one whose
/// parent is gone as well.
fn litter(marks: &[String; 4]) -> Value {
    let [plain, deaf, escaped, orphan] = marks;
    let script = format!(
        "sleep {plain} & (trap '' TERM HUP INT; exec sleep {deaf}) & setsid sleep {escaped} & \
         setsid sh -c 'sleep {orphan} & ' & exec {BINARY} stdio"
    );
    json!({"stdio": {"command": "sh", "args": ["-c", script]}})
}

/// The processes that `sleep` for one of these times.
fn alive(marks: &[String]) -> Vec<(i32, String)> {
    let words = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.map(|pid| (pid, words(pid)))
        .filter(|(_, line)| marks.iter().any(|mark| *line == format!("sleep {mark}")))
        .collect()
}

async fn all_gone(marks: &[String], since: Instant) {
    loop {
        let left = alive(marks);
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < GONE_MAX, "still there: {left:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A node whose server has left four processes about.
async fn littered(marks: &[String; 4]) -> Cluster {
    let cluster = Cluster::start(1).await;
    cluster.apply(&(backend("pipe", &litter(marks)) + &plain_gateway("default", "pipe"))).await;
    shows_tool(&cluster.nodes[0].url("default"), "echo").await;
    eventually("all that the server starts", async || match alive(marks) {
        found if found.len() >= 4 => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
    cluster
}

#[tokio::test]
async fn what_a_server_has_started_dies_with_a_node_that_is_killed() {
    let marks = marks(1);
    let mut cluster = littered(&marks).await;
    let killed = Instant::now();
    cluster.nodes[0].process.kill().await;
    all_gone(&marks, killed).await;
}

#[tokio::test]
async fn what_a_server_has_started_dies_with_the_server() {
    let marks = marks(2);
    let cluster = littered(&marks).await;
    let url = cluster.nodes[0].url("default");
    ask(&url, "tools/call", json!({"name": "echo", "arguments": {}})).await;
    // One server for the node's listing, one for the call, which is of the other era.
    let old = eventually("two servers", async || match alive(&marks) {
        found if found.len() >= 2 * marks.len() => Ok(found),
        found => Err(format!("{found:?}")),
    })
    .await;
    ask(&url, "tools/call", json!({"name": "crash", "arguments": {}})).await;
    eventually("the end of what the first server had started", async || {
        let now = alive(&marks);
        let left: Vec<_> = old.iter().filter(|process| now.contains(process)).collect();
        if left.len() + marks.len() <= old.len() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_guard_that_is_killed_costs_one_server_and_the_node_says_so() {
    let cluster = Cluster::start(1).await;
    let fixture = json!({"stdio": {"command": BINARY, "args": ["stdio"]}});
    cluster.apply(&(backend("pipe", &fixture) + &plain_gateway("default", "pipe"))).await;
    let node = &cluster.nodes[0];
    let url = node.url("default");
    shows_tool(&url, "echo").await;
    let guards = children(node.process.pid());
    assert!(!guards.is_empty());
    for guard in guards {
        kill_process(Pid::from_raw(guard).unwrap(), Signal::KILL).unwrap();
    }
    let echo = json!({"name": "echo", "arguments": {"text": "hi"}});
    eventually("a new server behind a new guard", async || {
        let answer = ask(&url, "tools/call", echo.clone()).await;
        if answer["result"].is_object() { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
    let log = std::fs::read_to_string(cluster.folder.path().join("node-0.log")).unwrap();
    assert!(log.contains("its guard died"), "{log}");
}

#[tokio::test]
async fn a_server_has_its_three_pipes_and_nothing_else_of_the_node() {
    let cluster = Cluster::start(1).await;
    let seen = cluster.folder.path().join("seen");
    // Its own output goes to the file meanwhile, and is kept aside. There are
    // several at once: one for each era.
    let script = format!(
        "for fd in /proc/$$/fd/*; do readlink \"$fd\"; done >{0}.$$; mv {0}.$$ {0}; exec {BINARY} stdio",
        seen.display()
    );
    let server = json!({"stdio": {"command": "sh", "args": ["-c", script]}});
    cluster.apply(&(backend("pipe", &server) + &plain_gateway("default", "pipe"))).await;
    shows_tool(&cluster.nodes[0].url("default"), "echo").await;
    let seen = std::fs::read_to_string(&seen).unwrap();
    // What this test has got from whoever runs it, everybody below it has.
    let own = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let own: Vec<_> = own.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let links = seen.lines().filter(|link| !own.iter().any(|own| own.to_str() == Some(*link)));
    let (pipes, others): (Vec<&str>, Vec<&str>) = links.partition(|link| link.starts_with("pipe:"));
    assert_eq!(pipes.len(), 3, "{seen}");
    assert!(others.iter().all(|link| link.contains("/seen.")), "{seen}");
}

#[tokio::test]
async fn a_server_that_needs_more_memory_than_it_may_have_is_told_apart() {
    let cluster = Cluster::start(1).await;
    // Node and the like reserve much; a shell with a large variable does not.
    let script = "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x} >&2; exec cat";
    let server = json!({"stdio": {"command": "sh", "args": ["-c", script], "memoryBytesMax": 64 << 20}});
    cluster.apply(&(backend("pipe", &server) + &plain_gateway("default", "pipe"))).await;
    let said = eventually("the reason in the status", async || {
        let status = cluster.mtctl(&["status"]).await;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        if text.contains("memoryBytesMax") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(said.contains("64 MiB"), "{said}");
    let counted = metric(&cluster.nodes[0], "mt_upstream_out_of_memory_total").await;
    assert!(counted >= 1.0, "{counted}");
}

/// What a node holds.
#[derive(Debug)]
struct Held {
    children: usize,
    descriptors: usize,
    resident_kib: u64,
}

fn held(pid: i32) -> Held {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Held {
        children: children(pid).len(),
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        resident_kib: resident.split_whitespace().next().unwrap().parse().unwrap(),
    }
}

/// Also those that nobody has waited for.
fn children(of: i32) -> Vec<i32> {
    let mut by_parent: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        by_parent.entry(parent.unwrap_or(0)).or_default().push(pid);
    }
    by_parent.remove(&of).unwrap_or_default()
}

async fn metric(node: &Node, name: &str) -> f64 {
    let text = reqwest::get(format!("http://{}/metrics", node.admin)).await.unwrap().text().await.unwrap();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Waits until no process comes or goes any more.
async fn settled(pid: i32) {
    let mut since = (Instant::now(), children(pid));
    eventually("an end of the coming and going", async || {
        let now = children(pid);
        if now != since.1 {
            since = (Instant::now(), now);
        }
        if since.0.elapsed() > Duration::from_secs(1) { Ok(()) } else { Err(format!("{since:?}")) }
    })
    .await;
}

/// Every call has a process of its own, so each is a start and a stop.
#[tokio::test]
async fn many_starts_and_stops_leave_a_node_as_it_was() {
    let given = |name: &str| std::env::var(name).ok();
    let cycles = given(CYCLES_VARIABLE).map_or(CYCLES, |text| text.parse().unwrap());
    let server = given(SERVER_VARIABLE).map_or_else(
        || vec![BINARY.to_owned(), "stdio".to_owned()],
        |text| serde_json::from_str(&text).unwrap(),
    );
    let call = given(CALL_VARIABLE).map_or_else(
        || json!({"name": "echo", "arguments": {"text": "hi"}}),
        |text| serde_json::from_str(&text).unwrap(),
    );
    let cluster = Cluster::start(1).await;
    let spec = json!({"stdio": {"command": server[0], "args": server[1..], "sharing": "per_call"}});
    cluster.apply(&(backend("pipe", &spec) + &plain_gateway("default", "pipe"))).await;
    let node = &cluster.nodes[0];
    let (url, pid) = (node.url("default"), node.process.pid());
    shows_tool(&url, call["name"].as_str().unwrap()).await;
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut cycle = async || {
        let answer = session.ask("tools/call", call.clone()).await;
        assert!(answer["result"]["content"].is_array(), "{answer}");
    };
    for _ in 0..WARM_UP {
        cycle().await;
    }
    settled(pid).await;
    let (before, started) = (held(pid), metric(node, "mt_upstream_processes_started_total").await);
    let began = Instant::now();
    for _ in 0..cycles {
        cycle().await;
    }
    let took = began.elapsed();
    settled(pid).await;
    let (after, now_started) = (held(pid), metric(node, "mt_upstream_processes_started_total").await);
    println!("{cycles} cycles in {took:?}: {before:?}, then {after:?}");
    assert!(now_started - started >= cycles as f64, "each call has its process: {started}, {now_started}");
    assert!(after.children <= before.children, "{before:?} {after:?}");
    assert!(after.descriptors <= before.descriptors + DESCRIPTORS_MORE_MAX, "{before:?} {after:?}");
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(grown < RESIDENT_KIB_MORE_MAX, "{before:?} {after:?}");
}
