//! A fleet for one test: a control plane and nodes as real processes on loopback
//! ports, which end with the test.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use mt_proto::pb::control::{
    ApplyRequest, ListNodesRequest, ListNodesResponse, ListRequest,
    config_service_client::ConfigServiceClient, fleet_service_client::FleetServiceClient,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::transport::Channel;

/// Generous, for a busy machine; nothing waits so long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A program of this workspace, built beside the tests.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "{} is missing: tests/run builds it", path.display());
    path
}

/// Waits until `condition` gives something; fails with what it last said.
pub async fn eventually<T, F>(what: &str, mut condition: F) -> T
where
    F: AsyncFnMut() -> Result<T, String>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(last) if Instant::now() > deadline => panic!("{what} did not happen: {last}"),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A child process whose output goes to a file that a failing test prints.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(name: &str, log: PathBuf, arguments: &[String]) -> Self {
        Self::start_with(name, log, arguments, &[])
    }

    /// With variables besides those of the test.
    pub fn start_with(name: &str, log: PathBuf, arguments: &[String], env: &[(String, String)]) -> Self {
        let output = std::fs::File::create(&log).unwrap();
        let child = Command::new(program(name))
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().expect("it has not been waited for")).unwrap()
    }

    /// SIGKILL, as when a machine dies.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code()
    }

    /// The JSON that the program writes when it listens.
    async fn ready(&mut self, file: &Path) -> Value {
        let log = self.log.clone();
        eventually("listening", async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
            serde_json::from_str(&text).map_err(|e| e.to_string())
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            eprintln!("--- the end of {}\n{}", self.log.display(), log.get(from..).unwrap_or(&log));
        }
    }
}

/// A control plane.
pub struct ControlPlane {
    pub process: Process,
    /// `127.0.0.1:PORT`
    pub grpc: String,
    pub http: String,
    folder: PathBuf,
}

impl ControlPlane {
    pub async fn start(folder: &Path) -> Self {
        Self::listen(folder, "127.0.0.1:0").await
    }

    async fn listen(folder: &Path, grpc: &str) -> Self {
        let ready = folder.join("control.ready");
        _ = std::fs::remove_file(&ready);
        let data = folder.join("control").display().to_string();
        let arguments = ["--data-dir", &data, "--listen", grpc, "--http", "127.0.0.1:0", "--ready-file"];
        let mut arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        arguments.push(ready.display().to_string());
        let mut process = Process::start("mt-controlplane", folder.join("control.log"), &arguments);
        let bound = process.ready(&ready).await;
        Self {
            process,
            grpc: bound["grpc"].as_str().unwrap().to_owned(),
            http: bound["http"].as_str().unwrap().to_owned(),
            folder: folder.to_path_buf(),
        }
    }

    /// Starts it again, after it was killed, on the same store and port.
    pub async fn start_again(&mut self) {
        *self = Self::listen(&self.folder, &self.grpc).await;
    }

    pub async fn config(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap()
    }

    pub async fn nodes(&self) -> ListNodesResponse {
        let mut fleet = FleetServiceClient::connect(format!("http://{}", self.grpc)).await.unwrap();
        fleet.list_nodes(ListNodesRequest {}).await.unwrap().into_inner()
    }

    /// The newest generation, be it on its way to the nodes or not.
    pub async fn head(&self) -> u64 {
        self.config().await.list(ListRequest::default()).await.unwrap().into_inner().generation
    }

    /// Applies YAML; the generation that holds it.
    pub async fn apply(&self, yaml: &str) -> u64 {
        self.apply_files(&[("test.yaml", yaml)]).await
    }

    /// Applies files, by their names and texts, as one generation.
    pub async fn apply_files(&self, files: &[(&str, &str)]) -> u64 {
        let mut resources = Vec::new();
        for (name, text) in files {
            let document = mt_capabilities::parse(name, text);
            assert!(document.diagnostics.is_empty(), "{}", mt_capabilities::render(&document.diagnostics));
            resources.extend(document.resources.into_iter().map(|located| located.resource));
        }
        let request = ApplyRequest { resources, author: "test".into(), ..ApplyRequest::default() };
        self.config().await.apply(request).await.unwrap().into_inner().generation
    }
}

/// A node.
pub struct Node {
    pub process: Process,
    pub id: String,
    /// `127.0.0.1:PORT`
    pub mcp: String,
    pub admin: String,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    folder: PathBuf,
}

impl Node {
    pub async fn start(folder: &Path, id: &str, control: &str, more: &[&str]) -> Self {
        Self::start_with(folder, id, control, more, &[]).await
    }

    /// With variables besides those of the test.
    pub async fn start_with(
        folder: &Path,
        id: &str,
        control: &str,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let cache = folder.join(id).display().to_string();
        let control = format!("http://{control}");
        let arguments =
            ["--node-id", id, "--control", &control, "--cache-dir", &cache, "--admin", "127.0.0.1:0"];
        let arguments = arguments.iter().chain(more).map(|a| (*a).to_owned()).collect();
        Self::listen(folder, id, arguments, env, "127.0.0.1:0").await
    }

