//! Where HTTP clients come in: accepts sockets, gives each to hyper, and lets
//! what is under way finish at the end.
//!
//! Nothing of a request is looked at here. What bounds a client that says
//! nothing, or says it slowly, is.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{DoorOptions, Doors, handle, legacy};
use crate::node::Node;

/// Sockets that are open at once; more wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 8_192;
/// How long a client may take to send the head of a request.
pub const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long requests that are under way may take when the node stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);
/// After a failed `accept` (no file descriptors, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Between two looks for sessions that nobody uses.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Serves clients until the shutdown, then lets requests that are under way
/// finish, for at most [`DRAIN_MAX`].
///
/// # Errors
/// None while running: a failed `accept` is tried again.
pub async fn serve(
    node: Arc<Node>,
    options: DoorOptions,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let doors = Doors::new(node, options);
    doors.node.relay().serve_with(Arc::new(doors.clone()));
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(100)
        .max_buf_size(64 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100).max_header_list_size(32 << 10);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = sweep.tick() => {
                sweep_sessions(&doors);
                continue;
            }
            permit = connections.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = sweep.tick() => {
                sweep_sessions(&doors);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "accept failed, trying again");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // A small answer must not wait for the acknowledgment of the one before.
        _ = socket.set_nodelay(true);
        let begun = Arc::new(AtomicBool::new(false));
        let (shared, begins) = (doors.clone(), begun.clone());
        let service = service_fn(move |request| {
            begins.store(true, Ordering::Relaxed);
            let doors = shared.clone();
            async move { Ok::<_, Infallible>(handle(doors, peer.ip(), request).await) }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service).into_owned();
        let connection = graceful.watch(connection);
        let shared = doors.clone();
        doors.node.tracker.spawn(async move {
            let meters = &shared.meters;
            meters.connections.increment(1.0);
            tokio::select! {
                served = connection => if let Err(error) = served {
                    debug!(error = %error, "connection ended early");
                },
                () = no_request(&begun) => debug!("connection closed, it sent no request"),
            }
            meters.connections.decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    doors.conversations.close();
    let drained = async { tokio::join!(graceful.shutdown(), doors.conversations.wait()) };
    _ = tokio::time::timeout(DRAIN_MAX, drained).await;
    Ok(())
}

/// Ends if the first request has not begun in time. While hyper waits to see
/// which version of HTTP a client speaks, no time limit of its own runs.
async fn no_request(begun: &AtomicBool) {
    tokio::time::sleep(HEAD_MAX).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

fn sweep_sessions(doors: &Doors) {
    for session in doors.sessions.sweep(Instant::now()) {
        legacy::close_upstream(&doors.node, &session);
    }
    doors.meters.sessions.set(doors.sessions.len() as f64);
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::node::Node;

    // Time jumps while the sockets are silent, which is what this waits for.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_request_is_let_go() {
        let shutdown = CancellationToken::new();
        let node = Node::new(TaskTracker::new(), shutdown.clone(), shutdown.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(node, DoorOptions::default(), listener, shutdown);
        let client = async {
            for beginning in ["", "PRI * HTTP"] {
                let mut socket = TcpStream::connect(address).await.unwrap();
                socket.write_all(beginning.as_bytes()).await.unwrap();
                let end = tokio::time::timeout(10 * HEAD_MAX, socket.read(&mut [0; 1])).await;
                assert!(matches!(end, Ok(Ok(0) | Err(_))), "{beginning:?} {end:?}");
            }
        };
        tokio::select! {
            _ = serving => unreachable!("nobody has stopped it"),
            () = client => {}
        }
    }
}
