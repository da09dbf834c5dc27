//! A push beside what is in service, until its marker says that it is whole.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use prost::Message;

use mt_proto::{
    discovery::{self, MARKER, TYPE_ITEM, UnpackError},
    pb::{
        ads::{DeltaDiscoveryResponse, Resource},
        discovery::{Item, Marker, item},
    },
};

use super::Broken;
use crate::{
    discovery::{Entry, View},
    snapshot::Refusal,
};

/// How many items a node takes.
pub const VIEW_ITEMS_MAX: usize = 200_000;
/// How many bytes of items one push may bring.
pub const PUSH_BYTES_MAX: usize = 512 << 20;

/// A push, until its marker comes.
#[derive(Debug)]
pub struct Stage {
    /// The `system_version_info` of its responses.
    pub label: String,
    /// None: removed.
    changes: BTreeMap<String, Option<Arc<Entry>>>,
    refusals: Vec<Refusal>,
    bytes: usize,
}

impl Stage {
    pub fn new(label: String) -> Self {
        Self { label, changes: BTreeMap::new(), refusals: vec![], bytes: 0 }
    }

    /// Takes one response; gives the marker if it was in it.
    pub fn take(&mut self, response: DeltaDiscoveryResponse) -> Result<Option<Marker>, Broken> {
        let mut marker = None;
        for name in response.removed_resources {
            self.changes.insert(name, None);
        }
        for resource in response.resources {
            if resource.name == MARKER {
                marker = Some(read_marker(&resource).ok_or(Broken::Marker)?);
            } else {
                self.take_resource(resource)?;
            }
        }
        if self.changes.len() > VIEW_ITEMS_MAX || self.bytes > PUSH_BYTES_MAX {
            return Err(Broken::TooLarge);
        }
        Ok(marker)
    }

    fn take_resource(&mut self, resource: Resource) -> Result<(), Broken> {
        let Resource { name, version, resource: content, .. } = resource;
        match content {
            Some(any) if any.type_url == TYPE_ITEM => {
                if discovery::version_of(&any.value) != version {
                    return Err(Broken::Content { name });
                }
                let content = Bytes::from(any.value);
                self.bytes += name.len() + content.len();
                if let Err(error) = Item::decode(content.clone()) {
                    self.refuse(&name, UnpackError::Decode(error).to_string());
                }
                self.changes.insert(name, Some(Arc::new(Entry { version, content })));
            }
            Some(any) => self.refuse(&name, UnpackError::Type(any.type_url).to_string()),
            None => self.refuse(&name, UnpackError::Missing.to_string()),
        }
        Ok(())
    }

    fn refuse(&mut self, name: &str, reason: String) {
        self.refusals.push(Refusal { resource: name.to_owned(), reason });
    }

    /// R15: the view that this push makes of `base`, if it is the one that the
    /// marker means, and what of it cannot be read.
    pub fn complete(self, base: &View, marker: &Marker) -> Result<(View, Vec<Refusal>), Broken> {
        let mut entries = base.entries.clone();
        for (name, change) in self.changes {
            match change {
                Some(entry) => _ = entries.insert(name, entry),
                None => _ = entries.remove(&name),
            }
        }
        let view = View { generation: marker.generation, catalog_revision: marker.catalog_revision, entries };
        let have = view.entries.len();
        if have > VIEW_ITEMS_MAX {
            return Err(Broken::TooLarge);
        }
        if self.refusals.is_empty() {
            if have as u64 != marker.item_count {
                return Err(Broken::Count { said: marker.item_count, have: have as u64 });
            }
            if view.hash()[..] != marker.view_hash[..] {
                return Err(Broken::Hash);
            }
        }
        Ok((view, self.refusals))
    }
}

fn read_marker(resource: &Resource) -> Option<Marker> {
    match discovery::unpack_item(resource.resource.as_ref()) {
        Ok(Item { item: Some(item::Item::Marker(marker)) }) => Some(marker),
        _ => None,
    }
}
