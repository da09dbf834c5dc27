//! A legacy client, as a modern backend sees it.

use std::sync::Arc;

use super::abilities;
use crate::{
    gateway::call::{CallError, Client},
    mcp::{
        Key, Limits, Params,
        meta::{LogLevel, key},
        splice::Patch,
        text,
        version::LATEST_MODERN,
    },
    node::Node,
};

/// What it says of itself with each request.
pub struct Speaker {
    pub client: Arc<Client>,
    level: Option<LogLevel>,
}

impl Speaker {
    pub fn of(node: &Node, client: &Client) -> Self {
        Self {
            level: node.bridged.level(&client.scope),
            client: Arc::new(Client {
                version: LATEST_MODERN,
                capabilities: abilities::to_modern(client.version, &client.capabilities),
                // Whatever belongs to no call goes another way.
                events: None,
                ..client.clone()
            }),
        }
    }

    /// Params with all that a modern request says of itself.
    ///
    /// # Errors
    /// They are too deep or too many now.
    pub fn params(&self, params: &Params) -> Result<Params, CallError> {
        let mut patch = params
            .patch()
            .set_in("_meta", key::PROTOCOL_VERSION, text::encode(LATEST_MODERN.as_str()))
            .set_in("_meta", key::CLIENT_CAPABILITIES, self.client.capabilities.clone());
        if !self.client.info.is_empty() {
            patch = patch.set_in("_meta", key::CLIENT_INFO, self.client.info.clone());
        }
        if let Some(level) = self.level {
            patch = patch.set_in("_meta", key::LOG_LEVEL, text::encode(level.as_str()));
        }
        if params.peek(Key::Task).is_some() {
            patch = patch.remove(Key::Task.as_str());
        }
        scanned(patch)
    }
}

/// # Errors
/// They are too deep or too many now.
pub fn scanned(patch: Patch) -> Result<Params, CallError> {
    Params::scan(&patch.finish(), Limits::BACKEND)
        .map_err(|error| CallError::InvalidParams { reason: format!("params: {error}") })
}
