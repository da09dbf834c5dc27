//! The clients' side of a node: the doors.
//!
//! ```text
//!  socket ─► guard (Host, Origin) ─► path ─► gateway ─┬─ modern: one request, one response   (modern.rs)
//!                                                     ├─ legacy: sessions, streams            (legacy.rs)
//!                                                     ├─ both ways on one connection          (duplex.rs)
//!                                                     │    websocket.rs, sse.rs; stdin: stdio.rs
//!                                                     └─ no MCP at all: rest.rs, grpc.rs      (plain.rs)
//! ```
//!
//! A door frames messages and keeps what its era needs; what a message means is
//! the pipeline's business. The era of a request is decided here, once.

mod auth;
mod body;
mod chunks;
mod duplex;
mod elsewhere;
mod grpc;
mod guard;
mod handover;
mod lasting;
mod legacy;
mod listen;
mod meters;
mod modern;
mod ndjson;
mod openapi;
mod outlet;
mod path;
mod pieces;
mod plain;
mod pump;
mod reply;
mod rest;
mod running;
mod session;
mod silence;
mod sse;
pub mod stdio;
mod stream;
mod websocket;

use std::{future::ready, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Method as HttpMethod, Request, Response, StatusCode, request::Parts};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

pub use self::listen::{DRAIN_MAX, serve};
use self::{
    auth::{Admitted, Auth},
    body::Body,
    elsewhere::Original,
    meters::Meters,
    path::{Path, Service},
    plain::tail::Tails,
    reply::refuse,
    session::{Session, Sessions},
};
use crate::{
    gateway::{call::Identity, view::GatewayView},
    mcp::{Era, Limits, Message, ProtocolVersion, RpcError, envelope, headers, meta::Meta, version},
    node::{Node, Table},
};

/// The longest body of a request.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a client may take to send the body.
pub const BODY_MAX: Duration = Duration::from_secs(60);

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
struct Doors {
    node: Arc<Node>,
    options: DoorOptions,
    sessions: Sessions,
    /// Event streams that POSTs belong to.
    streams: sse::Streams,
    /// Connections that carry messages both ways: they have a drain of their own.
    conversations: TaskTracker,
    auth: Auth,
    meters: Meters,
    /// Who follows the logs of calls that have no session.
    tails: Arc<Tails>,
    /// Descriptions of the gateways.
    shelf: openapi::Shelf,
    grpc: grpc::Services,
}

impl Doors {
    fn new(node: Arc<Node>, options: DoorOptions) -> Arc<Self> {
        Arc::new(Self {
            sessions: Sessions::new(node.relay().clone()),
            streams: sse::Streams::default(),
            conversations: TaskTracker::new(),
            meters: Meters::new(),
            auth: Auth::new(node.tracker.clone()),
            tails: Tails::new(),
            shelf: openapi::Shelf::default(),
            grpc: grpc::Services::default(),
            options,
            node,
        })
    }

