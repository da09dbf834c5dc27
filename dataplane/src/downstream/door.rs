//! What all doors share, and what each request is served with.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use tokio_util::task::TaskTracker;

use super::{
    auth::Auth,
    grpc::services::Services,
    inbox::Streams,
    meters::Meters,
    openapi::shelf::Shelf,
    plain::tail::{Tails, Whose},
    session::{Session, Sessions},
};
use crate::{
    gateway::{call::Identity, view::GatewayView},
    mcp::RpcError,
    node::{Node, Table},
};

/// The longest body of a request.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a client may take to send the body.
pub const BODY_MAX: Duration = Duration::from_secs(60);
/// How long requests that are under way may take when the node stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What the doors of a node are told at its start.
#[derive(Clone, Debug, Default)]
pub struct DoorOptions {
    pub node_id: String,
    /// Hosts that clients may name besides loopback's; `*` is any. In lower
    /// case, without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins that browsers may come from besides loopback's; `*` is any.
    pub allowed_origins: Vec<String>,
}

/// What all doors of a node share.
pub struct Doors {
    pub node: Arc<Node>,
    pub options: DoorOptions,
    pub sessions: Sessions,
    /// Event streams that POSTs belong to.
    pub streams: Streams,
    /// Connections that carry messages both ways: they have a drain of their own.
    pub conversations: TaskTracker,
    pub auth: Auth,
    pub meters: Meters,
    /// Who follows the logs of calls that have no session.
    pub tails: Arc<Tails>,
    /// Descriptions of the gateways.
    pub shelf: Shelf,
    pub grpc: Services,
}

impl Doors {
    pub fn new(node: Arc<Node>, options: DoorOptions) -> Arc<Self> {
        Arc::new(Self {
            sessions: Sessions::new(node.relay().clone()),
            streams: Streams::default(),
            conversations: TaskTracker::new(),
            meters: Meters::new(),
            auth: Auth::new(node.tracker.clone()),
            tails: Tails::new(),
            shelf: Shelf::default(),
            grpc: Services::default(),
            options,
            node,
        })
    }

    /// What a request to a gateway is served with.
    ///
    /// # Errors
    /// What the client is told, and the status for doors that have one.
    pub fn enter(
        self: &Arc<Self>,
        gateway: &str,
        identity: Arc<Identity>,
    ) -> Result<Door, (StatusCode, RpcError)> {
        let table = self.node.table();
        if table.snapshot.generation == 0 {
            return Err((StatusCode::SERVICE_UNAVAILABLE, RpcError::not_ready()));
        }
        let Some(view) = table.snapshot.gateways.get(gateway).cloned() else {
            let error = RpcError::invalid_request(format!("there is no gateway {gateway:?} on this node"));
            return Err((StatusCode::NOT_FOUND, error));
        };
        Ok(Door {
            identity,
            node: self.node.clone(),
            doors: self.clone(),
            table,
            view,
            session: None,
            relayed: false,
            local: false,
        })
    }
}

/// What every request needs: the configuration it is served with, and its gateway.
#[derive(Clone)]
pub struct Door {
    pub doors: Arc<Doors>,
    pub node: Arc<Node>,
    pub table: Arc<Table>,
    pub view: Arc<GatewayView>,
    pub identity: Arc<Identity>,
    /// The legacy session that the request names, where it has been looked up.
    pub session: Option<Arc<Session>>,
    /// Another node has handed the request over: it goes no further.
    pub relayed: bool,
    /// Whether the request is known to come from this machine.
    pub local: bool,
}

impl Door {
    /// Whose calls this caller may follow; none for somebody without a name from
    /// another machine, who may be anybody.
    pub fn tailed(&self) -> Option<Whose> {
        Whose::of(&self.view.gateway.name, &self.identity, self.local)
    }
}
