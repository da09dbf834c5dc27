//! `mtctl stdio`: this gateway as a command that speaks MCP.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Context, call};
use crate::{
    args::EndpointArgs,
    bridge,
    output::{Exit, Failure},
    target,
};

pub async fn run(context: &Context, args: &EndpointArgs) -> Result<Exit, Failure> {
    super::crypto();
    super::log("warn");
    let url = target::resolve(context, args).await?;
    let endpoint = call::endpoint(&url, args)?;
    let stop = CancellationToken::new();
    let failed = |error: std::io::Error| Failure::new(Exit::Failed, "cannot wait for signals").cause(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let work = bridge::run(endpoint, tokio::io::stdin(), tokio::io::stdout(), stop.clone());
    let mut work = std::pin::pin!(work);
    tokio::select! {
        () = &mut work => return Ok(Exit::Ok),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // The session is ended properly, within the bounds of its own.
    stop.cancel();
    work.await;
    Ok(Exit::Ok)
}
