//! FleetService: shows the nodes and the backends. Changes nothing but the keys
//! of the fleet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mt_proto::{
    pb::control::{
        FleetBackend, GatewayStats, GetStatsRequest, GetStatsResponse, ListBackendsRequest,
        ListBackendsResponse, ListNodesRequest, ListNodesResponse, ListToolsRequest, ListToolsResponse,
        NodeStatus, RotateKeysRequest, RotateKeysResponse, fleet_service_server::FleetService,
    },
    resource::{Key, Kind},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::error;

use crate::{
    fleet::{Fleet, NodeInfo},
    keyring::{self, Keys},
    publisher::Published,
};

/// Of the tools in one answer; a larger one is alone in its.
const TOOLS_BYTES_MAX: usize = 2 << 20;
/// The longest that nodes may be given to take a new key.
const SETTLE_MAX: Duration = Duration::from_secs(3600);

/// The service.
pub struct Service {
    fleet: Fleet,
    published: watch::Receiver<Arc<Published>>,
    keys: Keys,
}

impl Service {
    pub fn new(fleet: Fleet, published: watch::Receiver<Arc<Published>>, keys: Keys) -> Self {
        Self { fleet, published, keys }
    }
}

#[tonic::async_trait]
impl FleetService for Service {
    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let stamp = self.published.borrow().stamp;
        Ok(Response::new(ListNodesResponse {
            nodes: self.fleet.nodes().into_iter().map(node).collect(),
            generation: stamp.generation,
            catalog_revision: stamp.catalog_revision,
        }))
    }

    async fn rotate_keys(
        &self,
        request: Request<RotateKeysRequest>,
    ) -> Result<Response<RotateKeysResponse>, Status> {
        let settle = match request.into_inner().settle_ms {
            0 => keyring::SETTLE,
            told => Duration::from_millis(told.into()).min(SETTLE_MAX),
        };
        match self.keys.rotate(settle).await {
            Ok((key_id, keys)) => {
                let keys = u32::try_from(keys).unwrap_or(u32::MAX);
                Ok(Response::new(RotateKeysResponse { key_id, keys }))
            }
            Err(error @ (keyring::Error::UnderWay | keyring::Error::TooMany)) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error) => {
                error!(error = %error, "the keys cannot be changed");
                Err(Status::internal("the keys cannot be changed, the log of the control plane says why"))
            }
        }
    }

    async fn get_stats(
        &self,
        request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        let wanted = request.into_inner().gateway;
        let published = self.published.borrow().clone();
        let nodes = self.fleet.nodes().into_iter().filter(|node| node.connected);
        let labels: Vec<_> = nodes.map(|node| node.hello.labels).collect();
        let counted = tokio::task::spawn_blocking(move || count(&published, &wanted, &labels)).await;
        let gateways = counted.map_err(|_| Status::internal("the gateways could not be counted"))??;
        Ok(Response::new(GetStatsResponse { gateways }))
    }

    async fn list_tools(
        &self,
        request: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        let request = request.into_inner();
        let published = self.published.borrow().clone();
        let named = |key: &Key| key.kind == Kind::Backend && key.name.as_str() == request.backend;
        if !published.set.iter().any(|(key, _)| named(key)) {
            return Err(Status::not_found(format!("there is no backend {:?}", request.backend)));
        }
        let all = published.catalog(&request.backend).map_or(&[][..], |catalog| &catalog.tools);
        let mut bytes = 0;
        let rest = all.iter().skip(request.skip as usize).enumerate();
        let fit = rest.take_while(|(i, tool)| {
            bytes += tool.len();
            *i == 0 || bytes <= TOOLS_BYTES_MAX
        });
        Ok(Response::new(ListToolsResponse {
            tools: fit.map(|(_, tool)| tool.clone()).collect(),
            total: u32::try_from(all.len()).unwrap_or(u32::MAX),
            catalog_revision: published.stamp.catalog_revision,
        }))
    }

    async fn list_backends(
        &self,
        _request: Request<ListBackendsRequest>,
    ) -> Result<Response<ListBackendsResponse>, Status> {
        let published = self.published.borrow().clone();
        let mut nodes: BTreeMap<String, BTreeMap<String, _>> = BTreeMap::new();
        for node in self.fleet.nodes() {
            for (backend, status) in node.backends {
                nodes.entry(backend).or_default().insert(node.hello.node_id.clone(), status);
            }
        }
        let backends = published.set.iter().filter(|(key, _)| key.kind == Kind::Backend);
        let backends = backends.map(|(key, _)| {
            let name = key.name.as_str();
            let catalog = published.catalog(name);
            let count = |len: Option<usize>| u32::try_from(len.unwrap_or(0)).unwrap_or(u32::MAX);
            FleetBackend {
                backend: name.to_owned(),
                lister: self.fleet.lister(name).unwrap_or_default(),
                tools: count(catalog.map(|catalog| catalog.tools.len())),
                prompts: count(catalog.map(|catalog| catalog.prompts.len())),
                resources: count(catalog.map(|catalog| catalog.resources.len())),
                nodes: nodes.remove(name).unwrap_or_default(),
            }
        });
        Ok(Response::new(ListBackendsResponse { backends: backends.collect() }))
    }
}

/// The statistics of one gateway, or of all.
fn count(
    published: &Published,
    wanted: &str,
    labels: &[BTreeMap<String, String>],
) -> Result<Vec<GatewayStats>, Status> {
    let chosen =
        published.counted().iter().filter(|counted| wanted.is_empty() || counted.gateway() == wanted);
    let gateways: Vec<_> = chosen.map(|counted| counted.with_nodes(labels)).collect();
    if gateways.is_empty() && !wanted.is_empty() {
        return Err(Status::not_found(format!("there is no gateway {wanted:?}")));
    }
    Ok(gateways)
}

fn node(info: NodeInfo) -> NodeStatus {
    let (refused, refusal) = info.refused.unzip();
    NodeStatus {
        node: Some(info.hello),
        connected: info.connected,
        last_seen_time: Some(info.last_seen.into()),
        generation_sent: info.sent.unwrap_or_default().generation,
        generation_acked: info.acked.unwrap_or_default().generation,
        catalog_revision_acked: info.acked.unwrap_or_default().catalog_revision,
        generation_refused: refused.unwrap_or_default().generation,
        refusal: refusal.unwrap_or_default(),
    }
}
