//! `grpc.health.v1.Health`: whether the node serves, for balancers that ask so.

use std::sync::Arc;

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use super::SERVICE;
use crate::node::Node;

/// Answers from what is in service.
pub struct Service {
    node: Arc<Node>,
}

impl Service {
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }
}

fn status(node: &Node, service: &str) -> ServingStatus {
    match service {
        "" | SERVICE if node.snapshot().generation == 0 || node.draining.is_cancelled() => {
            ServingStatus::NotServing
        }
        "" | SERVICE => ServingStatus::Serving,
        _ => ServingStatus::ServiceUnknown,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match status(&self.node, &request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("there is no such service here")),
            known => Ok(Response::new(response(known))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    /// Tells the status whenever it is another one, until the node stops.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (node, service) = (self.node.clone(), request.into_inner().service);
        let watching = Some((node.clone(), node.watch(), None));
        let told = stream::unfold(watching, move |watching| {
            let service = service.clone();
            async move {
                let (node, mut changes, last) = watching?;
                loop {
                    changes.borrow_and_update();
                    let now = status(&node, &service);
                    if node.draining.is_cancelled() {
                        return Some((Ok(response(now)), None));
                    }
                    if last != Some(now) {
                        return Some((Ok(response(now)), Some((node, changes, Some(now)))));
                    }
                    let draining = node.draining.clone();
                    tokio::select! {
                        changed = changes.changed() => changed.ok()?,
                        () = draining.cancelled() => {}
                    }
                }
            }
        });
        Ok(Response::new(told.boxed()))
    }
}
