//! The client that has started this node as its command, on stdin and stdout:
//! one message per line, both ways. Nothing else is ever written to stdout.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use mt_proto::resource::ResourceName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    auth::Refusal,
    door::{BODY_BYTES_MAX, DoorOptions, Doors},
    duplex::Duplex,
    meters::{Carrier, Closed},
    outlet::Queue,
};
use crate::{
    mcp::{
        RpcError,
        lines::{self, Framer, Line},
    },
    node::Node,
};

/// How long the first configuration may take to come.
pub const READY_MAX: Duration = Duration::from_secs(30);
/// And to learn what the gateway's members offer.
pub const LISTED_MAX: Duration = Duration::from_secs(3);
/// When stdin has ended, calls that were under way have this long to be answered.
pub const GRACE_MAX: Duration = Duration::from_secs(1);
/// How long what was answered may take to be written, when the node stops.
const FLUSH_MAX: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 << 10;
/// Of what is said before there is a configuration, so much is read.
const EARLY_BYTES_MAX: usize = 1 << 20;
/// The API key or the token of the client: it has no headers to put it in.
pub const KEY_VARIABLE: &str = "MT_API_KEY";

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no configuration came within {READY_MAX:?}: is the control plane running, and is --control its address?"
    )]
    NotReady,
    #[error("there is no gateway {gateway}; those that this node serves: {known}")]
    NoGateway { gateway: ResourceName, known: String },
    #[error("the client is not served; its API key comes in {KEY_VARIABLE}")]
    Refused(#[from] Refusal),
    #[error("reading from stdin")]
    Read(#[source] io::Error),
}

/// Serves one gateway to the client at the other end, until it closes stdin or
/// the node is asked to stop.
///
/// # Errors
/// Why it cannot be served.
pub async fn serve(
    node: Arc<Node>,
    options: DoorOptions,
    gateway: ResourceName,
    (mut stdin, stdout): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut early = BytesMut::new();
    tokio::select! {
        ready = timeout(READY_MAX, in_service(&node)) => ready.map_err(|_| Error::NotReady)?,
        () = left_early(&mut stdin, &mut early) => return Ok(()),
        () = shutdown.cancelled() => return Ok(()),
    }
    let gateways = &node.snapshot().gateways;
    if !gateways.contains_key(gateway.as_str()) {
        let mut known: Vec<_> = gateways.keys().map(ToString::to_string).collect();
        known.sort_unstable();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::NoGateway { gateway, known });
    }
    // Most clients look at the lists once. What nobody has ever listed may be dead.
    _ = timeout(LISTED_MAX, listed(&node, &gateway)).await;
    let doors = Doors::new(node, options);
    let key = std::env::var(KEY_VARIABLE).ok();
    let config = &doors.node.snapshot().config;
    let admitted = doors.auth.admit_local(config, gateway.as_str(), key.as_deref()).await?;
    info!(%gateway, "serving the client on stdin and stdout");
    doors.meters.opened(Carrier::Stdio);
    // A client that does not read is held back, not left: it has no other connection.
    let queue = Queue::new(None);
    let identity = admitted.identity.clone();
    let barred = admitted.ended(doors.node.clone(), gateway.clone());
    let duplex = Duplex::begin(&doors, gateway, identity, queue.clone());
    let writing = write(stdout, &queue);
    let mut writing = std::pin::pin!(writing);
    let ended = tokio::select! {
        ended = read(stdin, early, &duplex) => ended.map(|()| Closed::Client),
        () = &mut writing => Ok(Closed::Client),
        () = duplex.drained() => Ok(Closed::Drained),
        () = barred => Ok(Closed::Barred),
    };
    if matches!(ended, Ok(Closed::Client)) {
        _ = timeout(GRACE_MAX, duplex.idle()).await;
    }
    drop(duplex);
    _ = timeout(FLUSH_MAX, writing).await;
    doors.meters.closed(Carrier::Stdio, *ended.as_ref().unwrap_or(&Closed::Broken));
    ended.map(drop).map_err(Error::Read)
}

/// Ends when the node has something to serve.
async fn in_service(node: &Node) {
    let mut versions = node.watch();
    // The sender lives as long as the node.
    _ = versions.wait_for(|(generation, _)| *generation > 0).await;
}

/// Ends when it is known what every member of the gateway offers.
async fn listed(node: &Node, gateway: &ResourceName) {
    let mut versions = node.watch();
    loop {
        versions.mark_unchanged();
        let snapshot = node.snapshot();
        let Some(view) = snapshot.gateways.get(gateway.as_str()) else { return };
        if view.members.iter().all(|member| snapshot.catalogs.contains_key(member)) {
            return;
        }
        if versions.changed().await.is_err() {
            return;
        }
    }
}

/// Ends if the client leaves before it has said anything; what it says is kept.
async fn left_early(stdin: &mut (impl AsyncRead + Unpin), early: &mut BytesMut) {
    while early.len() < EARLY_BYTES_MAX {
        early.reserve(READ_BYTES);
        match stdin.read_buf(early).await {
            Ok(0) if early.is_empty() => return,
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}

/// Hands what comes to the conversation, until it ends.
async fn read(mut stdin: impl AsyncRead + Unpin, early: BytesMut, duplex: &Duplex) -> io::Result<()> {
    let mut framer = Framer::new(BODY_BYTES_MAX);
    let mut buffer = early;
    loop {
        buffer.reserve(READ_BYTES);
        if buffer.is_empty() && stdin.read_buf(&mut buffer).await? == 0 {
            if let Some(line) = framer.finish() {
                take(duplex, line).await;
            }
            return Ok(());
        }
        framer.push(buffer.split().freeze());
        while let Some(line) = framer.next_line() {
            take(duplex, line).await;
        }
    }
}

async fn take(duplex: &Duplex, line: Line) {
    match line {
        Line::Whole(line) if line.trim_ascii().is_empty() => {}
        Line::Whole(line) => duplex.take(line).await,
        Line::TooLong { .. } => duplex.refuse(&RpcError::too_large(BODY_BYTES_MAX)).await,
    }
}

/// Writes what is in the queue, until it ends or the client does not read any more.
async fn write(mut stdout: impl AsyncWrite + Unpin, queue: &Queue) {
    let mut line = Vec::new();
    while let Some(message) = queue.next().await {
        line.clear();
        lines::encode(&message, &mut line);
        drop::<Bytes>(message);
        if stdout.write_all(&line).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    fn node(shutdown: &CancellationToken) -> Arc<Node> {
        Node::new(TaskTracker::new(), shutdown.clone(), shutdown.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_without_a_configuration_says_so_in_time() {
        let shutdown = CancellationToken::new();
        let (client, server) = tokio::io::duplex(64);
        let (stdin, stdout) = tokio::io::split(server);
        let gateway = "default".parse().unwrap();
        let served = serve(node(&shutdown), DoorOptions::default(), gateway, (stdin, stdout), shutdown);
        let error = served.await.unwrap_err();
        assert!(matches!(error, Error::NotReady), "{error}");
        assert!(error.to_string().contains("--control"), "{error}");
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_before_anything_is_not_waited_for() {
        let shutdown = CancellationToken::new();
        let (client, server) = tokio::io::duplex(64);
        drop(client);
        let began = tokio::time::Instant::now();
        let gateway = "default".parse().unwrap();
        let pipes = tokio::io::split(server);
        assert!(serve(node(&shutdown), DoorOptions::default(), gateway, pipes, shutdown).await.is_ok());
        assert!(began.elapsed() < READY_MAX);
    }
}
