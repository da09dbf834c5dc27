//! The processes that are measured: a backend, the minimal proxy before it, and
//! a control plane with a node before it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};

use crate::{load::Target, process};

/// How long the system may take to serve its first request.
const START_MAX: Duration = Duration::from_secs(20);

const CONFIG: &str = "apiVersion: magictunnel/v1
kind: Backend
metadata: {name: bench}
spec:
  http: {url: 'http://BACKEND/mcp'}
---
apiVersion: magictunnel/v1
kind: Gateway
metadata: {name: default}
spec:
  toolName: '{tool}'
  members: [{backend: bench}]
---
apiVersion: magictunnel/v1
kind: Backend
metadata: {name: pipe}
spec:
  stdio: {command: 'PROGRAM', args: [backend, --lines]}
---
apiVersion: magictunnel/v1
kind: Gateway
metadata: {name: pipe}
spec:
  toolName: '{tool}'
  members: [{backend: pipe}]
";

/// Everything that runs; ends when dropped.
pub struct System {
    targets: Vec<Target>,
    node_start: Duration,
    _children: Vec<Guard>,
    _data: tempfile::TempDir,
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left to do.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Memory of one process.
pub struct Memory {
    pub target: &'static str,
    pub rss_kib: u64,
    pub start: Option<Duration>,
}

impl System {
    pub async fn start() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let own = std::env::current_exe()?;
        let (backend, backend_address) = listening(Command::new(&own).arg("backend"))?;
        let to = backend_address.to_string();
        let (floor, floor_address) = listening(Command::new(&own).args(["floor", "--to", &to]))?;

        let control_ready = data.path().join("control.json");
        let control = spawn(
            Command::new(sibling(&own, "mt-controlplane")?)
                .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
                .arg(data.path().join("control"))
                .arg("--ready-file")
                .arg(&control_ready),
        )?;
        let grpc = ready(&control_ready, "grpc").await?;
        let config = data.path().join("bench.yaml");
        std::fs::write(
            &config,
            CONFIG.replace("BACKEND", &to).replace("PROGRAM", &own.display().to_string()),
        )?;
        let applied = Command::new(sibling(&own, "mtctl")?)
            .args(["--server", &format!("http://{grpc}"), "apply", "-f"])
            .arg(&config)
            .stdout(Stdio::null())
            .status()?;
        if !applied.success() {
            bail!("mtctl apply failed");
        }

        let node_ready = data.path().join("node.json");
        let began = Instant::now();
        let node = spawn(
            Command::new(sibling(&own, "mt-dataplane")?)
                .args(["--node-id", "bench", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
                .args(["--worker-threads", "1", "--control", &format!("http://{grpc}"), "--cache-dir"])
                .arg(data.path().join("node"))
                .arg("--ready-file")
                .arg(&node_ready),
        )?;
        let node_address = ready(&node_ready, "mcp").await?;
        let node_start = began.elapsed();
        let targets = vec![
            Target { name: "backend", address: backend_address, pid: backend.0.id() },
            Target { name: "minimal proxy", address: floor_address, pid: floor.0.id() },
            Target { name: "node", address: node_address, pid: node.0.id() },
        ];
        serves_tools(&targets[2]).await?;
        Ok(Self { targets, node_start, _children: vec![backend, floor, control, node], _data: data })
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub fn memory(&self) -> anyhow::Result<Vec<Memory>> {
        self.targets
            .iter()
            .map(|target| {
                let start = (target.name == "node").then_some(self.node_start);
                Ok(Memory { target: target.name, rss_kib: process::rss_kib(target.pid)?, start })
            })
            .collect()
    }
}

/// The program beside this one.
fn sibling(own: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = own.with_file_name(name);
    if !path.exists() {
        bail!(
            "{} is missing: build all programs first, `cargo build --release --workspace --bins`",
            path.display()
        );
    }
    Ok(path)
}

fn spawn(command: &mut Command) -> anyhow::Result<Guard> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Guard(child.with_context(|| format!("starting {command:?}"))?))
}

/// Starts a program that prints its address first.
fn listening(command: &mut Command) -> anyhow::Result<(Guard, SocketAddr)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let guard = Guard(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((guard, line.trim().parse().with_context(|| format!("{command:?} printed {line:?}"))?))
}

/// The address that a program writes when it listens.
async fn ready(file: &Path, key: &str) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + START_MAX;
    while Instant::now() < deadline {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Ok(bound) = serde_json::from_str::<serde_json::Value>(&text)
            && let Some(address) = bound.get(key).and_then(|a| a.as_str())
        {
            return Ok(address.parse()?);
        }
        sleep(Duration::from_millis(1)).await;
    }
    bail!("{} did not appear within {START_MAX:?}", file.display())
}

async fn serves_tools(target: &Target) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_MAX;
    let case = &crate::load::CASES[0];
    loop {
        match crate::load::run(target, case, 1, Duration::from_millis(1)).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.context("the node serves no tools")),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
