//! Puts the parts of a node together, starts them, and ends them in order.
//!
//! ```text
//!  this runtime      downstream, gateway, upstream, lister, relay
//!  "mt-control"      discovery, link, cache, admin            (one thread, its own runtime)
//! ```
//!
//! At the end the doors close first and calls finish; then what they were
//! carried by; the operators' door stays open until the last.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    runtime::{self, Handle},
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use mt_proto::pb::{envoy::config::core::v3 as xds, node::Hello};

use crate::{
    admin::Admin,
    cache::{Cache, Keep, Kept},
    config::Options,
    control::Connector,
    discovery::{
        View,
        client::{self, Target},
        machine::Machine,
    },
    downstream::{self, DoorOptions},
    link::Link,
    lister::{self, Catalogs, Leases},
    node::Node,
    relay,
};

/// How long processes and connections may take to end, after the calls have.
pub const STOP_MAX: Duration = Duration::from_secs(10);

/// Where a node was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// None: nothing is served over HTTP.
    pub mcp: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub relay: SocketAddr,
}

/// Why a node cannot start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address} for {whom}")]
    Bind { whom: &'static str, address: SocketAddr, source: io::Error },
    #[error("cannot start the control thread")]
    Thread(#[source] io::Error),
    #[error("clients cannot be served")]
    Doors(#[source] io::Error),
    #[error("{part} ended by itself")]
    Ended { part: &'static str },
}

/// Runs a node until `shutdown`, then lets calls finish and ends. `ready` hears
/// where clients and operators get in, as soon as they do.
///
/// # Errors
/// If it cannot start, or a part of it fails for good.
pub async fn run(
    options: Options,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Bound>,
) -> Result<(), Error> {
    // On the heap: the future of a node holds all of its parts.
    Box::pin(serve(options, shutdown, ready)).await
}

async fn serve(
    options: Options,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Bound>,
) -> Result<(), Error> {
    let clients = match options.listen {
        Some(address) => Some(bind("clients", address).await?),
        None => None,
    };
    let operators = bind("operators", options.admin).await?;
    let nodes = bind("other nodes", options.relay_listen).await?;
    let bound = Bound {
        mcp: clients.as_ref().and_then(|clients| clients.local_addr().ok()),
        admin: operators.local_addr().unwrap_or(options.admin),
        relay: nodes.local_addr().unwrap_or(options.relay_listen),
    };

    // Calls that run at the shutdown still need what `stop` ends.
    let stop = CancellationToken::new();
    // Also when this future is dropped: the control thread must not outlive it.
    let _stops = stop.clone().drop_guard();
    let tracker = TaskTracker::new();
    let boot_id = uuid::Uuid::new_v4().to_string();
    let tag = crate::tag::tag_of(&options.node_id, &boot_id);
    let node = Node::tagged(tag, options.settings.clone(), tracker.clone(), shutdown.clone(), stop.clone());
    let (keep, kept) = Keep::channel();
    let serving = Arc::new(AtomicBool::new(false));
    let target = Target { node: node.clone(), calls: Handle::current(), keep, serving: serving.clone() };
    let (cache, view) = restore(&options, &target).await;

    let catalogs = Catalogs::default();
    let (leases, leased) = watch::channel(Leases::new());
    let discovery = Connector::new("discovery", options.control.clone());
    let admin = Admin {
        node_id: options.node_id.clone(),
        node: node.clone(),
        serving,
        contact: discovery.contact(),
        metrics: options.metrics.clone(),
        draining: shutdown.clone(),
    };
    let link = Link {
        node: node.clone(),
        hello: hello(&options, bound, boot_id),
        connector: Connector::new("registration", options.control.clone()),
        catalogs: catalogs.clone(),
        leases,
    };
    let machine = Machine::new(xds_node(&options), view);
    let parts = Parts { admin, operators, machine, target, discovery, link, cache, kept };
    let mut control = start_control(parts, stop.clone())?;

    let mut calls = JoinSet::new();
    let doors = calls.spawn(serve_clients(node.clone(), &options, clients, shutdown.clone()));
    calls.spawn(relay::server::serve(node.relay().clone(), nodes, stop.clone()));
    let copying = node.relay().clone().run(stop.clone());
    calls.spawn(async move {
        copying.await;
        Ok(())
    });
    let listing = lister::run(node, leased, catalogs, stop.clone());
    calls.spawn(async move {
        listing.await;
        Ok(())
    });
    info!(node.id = options.node_id, mcp = ?bound.mcp, admin = %bound.admin, "serving");
    // Whoever does not wait for it does not need to know.
    _ = ready.send(bound);

    let outcome = tokio::select! {
        ended = calls.join_next_with_id() => match ended {
            Some(Ok((id, Ok(())))) if id == doors.id() && shutdown.is_cancelled() => Ok(()),
            Some(Ok((id, Err(failed)))) if id == doors.id() => Err(Error::Doors(failed)),
            _ => Err(Error::Ended { part: "a part of the calls' side" }),
        },
        part = &mut control => Err(Error::Ended { part: part.unwrap_or("the control thread") }),
    };
    if outcome.is_err() {
        shutdown.cancel();
    }
    info!("calls are done, stopping");
    stop.cancel();
    tracker.close();
    if timeout(STOP_MAX, tracker.wait()).await.is_err() {
        warn!(tasks = tracker.len(), "stopped without waiting any longer");
    }
    calls.shutdown().await;
    if outcome.is_ok() {
        _ = timeout(STOP_MAX, control).await;
    }
    outcome
}

/// Serves clients over HTTP until the shutdown, or the one on stdin until it
/// leaves, which then is the shutdown.
fn serve_clients(
    node: Arc<Node>,
    options: &Options,
    listener: Option<TcpListener>,
    shutdown: CancellationToken,
) -> impl Future<Output = io::Result<()>> + use<> {
    let (doors, gateway) = (door_options(options), options.stdio.clone());
    async move {
        let http = async {
            match listener {
                Some(listener) => {
                    let (node, doors, shutdown) = (node.clone(), doors.clone(), shutdown.clone());
                    downstream::serve(node, doors, listener, shutdown).await
                }
                None => Ok(()),
            }
        };
        let stdio = async {
            let Some(gateway) = gateway else { return Ok(()) };
            let pipes = (tokio::io::stdin(), tokio::io::stdout());
            let served =
                downstream::stdio::serve(node.clone(), doors.clone(), gateway, pipes, shutdown.clone());
            let served = served.await;
            shutdown.cancel();
            served.map_err(io::Error::other)
        };
        let (http, stdio) = tokio::join!(http, stdio);
        http.and(stdio)
    }
}

async fn bind(whom: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { whom, address, source })
}

/// Puts what is on disk into service. Nothing there, or nothing usable, only
/// means that the control plane must come first.
async fn restore(options: &Options, target: &Target) -> (Option<Cache>, Option<Arc<View>>) {
    let began = Instant::now();
    let Some(dir) = options.cache_dir.clone() else {
        warn!("no cache directory: a start without the control plane will have nothing to serve");
        return (None, None);
    };
    let opened = tokio::task::spawn_blocking(move || {
        let mut cache = Cache::open(&dir)?;
        let keys = cache.load_keys();
        let views = cache.load();
        Ok::<_, crate::cache::Error>((cache, keys, views))
    });
    let (mut cache, keys, views) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(failed)) => {
            error!(error = %crate::chain(&failed), "running without a copy of the configuration");
            return (None, None);
        }
        Err(failed) => {
            error!(error = %failed, "running without a copy of the configuration");
            return (None, None);
        }
    };
    if let Some(Err(failed)) = keys.map(|keys| target.set_keys(&keys)) {
        warn!(error = %failed, "the kept key ring is not usable");
    }
    for cached in views {
        let view = Arc::new(cached.view);
        match target.apply(view.clone()).await {
            Ok(()) => {
                cache.protect(cached.slot);
                let age_s = cached.written.elapsed().unwrap_or_default().as_secs();
                let (generation, took_ms) = (view.generation, began.elapsed().as_millis());
                info!(generation, age_s, took_ms, "last-known-good generation is in service, from disk");
                return (Some(cache), Some(view));
            }
            Err(refusals) => {
                let reason = refusals.first().map(|first| format!("{}: {}", first.resource, first.reason));
                warn!(generation = view.generation, reason, "a kept generation cannot be served, skipped");
            }
        }
    }
    (Some(cache), None)
}

