//! The API over real sockets: a whole control plane on a port of the system's
//! choice, with the store in a temporary directory, and clients made by tonic.

mod config;
mod discovery;
mod node;

use std::{path::Path, time::Duration};

use mt_proto::pb::{
    ads::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    control::{
        ApplyRequest, ApplyResponse, config_service_client::ConfigServiceClient,
        fleet_service_client::FleetServiceClient,
    },
    node::node_service_client::NodeServiceClient,
    resource::{
        Backend, Gateway, HttpTransport, Member, Metadata, Resource, backend, member, resource::Spec,
    },
};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use crate::{Bound, Options};

/// What may take long on a busy machine, and then still has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane of this test.
struct Plane {
    bound: Bound,
    channel: Channel,
    shutdown: CancellationToken,
    running: JoinSet<Result<(), crate::Error>>,
}

impl Plane {
    async fn start(dir: &Path) -> Self {
        let options = Options {
            data_dir: dir.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            http: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            salvage_store: false,
            metrics: None,
        };
        let shutdown = CancellationToken::new();
        let (ready, bound) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(crate::run(options, shutdown.clone(), ready));
        let bound = bound.await.expect("the control plane starts");
        let channel =
            Channel::from_shared(format!("http://{}", bound.grpc)).unwrap().connect().await.unwrap();
        Self { bound, channel, shutdown, running }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        drop(self.channel);
        let end = tokio::time::timeout(PATIENCE, self.running.join_next()).await;
        end.unwrap().unwrap().unwrap().unwrap();
    }

    fn config(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::new(self.channel.clone())
    }

    fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone())
    }

    fn nodes(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    fn discovery(&self) -> AggregatedDiscoveryServiceClient<Channel> {
        AggregatedDiscoveryServiceClient::new(self.channel.clone())
    }

    async fn apply(&self, resources: &[Resource]) -> Result<ApplyResponse, Status> {
        let request = ApplyRequest { resources: resources.to_vec(), ..Default::default() };
        Ok(self.config().apply(request).await?.into_inner())
    }
}

fn metadata(name: &str) -> Option<Metadata> {
    Some(Metadata { name: name.into(), ..Default::default() })
}

fn backend(name: &str, port: u16) -> Resource {
    let http = HttpTransport { url: format!("http://127.0.0.1:{port}/mcp"), ..Default::default() };
    let spec = Backend { transport: Some(backend::Transport::Http(http)), ..Default::default() };
    Resource { metadata: metadata(name), spec: Some(Spec::Backend(spec)) }
}

fn gateway(name: &str, backends: &[&str]) -> Resource {
    let member =
        |name: &&str| Member { source: Some(member::Source::Backend((*name).into())), ..Default::default() };
    let spec = Gateway { members: backends.iter().map(member).collect(), ..Default::default() };
    Resource { metadata: metadata(name), spec: Some(Spec::Gateway(spec)) }
}