    async fn listen(
        folder: &Path,
        id: &str,
        arguments: Vec<String>,
        env: Vec<(String, String)>,
        mcp: &str,
    ) -> Self {
        let ready = folder.join(format!("{id}.ready"));
        _ = std::fs::remove_file(&ready);
        let mut all = arguments.clone();
        all.extend(["--listen".into(), mcp.to_owned(), "--ready-file".into(), ready.display().to_string()]);
        let mut process = Process::start_with("mt-dataplane", folder.join(format!("{id}.log")), &all, &env);
        let bound = process.ready(&ready).await;
        Self {
            process,
            id: id.to_owned(),
            mcp: bound["mcp"].as_str().unwrap().to_owned(),
            admin: bound["admin"].as_str().unwrap().to_owned(),
            arguments,
            env,
            folder: folder.to_path_buf(),
        }
    }

    /// Kills it and starts it again on the same cache and port.
    pub async fn restart(&mut self) {
        self.process.kill().await;
        let mcp = self.mcp.clone();
        *self = Self::listen(
            &self.folder.clone(),
            &self.id.clone(),
            self.arguments.clone(),
            self.env.clone(),
            &mcp,
        )
        .await;
    }

    /// Where clients reach a gateway.
    pub fn url(&self, gateway: &str) -> String {
        // The conformance runner insists on this name.
        let port = self.mcp.rsplit_once(':').unwrap().1;
        match gateway {
            "default" => format!("http://localhost:{port}/mcp"),
            other => format!("http://localhost:{port}/g/{other}/mcp"),
        }
    }
}

/// A control plane and some nodes.
pub struct Cluster {
    pub control: ControlPlane,
    pub nodes: Vec<Node>,
    pub folder: TempDir,
}

impl Cluster {
    pub async fn start(nodes: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let control = ControlPlane::start(folder.path()).await;
        let mut cluster = Self { control, nodes: Vec::new(), folder };
        for number in 0..nodes {
            let id = format!("node-{number}");
            cluster.nodes.push(Node::start(cluster.folder.path(), &id, &cluster.control.grpc, &[]).await);
        }
        cluster
    }

    /// One node, with variables in its environment.
    pub async fn with_env(env: &[(&str, &str)]) -> Self {
        let mut cluster = Self::start(0).await;
        let folder = cluster.folder.path();
        let node = Node::start_with(folder, "node-0", &cluster.control.grpc, &[], env).await;
        cluster.nodes.push(node);
        cluster
    }

    /// Applies YAML and waits until every node has it in service.
    pub async fn apply(&self, yaml: &str) -> u64 {
        let generation = self.control.apply(yaml).await;
        self.in_service(generation).await;
        generation
    }

    /// As [`apply`](Self::apply), of files by their names and texts.
    pub async fn apply_files(&self, files: &[(&str, &str)]) {
        let generation = self.control.apply_files(files).await;
        self.in_service(generation).await;
    }

    /// Waits until every node has acknowledged a generation.
    pub async fn in_service(&self, generation: u64) {
        eventually("the generation in service on every node", async || {
            let listed = self.control.nodes().await;
            let acked = |id: &str| {
                listed.nodes.iter().any(|n| {
                    n.connected
                        && n.generation_acked >= generation
                        && n.node.as_ref().is_some_and(|h| h.node_id == id)
                })
            };
            if self.nodes.iter().all(|node| acked(&node.id)) { Ok(()) } else { Err(format!("{listed:?}")) }
        })
        .await;
    }

    /// `mtctl` against this cluster.
    pub async fn mtctl(&self, arguments: &[&str]) -> Output {
        mtctl(self.folder.path(), &["--server", &format!("http://{}", self.control.grpc)], arguments).await
    }
}

/// Runs `mtctl` with a home of its own.
pub async fn mtctl(home: &Path, first: &[&str], arguments: &[&str]) -> Output {
    Command::new(program("mtctl"))
        .args(first)
        .args(arguments)
        .env("HOME", home)
        .env_remove("XDG_DATA_HOME")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

/// What a command printed, after it succeeded.
pub fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "it failed with {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Something that goes on while a test does other things; dropping it ends it.
pub struct Background<T>(JoinSet<T>);

impl<T: Send + 'static> Background<T> {
    pub fn run(future: impl Future<Output = T> + Send + 'static) -> Self {
        let mut one = JoinSet::new();
        one.spawn(future);
        Self(one)
    }

    /// Waits for its end.
    pub async fn end(mut self) -> T {
        let ended = tokio::time::timeout(PATIENCE, self.0.join_next()).await;
        ended.expect("it ends in time").expect("it is one task").unwrap()
    }
}
