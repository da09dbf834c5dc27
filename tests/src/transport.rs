//! The ways to reach the fixture, each on loopback.
//!
//! The SDK has streamable HTTP and stdio. The two others are shims: a connection
//! is a conversation in lines, as on a pipe, and the shim only carries the lines.

mod http;
mod lines;
mod sse;
mod websocket;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::serve::ListenerExt as _;
use clap::{Args, Subcommand};
use rmcp::ServiceExt as _;
use tokio::io::AsyncReadExt as _;

use crate::server::{Fixture, Shared};

/// Large enough for every payload that the tests send on purpose; the SDK's
/// own default of 4 MiB would end them before the gateway's limits do.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Subcommand)]
pub enum Transport {
    /// Serve streamable HTTP and print the URL as the first line.
    Http {
        #[command(flatten)]
        listen: Listen,

        /// Keep no legacy sessions and prefer JSON answers to event streams.
        #[arg(long)]
        stateless: bool,
    },
    /// Serve HTTP+SSE, the transport of 2024-11-05, and print the URL as the first line.
    Sse {
        #[command(flatten)]
        listen: Listen,
    },
    /// Serve WebSockets and print the URL as the first line.
    Ws {
        #[command(flatten)]
        listen: Listen,
    },
    /// Serve on stdin and stdout.
    Stdio,
}

#[derive(Args)]
pub struct Listen {
    /// The port to listen on; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Exit when stdin ends, so that a killed test leaves no server behind.
    #[arg(long)]
    exit_with_stdin: bool,
}

impl Transport {
    pub async fn serve(self, shared: Arc<Shared>) -> anyhow::Result<()> {
        match self {
            Self::Http { listen, stateless } => {
                listen.serve("http", "/mcp", http::router(shared, stateless)).await
            }
            Self::Sse { listen } => listen.serve("http", "/sse", sse::router(shared)).await,
            Self::Ws { listen } => listen.serve("ws", "/ws", websocket::router(shared)).await,
            Self::Stdio => {
                let stdio = rmcp::transport::stdio();
                let running = Fixture::new(shared).serve(stdio).await.context("open the conversation")?;
                running.waiting().await.context("serve")?;
                Ok(())
            }
        }
    }
}

impl Listen {
    async fn serve(self, scheme: &str, path: &str, router: Router) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", self.port)).await.context("listen")?;
        let address = listener.local_addr().context("read the listening address")?;
        println!("listening on {scheme}://{address}{path}");
        // A small event must not wait for the acknowledgment of the one before.
        let listener = listener.tap_io(|socket| _ = socket.set_nodelay(true));
        let serving = axum::serve(listener, router);
        tokio::select! {
            served = serving.into_future() => served.context("serve"),
            () = stdin_ended(), if self.exit_with_stdin => Ok(()),
        }
    }
}

/// Whatever arrives is dropped: only the end means something.
async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut dropped = [0; 64];
    while stdin.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
}
