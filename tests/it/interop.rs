//! Ten servers and five clients that others have written, all of them through
//! one node: every client uses every server, whatever either of them speaks.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::Cluster;
use crate::manifest::{backend, gateway, over_http, over_stdio};
use crate::peers::{Client, Everything, everything, installed, node, program, python, time_server};
use crate::raw::shows_tool;

/// How long a server may take until it says where it listens.
const START_DEADLINE: Duration = Duration::from_secs(30);
const PHRASE: &str = "grüße, 世界";

/// A server that prints its URL; dropping it kills it.
struct Served {
    url: String,
    _process: Child,
}

impl Served {
    async fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(program)
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let first = tokio::time::timeout(START_DEADLINE, lines.next_line()).await;
        let url = first.expect("it listens in time").expect("stdout can be read").expect("it prints its URL");
        Self { url, _process: process }
    }
}

/// A tool of each server, its arguments, and what its answer holds.
fn calls(folder: &Path) -> Vec<(&'static str, Value, &'static str)> {
    let echo = || json!({"text": PHRASE});
    vec![
        ("everything_echo", json!({"message": PHRASE}), PHRASE),
        ("everything-http_echo", json!({"message": PHRASE}), PHRASE),
        ("everything-sse_echo", json!({"message": PHRASE}), PHRASE),
        ("filesystem_read_text_file", json!({"path": folder.join("note.txt")}), PHRASE),
        ("memory_read_graph", json!({}), "entities"),
        ("time_get_current_time", json!({"timezone": "Europe/Berlin"}), "Europe/Berlin"),
        ("py1-ws_echo", echo(), PHRASE),
        ("py1-sse_echo", echo(), PHRASE),
        ("py2_echo", echo(), PHRASE),
        ("fastmcp_echo", echo(), PHRASE),
        ("ts2_echo", echo(), PHRASE),
    ]
}

#[tokio::test]
async fn every_client_uses_every_server() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("note.txt"), PHRASE).unwrap();
    let script = |name: &str| program(&format!("servers/{name}")).to_str().unwrap().to_owned();
    let (py1, py2) = (python("py1"), python("py2"));
    let (http, sse, ws, py1_sse, py2_http, ts2) = tokio::join!(
        Everything::start(),
        Everything::start_sse(),
        async { Served::start(&py1, &[&script("py1_server.py"), "websocket"]).await },
        async { Served::start(&py1, &[&script("py1_server.py"), "sse"]).await },
        async { Served::start(&py2, &[&script("py2_server.py")]).await },
        async { Served::start(&node(), &[&script("ts2_server.mjs")]).await },
    );
    let (run, everything) = everything();
    let module = |name: &str| installed(&format!("node_modules/@modelcontextprotocol/{name}/dist/index.js"));
    let (filesystem, memory) = (module("server-filesystem"), module("server-memory"));
    let store = folder.path().join("memory.json");
    let memory_spec = json!({"stdio": {
        "command": run,
        "args": [memory],
        "env": [{"name": "MEMORY_FILE_PATH", "value": store}],
    }});
    let text = [
        over_stdio("everything", &run, &[everything.to_str().unwrap(), "stdio"]),
        over_http("everything-http", http.url()),
        backend("everything-sse", &json!({"sse": {"url": sse.url()}})),
        over_stdio("filesystem", &run, &[filesystem.to_str().unwrap(), folder.path().to_str().unwrap()]),
        backend("memory", &memory_spec),
        over_stdio("time", &time_server(), &[]),
        backend("py1-ws", &json!({"websocket": {"url": ws.url}})),
        backend("py1-sse", &json!({"sse": {"url": py1_sse.url}})),
        over_http("py2", &py2_http.url),
        over_stdio("fastmcp", &py2, &[&script("fastmcp_server.py")]),
        over_http("ts2", &ts2.url),
    ];
    let calls = calls(folder.path());
    let members: Vec<Value> =
        calls.iter().map(|(tool, ..)| json!({"backend": tool.split_once('_').unwrap().0})).collect();
    let cluster = Cluster::start(1).await;
    cluster.apply(&(text.concat() + &gateway("default", &json!({"members": members})))).await;
    let url = cluster.nodes[0].url("default");
    for (tool, ..) in &calls {
        shows_tool(&url, tool).await;
    }

    let wanted: Vec<Value> = calls.iter().map(|(tool, arguments, _)| json!([tool, arguments])).collect();
    let wanted = Value::from(wanted).to_string();
    for client in Client::ALL {
        let said = client.run(&url, &["--calls", &wanted]).await.succeeded();
        let modern = matches!(client, Client::Py2 | Client::Ts2);
        let version = if modern { "2026-07-28" } else { "2025-11-25" };
        assert_eq!(said.protocol_version(), version, "{client:?}");
        let results = said.events("result");
        assert_eq!(results.len(), calls.len(), "{client:?}");
        for (result, (tool, _, expected)) in results.iter().zip(&calls) {
            assert!(result.to_string().contains(expected), "{client:?} {tool}: {result}");
        }
    }

    let transport = StreamableHttpClientTransport::from_uri(url.as_str());
    let life = ClientLifecycleMode::Initialize;
    let client = ().serve_with_lifecycle(transport, life).await.expect("it opens a conversation");
    for (tool, arguments, expected) in &calls {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let called = client.call_tool(CallToolRequestParams::new(*tool).with_arguments(arguments)).await;
        let result = called.unwrap_or_else(|error| panic!("rmcp {tool}: {error}"));
        assert!(serde_json::to_string(&result).unwrap().contains(expected), "rmcp {tool}: {result:?}");
    }
    client.cancel().await.unwrap();
}
