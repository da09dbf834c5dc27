//! The HTTP door for probes and metrics. Reads only, and tells no secrets.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::store::{LogId, Store};

/// How often the recorder drops samples that nobody needs any more.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long the store may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Door {
    store: Arc<dyn Store>,
    metrics: Option<PrometheusHandle>,
    shutdown: CancellationToken,
}

/// Serves until shutdown. Without `metrics` there is no `/metrics`.
///
/// # Errors
/// If serving fails.
pub async fn run(
    listener: TcpListener,
    store: Arc<dyn Store>,
    metrics: Option<PrometheusHandle>,
    shutdown: CancellationToken,
) -> Result<(), io::Error> {
    let door = Door { store, metrics: metrics.clone(), shutdown: shutdown.clone() };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(door);
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let upkeep = async {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tick.tick().await;
            if let Some(metrics) = &metrics {
                metrics.run_upkeep();
            }
        }
    };
    tokio::select! {
        end = async { serving.await } => end,
        () = upkeep => Ok(()),
    }
}

/// Ready is: the store can be read, and nothing is stopping.
async fn readyz(State(door): State<Door>) -> impl IntoResponse {
    if door.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    match tokio::time::timeout(PROBE_TIMEOUT, door.store.state(LogId::Config, None)).await {
        Ok(Ok(state)) => (StatusCode::OK, format!("ready, generation {}\n", state.revision)),
        Ok(Err(_)) => (StatusCode::SERVICE_UNAVAILABLE, "the store cannot be read\n".to_owned()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n".to_owned()),
    }
}

async fn render(State(door): State<Door>) -> impl IntoResponse {
    match &door.metrics {
        Some(metrics) => {
            (StatusCode::OK, [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
        }
        None => (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/plain")], "no metrics here\n".to_owned()),
    }
}
