//! `mt-fixture` as a child process: a real MCP server for one test.
//!
//! A fixture dies with its test, also when the test is killed: it serves only as
//! long as its stdin stays open.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// The binary of this build.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mt-fixture");

/// How long a fixture may take until it listens; generous, for a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// The eras that a fixture speaks; see `mt-fixture --help`.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    Dual,
    Legacy,
    Modern,
}

impl Mode {
    pub fn flag(self) -> &'static str {
        match self {
            Self::Dual => "--mode=dual",
            Self::Legacy => "--mode=legacy",
            Self::Modern => "--mode=modern",
        }
    }
}

/// How a fixture is reached over the network.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    Http,
    Sse,
    WebSocket,
}

impl Transport {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Sse => "sse",
            Self::WebSocket => "ws",
        }
    }
}

/// A running fixture on a loopback port; dropping it kills it.
#[derive(Debug)]
pub struct Fixture {
    url: String,
    process: Child,
    _stdin: ChildStdin,
}

impl Fixture {
    pub async fn start(mode: Mode) -> Self {
        Self::start_with(mode, &[]).await
    }

    /// With more flags of `mt-fixture http`, such as `--page-size=10`.
    pub async fn start_with(mode: Mode, flags: &[&str]) -> Self {
        Self::start_over(Transport::Http, mode, flags).await
    }

    pub async fn start_over(transport: Transport, mode: Mode, flags: &[&str]) -> Self {
        let mut process = Command::new(BINARY)
            .args([transport.word(), "--exit-with-stdin", mode.flag()])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mt-fixture starts");
        let stdin = process.stdin.take().expect("stdin is piped");
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let read = tokio::time::timeout(START_DEADLINE, stdout.read_line(&mut line)).await;
        read.expect("mt-fixture listens in time").expect("mt-fixture's stdout can be read");
        let url = line.trim_end().strip_prefix("listening on ").expect("mt-fixture says where it listens");
        Self { url: url.to_owned(), process, _stdin: stdin }
    }

    /// `http://127.0.0.1:PORT/mcp`, or `/sse`, or `ws://127.0.0.1:PORT/ws`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills the fixture now and waits for its end, as when a backend dies.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("mt-fixture can be killed");
    }
}

/// Program and arguments of a fixture that serves on stdin and stdout.
pub fn stdio_command(mode: Mode) -> (&'static Path, [&'static str; 2]) {
    (Path::new(BINARY), ["stdio", mode.flag()])
}

#[tokio::test]
async fn a_killed_fixture_no_longer_listens() {
    let fixture = Fixture::start(Mode::Dual).await;
    let address = fixture.url().trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    tokio::net::TcpStream::connect(&address).await.expect("it listens while it runs");
    fixture.kill().await;
    assert!(tokio::net::TcpStream::connect(&address).await.is_err());
}
