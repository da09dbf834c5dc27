//! From the head of a request to the door that serves it.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method as HttpMethod, Request, Response, StatusCode, request::Parts};
use hyper::body::Incoming;

use super::{
    auth::{self, Admitted},
    body::Body,
    door::{Door, Doors},
    elsewhere::{self, Original},
    grpc, guard, legacy,
    path::{self, Path, Service},
    post::post,
    reply::{self, Answering, refuse, unread},
    rest, sse, websocket,
};
use crate::mcp::RpcError;

/// Serves a request.
pub fn handle(doors: &Arc<Doors>, peer: IpAddr, request: Request<Incoming>) -> Answering {
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