/// What runs beside the calls.
struct Parts {
    admin: Admin,
    operators: TcpListener,
    machine: Machine,
    target: Target,
    discovery: Connector,
    link: Link,
    cache: Option<Cache>,
    kept: Kept,
}

/// Starts them; the receiver hears which part has ended, if one does early, and
/// is closed when all have.
fn start_control(parts: Parts, stop: CancellationToken) -> Result<oneshot::Receiver<&'static str>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    let (ended, end) = oneshot::channel();
    let run = move || {
        if let Some(part) = runtime.block_on(parts.run(stop)) {
            // Whoever is gone already knows.
            _ = ended.send(part);
        }
    };
    thread::Builder::new().name("mt-control".to_owned()).spawn(run).map_err(Error::Thread)?;
    Ok(end)
}

impl Parts {
    /// Until `stop`, or until one ends early: which.
    async fn run(self, stop: CancellationToken) -> Option<&'static str> {
        let Self { admin, operators, machine, target, discovery, link, cache, kept } = self;
        let operators = match rehome(operators) {
            Ok(listener) => listener,
            Err(failed) => {
                error!(error = %failed, "the operators' door cannot be opened");
                return Some("admin");
            }
        };
        let mut parts = JoinSet::new();
        let until = stop.clone();
        parts.spawn(async move {
            if let Err(failed) = admin.serve(operators, until).await {
                error!(error = %failed, "the operators' door failed");
            }
            "admin"
        });
        let until = stop.clone();
        parts.spawn(async move {
            client::run(machine, target, discovery, until).await;
            "discovery"
        });
        let until = stop.clone();
        parts.spawn(async move {
            link.run(until).await;
            "registration"
        });
        let until = stop.clone();
        parts.spawn(async move {
            match cache {
                Some(cache) => kept.run(cache, until).await,
                None => until.cancelled().await,
            }
            "cache"
        });
        let first = parts.join_next().await;
        if !stop.is_cancelled() {
            return Some(first.and_then(Result::ok).unwrap_or("a part of the control side"));
        }
        while parts.join_next().await.is_some() {}
        None
    }
}

