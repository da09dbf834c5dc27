//! What a client has of one type: names and versions.
//!
//! Nearly every node has exactly what one view says, and views are shared
//! between the streams, so the common case costs one pointer and not a map.

use std::{collections::BTreeMap, sync::Arc};

use super::{View, Wanted};

/// Never holds a marker.
#[derive(Debug)]
pub(super) enum Held {
    Map(BTreeMap<Arc<str>, Arc<str>>),
    View(Arc<View>),
}

/// The version of what the client may or may not have; no item has it.
const UNKNOWN: &str = "";

impl Default for Held {
    fn default() -> Self {
        Self::Map(BTreeMap::new())
    }
}

impl Held {
    /// The part of a view that is wanted.
    pub fn wanted_of(view: &Arc<View>, wanted: &Wanted) -> Self {
        if wanted.all {
            return Self::View(view.clone());
        }
        let items = wanted.names.iter().filter_map(|name| view.items().get_key_value(name));
        Self::Map(items.map(|(name, item)| (name.clone(), item.version.clone())).collect())
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Map(map) => map.len(),
            Self::View(view) => view.items().len(),
        }
    }

    /// Whether there is anything that the client is known to have.
    pub fn has_any(&self) -> bool {
        self.iter().any(|(_, version)| &**version != UNKNOWN)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.version(name).is_some()
    }

    pub fn version(&self, name: &str) -> Option<&str> {
        match self {
            Self::Map(map) => map.get(name).map(|version| &**version),
            Self::View(view) => view.items().get(name).map(|item| &*item.version),
        }
    }

    /// In the order of the names' bytes.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&Arc<str>, &Arc<str>)> + '_> {
        match self {
            Self::Map(map) => Box::new(map.iter()),
            Self::View(view) => Box::new(view.items().iter().map(|(name, item)| (name, &item.version))),
        }
    }

    /// Whether it is all of the view, and nothing else.
    pub fn is_whole(&self, whole: &Arc<View>) -> bool {
        matches!(self, Self::View(view) if Arc::ptr_eq(view, whole))
    }

    pub fn insert(&mut self, name: Arc<str>, version: Arc<str>) {
        self.map().insert(name, version);
    }

    /// From now on it is not known whether the client has this, so the next
    /// push either sends it or says that it is gone.
    pub fn forget(&mut self, name: &Arc<str>) {
        self.insert(name.clone(), UNKNOWN.into());
    }

    /// [`Held::forget`], for everything.
    pub fn forget_all(&mut self) {
        self.map().values_mut().for_each(|version| *version = UNKNOWN.into());
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.map().retain(|name, _| keep(name));
    }

    fn map(&mut self) -> &mut BTreeMap<Arc<str>, Arc<str>> {
        if let Self::View(view) = self {
            let items = view.items().iter();
            *self = Self::Map(items.map(|(name, item)| (name.clone(), item.version.clone())).collect());
        }
        match self {
            Self::Map(map) => map,
            Self::View(_) => unreachable!("it has just become a map"),
        }
    }
}
