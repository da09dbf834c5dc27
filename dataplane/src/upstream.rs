//! The backends' side of a node: one [`Upstream`] per backend, whatever its
//! transport and its era.
//!
//! An upstream opens what it needs when a call needs it, keeps it by the
//! call's scope, and closes it when it is idle. It knows nothing of gateways,
//! names for clients, or doors.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, ResourceName},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::gateway::call::{Answer, Call, CallError, Caller, Client, Scope};

/// Placeholder of the shape; the transports replace this file.
pub struct Shared;

impl Shared {
    pub fn new(_tracker: TaskTracker, _shutdown: CancellationToken) -> Arc<Shared> {
        Arc::new(Shared)
    }
}

/// Placeholder of the shape; the transports replace this file.
pub struct Upstream {
    config: Arc<Backend>,
}

/// How a secret's value is had.
pub type Secrets = Arc<dyn Fn(&ResourceName) -> Result<String, String> + Send + Sync>;

impl Upstream {
    pub fn new(config: Arc<Backend>, _secrets: Secrets, _shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { config })
    }

    pub fn config(&self) -> &Arc<Backend> {
        &self.config
    }

    pub async fn call(&self, _call: &Call, _caller: &Caller) -> Result<Answer, CallError> {
        Err(CallError::Disabled { backend: self.config.name.clone() })
    }

    pub async fn notify(&self, _client: &Arc<Client>, _message: Bytes) {}

    pub async fn end_scope(&self, _scope: &Scope) {}

    pub async fn probe(&self) -> Result<ServerFacts, CallError> {
        Err(CallError::Disabled { backend: self.config.name.clone() })
    }

    pub fn set_facts(&self, _facts: &ServerFacts) {}

    pub async fn close(&self, _within: Duration) {}
}
