//! `mt-fixture`: the MCP server that the system tests put behind a gateway.
//!
//! It serves what the official conformance runner asks for, in both eras, plus a
//! few probes (echo, slow, crash) that the runner has no use for. It stands on
//! the official SDK and shares no line with the data plane: our codec must
//! never be at both ends of a test. It is not an example of a good server.

#![expect(deprecated, reason = "the SDK deprecates roots, sampling and logging, and backends still use them")]

mod ask;
mod audience;
mod folder;
mod mode;
mod prompts;
mod resources;
mod server;
mod tasks;
mod tools;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;

use crate::mode::Mode;
use crate::server::Shared;
use crate::transport::Transport;

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

    /// List a tool whose name is not of ASCII; the conformance runner warns of it.
    #[arg(long, global = true)]
    unicode_names: bool,

    /// Where ends of slow calls are noted and files are watched, for tests that
    /// look past the gateway; several processes may have the same.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let shared = Arc::new(Shared::new(cli.mode, cli.page_size, cli.unicode_names, cli.folder));
    tokio::select! {
        served = cli.transport.serve(shared.clone()) => served,
        never = shared.folder.watch(&shared.audience) => match never {},
    }
}
