//! HTTP responses that carry JSON-RPC.

use std::future::ready;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::{body::Body, pieces::Pieces};
use crate::{
    gateway::call::{Answer, CallError},
    mcp::{Era, Message, ProtocolVersion, RawId, RpcError, error::code, splice},
    node::Node,
};

/// A message that answers a call, and whether it is a result. For doors that
/// write it among others; one that is written alone is better left in [`pieces`].
pub fn message(id: &RawId, version: ProtocolVersion, answer: &Result<Answer, CallError>) -> (Bytes, bool) {
    match answer {
        Ok(Answer::Result(result)) => (splice::response(id, result), true),
        Ok(Answer::Error(error)) => (splice::error_response(Some(id), error), false),
        Err(error) => (splice::error_response(Some(id), &error.to_rpc(version)), false),
    }
}

/// The same, around a result that is not copied where it is long.
pub fn pieces(id: &RawId, version: ProtocolVersion, answer: &Result<Answer, CallError>) -> (Pieces, bool) {
    match answer {
        Ok(Answer::Result(result)) => (Pieces::response(id, result), true),
        failed => {
            let (message, ok) = message(id, version, failed);
            (message.into(), ok)
        }
    }
}

/// The HTTP status of an answer that is the whole response. A backend's error
/// object has the status that its code has.
pub fn status(version: ProtocolVersion, answer: &Result<Answer, CallError>) -> StatusCode {
    let rpc = match answer {
        Ok(Answer::Result(_)) => return StatusCode::OK,
        Ok(Answer::Error(raw)) => match serde_json::from_slice::<Code>(raw) {
            Ok(Code { code }) => RpcError::new(code, ""),
            Err(_) => return StatusCode::OK,
        },
        Err(error) => error.to_rpc(version),
    };
    // A legacy client reads an error only from a 200, but starts again on a lost session.
    if version.era() == Era::Legacy && !matches!(answer, Err(CallError::SessionLost { .. })) {
        return StatusCode::OK;
    }
    StatusCode::from_u16(rpc.http_status(version.era())).unwrap_or(StatusCode::OK)
}

#[derive(serde::Deserialize)]
struct Code {
    code: i32,
}

/// A whole JSON body.
pub fn json(status: StatusCode, body: impl Into<Pieces>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An event stream.
pub fn events(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// No body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A notification or a response has been taken.
pub fn accepted() -> Response<Body> {
    empty(StatusCode::ACCEPTED)
}

pub fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A request that is not served, with its reason.
pub fn refuse(status: StatusCode, id: Option<&RawId>, error: &RpcError) -> Response<Body> {
    json(status, splice::error_response(id, error))
}

/// The id of a request.
pub fn id_of(message: &Message) -> Option<&RawId> {
    match message {
        Message::Request(request) => Some(&request.id),
        _ => None,
    }
}

/// What is said of a request that a node had which is gone.
pub fn gone() -> RpcError {
    RpcError::new(code::OWNER_LOST, "the node that had this request is gone; it may have taken effect")
}

/// Whether the node serves, for load balancers that only reach this port.
pub fn health(node: &Node) -> Response<Body> {
    let snapshot = node.snapshot();
    let (status, word) = match snapshot.generation {
        0 => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        _ => (StatusCode::OK, "ready"),
    };
    // How many gateways there are, and not their names: anybody may ask.
    let (generation, gateways) = (snapshot.generation, snapshot.gateways.len());
    let version = env!("CARGO_PKG_VERSION");
    let body = format!(
        "{{\"status\":\"{word}\",\"version\":\"{version}\",\"generation\":{generation},\"gateways\":{gateways}}}"
    );
    json(status, Bytes::from(body))
}

/// A response on its way. On the heap, and each kind of request has its own: a
/// call keeps no room for what others need, and moves as one pointer.
pub type Answering = BoxFuture<'static, Response<Body>>;

/// A response that is there.
pub fn at_once(response: Response<Body>) -> Answering {
    Box::pin(ready(response))
}

/// The same to a request whose body was not read. hyper closes the connection of a
/// request that is dropped before its response is asked for, unless all has come.
pub fn unread(request: Request<Incoming>, response: Response<Body>) -> Answering {
    Box::pin(async move {
        drop(request);
        response
    })
}
