//! The server's half of discovery: what a node is to have, and how it gets it.
//!
//! Map: this file says what a view is · `machine` decides what one stream is
//! sent, without I/O · `server` carries it. Rules: docs/discovery.md.

pub mod machine;
pub mod server;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use mt_proto::discovery as shared;

/// Which configuration and which catalog: the version of a node's view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    pub generation: u64,
    pub catalog_revision: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.catalog_revision)
    }
}

/// One item of a view: the version and the encoded message. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct ViewItem {
    pub version: Arc<str>,
    pub body: Bytes,
}

impl ViewItem {
    /// An item whose version is the hash of its content.
    pub fn new(body: Bytes) -> Self {
        Self { version: shared::version_of(&body).into(), body }
    }
}

/// The version only: a body may hold keys.
impl fmt::Debug for ViewItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ViewItem").field(&self.version).finish()
    }
}

/// Everything of one type that a client with certain labels is to have.
#[derive(Debug)]
pub struct View {
    items: BTreeMap<Arc<str>, ViewItem>,
    stamp: Option<Stamp>,
    hash: [u8; 32],
}

impl View {
    /// A node's view, whose pushes end with a marker.
    pub fn marked(stamp: Stamp, items: BTreeMap<Arc<str>, ViewItem>) -> Self {
        Self { stamp: Some(stamp), ..Self::plain(items) }
    }

    /// A view of a type that has no marker.
    pub fn plain(items: BTreeMap<Arc<str>, ViewItem>) -> Self {
        let hash = shared::view_hash(items.iter().map(|(name, item)| (&**name, &*item.version)));
        Self { items, stamp: None, hash }
    }

    /// In the order of the names' bytes; a marker is never among them.
    pub fn items(&self) -> &BTreeMap<Arc<str>, ViewItem> {
        &self.items
    }

    /// None for a type without a marker.
    pub fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// See [`shared::view_hash`].
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Views that are alike need not be told apart.
    fn id(&self) -> ViewId {
        (self.stamp, self.hash)
    }

    /// What is shown to people as the version of a response.
    fn label(&self) -> String {
        match self.stamp {
            Some(stamp) => stamp.to_string(),
            None => self.hash[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

type ViewId = (Option<Stamp>, [u8; 32]);
