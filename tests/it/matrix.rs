//! The matrix: every kind of client with every kind of backend, through one node.
//!
//! Each of the 49 cells does the same ten things, and all of it has to work:
//! where eras and transports do a thing in different ways, the table says how.
//! Clients are written here, byte by byte, so that no library mends anything.

mod checks;
pub mod client;
mod wire;

use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::join_all, stream};
use serde_json::json;

use self::{
    checks::{CHECKS, Cell},
    client::{Client, Era},
    wire::{Inbox, Opened, Pipe, Socket, Sse, Streamable},
};
use crate::{
    cluster::{Cluster, program},
    fixture::{BINARY, Fixture, Mode, Transport},
    manifest::{backend, plain_gateway},
    raw::tool_names,
};

/// How many cells are at work at the same time.
const CELLS_AT_ONCE: usize = 4;
/// Until every gateway shows its tools.
const START_MAX: Duration = Duration::from_secs(20);
/// For opening a conversation and for each check; none needs a tenth of it.
const CHECK_MAX: Duration = Duration::from_secs(20);
const UNICODE: &str = "--unicode-names";

/// A kind of client, and of backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    HttpLegacy,
    HttpModern,
    Sse,
    SocketLegacy,
    SocketModern,
    StdioLegacy,
    StdioModern,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::HttpLegacy,
        Self::HttpModern,
        Self::Sse,
        Self::SocketLegacy,
        Self::SocketModern,
        Self::StdioLegacy,
        Self::StdioModern,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::HttpLegacy => "http-legacy",
            Self::HttpModern => "http-modern",
            Self::Sse => "sse",
            Self::SocketLegacy => "ws-legacy",
            Self::SocketModern => "ws-modern",
            Self::StdioLegacy => "stdio-legacy",
            Self::StdioModern => "stdio-modern",
        }
    }

    fn era(self) -> Era {
        match self {
            Self::HttpModern | Self::SocketModern | Self::StdioModern => Era::Modern,
            _ => Era::Legacy,
        }
    }
}

impl Kind {
    /// A conversation of such a client with a gateway. The key names what it
    /// leaves in the cluster's folder.
    pub async fn open(self, cluster: &Cluster, gateway: &str, key: &str) -> Result<Client, String> {
        let url = cluster.nodes[0].url(gateway);
        let connect = async |inbox: Inbox| -> Opened {
            match self {
                Kind::HttpLegacy | Kind::HttpModern => Streamable::open(&url, inbox),
                Kind::Sse => Sse::open(&format!("{url}/sse"), inbox).await,
                Kind::SocketLegacy | Kind::SocketModern => {
                    Socket::open(&format!("{}/ws", url.replacen("http", "ws", 1)), inbox).await
                }
                Kind::StdioLegacy | Kind::StdioModern => {
                    let log = cluster.folder.path().join(format!("{key}.log"));
                    Pipe::open(&program("mt-dataplane"), &pipe(cluster, gateway, key), &log, inbox)
                }
            }
        };
        Client::open(self.era(), connect).await
    }
}

/// How a node is told to serve a gateway on its stdin and stdout.
fn pipe(cluster: &Cluster, gateway: &str, key: &str) -> Vec<String> {
    let cache = cluster.folder.path().join(format!("{key}.cache")).display().to_string();
    let files = cluster.folder.path().join("files").display().to_string();
    let control = format!("http://{}", cluster.control.grpc);
    let arguments = [
        ["--gateway", gateway],
        ["--node-id", key],
        ["--control", &control],
        ["--cache-dir", &cache],
        ["--files-dir", &files],
        ["--admin", "127.0.0.1:0"],
    ];
    let arguments = arguments.as_flattened().iter().map(|argument| (*argument).to_owned());
    std::iter::once("--stdio".to_owned()).chain(arguments).collect()
}

/// A node with a gateway for every kind of backend.
struct Bench {
    cluster: Cluster,
    _fixtures: Vec<Fixture>,
}

impl Bench {
    async fn start() -> Self {
        let cluster = Cluster::start(1).await;
        let folder = format!("--folder={}", cluster.folder.path().display());
        let (mut fixtures, mut text) = (Vec::new(), String::new());
        for kind in Kind::ALL {
            let mode = match kind.era() {
                Era::Legacy => Mode::Legacy,
                Era::Modern => Mode::Modern,
            };
            let (transport, word) = match kind {
                Kind::HttpLegacy | Kind::HttpModern => (Transport::Http, "http"),
                Kind::Sse => (Transport::Sse, "sse"),
                Kind::SocketLegacy | Kind::SocketModern => (Transport::WebSocket, "websocket"),
                Kind::StdioLegacy | Kind::StdioModern => {
                    let args = ["stdio", mode.flag(), UNICODE, &folder];
                    text += &backend(kind.name(), &json!({"stdio": {"command": BINARY, "args": args}}));
                    continue;
                }
            };
            let fixture = Fixture::start_over(transport, mode, &[UNICODE, &folder]).await;
            text += &backend(kind.name(), &json!({word: {"url": fixture.url()}}));
            fixtures.push(fixture);
        }
        for kind in Kind::ALL {
            text += &plain_gateway(kind.name(), kind.name());
        }
        cluster.apply(&text).await;
        let bench = Self { cluster, _fixtures: fixtures };
        // A gateway that shows nothing in time is left to its cells to tell of.
        let shown = Kind::ALL.map(|kind| tokio::time::timeout(START_MAX, bench.shown(kind)));
        join_all(shown).await;
        bench
    }

