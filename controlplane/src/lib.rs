//! The control plane: holds the configuration of a fleet and pushes it to the
//! nodes. It serves no calls, and nodes go on without it.
//!
//! Map: `store` remembers · `registry` changes · `publisher` turns what is
//! stored into views · `discovery` pushes them · `fleet` knows the nodes ·
//! `catalog` checks what they list and `catalogs` keeps it · `keyring` has the
//! keys they seal with · `grpc` and `http` are the doors.

pub mod catalog;
pub mod catalogs;
pub mod config;
pub mod config_args;
pub mod discovery;
pub mod fleet;
pub mod grpc;
pub mod http;
pub mod keyring;
pub mod publisher;
pub mod registry;
pub mod stats;
pub mod store;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mt_proto::pb::discovery::{KeyRing, NodeDirectory};
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::config::Options;
use self::{
    catalogs::Catalogs,
    discovery::View,
    fleet::Fleet,
    grpc::Grpc,
    keyring::Keys,
    publisher::Publisher,
    registry::Registry,
    store::{
        Store,
        sled::{OnDamage, SledStore},
    },
};

/// How long open calls and streams have to end after shutdown.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Nodes that come or go together are told together.
const FACTS_QUIET: Duration = Duration::from_millis(100);
/// The store's folder in the data directory.
const STORE_DIR: &str = "store";

/// The addresses that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

/// Why a control plane does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    NotLoopback(#[from] config::NotLoopback),
    #[error("cannot make the data directory {}", .path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("cannot open the store")]
    Store(#[from] store::Error),
    #[error("cannot open the key ring")]
    KeyRing(#[from] keyring::Error),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot serve gRPC")]
    Grpc(#[from] grpc::Error),
    #[error("cannot serve probes")]
    Http(#[source] io::Error),
    #[error("{0} ended early")]
    EndedEarly(&'static str),
    #[error("a part of the control plane failed")]
    Part(#[from] JoinError),
}

/// Runs a control plane until `shutdown`, and says on `ready` where once it
/// serves. Dropping the future stops it without a drain; nothing that was
/// acknowledged is lost.
///
/// # Errors
/// If it cannot start, or a part of it fails.
pub async fn run(
    options: Options,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Bound>,
) -> Result<(), Error> {
    options.check()?;
    let (engine, keys) = open(options.data_dir.clone(), options.salvage_store).await?;
    let store: Arc<dyn Store> = engine.clone();
    let grpc_listener = bind(options.listen).await?;
    let http_listener = bind(options.http).await?;
    let local = |listener: &TcpListener, address| {
        listener.local_addr().map_err(|source| Error::Listen { address, source })
    };
    let bound =
        Bound { grpc: local(&grpc_listener, options.listen)?, http: local(&http_listener, options.http)? };

    let keys = Keys::new(options.data_dir.clone(), keys);
    let (facts_sender, facts) =
        watch::channel(Arc::new(keyring::facts(keys.watch().borrow().clone(), NodeDirectory::default())));
    let publisher = Publisher::start(store.clone()).await?;
    let published = publisher.published();
    let fleet = Fleet::default();
    let catalogs = Catalogs::new(store.clone(), published.clone(), fleet.clone());
    let doors = Grpc {
        registry: Registry::new(store.clone()),
        fleet: fleet.clone(),
        catalogs: catalogs.clone(),
        published: published.clone(),
        facts,
        keys: keys.clone(),
    };

    // A part that fails stops the others, and they have a while to end.
    let stop = shutdown.child_token();
    let mut parts: JoinSet<Result<&'static str, Error>> = JoinSet::new();
    let token = stop.clone();
    parts.spawn(async move {
        doors.run(grpc_listener, token).await?;
        Ok("grpc")
    });
    let serving = http::run(http_listener, store, options.metrics, stop.clone());
    parts.spawn(async move {
        serving.await.map_err(Error::Http)?;
        Ok("http")
    });
    let token = stop.clone();
    parts.spawn(async move {
        publisher.run(token).await;
        Ok("publisher")
    });
    let told = tell_facts(keys.watch(), fleet.directory(), facts_sender, stop.clone());
    parts.spawn(async move {
        told.await;
        Ok("facts")
    });
    let token = stop.clone();
    parts.spawn(async move {
        keys.run(token).await;
        Ok("keys")
    });
    let token = stop.clone();
    parts.spawn(async move {
        fleet.run(published, token).await;
        Ok("fleet")
    });
    let token = stop.clone();
    parts.spawn(async move {
        catalogs.run(token).await;
        Ok("catalog")
    });

    info!(grpc = %bound.grpc, http = %bound.http, "listening");
    // Nobody may be waiting.
    _ = ready.send(bound);
    let end = supervise(&mut parts, &shutdown, &stop).await;
    engine.close().await;
    end
}

/// Makes facts of what changes, when a burst of changes is over.
async fn tell_facts(
    mut keys: watch::Receiver<KeyRing>,
    mut nodes: watch::Receiver<NodeDirectory>,
    facts: watch::Sender<Arc<View>>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Ok(()) = keys.changed() => {}
            Ok(()) = nodes.changed() => {}
        }
        tokio::time::sleep(FACTS_QUIET).await;
        let now = keyring::facts(keys.borrow_and_update().clone(), nodes.borrow_and_update().clone());
        facts.send_replace(Arc::new(now));
    }
}

/// Waits for the first part to end, or for shutdown, and then for the rest.
async fn supervise(
    parts: &mut JoinSet<Result<&'static str, Error>>,
    shutdown: &CancellationToken,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let end = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = parts.join_next() => match ended? {
            Ok(part) if !shutdown.is_cancelled() => Err(Error::EndedEarly(part)),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        },
    };
    info!("stopping");
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async {
        while let Some(ended) = parts.join_next().await {
            ended??;
        }
        Ok(())
    });
    match drained.await {
        Ok(rest) => end.and(rest),
        Err(_) => {
            info!("stopped without waiting for what is still open");
            parts.shutdown().await;
            end
        }
    }
}

async fn open(data_dir: PathBuf, salvage: bool) -> Result<(Arc<SledStore>, KeyRing), Error> {
    tokio::task::spawn_blocking(move || {
        make_private_dir(&data_dir).map_err(|source| Error::DataDir { path: data_dir.clone(), source })?;
        // The store first: it holds the lock on the directory.
        let on_damage = if salvage { OnDamage::Salvage } else { OnDamage::Refuse };
        let options = store::sled::Options { on_damage, ..store::sled::Options::default() };
        let store = SledStore::open(&data_dir.join(STORE_DIR), options)?;
        let keys = keyring::open(&data_dir)?;
        Ok((Arc::new(store), keys))
    })
    .await?
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Runs work that grows with the configuration, so that it does not hold up a
/// thread that carries streams. Panics as the work does.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is going away, and with it whoever waits.
        Err(Err(_)) => std::future::pending().await,
    }
}