    /// What a request to a gateway is served with.
    ///
    /// # Errors
    /// What the client is told, and the status for doors that have one.
    fn enter(
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
struct Door {
    doors: Arc<Doors>,
    node: Arc<Node>,
    table: Arc<Table>,
    view: Arc<GatewayView>,
    identity: Arc<Identity>,
    /// The legacy session that the request names, where it has been looked up.
    session: Option<Arc<Session>>,
    /// Another node has handed the request over: it goes no further.
    relayed: bool,
    /// Whether the request is known to come from this machine.
    local: bool,
}

/// A response on its way. On the heap, and each kind of request has its own: a
/// call keeps no room for what others need, and moves as one pointer.
type Answering = BoxFuture<'static, Response<Body>>;

fn at_once(response: Response<Body>) -> Answering {
    Box::pin(ready(response))
}

/// The same to a request whose body was not read. hyper closes the connection of a
/// request that is dropped before its response is asked for, unless all has come.
fn unread(request: Request<Incoming>, response: Response<Body>) -> Answering {
    Box::pin(async move {
        drop(request);
        response
    })
}

fn handle(doors: &Arc<Doors>, peer: IpAddr, request: Request<Incoming>) -> Answering {
    let origin = match guard::check(&doors.options, request.headers(), request.uri()) {
        Ok(origin) => origin,
        Err(error) => return unread(request, refuse(StatusCode::FORBIDDEN, None, &error)),
    };
    let Some(origin) = origin else { return route(doors, peer, request) };
    let answering = if request.method() == HttpMethod::OPTIONS {
        let response = guard::preflight(request.headers());
        unread(request, response)
    } else {
        route(doors, peer, request)
    };
    Box::pin(answering.map(|mut response| {
        guard::allow_origin(response.headers_mut(), origin);
        response
    }))
}

fn route(doors: &Arc<Doors>, peer: IpAddr, request: Request<Incoming>) -> Answering {
    if grpc::is_grpc(request.headers()) {
        return Box::pin(grpc::serve(doors.clone(), peer, request));
    }
    let path = request.uri().path();
    if path == "/health" {
        return unread(request, reply::health(&doors.node));
    }
    match path::parse(path) {
        Some(Path { service: Service::Streamable, .. }) if request.method() == HttpMethod::POST => {
            let (head, incoming) = request.into_parts();
            serve_post(doors.clone(), peer, head, incoming)
        }
        Some(_) => Box::pin(serve_other(doors.clone(), peer, request)),
        None => {
            let response = nowhere(path);
            unread(request, response)
        }
    }
}

fn nowhere(path: &str) -> Response<Body> {
    let error = RpcError::invalid_request(format!(
        "nothing is served at {path:?}: gateways are at /g/NAME/mcp, the default one at /mcp"
    ));
    refuse(StatusCode::NOT_FOUND, None, &error)
}

/// Why a request does not get as far as its gateway.
enum Shut {
    Caller(auth::Refusal),
    Gateway(StatusCode, RpcError),
}

impl Shut {
    fn response(&self) -> Response<Body> {
        match self {
            Self::Caller(refusal) => refusal.response(),
            Self::Gateway(status, error) => refuse(*status, None, error),
        }
    }

    /// The same at a door without MCP.
    fn plain(&self) -> Response<Body> {
        match self {
            Self::Caller(refusal) => rest::reshaped(refusal.response(), &refusal.to_rpc()),
            Self::Gateway(status, error) => rest::refuse(*status, error),
        }
    }
}

/// Finds out who calls, and opens the gateway's door.
async fn open(
    doors: &Arc<Doors>,
    peer: IpAddr,
    gateway: &str,
    headers: &HeaderMap,
) -> Result<(Door, Admitted), Shut> {
    let snapshot = doors.node.snapshot();
    let admitted = doors.auth.admit(&snapshot.config, gateway, headers, peer).await.map_err(Shut::Caller)?;
    let door = doors
        .enter(gateway, admitted.identity.clone())
        .map_err(|(status, error)| Shut::Gateway(status, error))?;
    Ok((Door { local: admitted.local, ..door }, admitted))
}

/// Serves a POST to streamable HTTP, which is what most requests are.
fn serve_post(doors: Arc<Doors>, peer: IpAddr, head: Parts, mut incoming: Incoming) -> Answering {
    // What it captures is used where it is: the arguments of an `async fn` are
    // kept twice.
    Box::pin(async move {
        let Some(Path { gateway, .. }) = path::parse(head.uri.path()) else {
            return nowhere(head.uri.path());
        };
        let (door, admitted) = match open(&doors, peer, gateway, &head.headers).await {
            Ok(open) => open,
            Err(shut) => return shut.response(),
        };
        let gateway = door.view.gateway.name.clone();
        let response = post(door, &head, &mut incoming).await;
        if !response.body().is_open() {
            return response;
        }
        // What stays open does not outlive the right to it.
        let end = admitted.ended(doors.node.clone(), gateway);
        response.map(|body| body.until(end))
    })
}

/// Serves every other request.
async fn serve_other(doors: Arc<Doors>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let uri = request.uri().clone();
    let Some(Path { gateway, service }) = path::parse(uri.path()) else { return nowhere(uri.path()) };
    let (mut door, admitted) = match open(&doors, peer, gateway, request.headers()).await {
        Ok(open) => open,
        Err(shut) if matches!(service, Service::Plain(_)) => return shut.plain(),
        Err(shut) => return shut.response(),
    };
    let end = admitted.ended(door.node.clone(), door.view.gateway.name.clone());
    let response = match (service, request.method()) {
        (Service::Streamable, &(HttpMethod::GET | HttpMethod::DELETE)) => {
            let (head, _) = request.into_parts();
            let original =
                Original { method: &head.method, uri: &head.uri, head: &head.headers, body: &Bytes::new() };
            match elsewhere::session(&mut door, &original).await {
                Some(response) => response,
                None if head.method == HttpMethod::GET => legacy::get(door, &head.headers),
                None => Box::pin(legacy::delete(door, &head.headers)).await,
            }
        }
        (Service::Streamable, _) => reply::method_not_allowed(legacy::METHODS),
        (Service::Events, &HttpMethod::GET) => sse::open(door),
        (Service::Messages, &HttpMethod::POST) => Box::pin(sse::post(door, request)).await,
        (Service::WebSocket, &HttpMethod::GET) => return websocket::upgrade(door, request, end),
        (Service::Events | Service::WebSocket, _) => reply::method_not_allowed("GET"),
        (Service::Messages, _) => reply::method_not_allowed("POST"),
        (Service::Plain(operation), _) => Box::pin(rest::serve(door, operation, request)).await,
    };
    response.map(|body| body.until(end))
}

/// The body of a POST, which must be JSON by its head.
///
/// # Errors
/// How it is refused.
async fn posted<B>(head: &HeaderMap, incoming: B) -> Result<Bytes, Response<Body>>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    json_body(head, incoming).await.map_err(|(status, error)| refuse(status, None, &error))
}

/// As [`posted`], for doors that have a shape of their own for what is refused.
///
/// # Errors
/// What the client is told.
async fn json_body<B>(head: &HeaderMap, incoming: B) -> Result<Bytes, (StatusCode, RpcError)>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if !headers::is_json(head) {
        let error = RpcError::invalid_request("the content type must be application/json");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let body = body::read(incoming, BODY_BYTES_MAX, BODY_MAX).await;
    body.map_err(|error| (error.status(), error.to_rpc()))
}

async fn post<B>(mut door: Door, head: &Parts, incoming: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let body = match posted(&head.headers, incoming).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let original = Original { method: &head.method, uri: &head.uri, head: &head.headers, body: &body };
    if let Some(response) = elsewhere::session(&mut door, &original).await {
        return response;
    }
    take(door, &head.headers, body).await
}

/// Takes what was posted. All that the head says is read before anything is
/// waited for.
fn take(door: Door, head: &HeaderMap, body: Bytes) -> Answering {
    if envelope::is_batch(&body) {
        return legacy::post_batch(door, head, body);
    }
    let message = match Message::parse(body.clone(), Limits::CLIENT) {
        Ok(message) => message,
        Err(error) => {
            return at_once(refuse(StatusCode::BAD_REQUEST, error.id.as_ref(), &RpcError::from(&error)));
        }
    };
    match classify(head, &message) {
        Ok((Era::Modern, meta)) => modern::post(door, head, message, &meta),
        Ok((Era::Legacy, _)) => legacy::post(door, head, message, body),
        Err(error) => at_once(refuse(StatusCode::BAD_REQUEST, reply::id_of(&message), &error)),
    }
}

/// Which era a message is of: modern if its body or its header says so. A body
/// that claims to be modern is never served as legacy, or its checks could be
/// avoided by leaving out a header.
fn classify(head: &HeaderMap, message: &Message) -> Result<(Era, Meta), RpcError> {
    let params = match message {
        Message::Request(request) => &request.params,
        Message::Notification(notification) => &notification.params,
        Message::Response(_) => return Ok((header_era(head)?, Meta::default())),
    };
    let meta = Meta::of(params)?;
    let era = if meta.is_modern() { Era::Modern } else { header_era(head)? };
    Ok((era, meta))
}

fn header_era(head: &HeaderMap) -> Result<Era, RpcError> {
    let Some(value) = head.get(headers::PROTOCOL_VERSION) else { return Ok(Era::Legacy) };
    let text = value.to_str().unwrap_or("(not text)").trim();
    ProtocolVersion::parse(text)
        .map(ProtocolVersion::era)
        .ok_or_else(|| RpcError::unsupported_version(text, &version::ALL))
}
