//! The descriptions that a node has made.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;

use super::document::{self, Set};
use crate::{
    downstream::{path, plain::kind::Failure},
    gateway::{kind::ListKind, view::GatewayView},
    mcp::{Era, RpcError},
    node::Table,
};

/// The descriptions of the gateways of a node, made when they are first asked
/// for and again when a list has changed. As many as there are gateways.
#[derive(Default)]
pub struct Shelf {
    gateways: Mutex<HashMap<ResourceName, Arc<Slot>>>,
}

/// One at a time makes it; the others wait and take it.
type Slot = tokio::sync::Mutex<Option<(blake3::Hash, Arc<Set>)>>;

impl Shelf {
    /// What describes a gateway, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn set(&self, table: &Table, view: &Arc<GatewayView>) -> Result<Arc<Set>, Failure> {
        let key = key_of(view);
        let slot = {
            let mut gateways = self.gateways.lock();
            let in_service = &table.snapshot.gateways;
            gateways.retain(|name, _| in_service.contains_key(name));
            gateways.entry(view.gateway.name.clone()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some((_, set)) = slot.as_ref().filter(|(have, _)| *have == key) {
            return Ok(set.clone());
        }
        let view = view.clone();
        // Thousands of schemas take longer than other requests may wait.
        let made = tokio::task::spawn_blocking(move || {
            document::render(&prefix(&view), &view.title, view.instructions.as_deref(), &pages(&view))
        });
        let set = Arc::new(made.await.map_err(|_| Failure::of(&RpcError::internal()))?);
        *slot = Some((key, set.clone()));
        Ok(set)
    }
}

fn pages(view: &GatewayView) -> Vec<Bytes> {
    view.list_in(Era::Modern, ListKind::Tools).pages.clone()
}

/// Of everything that a description is made from.
fn key_of(view: &GatewayView) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&view.list(ListKind::Tools).digest);
    for text in [view.title.as_str(), view.instructions.as_deref().unwrap_or_default()] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize()
}

/// What the paths of a gateway begin with.
fn prefix(view: &GatewayView) -> String {
    path::streamable(view.gateway.name.as_str()).trim_end_matches("/mcp").to_owned()
}
