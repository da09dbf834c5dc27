//! Streamable HTTP for clients that would rather read lines than events: asked
//! for with `Accept: application/x-ndjson`, each message is one line.
//!
//! Such an answer cannot be resumed: lines have no ids.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    body::Body,
    outlet::Queue,
    pieces::Pieces,
    running::{Running, Step},
    stream::KEEP_ALIVE_EVERY,
};

/// The media type.
pub const NDJSON: &str = "application/x-ndjson";
/// An empty line, which readers skip.
const KEEP_ALIVE: &[u8] = b"\n";

/// Whether the client names it; whoever accepts anything gets the usual.
pub fn is_wanted(head: &HeaderMap) -> bool {
    head.get_all(header::ACCEPT)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|range| range.split(|byte| *byte == b';').next())
        .any(|range| range.trim_ascii().eq_ignore_ascii_case(NDJSON.as_bytes()))
}

/// A modern call: dropping the response cancels it.
pub async fn run(mut running: Running) -> Response<Body> {
    match running.next().await {
        Some(Step::Ended { message, status }) => response(status, Body::full(message.line())),
        Some(Step::Said(first)) => {
            let state = (running, Some(first));
            let body = stream::unfold(state, |(mut running, first)| async move {
                let chunk = match first {
                    Some(first) => Pieces::from(first).line(),
                    None => match running.next_within(KEEP_ALIVE_EVERY).await? {
                        Step::Said(message) => Pieces::from(message).line(),
                        Step::Ended { message, .. } => message.line(),
                        Step::Silence => Bytes::from_static(KEEP_ALIVE).into(),
                    },
                };
                Some((chunk, (running, None)))
            });
            response(StatusCode::OK, Body::stream(body))
        }
        Some(Step::Silence) | None => response(StatusCode::ACCEPTED, Body::empty()),
    }
}

/// What a legacy call says, until the queue ends. A client that goes away has
/// cancelled nothing: what is said then is dropped.
pub fn follow(queue: Arc<Queue>) -> Response<Body> {
    let lines = stream::unfold(Reading(queue), |reading| async move {
        let chunk = match next_within(&reading.0, KEEP_ALIVE_EVERY).await {
            Some(message) => Pieces::from(message?).line(),
            None => Bytes::from_static(KEEP_ALIVE).into(),
        };
        Some((chunk, reading))
    });
    response(StatusCode::OK, Body::stream(lines))
}

/// One message that is the whole answer.
pub fn whole(status: StatusCode, message: Pieces) -> Response<Body> {
    response(status, Body::full(message.line()))
}

async fn next_within(queue: &Queue, limit: Duration) -> Option<Option<Bytes>> {
    tokio::time::timeout(limit, queue.next()).await.ok()
}

/// Nobody waits for a reader that is gone.
struct Reading(Arc<Queue>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.finish();
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_those_who_ask_for_them() {
        let wanted = |accept: &str| {
            let mut head = HeaderMap::new();
            head.insert(header::ACCEPT, accept.parse().unwrap());
            is_wanted(&head)
        };
        assert!(wanted("application/x-ndjson") && wanted("application/json, Application/X-NDJSON;q=0.9"));
        assert!(!wanted("application/json, text/event-stream") && !wanted("*/*") && !wanted("application/*"));
    }
}
