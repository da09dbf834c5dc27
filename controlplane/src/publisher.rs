//! Turns what is in the store into what nodes are to have.
//!
//! Follows both logs, waits until a burst is over, and publishes one immutable
//! [`Published`]. Views of it are made on demand, one for each set of labels,
//! and shared by all streams that have these labels.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use mt_proto::{
    discovery as shared,
    pb::{
        discovery::{Catalog, Item, item},
        resource::Resource,
    },
    resource::{Key, Kind, ResourceSet},
};
use parking_lot::Mutex;
use prost::Message;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    blocking, catalog,
    discovery::{Stamp, View, ViewItem},
    stats::Counted,
    store::{self, BlobHash, Entry, LogId, State, Store},
};

/// A burst is over when nothing has changed for this long.
pub const QUIET: Duration = Duration::from_millis(50);
/// A burst is published after this long, over or not.
pub const BURST_MAX: Duration = Duration::from_millis(500);
/// After a store that could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// Labels of a node.
pub type Labels = BTreeMap<String, String>;

/// One configuration with one catalog.
pub struct Published {
    pub stamp: Stamp,
    pub set: ResourceSet,
    resources: BTreeMap<Key, Arc<Decoded<Resource>>>,
    /// By the name of the backend.
    catalogs: BTreeMap<String, Arc<Decoded<Catalog>>>,
    parts: Mutex<HashMap<Labels, Cell>>,
    /// What each gateway has; made when it is first asked for.
    counted: OnceLock<Vec<Counted>>,
}

/// What is kept of an entry of the store from one publication to the next.
struct Decoded<T> {
    hash: BlobHash,
    message: Arc<T>,
    items: Vec<(Arc<str>, ViewItem)>,
}

/// A part that is made when it is first needed.
#[derive(Default)]
struct Cell {
    part: Arc<OnceLock<Part>>,
    /// Somebody has asked for it, and may ask for the next one too.
    used: bool,
}

/// What nodes with certain labels serve.
#[derive(Clone)]
struct Part {
    view: Arc<View>,
    backends: Arc<[Arc<str>]>,
}

impl Published {
    /// Nothing at all.
    pub fn empty() -> Self {
        Self {
            stamp: Stamp::default(),
            set: ResourceSet::default(),
            resources: BTreeMap::new(),
            catalogs: BTreeMap::new(),
            parts: Mutex::default(),
            counted: OnceLock::new(),
        }
    }

    /// What these states say. What is the same as in `before` is taken from
    /// there; views that were asked for there are made at once. Takes a while.
    pub fn new(before: &Published, config: &State, catalog: &State) -> Self {
        let mut set = ResourceSet::default();
        let mut resources = BTreeMap::new();
        for (text, entry) in &config.entries {
            let Some(key) = Key::parse(text) else {
                warn!(key = text, "the configuration has an entry that is no resource");
                continue;
            };
            let known = before.resources.get(&key).filter(|known| known.hash == entry.hash);
            let Some(decoded) = known.cloned().or_else(|| Decoded::resource(text, entry)) else { continue };
            set.insert(key.clone(), decoded.message.clone());
            resources.insert(key, decoded);
        }
        let mut catalogs = BTreeMap::new();
        for (text, entry) in &catalog.entries {
            let Some(backend) = catalog::backend_of(text) else {
                warn!(key = text, "the catalog has an entry that is no catalog");
                continue;
            };
            let known = before.catalogs.get(backend).filter(|known| known.hash == entry.hash);
            let Some(decoded) = known.cloned().or_else(|| Decoded::catalog(text, entry)) else { continue };
            catalogs.insert(backend.to_owned(), decoded);
        }
        let stamp = Stamp { generation: config.revision, catalog_revision: catalog.revision };
        let published =
            Self { stamp, set, resources, catalogs, parts: Mutex::default(), counted: OnceLock::new() };
        let used = before.parts.lock().iter().filter(|(_, cell)| cell.used).map(|(l, _)| l.clone()).collect();
        published.prepare(used);
        published
    }

    /// So that nobody has to wait for a view in the middle of other work.
    fn prepare(&self, wanted: Vec<Labels>) {
        for labels in wanted {
            let part = OnceLock::from(self.make_part(&labels));
            self.parts.lock().insert(labels, Cell { part: Arc::new(part), used: false });
        }
    }

    /// What a node with these labels is to have.
    pub fn view_for(&self, labels: &Labels) -> Arc<View> {
        self.part_for(labels).view
    }

    /// The names of the backends that a node with these labels serves and that
    /// are not switched off, in order.
    pub fn backends_for(&self, labels: &Labels) -> Arc<[Arc<str>]> {
        self.part_for(labels).backends
    }

    /// The catalog of a backend, whole.
    pub fn catalog(&self, backend: &str) -> Option<&Arc<Catalog>> {
        self.catalogs.get(backend).map(|decoded| &decoded.message)
    }

    /// What each gateway has, in the order of their names. Takes a while when it is
    /// first asked for.
    pub fn counted(&self) -> &[Counted] {
        self.counted.get_or_init(|| {
            // What is published has compiled before.
            let config = self.set.compile().unwrap_or_default();
            let catalog = |name: &str| self.catalog(name).map(Arc::as_ref);
            config.gateways.values().map(|gateway| Counted::of(gateway, &config, catalog)).collect()
        })
    }

