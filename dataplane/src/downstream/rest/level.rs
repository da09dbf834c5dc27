//! `POST /mcp/logging/setLevel`: how much of a log is told.
//!
//! With `Mcp-Session-Id` it is `logging/setLevel` of that session, whichever node
//! has it. Without, it is the level of the event streams that the caller has
//! open at this node; nothing is kept for streams to come.

use bytes::Bytes;
use http::{HeaderMap, Method as HttpMethod, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;

use super::{Failure, body_of, read_level};
use crate::{
    downstream::{body::Body, door::Door, path, post::post, reply},
    mcp::{
        Limits, Message, Method, Outcome, RawId, headers,
        meta::LogLevel,
        splice::{self, Object},
    },
};

/// The longest answer of a session.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct Asked {
    level: String,
}

pub async fn set<B>(door: Door, request: Request<B>) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let head = request.headers().clone();
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let why = format!("the body must be a JSON object with \"level\", a string: {error}");
        Failure::of(&crate::mcp::RpcError::invalid_params(why))
    })?;
    let level = read_level(&asked.level)?;
    if head.contains_key(headers::SESSION_ID) {
        return of_session(door, &head, level).await;
    }
    let streams = door.tailed().map_or(0, |whose| door.doors.tails.set_level(&whose, level));
    let said = Object::default()
        .set_text("level", level.as_str())
        .set("streams", streams.to_string().as_bytes())
        .finish();
    Ok(reply::json(StatusCode::OK, said))
}

/// Sends the session the message that its own client would send.
async fn of_session(door: Door, head: &HeaderMap, level: LogLevel) -> Result<Response<Body>, Failure> {
    let params = Object::default().set_text("level", level.as_str()).finish();
    // An id that no client counts to: one of its calls may be under way.
    let id = RawId::text(&format!("set-level.{}", uuid::Uuid::new_v4().simple()));
    let message = splice::request(&id, &Method::SetLevel, Some(&params));
    let mut request = Request::new(Full::new(message));
    *request.method_mut() = HttpMethod::POST;
    let path = path::streamable(door.view.gateway.name.as_str());
    *request.uri_mut() = path.parse().expect("names of gateways are fit for paths");
    for name in [headers::SESSION_ID, headers::PROTOCOL_VERSION] {
        if let Some(value) = head.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let json = http::HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request.headers_mut().insert(header::ACCEPT, headers::ACCEPT_BOTH);
    let internal = || Failure::of(&crate::mcp::RpcError::internal());
    let (head, body) = request.into_parts();
    let answer = Box::pin(post(door, &head, body)).await;
    let events = headers::is_sse(answer.headers());
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| internal())?.to_bytes();
    match outcome(&body, events) {
        Some(Outcome::Result(_)) => {
            let said = Object::default().set_text("level", level.as_str()).finish();
            Ok(reply::json(StatusCode::OK, said))
        }
        Some(Outcome::Error(error)) => Err(Failure::read(error, false)),
        None => Err(internal()),
    }
}

/// The answer in a response of a session, which may be a stream.
fn outcome(body: &Bytes, events: bool) -> Option<Outcome> {
    let read = |message: Bytes| match Message::parse(message, Limits::BACKEND) {
        Ok(Message::Response(response)) => Some(response.outcome),
        _ => None,
    };
    if !events {
        return read(body.clone());
    }
    let mut decoder = crate::mcp::sse::Decoder::new(ANSWER_BYTES_MAX);
    decoder.push(body.clone());
    while let Ok(Some(event)) = decoder.next_event() {
        if let Some(outcome) = event.data.filter(|data| !data.is_empty()).and_then(read) {
            return Some(outcome);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_in_json_and_in_a_stream() {
        let whole = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert!(matches!(outcome(&whole, false), Some(Outcome::Result(_))));
        let stream = Bytes::from_static(
            b"id: 1\ndata:\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1,\"message\":\"\"}}\n\n",
        );
        assert!(matches!(outcome(&stream, true), Some(Outcome::Error(_))));
        assert!(outcome(&Bytes::new(), false).is_none());
    }
}