/// Sockets belong to the runtime that polls them.
fn rehome(listener: TcpListener) -> io::Result<TcpListener> {
    TcpListener::from_std(listener.into_std()?)
}

fn door_options(options: &Options) -> DoorOptions {
    DoorOptions {
        node_id: options.node_id.clone(),
        allowed_hosts: options.allowed_hosts.clone(),
        allowed_origins: options.allowed_origins.clone(),
    }
}

fn hello(options: &Options, bound: Bound, boot_id: String) -> Hello {
    Hello {
        node_id: options.node_id.clone(),
        boot_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: options.labels.clone(),
        mcp_url: bound.mcp.map(|mcp| options.mcp_url(mcp)).unwrap_or_default(),
        admin_url: options.admin_url(bound.admin),
        relay_url: options.relay_url(bound.relay),
    }
}

fn xds_node(options: &Options) -> xds::Node {
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let labels = options.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let labels = prost_types::Value {
        kind: Some(prost_types::value::Kind::StructValue(prost_types::Struct { fields: labels })),
    };
    xds::Node {
        id: options.node_id.clone(),
        cluster: String::new(),
        metadata: Some(prost_types::Struct { fields: [("labels".to_owned(), labels)].into() }),
        user_agent_name: format!("magictunnel/{}", env!("CARGO_PKG_VERSION")),
    }
}