    /// The names of the backends that have a catalog.
    pub fn catalogs(&self) -> impl Iterator<Item = &str> {
        self.catalogs.keys().map(String::as_str)
    }

    fn part_for(&self, labels: &Labels) -> Part {
        // The lock is for the table only: making a view may take a while, and
        // others wait for it only if they have the same labels.
        let part = {
            let mut parts = self.parts.lock();
            let cell = parts.entry(labels.clone()).or_default();
            cell.used = true;
            cell.part.clone()
        };
        part.get_or_init(|| self.make_part(labels)).clone()
    }

    fn make_part(&self, labels: &Labels) -> Part {
        let mut items = BTreeMap::new();
        let mut backends = vec![];
        for (key, resource) in self.set.subset_for(labels).iter() {
            let Some(decoded) = self.resources.get(key) else { continue };
            items.extend(decoded.items.iter().cloned());
            if key.kind != Kind::Backend {
                continue;
            }
            if let Some(catalog) = self.catalogs.get(key.name.as_str()) {
                items.extend(catalog.items.iter().cloned());
            }
            if !is_disabled(resource) {
                backends.push(key.name.as_str().into());
            }
        }
        Part { view: Arc::new(View::marked(self.stamp, items)), backends: backends.into() }
    }
}

fn is_disabled(resource: &Resource) -> bool {
    use mt_proto::pb::resource::resource::Spec;
    matches!(&resource.spec, Some(Spec::Backend(backend)) if backend.disabled)
}

impl Decoded<Resource> {
    fn resource(name: &str, entry: &Entry) -> Option<Arc<Self>> {
        let message = Arc::new(decode(name, &entry.value)?);
        let item = ViewItem::new(shared::encode_resource_item(&entry.value));
        Some(Arc::new(Self { hash: entry.hash, message, items: vec![(name.into(), item)] }))
    }
}

impl Decoded<Catalog> {
    fn catalog(name: &str, entry: &Entry) -> Option<Arc<Self>> {
        let message: Catalog = decode(name, &entry.value)?;
        let parts = match shared::split_catalog(message.clone()) {
            Ok(parts) => parts,
            Err(error) => {
                warn!(key = name, %error, "a catalog cannot be pushed");
                return None;
            }
        };
        let items = parts.into_iter().enumerate().map(|(index, part)| {
            let body = Bytes::from(Item { item: Some(item::Item::Catalog(part)) }.encode_to_vec());
            (format!("{name}/{index}").into(), ViewItem::new(body))
        });
        Some(Arc::new(Self { hash: entry.hash, items: items.collect(), message: Arc::new(message) }))
    }
}

fn decode<T: Message + Default>(key: &str, value: &Bytes) -> Option<T> {
    T::decode(value.clone())
        .inspect_err(|error| warn!(key, %error, "an entry of the store does not decode"))
        .ok()
}

/// Reads the store and keeps what is published up to date.
pub struct Publisher {
    store: Arc<dyn Store>,
    published: watch::Sender<Arc<Published>>,
    config: watch::Receiver<u64>,
    catalog: watch::Receiver<u64>,
}

impl Publisher {
    /// Publishes what is in the store now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let (mut config, mut catalog) = (store.watch(LogId::Config), store.watch(LogId::Catalog));
        config.mark_unchanged();
        catalog.mark_unchanged();
        let (published, _) = watch::channel(Arc::new(Published::empty()));
        let publisher = Self { store, published, config, catalog };
        publisher.publish().await?;
        Ok(publisher)
    }

    /// Follows what is published.
    pub fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Publishes every change, until shutdown or until the store is closed.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                open = self.changed() => if !open { return },
            }
            let Err(error) = self.publish().await else {
                // The first change goes out at once; those after it together.
                self.quiet().await;
                continue;
            };
            warn!(error = %error, "cannot read the store, nodes keep what they have");
            self.config.mark_changed();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.config.changed() => changed.is_ok(),
            changed = self.catalog.changed() => changed.is_ok(),
        }
    }

    /// Waits for the end of a burst that may follow a publication; what came
    /// meanwhile stays marked as changed.
    async fn quiet(&mut self) {
        let end = Instant::now() + BURST_MAX;
        let mut seen = false;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            match tokio::time::timeout_at(quiet, self.changed()).await {
                Ok(true) if Instant::now() < end => seen = true,
                Ok(_) | Err(_) => break,
            }
        }
        if seen {
            self.config.mark_changed();
        }
    }

    async fn publish(&self) -> Result<(), store::Error> {
        let config = self.store.state(LogId::Config, None).await?;
        let catalog = self.store.state(LogId::Catalog, None).await?;
        let before = self.published.borrow().clone();
        if (before.stamp.generation, before.stamp.catalog_revision) == (config.revision, catalog.revision) {
            return Ok(());
        }
        let published = blocking(move || Published::new(&before, &config, &catalog)).await;
        info!(version = %published.stamp, resources = published.set.len(), "publishing");
        metrics::gauge!("mt_config_generation").set(published.stamp.generation as f64);
        metrics::gauge!("mt_catalog_revision").set(published.stamp.catalog_revision as f64);
        self.published.send_replace(Arc::new(published));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
