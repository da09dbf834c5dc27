//! Whose a session with a backend is.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    gateway::call::{Client, Scope},
    mcp::ProtocolVersion,
};

/// Whose session it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LegKey {
    /// A legacy client's own, by its session.
    Session(Arc<str>),
    /// The node's.
    Node,
    /// Shared by the calls of a principal that have no session, if they would
    /// open it with the same words.
    Pooled { principal: Arc<str>, version: ProtocolVersion, capabilities: Bytes, info: Bytes },
}

impl LegKey {
    pub fn of(client: &Client) -> Self {
        match &client.scope {
            Scope::Session(id) => Self::Session(id.clone()),
            Scope::Node => Self::Node,
            Scope::Stateless => Self::Pooled {
                principal: client.identity.principal.clone(),
                version: client.version,
                capabilities: client.capabilities.clone(),
                info: client.info.clone(),
            },
        }
    }

    /// Whether the session belongs to one client, which may have state in it.
    pub fn is_dedicated(&self) -> bool {
        matches!(self, Self::Session(_))
    }
}
