//! The gRPC door: services over the parts that do the work, with every limit of
//! the transport in one place.
//!
//! Map: `config`, `fleet` and `node` are one service each · `status` turns
//! errors into what clients see. Discovery is in `crate::discovery::server`.

mod config;
mod fleet;
mod node;
mod status;

use std::{io, sync::Arc, time::Duration};

use mt_proto::{
    discovery::MESSAGE_BYTES_MAX,
    pb::{
        self, ads::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
        control::config_service_server::ConfigServiceServer,
        control::fleet_service_server::FleetServiceServer, node::node_service_server::NodeServiceServer,
    },
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    catalogs::Catalogs,
    discovery::{View, server::Ads},
    fleet::Fleet,
    keyring::Keys,
    publisher::Published,
    registry::Registry,
};

/// The largest request that changes the configuration.
pub const CHANGE_BYTES_MAX: usize = 64 << 20;
/// HTTP/2 streams on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Calls on one connection whose answer has not begun; more are turned away.
const CALLS_PER_CONNECTION_MAX: usize = 128;
/// A call whose answer has not begun.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that says nothing is asked whether it is there, and has this long to
/// answer: a partition would otherwise leave streams hanging for half an hour.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_BYTES_MAX: u32 = 32 << 10;
/// The names of our services, for the health service.
const SERVICES: [&str; 4] = [
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "magictunnel.control.v1.ConfigService",
    "magictunnel.control.v1.FleetService",
    "magictunnel.node.v1.NodeService",
];

/// Everything that is served.
pub struct Grpc {
    pub registry: Registry,
    pub fleet: Fleet,
    pub catalogs: Catalogs,
    pub published: watch::Receiver<Arc<Published>>,
    pub facts: watch::Receiver<Arc<View>>,
    pub keys: Keys,
}

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
    #[error("cannot accept connections")]
    Listen(#[from] io::Error),
}

impl Grpc {
    /// Serves until shutdown, then until open streams have ended.
    ///
    /// # Errors
    /// If serving fails.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
        let tasks = TaskTracker::new();
        let ads =
            Ads::new(self.published.clone(), self.facts, self.fleet.clone(), tasks.clone(), shutdown.clone());
        let node = node::Service::new(self.fleet.clone(), self.catalogs, tasks.clone(), shutdown.clone());
        let config = config::Service::new(self.registry.clone(), shutdown.clone());
        let fleet = fleet::Service::new(self.fleet, self.published, self.keys);

        let (health, health_service) = tonic_health::server::health_reporter();
        for service in SERVICES {
            health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
        }
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        Server::builder()
            .timeout(CALL_TIMEOUT)
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
            .load_shed(true)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(
                AggregatedDiscoveryServiceServer::new(ads)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(NodeServiceServer::new(node).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(ConfigServiceServer::new(config).max_decoding_message_size(CHANGE_BYTES_MAX))
            .add_service(FleetServiceServer::new(fleet))
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                shutdown.cancelled(),
            )
            .await?;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
