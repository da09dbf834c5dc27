//! A control plane beside the load, and nodes on the CPU of what is measured.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::serves;
use crate::{
    child::{self, Guard, sibling},
    load::{Case, Era, Target, What},
    place,
};

/// A control plane and its nodes.
pub struct Fleet {
    nodes: Vec<Node>,
    control: SocketAddr,
    folder: tempfile::TempDir,
    guard: Option<Guard>,
}

/// A node.
pub struct Node {
    guard: Guard,
    name: String,
    pub address: SocketAddr,
}

impl Node {
    pub fn target(&self) -> Target {
        Target::new(&self.name, self.address, self.guard.pid())
    }
}

/// How a node is started, with one thread for calls.
pub fn node_command(command: &mut Command, name: &str, control: SocketAddr, cache: &Path) {
    command
        .args(["--node-id", name, "--worker-threads", "1", "--admin", "127.0.0.1:0"])
        .args(["--log", "warn", "--control", &format!("http://{control}"), "--cache-dir"])
        .arg(cache);
}

impl Fleet {
    /// A control plane with a configuration, and no node.
    ///
    /// # Errors
    /// If it does not start or refuses the configuration.
    pub async fn start(yaml: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("control.json");
        let mut guard = child::spawn(
            Command::new(sibling("mt-controlplane")?)
                .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
                .arg(folder.path().join("control"))
                .arg("--ready-file")
                .arg(&ready),
            Some(&folder.path().join("control.log")),
        )?;
        let control = child::ready(&mut guard, &ready, "grpc").await?;
        let config = folder.path().join("bench.yaml");
        std::fs::write(&config, yaml)?;
        let applied = Command::new(sibling("mtctl")?)
            .args(["--server", &format!("http://{control}"), "apply", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .output()?;
        if !applied.status.success() {
            bail!("mtctl apply failed: {}", String::from_utf8_lossy(&applied.stderr));
        }
        Ok(Self { nodes: Vec::new(), control, folder, guard: Some(guard) })
    }

    /// Where nodes are configured.
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// A folder that goes with the fleet.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the control plane and leaves the nodes alone.
    pub fn orphan(&mut self) {
        self.guard = None;
    }

    /// Starts a node and waits until it serves its gateway.
    ///
    /// # Errors
    /// If it does not start, or does not serve.
    pub async fn node(&mut self, name: &str, program: &Path) -> anyhow::Result<Target> {
        let target = self.silent_node(name, program).await?;
        serves(&target, &Case::new("a call", Era::Legacy, What::Echo(8))).await?;
        serves(&target, &Case::new("a call", Era::Modern, What::Echo(8))).await?;
        Ok(target)
    }

    /// Starts a node and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub async fn silent_node(&mut self, name: &str, program: &Path) -> anyhow::Result<Target> {
        let id = format!("bench-{}", self.nodes.len());
        let path = |suffix: &str| -> PathBuf { self.folder.path().join(format!("{id}{suffix}")) };
        let ready = path(".json");
        let mut command = place::measured(program)?;
        node_command(&mut command, &id, self.control, &path(""));
        command.args(["--listen", "127.0.0.1:0"]).arg("--ready-file").arg(&ready);
        let mut guard = child::spawn(&mut command, Some(&path(".log")))?;
        let address = child::ready(&mut guard, &ready, "mcp").await.with_context(|| {
            let log = std::fs::read_to_string(path(".log")).unwrap_or_default();
            format!("{} does not start: {log}", program.display())
        })?;
        let node = Node { guard, name: name.to_owned(), address };
        let target = node.target();
        self.nodes.push(node);
        Ok(target)
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
