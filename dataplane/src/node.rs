//! What a node has in service: the snapshot with its upstreams, the sealing keys,
//! the tasks. It knows nothing of doors.
//!
//! A call loads the [`Table`] once and passes it down, so it never sees two
//! configurations. Only [`Node::install`] changes the table.

use std::{collections, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mt_proto::resource::{ResourceName, SecretSource};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    gateway::{bridge::kept::KeptSessions, logging, park::table::Parks},
    hash::HashMap,
    relay::Relay,
    seal::KeyRing,
    snapshot::Snapshot,
    tag::tag_of,
    upstream::{Shared, Upstream},
};

/// How long an upstream that is no longer configured may finish its calls.
pub const UPSTREAM_DRAIN_MAX: Duration = Duration::from_secs(30);

/// A snapshot and the upstreams that serve it.
#[derive(Default)]
pub struct Table {
    pub snapshot: Arc<Snapshot>,
    upstreams: HashMap<ResourceName, Arc<Upstream>>,
}

impl Table {
    pub fn upstream(&self, backend: &ResourceName) -> Option<&Arc<Upstream>> {
        self.upstreams.get(backend)
    }
}

/// What a node is told when it starts, besides what it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the files of resources are; nothing outside of it is read.
    pub files_dir: PathBuf,
    /// How many messages of one logger a client gets; none: as many as there are.
    pub log_messages_per_minute: Option<NonZeroU32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            files_dir: PathBuf::from("."),
            log_messages_per_minute: NonZeroU32::new(logging::MESSAGES_PER_MINUTE),
        }
    }
}

/// What a node has in service.
pub struct Node {
    tag: Arc<str>,
    pub settings: Settings,
    pub tracker: TaskTracker,
    /// No new calls are taken: streams that would never end do.
    pub draining: CancellationToken,
    /// Calls that wait for their modern clients.
    pub parks: Arc<Parks>,
    table: ArcSwap<Table>,
    in_service: watch::Sender<(u64, u64)>,
    keys: Arc<ArcSwap<KeyRing>>,
    relay: Arc<Relay>,
    /// What legacy sessions have left with backends that keep nothing.
    pub bridged: KeptSessions,
    upstream_shared: Arc<Shared>,
    installing: Mutex<()>,
}

impl Node {
    /// A node with nothing in service. Until [`set_keys`](Self::set_keys) it
    /// seals with a key of its own that no other node opens. `draining` ends
    /// what waits for news; `stopped` ends the backends' side, when the calls
    /// that were under way are done.
    pub fn new(tracker: TaskTracker, draining: CancellationToken, stopped: CancellationToken) -> Arc<Self> {
        let boot_id = uuid::Uuid::new_v4().to_string();
        Self::tagged(tag_of("", &boot_id), Settings::default(), tracker, draining, stopped)
    }

    /// As [`new`](Self::new), under the tag by which the fleet knows it.
    pub fn tagged(
        tag: Arc<str>,
        settings: Settings,
        tracker: TaskTracker,
        draining: CancellationToken,
        stopped: CancellationToken,
    ) -> Arc<Self> {
        let keys = Arc::new(ArcSwap::from_pointee(KeyRing::ephemeral()));
        let relay = Relay::new(tag.clone(), keys.clone());
        Arc::new(Self {
            tag,
            upstream_shared: Shared::of_node(tracker.clone(), stopped, relay.clone(), &settings.files_dir),
            settings,
            relay,
            tracker,
            draining,
            parks: Arc::default(),
            table: ArcSwap::default(),
            in_service: watch::Sender::new((0, 0)),
            keys,
            bridged: KeptSessions::default(),
            installing: Mutex::new(()),
        })
    }

    /// Puts a snapshot into service; it is when this returns. Upstreams whose
    /// backend has not changed are kept with their sessions and processes, the
    /// others are drained in the background.
    pub fn install(&self, snapshot: Arc<Snapshot>) {
        let _one_at_a_time = self.installing.lock();
        let old = self.table.load_full();
        let mut upstreams = HashMap::default();
        for (name, backend) in &snapshot.config.backends {
            let kept = old.upstreams.get(name).filter(|upstream| {
                upstream.config().as_ref() == backend.as_ref()
                    && old.snapshot.config.secrets == snapshot.config.secrets
            });
            let upstream = match kept {
                Some(kept) => kept.clone(),
                None => {
                    let secrets = snapshot.config.secrets.clone();
                    let resolve = Arc::new(move |name: &ResourceName| resolve(&secrets, name));
                    Upstream::new(backend.clone(), resolve, self.upstream_shared.clone())
                }
            };
            if let Some(catalog) = snapshot.catalogs.get(name) {
                upstream.set_facts(&catalog.facts);
            }
            upstreams.insert(name.clone(), upstream);
        }
        let version = (snapshot.generation, snapshot.catalog_revision);
        let selectors = snapshot.gateways.values().map(|view| &view.gateway);
        self.relay.set_selectors(selectors.map(|g| (g.name.clone(), g.nodes.clone())).collect());
        let table = Arc::new(Table { snapshot, upstreams });
        self.table.store(table.clone());
        self.in_service.send_replace(version);
        for (name, upstream) in &old.upstreams {
            if table.upstreams.get(name).is_none_or(|kept| !Arc::ptr_eq(kept, upstream)) {
                let upstream = upstream.clone();
                self.tracker.spawn(async move { upstream.close(UPSTREAM_DRAIN_MAX).await });
            }
        }
    }

    /// Names this process in what travels through clients (see [`tag_of`]):
    /// what names another one belongs to another node, or to a process of this
    /// node that is gone.
    pub fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    /// What is in service now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.table.load().snapshot.clone()
    }

    /// The generation and the catalog revision in service, as they change.
    pub fn watch(&self) -> watch::Receiver<(u64, u64)> {
        self.in_service.subscribe()
    }

    /// What seals from now on. Tokens of the keys before open only if these
    /// are among the new ones.
    pub fn set_keys(&self, keys: KeyRing) {
        self.keys.store(Arc::new(keys));
    }

    /// The way to the other nodes.
    pub fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    pub fn keys(&self) -> Arc<KeyRing> {
        self.keys.load_full()
    }

    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.table.load().upstreams.values().cloned().collect()
    }

    pub fn upstream(&self, backend: &ResourceName) -> Option<Arc<Upstream>> {
        self.table.load().upstreams.get(backend).cloned()
    }
}

/// Reads a secret where it is needed, each time it is needed, so that a rotated
/// file is picked up by the next connection or process.
fn resolve(
    secrets: &collections::HashMap<ResourceName, SecretSource>,
    name: &ResourceName,
) -> Result<String, String> {
    match secrets.get(name) {
        None => Err(format!("secret {name} does not exist")),
        Some(SecretSource::Env(variable)) => std::env::var(variable)
            .map_err(|_| format!("secret {name}: this node has no environment variable {variable}")),
        Some(SecretSource::File(path)) => std::fs::read_to_string(path)
            .map(|mut text| {
                if text.ends_with('\n') {
                    text.pop();
                }
                text
            })
            .map_err(|error| format!("secret {name}: reading {}: {error}", path.display())),
    }
}
