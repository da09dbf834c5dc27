//! Clients and servers that others have written, installed by tests/setup.sh.
//!
//! A test that needs them fails where they are not installed: to skip it would
//! make every run look like a good one.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rmcp::ServiceExt as _;
use rmcp::transport::TokioChildProcess;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::cluster::eventually;
use crate::fixture::{Fixture, Mode, stdio_command};

/// Longer than the clients' own deadline, which gives the better message.
const CLIENT_DEADLINE: Duration = Duration::from_secs(90);

/// An MCP client on one of the official SDKs.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// Python, legacy line.
    Py1,
    /// Python, dual-era line; asks for the modern era unless told otherwise.
    Py2,
    /// TypeScript, legacy line.
    Ts1,
    /// TypeScript, dual-era line; told to prefer the modern era.
    Ts2,
}

/// What a client said: one JSON object per line, each with an `event`.
#[derive(Debug)]
pub struct Said {
    lines: Vec<Value>,
    success: bool,
    stderr: String,
}

impl Client {
    pub const ALL: [Self; 4] = [Self::Py1, Self::Py2, Self::Ts1, Self::Ts2];

    /// Connects to `url`, lists the tools and does what else `arguments` say, such
    /// as `["--tool", "echo", "--args", "{}"]`.
    pub async fn run(self, url: &str, arguments: &[&str]) -> Said {
        let (program, script) = match self {
            Self::Py1 => (python("py1"), "py1_client.py"),
            Self::Py2 => (python("py2"), "py2_client.py"),
            Self::Ts1 => (node(), "ts1_client.mjs"),
            Self::Ts2 => (node(), "ts2_client.mjs"),
        };
        run(&program, script, url, arguments).await
    }
}

impl Said {
    /// Fails the test, with all that was said, if the client failed.
    pub fn succeeded(self) -> Self {
        assert!(self.success, "the client failed: {:#?}\n{}", self.lines, self.stderr);
        self
    }

    /// Why the client failed; fails the test if it did not.
    pub fn error(&self) -> &str {
        assert!(!self.success, "the client succeeded: {:#?}", self.lines);
        self.event("error")["message"].as_str().expect("a message is a string")
    }

    /// Every line with this event.
    pub fn events(&self, name: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["event"] == name).collect()
    }

    /// The last line with this event.
    pub fn event(&self, name: &str) -> &Value {
        let found = self.lines.iter().rfind(|line| line["event"] == name);
        found.unwrap_or_else(|| panic!("the client said no {name}: {self:#?}"))
    }

    pub fn protocol_version(&self) -> &str {
        self.event("connected")["protocol_version"].as_str().expect("a version is a string")
    }

    pub fn tools(&self) -> Vec<&str> {
        let names = self.event("tools")["names"].as_array().expect("names are a list");
        names.iter().map(|name| name.as_str().expect("a name is a string")).collect()
    }

    /// The first text of the called tool's result.
    pub fn text(&self) -> &str {
        self.event("result")["result"]["content"][0]["text"].as_str().expect("the result starts with a text")
    }
}

/// A discovery client on Envoy's own messages, for `HOST:PORT`.
pub async fn discover(address: &str, arguments: &[&str]) -> Said {
    run(&python("py2"), "ads_client.py", address, arguments).await
}

/// The services of `HOST:PORT`, by both versions of reflection.
pub async fn reflect(address: &str) -> Said {
    run(&python("py2"), "reflection_client.py", address, &[]).await
}

/// A validator of descriptions of APIs, and a generator of clients for them.
pub async fn openapi(arguments: &[&str]) -> Said {
    run(&python("openapi"), "openapi_client.py", arguments[0], &arguments[1..]).await
}

/// A client of McpService that has its messages from reflection alone, for
/// `HOST:PORT`.
pub async fn mcp_service(address: &str, arguments: &[&str]) -> Said {
    run(&python("py2"), "mcp_service_client.py", address, arguments).await
}

/// Node in the version that the conformance runner needs.
pub fn node() -> PathBuf {
    installed("node_modules/.bin/node")
}

/// The official conformance runner, for `node`.
pub fn conformance_runner() -> PathBuf {
    installed("node_modules/@modelcontextprotocol/conformance/dist/index.js")
}

/// Program and first argument of the official everything-server (legacy); add
/// `stdio`, `sse` or `streamableHttp`.
pub fn everything() -> (PathBuf, PathBuf) {
    (node(), installed("node_modules/@modelcontextprotocol/server-everything/dist/index.js"))
}

/// The everything-server behind a URL; dropping it kills it.
pub struct Everything {
    url: String,
    _process: Child,
}