    async fn shown(&self, kind: Kind) {
        let url = self.cluster.nodes[0].url(kind.name());
        while !tool_names(&url).await.is_ok_and(|names| names.iter().any(|name| name == "echo")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn folder(&self) -> &Path {
        self.cluster.folder.path()
    }

    /// A conversation of such a client with the gateway of such a backend.
    async fn open(&self, client: Kind, backend: Kind, key: &str) -> Result<Client, String> {
        client.open(&self.cluster, backend.name(), key).await
    }

    /// What became of each check of a cell.
    async fn cell(&self, client: Kind, backend: Kind) -> [Result<(), String>; CHECKS.len()] {
        let key = format!("{}-to-{}", client.name(), backend.name());
        let mut conversation = None;
        let mut outcomes = CHECKS.map(|_| Ok(()));
        for (check, outcome) in CHECKS.iter().zip(&mut outcomes) {
            let trying = async {
                // One conversation for all, but for a new one after a failure.
                let own = match conversation.take() {
                    Some(open) => open,
                    None => self.open(client, backend, &key).await.map_err(|e| format!("to open: {e}"))?,
                };
                (check.run)(&Cell { client: &own, key: &key, folder: self.folder() }).await?;
                match own.take_wrong() {
                    wrong if wrong.is_empty() => conversation = Some(own),
                    wrong => return Err(wrong.join("; ")),
                }
                Ok(())
            };
            let tried = tokio::time::timeout(CHECK_MAX, trying).await;
            *outcome = tried.unwrap_or_else(|_| Err(format!("not within {CHECK_MAX:?}")));
        }
        outcomes
    }
}

type Outcomes = Vec<(Kind, Kind, [Result<(), String>; CHECKS.len()])>;

/// The cells as a table, and what it means.
fn table(outcomes: &Outcomes) -> String {
    let mut text = String::from("\nclient \\ backend");
    for backend in Kind::ALL {
        write!(text, "  {:<12}", backend.name()).unwrap();
    }
    for client in Kind::ALL {
        write!(text, "\n{:<16}", client.name()).unwrap();
        for backend in Kind::ALL {
            let found = outcomes.iter().find(|(row, column, _)| (*row, *column) == (client, backend));
            let cell: String = match found {
                Some((_, _, checks)) => CHECKS
                    .iter()
                    .zip(checks)
                    .map(|(check, outcome)| if outcome.is_ok() { check.letter } else { '-' })
                    .collect(),
                None => "?".to_owned(),
            };
            write!(text, "  {cell:<12}").unwrap();
        }
    }
    text.push_str("\n\n");
    for check in &CHECKS {
        let how = if check.how.is_empty() { String::new() } else { format!(": {}", check.how) };
        writeln!(text, "{} {}{how}", check.letter, check.name).unwrap();
    }
    text.push_str("- does not work\n");
    text
}

fn failures(outcomes: &Outcomes) -> Vec<String> {
    let mut failures = Vec::new();
    for (client, backend, checks) in outcomes {
        for (check, outcome) in CHECKS.iter().zip(checks) {
            if let Err(reason) = outcome {
                let (client, backend) = (client.name(), backend.name());
                failures.push(format!("{client} -> {backend}: {}: {reason}", check.name));
            }
        }
    }
    failures
}

#[tokio::test]
async fn every_client_works_with_every_backend() {
    let bench = Arc::new(Bench::start().await);
    let cells = Kind::ALL.into_iter().flat_map(|client| Kind::ALL.map(|backend| (client, backend)));
    let running = cells.map(|(client, backend)| {
        let bench = bench.clone();
        async move { (client, backend, bench.cell(client, backend).await) }
    });
    let outcomes: Outcomes = stream::iter(running).buffer_unordered(CELLS_AT_ONCE).collect().await;
    assert_eq!(outcomes.len(), Kind::ALL.len().pow(2), "no cell is skipped");
    let table = table(&outcomes);
    println!("{table}");
    let failures = failures(&outcomes);
    assert!(failures.is_empty(), "{table}\n{}", failures.join("\n"));
}
