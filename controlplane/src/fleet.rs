//! Who is in the fleet: registrations and their leases, what each node has been
//! sent and has in service, and which node lists which backend.
//!
//! In memory only: a control plane that starts anew learns it from the nodes.
//! Streams hold a guard ([`Attached`], [`Discovered`]) and tell it what they
//! see; dropping the guard says that the stream is gone.

pub mod lease;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mt_proto::pb::{
    discovery::{NodeDirectory, NodeEntry},
    node::{BackendStatus, Hello, Status},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::lease::Candidate;
use crate::{discovery::Stamp, publisher::Published};

/// A node says something at least this often.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Silence this long ends a registration.
pub const LEASE: Duration = Duration::from_secs(15);
/// Nodes that are known at a time, connected or until lately.
pub const NODES_MAX: usize = 4096;
/// A node that has been gone for this long is no longer shown.
pub const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Backends that one node may report on.
pub const BACKENDS_MAX: usize = 10_000;
/// How often leases are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The backends that a node lists, in order.
pub type Leases = Arc<Vec<String>>;

/// The table of nodes. Cheap to clone.
#[derive(Clone, Default)]
pub struct Fleet {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    /// Who lists what may have to change.
    stirred: Notify,
    directory: watch::Sender<NodeDirectory>,
}

#[derive(Default)]
struct Table {
    nodes: BTreeMap<String, Record>,
    listers: BTreeMap<Arc<str>, String>,
    /// Tells the streams of one node apart.
    epochs: u64,
}

/// Why a node cannot come in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the fleet is at its limit of {NODES_MAX} nodes")]
    Full,
}

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub hello: Hello,
    pub connected: bool,
    pub last_seen: SystemTime,
    pub sent: Option<Stamp>,
    pub acked: Option<Stamp>,
    pub refused: Option<(Stamp, String)>,
    /// By the name of the backend.
    pub backends: BTreeMap<String, BackendStatus>,
}

struct Record {
    info: NodeInfo,
    registered: bool,
    heard: Instant,
    attached: Option<Live>,
    discovering: Option<Live>,
    leases: watch::Sender<Leases>,
}

/// A stream that is open.
struct Live {
    epoch: u64,
    superseded: CancellationToken,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.superseded.cancel();
    }
}

impl Fleet {
    /// Registers a node, in the place of an earlier stream of the same id.
    ///
    /// # Errors
    /// If there are too many nodes.
    pub fn attach(&self, hello: Hello) -> Result<Attached, Error> {
        let node_id = hello.node_id.clone();
        let mut table = self.shared.table.lock();
        let epoch = table.next_epoch();
        let record = table.record(&node_id).ok_or(Error::Full)?;
        if record.registered && record.attached.is_some() && record.info.hello.boot_id != hello.boot_id {
            info!(node.id = node_id, "another process took over this node id");
        }
        record.hear();
        record.info.hello = hello;
        record.registered = true;
        let superseded = CancellationToken::new();
        record.attached = Some(Live { epoch, superseded: superseded.clone() });
        let leases = record.leases.subscribe();
        drop(table);
        self.shared.stirred.notify_one();
        Ok(Attached { fleet: self.clone(), node_id, epoch, superseded, leases })
    }

    /// A node follows discovery, in the place of an earlier stream of the same
    /// id. It need not be registered.
    pub fn discovering(&self, node_id: &str, labels: &BTreeMap<String, String>) -> Discovered {
        let superseded = CancellationToken::new();
        let mut table = self.shared.table.lock();
        let epoch = table.next_epoch();
        // When the table is full the stream works all the same, but is not shown.
        if let Some(record) = table.record(node_id) {
            record.hear();
            if !record.registered {
                record.info.hello.labels = labels.clone();
            }
            (record.info.sent, record.info.acked, record.info.refused) = (None, None, None);
            record.discovering = Some(Live { epoch, superseded: superseded.clone() });
        }
        drop(table);
        Discovered { fleet: self.clone(), node_id: node_id.to_owned(), epoch, superseded }
    }

    /// In the order of their ids.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.shared.table.lock().nodes.values().map(Record::show).collect()
    }

    /// The nodes that others can reach, as they come and go. A node stays in it
    /// for its lease: the others find out sooner whether it answers.
    pub fn directory(&self) -> watch::Receiver<NodeDirectory> {
        self.shared.directory.subscribe()
    }

    /// The id of the node that lists a backend.
    pub fn lister(&self, backend: &str) -> Option<String> {
        self.shared.table.lock().listers.get(backend).cloned()
    }

    /// Keeps leases and registrations current, until shutdown.
    pub async fn run(self, mut published: watch::Receiver<Arc<Published>>, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
                () = self.shared.stirred.notified() => {}
                Ok(()) = published.changed() => {}
            }
            let now = published.borrow_and_update().clone();
            self.refresh(&now, Instant::now());
        }
    }

    /// Forgets who is long gone and gives every backend a lister.
    fn refresh(&self, published: &Published, now: Instant) {
        let eligible: Vec<_> = {
            let mut table = self.shared.table.lock();
            table.nodes.retain(|_, record| record.is_live() || now - record.heard < FORGET_AFTER);
            let eligible = table.nodes.iter().filter(|(_, record)| record.is_registered(now));
            eligible.map(|(node_id, record)| (node_id.clone(), record.info.hello.labels.clone())).collect()
        };
        self.shared.directory.send_if_modified(|told| {
            let now = self.shared.table.lock().directory(now);
            let changed = *told != now;
            *told = now;
            changed
        });
        // Finding out what labels serve may take a while, so nobody waits for it.
        // Who comes meanwhile is looked at next.
        let candidates: Vec<_> = eligible
            .iter()
            .map(|(node_id, labels)| Candidate { node_id, backends: published.backends_for(labels) })
            .collect();
        let listers = lease::assign(&candidates);
        let mut of_node: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (backend, node_id) in &listers {
            of_node.entry(node_id).or_default().push(backend.to_string());
        }
        let mut table = self.shared.table.lock();
        // Who lists is known here before the node hears of it, so that no
        // report of a lister is ever refused.
        for (node_id, record) in &table.nodes {
            let leases = of_node.remove(node_id.as_str()).unwrap_or_default();
            record.leases.send_if_modified(|held| {
                let changed = **held != leases;
                if changed {
                    *held = Arc::new(leases);
                }
                changed
            });
        }
        let connected = table.nodes.values().filter(|record| record.is_live()).count();
        metrics::gauge!("mt_fleet_nodes_connected").set(connected as f64);
        table.listers = listers;
    }

    /// Runs `change` if the stream is still the current one.
    fn with(&self, node_id: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.shared.table.lock().nodes.get_mut(node_id) {
            change(record);
        }
    }
}

