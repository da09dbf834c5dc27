//! The gateway over gRPC, on the port of the other doors.
//!
//! ```text
//!  content-type: application/grpc ─┬─ McpService: who calls? (headers) ─► body ─► service.rs, session.rs
//!                                  └─ reflection, health: nobody is asked
//! ```
//!
//! The gateway is named by metadata and never by a message: who may call is
//! known before anything of a message is read. Each request becomes a call like
//! any other (`plain.rs`).

mod convert;
mod health;
mod service;
pub mod services;
mod session;
mod status;

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use mt_proto::pb::{self, mcp::mcp_service_server::McpServiceServer};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Status, service::Routes};
use tower::Service as _;

use super::{
    auth::Admitted,
    body::{self, Body},
    door::{BODY_BYTES_MAX, BODY_MAX, Door, Doors},
    meters::Plain,
    path::DEFAULT_GATEWAY,
    plain::kind::Failure,
};
use crate::{
    mcp::{RpcError, error::Side},
    node::Node,
};

/// Names the gateway.
const GATEWAY: HeaderName = HeaderName::from_static("mt-gateway");
const SERVICE: &str = "magictunnel.mcp.v1.McpService";
const SERVICE_FILE: &str = "magictunnel/mcp/v1/mcp.proto";
/// Its client speaks while it is answered.
const SESSION: &str = "/magictunnel.mcp.v1.McpService/Session";
/// A frame's head, and what else is around a payload in a message.
const FRAME_BYTES: usize = 1_024;

/// Who calls, for the service that is called.
#[derive(Clone)]
struct Caller {
    door: Door,
    admitted: Admitted,
}

impl Caller {
    /// When it may call no longer.
    fn ended(&self) -> BoxFuture<'static, ()> {
        let gateway = self.door.view.gateway.name.clone();
        Box::pin(self.admitted.clone().ended(self.door.node.clone(), gateway))
    }
}

/// The services that the door has.
fn made(node: &Arc<Node>) -> Routes {
    let mcp = McpServiceServer::new(service::Service).max_decoding_message_size(BODY_BYTES_MAX + FRAME_BYTES);
    let health = tonic_health::pb::health_server::HealthServer::new(health::Service::new(node.clone()));
    let mut routes = Routes::new(mcp).add_service(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(descriptors())
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let why = "descriptors that were made from our own files can be read";
    routes = routes.add_service(reflection().build_v1().expect(why));
    routes = routes.add_service(reflection().build_v1alpha().expect(why));
    routes.prepare()
}

/// Of the service and of nothing that other ports serve.
fn descriptors() -> FileDescriptorSet {
    let all = FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).expect("the bindings hold descriptors");
    FileDescriptorSet { file: all.file.into_iter().filter(|file| file.name() == SERVICE_FILE).collect() }
}

/// Whether a request is gRPC, whatever its path.
pub fn is_grpc(head: &HeaderMap) -> bool {
    let kind = head.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Answers a request. A client that goes away cancels it.
pub async fn serve(doors: Arc<Doors>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let is_ours = path
        .strip_prefix('/')
        .and_then(|rest| rest.strip_prefix(SERVICE))
        .is_some_and(|rest| rest.starts_with('/'));
    if !is_ours {
        return run(&doors, request).await;
    }
    let caller = match enter(&doors, peer, request.headers()).await {
        Ok(caller) => caller,
        Err(failure) => return refused(&doors, &status::of(&failure)),
    };
    let speaks_on = path == SESSION;
    let (mut head, incoming) = request.into_parts();
    head.extensions.insert(caller);
    if speaks_on {
        return run(&doors, Request::from_parts(head, incoming)).await;
    }
    // As long and as slow as at the other doors.
    match body::read(incoming, BODY_BYTES_MAX + FRAME_BYTES, BODY_MAX).await {
        Ok(body) => run(&doors, Request::from_parts(head, Full::new(body))).await,
        Err(error) => refused(&doors, &status::of(&Failure::of(&error.to_rpc()))),
    }
}

async fn run<B>(doors: &Doors, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let answered: Result<_, Infallible> = doors.grpc.routes(|| made(&doors.node)).call(request).await;
    let response = match answered {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // What fails before it has said anything fails in its head.
    let ok = response.headers().get("grpc-status").is_none_or(|status| status.as_bytes() == b"0");
    doors.meters.plain(Plain::Grpc, ok);
    response.map(Body::Framed)
}

/// Who calls which gateway.
async fn enter(doors: &Arc<Doors>, peer: IpAddr, head: &HeaderMap) -> Result<Caller, Failure> {
    let gateway = match head.get(GATEWAY) {
        None => DEFAULT_GATEWAY,
        Some(name) => name.to_str().map_err(|_| {
            Failure::of(&RpcError::invalid_request("the metadata mt-gateway is not the name of a gateway"))
        })?,
    };
    let config = &doors.node.snapshot().config;
    let admitted = doors.auth.admit(config, gateway, head, peer).await;
    let admitted = admitted.map_err(|refusal| Failure::of(&refusal.to_rpc()))?;
    let door = doors.enter(gateway, admitted.identity.clone()).map_err(|(http, error)| match http {
        http::StatusCode::NOT_FOUND => Failure::not_found(&error),
        _ => Failure::of(&error),
    })?;
    Ok(Caller { door: Door { local: admitted.local, ..door }, admitted })
}

fn refused(doors: &Doors, status: &Status) -> Response<Body> {
    doors.meters.plain(Plain::Grpc, false);
    status.clone().into_http::<tonic::body::Body>().map(Body::Framed)
}

/// What a client is told whose right to call has ended.
fn barred() -> Status {
    let error = RpcError { side: Side::Gateway, ..RpcError::unauthenticated() };
    status::of(&Failure::of(&error))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let check = |kind: &'static str| {
            let head = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            is_grpc(&head)
        };
        assert!(
            check("application/grpc") && check("application/grpc+proto") && check("application/grpc;x=y")
        );
        assert!(!check("application/grpc-web") && !check("application/json") && !is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn reflection_shows_the_service_and_nothing_of_other_ports() {
        let file = descriptors().file;
        let [file] = &file[..] else { panic!("{} files", file.len()) };
        assert!(file.dependency.is_empty(), "or they would be missing");
        assert_eq!(format!("{}.{}", file.package(), file.service[0].name()), SERVICE);
    }
}
