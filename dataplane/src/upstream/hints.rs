//! Tells the node that what a backend offers may have changed.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::{
    gateway::call::{Caller, Client, Scope},
    mcp::{method::Method, splice},
};

/// What a server says when one of its lists has changed.
const CHANGES: [Method; 3] =
    [Method::ToolsListChanged, Method::PromptsListChanged, Method::ResourcesListChanged];

/// Where `list_changed` of any leg goes: to whoever lists for the node.
#[derive(Debug, Default)]
pub struct Hints {
    listener: ArcSwapOption<Caller>,
}

impl Hints {
    /// Remembers where the node listens, if this client is the node.
    pub fn listen(&self, client: &Client) {
        if let (Scope::Node, Some(events)) = (&client.scope, &client.events) {
            self.listener.store(Some(Arc::new(events.clone())));
        }
    }

    /// Passes a notification on if it is a hint; true if it is one. Nobody
    /// waits: when the listener has many it knows already.
    pub fn pass(&self, method: &Method, message: &Bytes) -> bool {
        let hint = CHANGES.contains(method);
        if hint && let Some(listener) = &*self.listener.load() {
            listener.try_notify(message.clone());
        }
        hint
    }

    /// Says that something may have been missed.
    pub fn missed(&self) {
        for method in &CHANGES {
            self.pass(method, &splice::notification(method, None));
        }
    }
}