impl Table {
    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1;
        self.epochs
    }

    /// In the order of the nodes' ids.
    fn directory(&self, now: Instant) -> NodeDirectory {
        let reachable = self.nodes.values().filter(|record| record.is_registered(now));
        let reachable =
            reachable.map(|record| &record.info.hello).filter(|hello| !hello.relay_url.is_empty());
        let nodes = reachable.map(|hello| NodeEntry {
            node_id: hello.node_id.clone(),
            boot_id: hello.boot_id.clone(),
            relay_url: hello.relay_url.clone(),
            labels: hello.labels.clone(),
        });
        NodeDirectory { nodes: nodes.collect() }
    }

    /// The record of a node, new if need be; none if there is no room.
    fn record(&mut self, node_id: &str) -> Option<&mut Record> {
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(node_id) {
            let gone = self.nodes.iter().filter(|(_, record)| !record.is_live());
            let oldest = gone.min_by_key(|(_, record)| record.heard).map(|(id, _)| id.clone())?;
            self.nodes.remove(&oldest);
        }
        Some(match self.nodes.entry(node_id.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Record::new(node_id)),
        })
    }
}

impl Record {
    fn new(node_id: &str) -> Self {
        Self {
            info: NodeInfo {
                hello: Hello { node_id: node_id.to_owned(), ..Default::default() },
                connected: false,
                last_seen: SystemTime::now(),
                sent: None,
                acked: None,
                refused: None,
                backends: BTreeMap::new(),
            },
            registered: false,
            heard: Instant::now(),
            attached: None,
            discovering: None,
            leases: watch::channel(Leases::default()).0,
        }
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.info.last_seen = SystemTime::now();
    }

    fn is_live(&self) -> bool {
        self.attached.is_some() || self.discovering.is_some()
    }

    /// Registered, and not silent for longer than its lease.
    fn is_registered(&self, now: Instant) -> bool {
        self.registered && (self.attached.is_some() || now - self.heard < LEASE)
    }

    fn show(&self) -> NodeInfo {
        NodeInfo { connected: self.is_live(), ..self.info.clone() }
    }
}

/// A node's registration stream. Dropping it starts the end of the lease.
pub struct Attached {
    fleet: Fleet,
    node_id: String,
    epoch: u64,
    superseded: CancellationToken,
    /// What this node lists.
    pub leases: watch::Receiver<Leases>,
}

impl Attached {
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The node said something.
    pub fn heard(&self) {
        self.with(Record::hear);
    }

    /// The node said how it is. Backends beyond [`BACKENDS_MAX`] are left out.
    pub fn status(&self, status: Status) {
        let backends = status.backends.into_iter().take(BACKENDS_MAX);
        let backends = backends.map(|backend| (backend.backend.clone(), backend)).collect();
        self.with(|record| {
            record.hear();
            record.info.backends = backends;
        });
    }

    /// Waits until a newer stream has taken this one's place. Cancel safe.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    fn with(&self, change: impl FnOnce(&mut Record)) {
        self.fleet.with(&self.node_id, |record| {
            if record.attached.as_ref().is_some_and(|live| live.epoch == self.epoch) {
                change(record);
            }
        });
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.with(|record| {
            record.attached = None;
            record.info.backends.clear();
        });
        self.fleet.shared.stirred.notify_one();
    }
}

/// A node's discovery stream.
pub struct Discovered {
    fleet: Fleet,
    node_id: String,
    epoch: u64,
    superseded: CancellationToken,
}

impl Discovered {
    /// A view was sent, whole.
    pub fn sent(&self, stamp: Stamp) {
        self.with(|info| info.sent = Some(stamp));
    }

    /// A view is in service.
    pub fn acked(&self, stamp: Stamp) {
        self.with(|info| (info.acked, info.refused) = (Some(stamp), None));
    }

    /// A view was refused.
    pub fn refused(&self, stamp: Stamp, reason: String) {
        self.with(|info| info.refused = Some((stamp, reason)));
    }

    /// Waits until a newer stream has taken this one's place. Cancel safe.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    fn with(&self, change: impl FnOnce(&mut NodeInfo)) {
        self.fleet.with(&self.node_id, |record| {
            if record.discovering.as_ref().is_some_and(|live| live.epoch == self.epoch) {
                change(&mut record.info);
            }
        });
    }
}

impl Drop for Discovered {
    fn drop(&mut self) {
        self.fleet.with(&self.node_id, |record| {
            if record.discovering.as_ref().is_some_and(|live| live.epoch == self.epoch) {
                record.discovering = None;
            }
        });
    }
}

#[cfg(test)]
mod tests;
