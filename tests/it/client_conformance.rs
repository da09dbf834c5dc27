//! The client half of the official conformance runner, with a gateway in front
//! of the server that each scenario plays: what it asks of a client, it then
//! asks of the gateway.
//!
//! Scenarios of authorization are not among them: a gateway is a resource
//! server of its own, whose metadata names itself.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::process::Command;

use crate::cluster;
use crate::peers::{conformance_runner, node, program};

/// A scenario takes 2 to 4 seconds on an idle machine.
const SCENARIO_DEADLINE: Duration = Duration::from_secs(90);
/// Each starts a gateway and two more processes.
const AT_ONCE: usize = 3;

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// Scenario, revision of its server, era of the client in front of the gateway.
const SCENARIOS: [(&str, &str, &str); 20] = [
    ("initialize", LEGACY, "legacy"),
    ("tools_call", LEGACY, "legacy"),
    ("elicitation-sep1034-client-defaults", LEGACY, "legacy"),
    ("sse-retry", LEGACY, "legacy"),
    ("json-schema-2020-12-preservation", LEGACY, "legacy"),
    ("tools_call", LEGACY, "modern"),
    ("elicitation-sep1034-client-defaults", LEGACY, "modern"),
    ("sse-retry", LEGACY, "modern"),
    ("tools_call", MODERN, "modern"),
    ("request-metadata", MODERN, "modern"),
    ("sep-2322-client-request-state", MODERN, "modern"),
    ("http-standard-headers", MODERN, "modern"),
    ("http-custom-headers", MODERN, "modern"),
    ("http-invalid-tool-headers", MODERN, "modern"),
    ("json-schema-ref-no-deref", MODERN, "modern"),
    ("json-schema-2020-12-preservation", MODERN, "modern"),
    ("sep-2322-client-request-state", MODERN, "legacy"),
    ("http-standard-headers", MODERN, "legacy"),
    ("http-custom-headers", MODERN, "legacy"),
    ("http-invalid-tool-headers", MODERN, "legacy"),
];

async fn run(scenario: &str, version: &str, front: &str) -> Result<(), String> {
    let results = TempDir::new().unwrap();
    let path = |path: &Path| path.to_str().expect("paths here are UTF-8").to_owned();
    let script = program("clients/conformance_client.mjs");
    let client = [path(&node()), path(&script), path(&cluster::program("mtctl")), front.to_owned()];
    let running = Command::new(node())
        .arg(conformance_runner())
        .args(["client", "--command", &client.join(" "), "--scenario", scenario, "--spec-version", version])
        .args(["--timeout", "60000", "-o"])
        .arg(results.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SCENARIO_DEADLINE, running).await;
    let output = output.map_err(|_| "did not end in time".to_owned())?.expect("the runner starts");
    if output.status.success() {
        return Ok(());
    }
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let telling = |line: &&str| ["FAILURE", "WARNING", "rror"].iter().any(|word| line.contains(word));
    Err(said.lines().filter(telling).take(12).collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn the_gateway_is_the_client_that_the_runner_wants() {
    let outcomes = stream::iter(SCENARIOS)
        .map(async |(scenario, version, front)| {
            let outcome = run(scenario, version, front).await;
            outcome.map_err(|why| format!("{scenario} at {version}, {front} client in front:\n{why}"))
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let failures: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(
        failures.is_empty(),
        "{} of {} failed\n{}",
        failures.len(),
        SCENARIOS.len(),
        failures.join("\n\n")
    );
}
