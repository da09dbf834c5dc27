//! `mt-fixture`: the MCP server that the system tests put behind a gateway.
//!
//! It serves what the official conformance runner asks for, in both eras, plus a
//! few probes (echo, slow, crash) that the runner has no use for. It stands on
//! the official SDK and shares no line with the data plane: our codec must
//! never be at both ends of a test. It is not an example of a good server.

#![expect(deprecated, reason = "the SDK deprecates roots, sampling and logging, and backends still use them")]

mod ask;
mod audience;
mod mode;
mod prompts;
mod resources;
mod server;
mod tasks;
mod tools;

use std::sync::Arc;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use clap::{Args, Parser, Subcommand};
use rmcp::ServiceExt as _;
use rmcp::transport::StreamableHttpServerConfig;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::io::AsyncReadExt as _;

use crate::mode::Mode;
use crate::server::{Fixture, Shared};

/// Large enough for every payload that the tests send on purpose; the SDK's
/// own default of 4 MiB would end them before the gateway's limits do.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A conformance backend for MCP gateways.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    transport: Transport,

    /// The protocol eras to speak.
    #[arg(long, global = true, value_enum, default_value_t = Mode::Dual)]
    mode: Mode,

    /// Answer lists in pages of this many items; without it, in one page.
    #[arg(long, global = true)]
    page_size: Option<usize>,
}

#[derive(Subcommand)]
enum Transport {
    /// Serve streamable HTTP on loopback and print the URL as the first line.
    Http(Http),
    /// Serve on stdin and stdout.
    Stdio,
}

#[derive(Args)]
struct Http {
    /// The port to listen on; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Keep no legacy sessions and prefer JSON answers to event streams.
    #[arg(long)]
    stateless: bool,

    /// Exit when stdin ends, so that a killed test leaves no server behind.
    #[arg(long)]
    exit_with_stdin: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let shared = Arc::new(Shared::new(cli.mode, cli.page_size));
    match cli.transport {
        Transport::Http(http) => serve_http(http, shared).await,
        Transport::Stdio => serve_stdio(shared).await,
    }
}

async fn serve_http(http: Http, shared: Arc<Shared>) -> anyhow::Result<()> {
    let config = StreamableHttpServerConfig::default()
        .with_max_request_body_bytes(BODY_BYTES_MAX)
        .with_legacy_session_mode(!http.stateless)
        .with_json_response(http.stateless);
    let service = StreamableHttpService::new(
        move || Ok(Fixture::new(shared.clone())),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let router = axum::Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", http.port)).await.context("listen")?;
    println!("listening on http://{}/mcp", listener.local_addr().context("read the listening address")?);
    // A small event must not wait for the acknowledgment of the one before.
    let listener = listener.tap_io(|socket| _ = socket.set_nodelay(true));
    let serving = axum::serve(listener, router);
    tokio::select! {
        served = serving.into_future() => served.context("serve"),
        () = stdin_ended(), if http.exit_with_stdin => Ok(()),
    }
}

async fn serve_stdio(shared: Arc<Shared>) -> anyhow::Result<()> {
    let running =
        Fixture::new(shared).serve(rmcp::transport::stdio()).await.context("open the conversation")?;
    running.waiting().await.context("serve")?;
    Ok(())
}

/// Whatever arrives is dropped: only the end means something.
async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut dropped = [0; 64];
    while stdin.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
}
