//! Lists what backends offer, for the whole fleet: each backend is listed by
//! the one node that has its lease.
//!
//! [`run`] keeps one [`worker`] for each leased backend, on the runtime of the
//! calls. What they find lies in [`Catalogs`], where the link to the control
//! plane takes it from: the latest counts, and nobody waits for anybody.

mod pages;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use prost::Message;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use mt_proto::{pb::discovery::Catalog, resource::ResourceName};

pub use self::{
    pages::{ENTRIES_MAX, LIST_BYTES_MAX, List, PAGES_MAX, Unlistable},
    worker::{LISTING_TIMEOUT, REFRESH_INTERVAL, RELIST_INTERVAL},
};
use crate::{node::Node, upstream::Upstream};

/// The backends whose listing this node does.
pub type Leases = BTreeSet<ResourceName>;

/// What one backend offers, as it was listed last.
#[derive(Clone, Debug)]
pub struct Listed {
    pub catalog: Arc<Catalog>,
    /// Of the encoded catalog: tells whether it has changed.
    pub hash: [u8; 32],
}

impl Listed {
    pub fn new(catalog: Catalog) -> Self {
        let hash = *blake3::hash(&catalog.encode_to_vec()).as_bytes();
        Self { catalog: Arc::new(catalog), hash }
    }
}

/// How listing a backend goes.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Stays while later listings fail.
    pub last_good: Option<Listed>,
    /// Why the last listing failed, for people.
    pub failure: Option<String>,
}

/// The listings of all leased backends. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalogs {
    listings: watch::Sender<BTreeMap<ResourceName, Listing>>,
}

impl Default for Catalogs {
    fn default() -> Self {
        Self { listings: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Catalogs {
    /// The listings, as they change.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<ResourceName, Listing>> {
        self.listings.subscribe()
    }

    /// Notes a good listing; true if it differs from the one before.
    fn found(&self, backend: &ResourceName, listed: Listed) -> bool {
        self.listings.send_if_modified(|listings| {
            let listing = listings.entry(backend.clone()).or_default();
            let same = listing.last_good.as_ref().is_some_and(|last| last.hash == listed.hash);
            let recovered = listing.failure.take().is_some();
            if !same {
                listing.last_good = Some(listed);
            }
            !same || recovered
        })
    }

    /// Notes a failed listing; true if it has not failed like this before.
    fn failed(&self, backend: &ResourceName, reason: String) -> bool {
        self.listings.send_if_modified(|listings| {
            let listing = listings.entry(backend.clone()).or_default();
            let new = listing.failure.as_deref() != Some(&reason);
            listing.failure = Some(reason);
            new
        })
    }

    fn forget(&self, backend: &ResourceName) {
        self.listings.send_if_modified(|listings| listings.remove(backend).is_some());
    }
}

/// After a defect in a worker, so that it cannot take a core for itself.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// Lists the leased backends until `shutdown`.
pub async fn run(
    node: Arc<Node>,
    mut leases: watch::Receiver<Leases>,
    catalogs: Catalogs,
    shutdown: CancellationToken,
) {
    let mut in_service = node.watch();
    let mut workers: BTreeMap<ResourceName, (Arc<Upstream>, AbortHandle)> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = wanted(&node, &leases.borrow_and_update());
        in_service.borrow_and_update();
        workers.retain(|name, (upstream, task)| {
            // A backend that was changed is another one: it is listed anew.
            let same = wanted.get(name).is_some_and(|now| Arc::ptr_eq(now, upstream));
            let stays = same && !task.is_finished();
            if !stays {
                task.abort();
            }
            if !wanted.contains_key(name) {
                catalogs.forget(name);
            }
            stays
        });
        for (name, upstream) in wanted {
            workers.entry(name).or_insert_with(|| {
                let task = tasks.spawn(worker::run(upstream.clone(), catalogs.clone()));
                (upstream, task)
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = leases.changed() => if changed.is_err() { return },
            changed = in_service.changed() => if changed.is_err() { return },
            // Those that were aborted; the others never end by themselves.
            Some(ended) = tasks.join_next() => if ended.is_err_and(|error| error.is_panic()) {
                error!("listing a backend panicked, starting again");
                tokio::time::sleep(RESTART_AFTER).await;
            }
        }
    }
}

fn wanted(node: &Node, leases: &Leases) -> BTreeMap<ResourceName, Arc<Upstream>> {
    let upstreams = leases.iter().filter_map(|name| Some((name.clone(), node.upstream(name)?)));
    upstreams.filter(|(_, upstream)| !upstream.config().disabled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(tools: usize) -> Listed {
        Listed::new(Catalog { tools: vec![bytes::Bytes::from_static(b"{}"); tools], ..Default::default() })
    }

    #[test]
    fn a_failure_keeps_the_last_good_list() {
        let catalogs = Catalogs::default();
        let name: ResourceName = "time".parse().unwrap();
        assert!(catalogs.found(&name, listed(2)));
        assert!(!catalogs.found(&name, listed(2)));
        assert!(catalogs.failed(&name, "gone".into()));
        assert!(!catalogs.failed(&name, "gone".into()));
        let listing = catalogs.watch().borrow()[&name].clone();
        assert_eq!(listing.last_good.unwrap().hash, listed(2).hash);
        assert_eq!(listing.failure.as_deref(), Some("gone"));
        assert!(catalogs.found(&name, listed(2)));
        assert_eq!(catalogs.watch().borrow()[&name].failure, None);
    }

    #[test]
    fn a_lost_lease_takes_the_listing_with_it() {
        let catalogs = Catalogs::default();
        let name: ResourceName = "time".parse().unwrap();
        catalogs.found(&name, listed(1));
        catalogs.forget(&name);
        assert!(catalogs.watch().borrow().is_empty());
    }
}
