//! `mt-controlplane`: the control plane as a program of its own. Owns what is
//! one per process: the log, the metrics recorder, signals and the exit code.

use std::{io::IsTerminal, path::Path, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use mt_controlplane::{
    Bound, Error,
    config_args::{Args, LogFormat},
    store,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// It failed.
const FAILED: u8 = 1;
/// The command line is wrong; clap's own code.
const USAGE: u8 = 2;
/// Another process holds the store.
const CONFLICT: u8 = 6;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = log(&args) {
        eprintln!("mt-controlplane: {error:#}");
        return ExitCode::from(USAGE);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let end = match runtime {
        Ok(runtime) => runtime.block_on(serve(args)),
        Err(error) => Err(error.into()),
    };
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "control plane failed");
            ExitCode::from(code(&error))
        }
    }
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let metrics =
        PrometheusBuilder::new().install_recorder().context("cannot install the metrics recorder")?;
    let shutdown = CancellationToken::new();
    let (ready, bound) = oneshot::channel();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    };
    let announce = async {
        if let (Ok(bound), Some(path)) = (bound.await, &args.ready_file) {
            write_ready_file(path, &bound).with_context(|| format!("cannot write {}", path.display()))?;
        }
        anyhow::Ok(())
    };
    let serving = async {
        Box::pin(mt_controlplane::run(args.options(metrics), shutdown.clone(), ready)).await?;
        anyhow::Ok(())
    };
    // Signals never end the wait by themselves: serving drains first.
    let waiting = async {
        signals.await;
        std::future::pending::<()>().await;
    };
    let end = async { tokio::try_join!(serving, announce).map(drop) };
    tokio::select! {
        end = end => end,
        () = waiting => Ok(()),
    }
}

/// Whole or not at all: scripts wait for it to appear.
fn write_ready_file(path: &Path, bound: &Bound) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(bound)?)?;
    std::fs::rename(&fresh, path)?;
    Ok(())
}

fn log(args: &Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?}", args.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(Error::NotLoopback(_)) => USAGE,
        Some(Error::Store(store::Error::Held { .. })) => CONFLICT,
        _ => FAILED,
    }
}
