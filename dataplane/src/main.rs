//! The process around a node: flags, log, metrics, signals, exit code.

use std::{io::IsTerminal as _, path::Path, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use mt_dataplane::{
    Bound,
    config::{Args, LogFormat},
    guard, metrics,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, filter::ParseError};

// docs/adr/0013-allocator-and-build.md
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After a wrong flag, as clap has it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(exit) = guard::run_if_asked() {
        return exit;
    }
    let args = Args::parse();
    let mut options = match args.check() {
        Ok(options) => options,
        Err(invalid) => {
            eprintln!("error: {invalid}");
            return ExitCode::from(USAGE);
        }
    };
    if let Err(invalid) = log(&args) {
        eprintln!("error: --log {:?}: {invalid}", args.log);
        return ExitCode::from(USAGE);
    }
    let run = || -> anyhow::Result<()> {
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            anyhow::bail!("this process has a crypto provider already");
        }
        guard::install();
        options.metrics = Some(metrics::install().context("installing the metrics recorder")?);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = args.worker_threads {
            runtime.worker_threads(threads.max(1));
        }
        let runtime = runtime.enable_all().build().context("starting the runtime")?;
        let served = runtime.block_on(serve(options, args.ready_file.as_deref()));
        // A read of stdin cannot be taken back, and must not be waited for.
        runtime.shutdown_background();
        served
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the node failed");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: mt_dataplane::Options, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let shutdown = CancellationToken::new();
    let (ready, bound) = oneshot::channel();
    let node = mt_dataplane::run(options, shutdown.clone(), ready);
    tokio::pin!(node);
    tokio::select! {
        ended = &mut node => return Ok(ended?),
        bound = bound => if let (Ok(bound), Some(path)) = (bound, ready_file) {
            announce(path, bound).with_context(|| format!("writing {}", path.display()))?;
        },
    }
    for (signal, patience) in [("first", true), ("second", false)] {
        tokio::select! {
            ended = &mut node => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(signal, "asked to stop");
        if patience {
            shutdown.cancel();
        }
    }
    anyhow::bail!("asked to stop twice, calls were cut off")
}

/// Renamed into place: who sees the file sees all of it.
fn announce(path: &Path, bound: Bound) -> std::io::Result<()> {
    let mcp = bound.mcp.map(|mcp| mcp.to_string());
    let text = serde_json::json!({ "mcp": mcp, "admin": bound.admin.to_string() });
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{text}\n"))?;
    std::fs::rename(&new, path)
}

fn log(args: &Args) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(&args.log)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
