//! What a node serves from: one generation and one catalog revision, checked
//! and indexed, immutable.
//!
//! Built from the items of a push, whole or not at all. Nothing here does I/O;
//! a call loads the snapshot once and passes it down.

use std::{collections::BTreeMap, sync::Arc};

use mt_proto::{
    discovery::{self, ItemName},
    pb::discovery::{Catalog as CatalogPart, Item, item},
    resource::{Compiled, Key, ResourceName, ResourceSet, Transport},
};

use crate::{
    gateway::{catalog::Catalog, offered, view::GatewayView},
    hash::HashMap,
};

/// An immutable, validated set of resources and catalogs.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub generation: u64,
    pub catalog_revision: u64,
    /// The resources as they were written, for showing them.
    pub resources: ResourceSet,
    pub config: Compiled,
    pub catalogs: BTreeMap<ResourceName, Arc<Catalog>>,
    pub gateways: HashMap<ResourceName, Arc<GatewayView>>,
}

/// Why one item cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The item's name, such as `backend/time`.
    pub resource: String,
    pub reason: String,
}

impl Snapshot {
    /// Builds a snapshot from all items of a view, without its marker.
    ///
    /// # Errors
    /// Every reason not to serve it. A control plane of the same version has
    /// checked the same things, so this means a skew of versions.
    pub fn build(
        generation: u64,
        catalog_revision: u64,
        items: &BTreeMap<String, Item>,
    ) -> Result<Self, Vec<Refusal>> {
        Self::build_after(&Self::default(), generation, catalog_revision, items)
    }

    /// As [`build`](Self::build), where what is the same as in an earlier
    /// snapshot is shared with it, so that it is neither checked nor indexed
    /// again.
    ///
    /// # Errors
    /// As [`build`](Self::build): the same, whatever was before.
    pub fn build_after(
        before: &Self,
        generation: u64,
        catalog_revision: u64,
        items: &BTreeMap<String, Item>,
    ) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let mut resources = ResourceSet::default();
        let mut parts: BTreeMap<ResourceName, BTreeMap<u32, CatalogPart>> = BTreeMap::new();
        for (name, item) in items {
            if let Err(reason) = place(name, item, &before.resources, &mut resources, &mut parts) {
                refusals.push(Refusal { resource: name.clone(), reason });
            }
        }
        let config = match resources.compile_after(&before.config) {
            Ok(config) => config,
            Err(problems) => {
                refusals.extend(problems.into_iter().map(|p| Refusal {
                    resource: p.kind.map_or(p.name.clone(), |kind| format!("{kind}/{}", p.name)),
                    reason: format!("{}: {}", p.path, p.message),
                }));
                Compiled::default()
            }
        };
        let mut catalogs = BTreeMap::new();
        for (backend, parts) in parts {
            match discovery::join_catalog(parts.into_values()) {
                Ok(whole) => _ = catalogs.insert(backend, Arc::new(Catalog::new(whole))),
                Err(error) => refusals
                    .push(Refusal { resource: format!("catalog/{backend}"), reason: error.to_string() }),
            }
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        for (name, backend) in &config.backends {
            if let Transport::Agents(tool_set) = &backend.transport {
                let same = before.config.backends.get(name).filter(|same| Arc::ptr_eq(same, backend));
                let known = same.and_then(|_| before.catalogs.get(name)).cloned();
                let catalog = known.unwrap_or_else(|| Arc::new(offered::catalog(tool_set)));
                catalogs.insert(name.clone(), catalog);
            }
        }
        let gateways = config
            .gateways
            .values()
            .map(|gateway| (gateway.name.clone(), Arc::new(GatewayView::new(gateway, &config, &catalogs))))
            .collect();
        Ok(Self { generation, catalog_revision, resources, config, catalogs, gateways })
    }
}

fn place(
    name: &str,
    item: &Item,
    before: &ResourceSet,
    resources: &mut ResourceSet,
    parts: &mut BTreeMap<ResourceName, BTreeMap<u32, CatalogPart>>,
) -> Result<(), String> {
    match (ItemName::parse(name), &item.item) {
        (Some(ItemName::Resource(key)), Some(item::Item::Resource(resource))) => {
            if Key::of(resource).as_ref() != Some(&key) {
                return Err("the resource in it has another kind or name".to_owned());
            }
            let known = before.get(&key).filter(|known| ***known == *resource).cloned();
            resources.insert(key, known.unwrap_or_else(|| Arc::new(resource.clone())));
            Ok(())
        }
        (Some(ItemName::Catalog { backend, part }), Some(item::Item::Catalog(catalog))) => {
            parts.entry(backend).or_default().insert(part, catalog.clone());
            Ok(())
        }
        (Some(ItemName::Marker), _) => Err("a marker is not an item of a view".to_owned()),
        _ => Err("this version does not know such an item".to_owned()),
    }
}
