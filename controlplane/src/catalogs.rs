//! The catalog log: what nodes report goes in when it is new, and out when its
//! backend is gone.

use std::sync::Arc;

use mt_proto::{
    pb::discovery::Catalog,
    resource::{Key, Kind, ResourceName},
};
use prost::Message as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    catalog::{Refusal, check, key_of},
    fleet::Fleet,
    publisher::Published,
    store::{self, LogId, Note, Store, Write},
};

/// What could not be done with a report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("cannot commit the catalog")]
    Store(#[from] store::Error),
}

/// The catalog log, as far as nodes move it.
#[derive(Clone)]
pub struct Catalogs {
    store: Arc<dyn Store>,
    published: watch::Receiver<Arc<Published>>,
    fleet: Fleet,
}

impl Catalogs {
    pub fn new(store: Arc<dyn Store>, published: watch::Receiver<Arc<Published>>, fleet: Fleet) -> Self {
        Self { store, published, fleet }
    }

    /// Takes a whole report from a node. The answer is the revision that holds
    /// it. Dropping the future does not take back a commit that has begun.
    ///
    /// # Errors
    /// If it is refused, or the store fails.
    pub async fn report(&self, node_id: &str, catalog: Catalog) -> Result<u64, Error> {
        let backend = catalog.backend.clone();
        if !self.is_configured(&backend) {
            return Err(Refusal::NoBackend(backend).into());
        }
        if self.fleet.lister(&backend).as_deref() != Some(node_id) {
            return Err(Refusal::NotLister(backend).into());
        }
        check(&catalog)?;
        let (key, value) = (key_of(&backend), catalog.encode_to_vec());
        let state = self.store.state(LogId::Catalog, None).await?;
        if state.entries.get(&key).is_some_and(|entry| entry.value == value) {
            debug!(backend, "catalog is unchanged");
            return Ok(state.revision);
        }
        let note = Note { author: format!("node {node_id}"), message: "reported by its lister".to_owned() };
        let commit = self.store.commit(LogId::Catalog, None, vec![Write::put(key, value)], note).await?;
        info!(backend, tools = catalog.tools.len(), catalog_revision = commit.revision, "catalog changed");
        Ok(commit.revision)
    }

    fn is_configured(&self, backend: &str) -> bool {
        let name = backend.parse::<ResourceName>();
        name.is_ok_and(|name| self.published.borrow().set.get(&Key::new(Kind::Backend, name)).is_some())
    }

    /// Removes the catalogs of backends that are gone, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.published.mark_changed();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.published.changed() => if changed.is_err() { return },
            }
            self.published.mark_unchanged();
            let published = self.published.borrow().clone();
            let gone: Vec<_> = published.catalogs().filter(|backend| !self.is_configured(backend)).collect();
            if gone.is_empty() {
                continue;
            }
            let writes = gone.iter().map(|backend| Write::delete(key_of(backend))).collect();
            let note = Note { author: "control plane".to_owned(), message: "backend is gone".to_owned() };
            match self.store.commit(LogId::Catalog, None, writes, note).await {
                Ok(_) => info!(backends = gone.len(), "removed catalogs of backends that are gone"),
                // They harm nobody: the next change tries again.
                Err(error) => warn!(%error, "cannot remove catalogs of backends that are gone"),
            }
        }
    }
}
