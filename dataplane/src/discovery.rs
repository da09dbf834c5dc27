//! What the control plane pushes, from the wire to the door of the node.
//!
//! [`machine`] decides: what is staged, what may go into service, what is
//! answered. [`client`] carries bytes for it. What passes between them, to the
//! snapshot and to the copy on disk, is a [`View`].

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;

use mt_proto::{
    discovery::{self, MARKER, TYPE_ITEM},
    pb::{
        ads::{DeltaDiscoveryResponse, Resource},
        discovery::{Item, Marker, item},
    },
};
use prost_types::Any;

use machine::{Broken, Stage};

pub mod client;
pub mod machine;

/// Everything one push brought a node to: the items of one generation and one
/// catalog revision. Cheap to derive the next one from: entries are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub generation: u64,
    pub catalog_revision: u64,
    /// By name; the marker is not among them.
    pub entries: BTreeMap<String, Arc<Entry>>,
}

/// One item, as the bytes that came: a copy on disk keeps even the fields that
/// this version does not know, so its version still names its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: String,
    /// An encoded [`Item`].
    pub content: Bytes,
}

impl View {
    /// As shown to people and sent as `system_version_info`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.generation, self.catalog_revision)
    }

    /// The hash that a marker names.
    pub fn hash(&self) -> [u8; 32] {
        discovery::view_hash(self.entries.iter().map(|(name, entry)| (name.as_str(), entry.version.as_str())))
    }

    /// Names and versions, for taking up where a lost stream ended.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.version.clone())).collect()
    }

    /// The push that brings a node from nothing to this view: what is kept on disk.
    pub fn to_push(&self) -> DeltaDiscoveryResponse {
        let marker = Marker {
            generation: self.generation,
            catalog_revision: self.catalog_revision,
            item_count: self.entries.len() as u64,
            view_hash: self.hash().to_vec().into(),
        };
        let marker = discovery::pack_item(&Item { item: Some(item::Item::Marker(marker)) });
        let resource = |name: &str, version: &str, any: Any| Resource {
            name: name.to_owned(),
            version: version.to_owned(),
            resource: Some(any),
            ..Default::default()
        };
        let items = self.entries.iter().map(|(name, entry)| {
            let any = Any { type_url: TYPE_ITEM.to_owned(), value: entry.content.to_vec() };
            resource(name, &entry.version, any)
        });
        DeltaDiscoveryResponse {
            system_version_info: self.version(),
            type_url: TYPE_ITEM.to_owned(),
            resources: items.chain([resource(MARKER, &self.version(), marker)]).collect(),
            ..Default::default()
        }
    }

    /// What [`to_push`](Self::to_push) was made of.
    ///
    /// # Errors
    /// If it is not a whole and undamaged push.
    pub fn from_push(push: DeltaDiscoveryResponse) -> Result<Self, Broken> {
        let mut stage = Stage::new(push.system_version_info.clone());
        let marker = stage.take(push)?.ok_or(Broken::Marker)?;
        match stage.complete(&View::default(), &marker)? {
            (view, refusals) if refusals.is_empty() => Ok(view),
            (_, refusals) => Err(Broken::Content { name: refusals[0].resource.clone() }),
        }
    }

    /// The items, decoded. One that does not decode is left out: the machine
    /// never lets such a view out of its hands.
    pub fn items(&self) -> BTreeMap<String, Item> {
        let decoded = |(name, entry): (&String, &Arc<Entry>)| {
            Some((name.clone(), Item::decode(entry.content.clone()).ok()?))
        };
        self.entries.iter().filter_map(decoded).collect()
    }
}
