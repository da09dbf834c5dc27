//! Streamable HTTP for clients that would rather read lines than events: asked
//! for with `Accept: application/x-ndjson`, each message is one line.
//!
//! Such an answer cannot be resumed: lines have no ids.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    body::Body,
    chunks::{self, CHUNK_BYTES_MAX},
    framing::Framing,
    outlet::Queue,
    pieces::Pieces,
    running::Running,
    silence::Silence,
    step::Step,
    stream::KEEP_ALIVE_EVERY,
};

/// The media type.
pub const NDJSON: &str = "application/x-ndjson";

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
        Some(Step::Ended { message, status }) => whole(status, message),
        Some(Step::Said(first)) => response(StatusCode::OK, chunks::body(running, first, Framing::Lines)),
        None => response(StatusCode::ACCEPTED, Body::empty()),
    }
}

/// What a legacy call says, until the queue ends. A client that goes away has
/// cancelled nothing: what is said then is dropped.
pub fn follow(queue: Arc<Queue>) -> Response<Body> {
    let reading = Reading { queue, silence: Silence::new(KEEP_ALIVE_EVERY) };
    let lines = stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) });
    response(StatusCode::OK, Body::stream(lines))
}

/// One message that is the whole answer.
pub fn whole(status: StatusCode, message: Pieces) -> Response<Body> {
    response(status, Body::full(message.framed(Framing::Lines, Vec::new())))
}

/// Nobody waits for a reader that is gone.
struct Reading {
    queue: Arc<Queue>,
    silence: Silence,
}

impl Reading {
    /// All lines that are there, as far as they fit into a chunk.
    async fn next(&mut self) -> Option<Bytes> {
        let Some(first) = self.silence.around(self.queue.next()).await else {
            return Some(Framing::Lines.keep_alive());
        };
        self.silence.break_now();
        let mut chunk = Vec::new();
        let mut next = Some(first?);
        while let Some(message) = next {
            Framing::Lines.write(&message, &mut chunk);
            next = (chunk.len() < CHUNK_BYTES_MAX).then(|| self.queue.ready()).flatten();
        }
        Some(chunk.into())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.queue.finish();
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
