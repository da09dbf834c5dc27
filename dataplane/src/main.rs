//! The process around a node: flags, log, metrics, signals, exit code.

use std::{
    io::IsTerminal as _, num::NonZeroUsize, path::Path, process::ExitCode, thread::available_parallelism,
};

use anyhow::Context;
use clap::Parser;
use mt_dataplane::{
    Bound, Workers,
    config::{Args, LogFormat},
    guard, metrics,
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, filter::ParseError};

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
        let threads = match args.worker_threads {
            Some(threads) => NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
            None => available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        // A thread that is alone is cheaper with the scheduler of many: ADR 11.
        let mut runtime = match threads.get() {
            1 => Builder::new_multi_thread(),
            _ => Builder::new_current_thread(),
        };
        let runtime = runtime.worker_threads(1).enable_all().build().context("starting the runtime")?;
        let workers = Workers::start(threads).context("starting the threads of calls")?;
        let served = runtime.block_on(serve(workers, options, args.ready_file.as_deref()));
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

async fn serve(
    workers: Workers,
    options: mt_dataplane::Options,
    ready_file: Option<&Path>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let shutdown = CancellationToken::new();
    let (ready, bound) = oneshot::channel();
    let node = mt_dataplane::run_on(workers, options, shutdown.clone(), ready);
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
