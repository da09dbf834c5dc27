//! Where HTTP clients come in: accepts sockets, gives each to hyper, and lets
//! what is under way finish at the end.
//!
//! Nothing of a request is looked at here. What bounds a client that says
//! nothing, or says it slowly, is.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    body::Body,
    dispatch::handle,
    door::{DRAIN_MAX, DoorOptions, Doors},
    legacy,
};
use crate::node::Node;

/// Sockets that are open at once; more wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 8_192;
/// How long a client may take to send the head of a request.
pub const HEAD_MAX: Duration = Duration::from_secs(10);
/// After a failed `accept` (no file descriptors, say).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How HTTP/2 begins, and never HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks for the rest of it.
const PREFACE_RETRY: Duration = Duration::from_millis(5);
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
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let http = Arc::new(Http::new());
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
        let connection = Connection {
            http: http.clone(),
            doors: doors.clone(),
            peer: peer.ip(),
            shutdown: shutdown.clone(),
            _held: (permit, Counted::new(&doors)),
        };
        doors.node.tracker.spawn(connection.serve(socket));
    }
    drop(listener);
    doors.conversations.close();
    // Each connection holds one until its end.
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    let drained = async { tokio::join!(connections.acquire_many(all), doors.conversations.wait()) };
    _ = tokio::time::timeout(DRAIN_MAX, drained).await;
    Ok(())
}

/// The two versions of HTTP.
struct Http {
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

impl Http {
    fn new() -> Self {
        // At most 100 headers: hyper's own limit, which is cheaper than to name it here.
        let mut one = http1::Builder::new();
        one.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(64 << 10);
        let mut two = http2::Builder::new(TokioExecutor::new());
        two.timer(TokioTimer::new()).max_concurrent_streams(100).max_header_list_size(32 << 10);
        Self { one, two }
    }
}

/// A client's connection that has been accepted.
struct Connection {
    http: Arc<Http>,
    doors: Arc<Doors>,
    peer: IpAddr,
    shutdown: CancellationToken,
    _held: (OwnedSemaphorePermit, Counted),
}

impl Connection {
    /// Until it ends. Idle ones are many: what they do not need is on the heap
    /// while it is needed.
    async fn serve(self, socket: TcpStream) {
        let Self { http, doors, peer, shutdown, _held } = self;
        let is_http2 = tokio::select! {
            is_http2 = tokio::time::timeout(HEAD_MAX, begins_http2(&socket)) => is_http2,
            () = shutdown.cancelled() => return,
        };
        let served = match is_http2 {
            Ok(Ok(false)) => {
                let service = service_fn(move |request| answer(&doors, peer, request));
                let connection = http.one.serve_connection(TokioIo::new(socket), service).with_upgrades();
                drop(http);
                let mut connection = pin!(connection);
                tokio::select! {
                    biased;
                    served = connection.as_mut() => served,
                    () = shutdown.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
            Ok(Ok(true)) => Box::pin(serve_http2(&http, doors, peer, shutdown, socket)).await,
            Ok(Err(error)) => {
                debug!(%error, "connection broke before it began");
                return;
            }
            Err(_) => {
                debug!("connection closed, it sent no request");
                return;
            }
        };
        if let Err(error) = served {
            debug!(%error, "connection ended early");
        }
    }
}

fn answer(
    doors: &Arc<Doors>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
    handle(doors, peer, request).map(Ok)
}

async fn serve_http2(
    http: &Http,
    doors: Arc<Doors>,
    peer: IpAddr,
    shutdown: CancellationToken,
    socket: TcpStream,
) -> hyper::Result<()> {
    let begun = Arc::new(AtomicBool::new(false));
    let begins = begun.clone();
    let service = service_fn(move |request| {
        begins.store(true, Ordering::Relaxed);
        answer(&doors, peer, request)
    });
    let mut connection = pin!(http.two.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        served = connection.as_mut() => served,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = no_request(&begun) => {
            debug!("connection closed, it sent no request");
            Ok(())
        }
    }
}

/// Whether a client begins as HTTP/2 does. Nothing is taken from the socket, so
/// that HTTP/1 finds its first request in one piece.
async fn begins_http2(socket: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    loop {
        let seen = socket.peek(&mut begin).await?;
        if seen == 0 || !PREFACE.starts_with(&begin[..seen]) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        // What was seen stays there, so that waiting for more would not wait.
        tokio::time::sleep(PREFACE_RETRY).await;
    }
}

/// Ends if the first request has not begun in time: HTTP/2 has no limit for that.
async fn no_request(begun: &AtomicBool) {
    tokio::time::sleep(HEAD_MAX).await;
    if begun.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// In the gauge of connections while it exists.
struct Counted(Arc<Doors>);

impl Counted {
    fn new(doors: &Arc<Doors>) -> Self {
        doors.meters.connections.increment(1.0);
        Self(doors.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.meters.connections.decrement(1.0);
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
            for beginning in ["", "PRI * HTTP", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /mcp"] {
                let mut socket = TcpStream::connect(address).await.unwrap();
                socket.write_all(beginning.as_bytes()).await.unwrap();
                // HTTP/2 greets, and then it ends as well.
                let end = tokio::time::timeout(10 * HEAD_MAX, socket.read_to_end(&mut Vec::new())).await;
                assert!(end.is_ok(), "{beginning:?}");
            }
        };
        tokio::select! {
            _ = serving => unreachable!("nobody has stopped it"),
            () = client => {}
        }
    }
}