impl Everything {
    pub async fn start() -> Self {
        Self::start_over("streamableHttp", "/mcp").await
    }

    /// Over HTTP+SSE.
    pub async fn start_sse() -> Self {
        Self::start_over("sse", "/sse").await
    }

    async fn start_over(transport: &str, path: &str) -> Self {
        let (node, program) = everything();
        // It cannot choose a port itself; between here and its start nobody else should.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("its address")
            .port();
        let process = Command::new(node)
            .arg(program)
            .arg(transport)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the everything-server starts");
        eventually("the everything-server listening", async || {
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Self { url: format!("http://127.0.0.1:{port}{path}"), _process: process }
    }

    pub fn url(&self) -> &str {
        &self.url
    }
}

/// An official server of both eras, on stdio, that keeps to the era of its first request.
pub fn time_server() -> PathBuf {
    installed("py2/bin/mcp-server-time")
}

/// The interpreter of a set of Python packages: `py1` or `py2`.
pub fn python(venv: &str) -> PathBuf {
    installed(&format!("{venv}/bin/python"))
}

/// A file that tests/setup.sh has installed.
pub fn installed(path: &str) -> PathBuf {
    let path = root().join("target/peers").join(path);
    assert!(path.exists(), "{} is missing: run tests/setup.sh first", path.display());
    path
}

/// A file under tests/peers, such as `servers/ts2_server.mjs`.
pub fn program(name: &str) -> PathBuf {
    root().join("tests/peers").join(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace")
}

async fn run(program: &Path, script: &str, target: &str, arguments: &[&str]) -> Said {
    let running = Command::new(program)
        .arg(self::program(&format!("clients/{script}")))
        .arg(target)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(CLIENT_DEADLINE, running).await;
    let output = output.expect("the client ends in time").expect("the client starts");
    let stdout = String::from_utf8(output.stdout).expect("the client writes UTF-8");
    Said {
        lines: stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect(),
        success: output.status.success(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[tokio::test]
async fn every_client_lists_all_pages_and_calls() {
    let fixture = Fixture::start_with(Mode::Dual, &["--page-size=7"]).await;
    for client in Client::ALL {
        let said =
            client.run(fixture.url(), &["--tool", "echo", "--args", r#"{"text":"grüße"}"#]).await.succeeded();
        assert_eq!(said.text(), "grüße", "{client:?}");
        assert_eq!(
            (said.tools()[0], said.tools().last().copied()),
            ("test_simple_text", Some("crash")),
            "{client:?}"
        );
        let modern = matches!(client, Client::Py2 | Client::Ts2);
        assert_eq!(said.protocol_version(), if modern { "2026-07-28" } else { "2025-11-25" }, "{client:?}");
    }
}

#[tokio::test]
async fn every_client_answers_questions_in_both_eras() {
    let tool = ["--tool", "test_input_required_result_multiple_inputs"];
    for (mode, version) in [(Mode::Legacy, "2025-11-25"), (Mode::Modern, "2026-07-28")] {
        let fixture = Fixture::start(mode).await;
        for client in Client::ALL {
            let said = client.run(fixture.url(), &tool).await;
            if matches!((mode, client), (Mode::Modern, Client::Py1 | Client::Ts1)) {
                assert_ne!(said.error(), "", "{client:?} cannot speak {version}");
                continue;
            }
            let said = said.succeeded();
            assert_eq!(said.protocol_version(), version, "{client:?}");
            assert_eq!(said.text(), "Hello, Ada! Greeting: Paris. Roots: file:///workspace", "{client:?}");
        }
    }
}

#[tokio::test]
async fn the_stdio_servers_list_their_tools() {
    let (node, everything) = everything();
    let (fixture, flags) = stdio_command(Mode::Dual);
    let mut commands = [Command::new(node), Command::new(time_server()), Command::new(fixture)];
    commands[0].arg(everything).arg("stdio");
    commands[2].args(flags);
    for (command, tool) in commands.into_iter().zip(["echo", "get_current_time", "echo"]) {
        let process = TokioChildProcess::new(command).expect("the server starts");
        let client = ().serve(process).await.expect("the server opens a conversation");
        let tools = client.list_all_tools().await.expect("the server lists its tools");
        assert!(tools.iter().any(|listed| listed.name == tool), "no {tool} in {tools:?}");
        client.cancel().await.expect("the conversation ends");
    }
}

#[tokio::test]
async fn the_grpc_clients_say_that_nobody_answers() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("its address").to_string();
    drop(nobody);
    for said in [discover(&address, &[]).await, reflect(&address).await] {
        assert!(said.error().contains("UNAVAILABLE"), "{said:#?}");
    }
}
