//! What is posted to streamable HTTP: whose it is, and of which era.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, request::Parts};

use super::{
    body::{self, Body},
    door::{BODY_BYTES_MAX, BODY_MAX, Door},
    elsewhere::{self, Original},
    legacy, modern,
    reply::{self, Answering, at_once, refuse},
};
use crate::mcp::{Era, Limits, Message, ProtocolVersion, RpcError, envelope, headers, meta::Meta, version};

/// The body of a POST, which must be JSON by its head.
///
/// # Errors
/// What the client is told.
pub async fn json_body<B>(head: &HeaderMap, incoming: B) -> Result<Bytes, (StatusCode, RpcError)>
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

/// Serves a POST.
pub async fn post<B>(mut door: Door, head: &Parts, incoming: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let body = match json_body(&head.headers, incoming).await {
        Ok(body) => body,
        Err((status, error)) => return refuse(status, None, &error),
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
