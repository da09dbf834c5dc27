//! Conformance through a node equals conformance of the backend itself.
//!
//! The same runner asks the same things of the fixture directly and through
//! gateways that have it behind HTTP, behind a pipe, and beside another server.
//! What does worse through a gateway is a fault of ours, but for the checks that
//! are named here, each with its reason; one that no longer does worse fails too.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::cluster::{Cluster, Node};
use crate::conformance::{self, Check, Checks, Difference, Status};
use crate::fixture::{BINARY, Fixture, Mode};
use crate::manifest::{gateway, over_http, over_stdio, plain_gateway};
use crate::peers;
use crate::raw::{http, shows_tool};

/// Checks that may do worse through a gateway.
pub struct Exception {
    /// A scenario; with `*` at the end all that start so.
    pub scenario: &'static str,
    /// One check of it; `*` is all.
    pub check: &'static str,
    /// The worst that they may do.
    pub worst: Status,
}

impl Exception {
    pub const fn all_of(scenario: &'static str) -> Self {
        Self { scenario, check: "*", worst: Status::Failure }
    }

    fn excepts(&self, difference: &Difference) -> bool {
        let Check { scenario, id, .. } = &difference.check;
        let within = match self.scenario.strip_suffix('*') {
            Some(start) => scenario.starts_with(start),
            None => scenario == self.scenario,
        };
        // A check that is not made at all is as bad as one that fails.
        let through = difference.through.as_ref().map_or(Status::Failure, |outcome| outcome.status);
        within && (self.check == "*" || id == self.check) && through <= self.worst
    }
}

/// Lists are answered from the catalog as JSON: the runner notes that a stream is optional.
pub const LISTS_ARE_JSON: Exception = Exception {
    scenario: "server-sse-multiple-streams",
    check: "server-sse-streams-functional",
    worst: Status::Info,
};
/// A backend on a pipe has no connection that it could close and have resumed.
const NO_STREAM_TO_RESUME: Exception = Exception::all_of("server-sse-polling");
/// A backend on a pipe sees no headers that it could compare with the arguments.
pub const NO_HEADERS: Exception = Exception::all_of("http-custom-header-server-validation");
/// Where several members serve resources, URIs carry their member: those that the
/// runner knows by heart belong to nobody.
const URIS_CARRY_THEIR_MEMBER: Exception = Exception::all_of("resources-*");
/// The id of a task does not say whose it is, so tasks need a gateway of one member.
const TASKS_NEED_A_SOLE_MEMBER: Exception = Exception::all_of("tasks-*");

async fn compare(
    direct: &Checks,
    cluster: &Cluster,
    gateway: &str,
    revision: &str,
    exceptions: &[Exception],
) -> Result<(), String> {
    compare_at(direct, &cluster.nodes[0].url(gateway), gateway, revision, exceptions).await
}

/// Fails with everything that does worse at `url` than `direct`, unless it is
/// excepted, and with exceptions that are none.
pub async fn compare_at(
    direct: &Checks,
    url: &str,
    gateway: &str,
    revision: &str,
    exceptions: &[Exception],
) -> Result<(), String> {
    let out_dir = tempfile::tempdir().unwrap();
    let report = conformance::run(url, revision, out_dir.path()).await;
    let mut wrong = String::new();
    let differences = conformance::diff(direct, &report.checks);
    for difference in &differences {
        if !exceptions.iter().any(|exception| exception.excepts(difference)) {
            writeln!(wrong, "{gateway}: {difference}").unwrap();
        }
    }
    for exception in exceptions {
        if !differences.iter().any(|difference| exception.excepts(difference)) {
            writeln!(wrong, "{gateway}: {}:{} is as good as directly", exception.scenario, exception.check)
                .unwrap();
        }
    }
    let own = |check: &Check| check.scenario == "dns-rebinding-protection";
    if !report.checks.iter().any(|(check, outcome)| own(check) && outcome.status == Status::Success) {
        writeln!(wrong, "{gateway}: the node does not protect against DNS rebinding").unwrap();
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// What the runner finds in a fixture without anything between them.
pub async fn directly(revision: &str) -> Checks {
    let fixture = Fixture::start(Mode::Dual).await;
    let out_dir = tempfile::tempdir().unwrap();
    let report = conformance::run(fixture.url(), revision, out_dir.path()).await;
    assert!(report.conformant, "{}", report.summary);
    report.checks
}

/// Gateways over one fixture: `default` over HTTP, `pipe` over stdin and stdout,
/// `beside` over HTTP with another server as a second member.
fn gateways(fixture: &Fixture, pipe: Mode) -> String {
    let (node, everything) = peers::everything();
    let beside = json!([{"backend": "fixture"}, {"backend": "everything", "toolName": "{backend}_{tool}"}]);
    [
        over_http("fixture", fixture.url()),
        over_stdio("pipe", Path::new(BINARY), &["stdio", pipe.flag()]),
        over_stdio("everything", &node, &[everything.to_str().unwrap(), "stdio"]),
        plain_gateway("default", "fixture"),
        plain_gateway("pipe", "pipe"),
        gateway("beside", &json!({"toolName": "{tool}", "members": beside})),
    ]
    .concat()
}

async fn started(pipe: Mode) -> (Fixture, Cluster) {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&gateways(&fixture, pipe)).await;
    let node = &cluster.nodes[0];
    shows_tool(&node.url("default"), "echo").await;
    shows_tool(&node.url("pipe"), "echo").await;
    shows_tool(&node.url("beside"), "everything_echo").await;
    (fixture, cluster)
}

#[tokio::test]
async fn conformance_at_2025_11_25_is_the_same_through_a_node() {
    let revision = "2025-11-25";
    let (_fixture, cluster) = started(Mode::Legacy).await;
    let direct = directly(revision).await;
    let results = [
        compare(&direct, &cluster, "default", revision, &[LISTS_ARE_JSON]).await,
        compare(&direct, &cluster, "pipe", revision, &[LISTS_ARE_JSON, NO_STREAM_TO_RESUME]).await,
        compare(&direct, &cluster, "beside", revision, &[LISTS_ARE_JSON, URIS_CARRY_THEIR_MEMBER]).await,
    ];
    let wrong: String = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[tokio::test]
async fn conformance_at_2026_07_28_is_the_same_through_a_node() {
    let revision = "2026-07-28";
    let (_fixture, cluster) = started(Mode::Modern).await;
    let direct = directly(revision).await;
    let results = [
        compare(&direct, &cluster, "default", revision, &[LISTS_ARE_JSON]).await,
        compare(&direct, &cluster, "pipe", revision, &[LISTS_ARE_JSON, NO_HEADERS]).await,
        compare(
            &direct,
            &cluster,
            "beside",
            revision,
            &[LISTS_ARE_JSON, URIS_CARRY_THEIR_MEMBER, TASKS_NEED_A_SOLE_MEMBER],
        )
        .await,
    ];
    let wrong: String = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{wrong}");
}

/// The status of a request to open a session that names this host and origin.
async fn status(url: &str, host: Option<&str>, origin: Option<&str>) -> u16 {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let mut request = http()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}));
    if let Some(host) = host {
        request = request.header("host", host);
    }
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_node_itself_refuses_foreign_hosts_and_origins() {
    let mut cluster = Cluster::start(1).await;
    let flags = ["--allow-host", "mcp.example.com", "--allow-origin", "https://ui.example.com"];
    let (folder, grpc) = (cluster.folder.path().to_owned(), cluster.control.grpc.clone());
    cluster.nodes.push(Node::start(&folder, "open", &grpc, &flags).await);
    // A backend on a pipe knows neither hosts nor origins.
    let pipe = over_stdio("pipe", Path::new(BINARY), &["stdio"]);
    cluster.apply(&(pipe + &plain_gateway("default", "pipe"))).await;

    let (strict, open) = (cluster.nodes[0].url("default"), cluster.nodes[1].url("default"));
    let port = cluster.nodes[0].mcp.rsplit_once(':').unwrap().1.to_owned();
    let local_port = format!("localhost:{port}");
    let table = [
        // Host, Origin, at the strict node, at the node that was told of others.
        (None, None, 200, 200),
        (Some(local_port.as_str()), None, 200, 200),
        (Some("127.0.0.1:1"), Some("http://127.0.0.1:5173"), 200, 200),
        (Some("[::1]"), Some("http://localhost"), 200, 200),
        (Some("evil.example.com"), None, 403, 403),
        (Some("localhost.evil.example.com"), None, 403, 403),
        (Some("mcp.example.com"), None, 403, 200),
        (Some("mcp.example.com:443"), Some("https://ui.example.com"), 403, 200),
        (None, Some("http://evil.example.com"), 403, 403),
        (None, Some("null"), 403, 403),
        (None, Some("https://ui.example.com"), 403, 200),
        (None, Some("https://ui.example.com:444"), 403, 403),
        (None, Some("http://localhost.evil.example.com"), 403, 403),
    ];
    for (host, origin, at_strict, at_open) in table {
        assert_eq!(status(&strict, host, origin).await, at_strict, "{host:?} {origin:?}");
        assert_eq!(
            status(&open, host, origin).await,
            at_open,
            "{host:?} {origin:?} where others are allowed"
        );
    }
    // No method is a way around it.
    for method in [reqwest::Method::GET, reqwest::Method::DELETE, reqwest::Method::OPTIONS] {
        let request = http().request(method.clone(), &strict).header("host", "evil.example.com");
        assert_eq!(request.send().await.unwrap().status(), 403, "{method}");
    }
}
