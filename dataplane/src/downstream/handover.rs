//! Modern calls that belong to another node: their parked call is there, or the
//! session or process of a backend that keeps state and has no name for it.
//!
//! Each is handed over as one HTTP request, whatever this node's client speaks;
//! what comes back is steps like any other's. Dropping them cancels the call there.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderValue, Method as HttpMethod, Request, StatusCode, header};
use serde_json::Value;

use super::{door::Door, path, reply, step::Step};
use crate::{
    gateway::{
        call::Call,
        park::{Subject, state},
    },
    mcp::{Era, Limits, Message, RawId, RpcError, headers, splice, sse},
    relay::{Failure, Relayed, directory::Entry},
};

/// The longest message of another node.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The node that a call belongs to, if it is another one that can be reached.
pub fn node_of(door: &Door, call: &Call, subject: Option<&Subject>) -> Option<Arc<Entry>> {
    if door.relayed {
        return None;
    }
    let relay = door.node.relay();
    if let Some(tag) = state::owner(&door.node.keys(), &call.params) {
        return (tag != **relay.tag()).then(|| relay.node(&tag)).flatten();
    }
    let backend = subject?.backend()?;
    let upstream = door.table.upstream(&backend)?;
    let keeps_state = upstream.eras().is_some_and(|eras| !eras.speaks(Era::Modern));
    if !keeps_state {
        return None;
    }
    let key =
        format!("{backend}\n{}\n{}", call.client.identity.principal, canonical(&call.client.capabilities));
    let first = relay.order(&door.view.gateway.name, key.as_bytes()).into_iter().next()?;
    (first.tag != *relay.tag()).then_some(first)
}

/// The same text for the same capabilities, however they were written.
fn canonical(capabilities: &[u8]) -> String {
    match serde_json::from_slice::<Value>(capabilities) {
        Ok(mut value @ Value::Object(_)) => {
            value.sort_all_objects();
            value.to_string()
        }
        _ => "{}".to_owned(),
    }
}

/// Hands a call over.
///
/// # Errors
/// The call, if nothing of it was begun: it is then this node's.
pub async fn hand(
    door: Door,
    call: Call,
    node: Arc<Entry>,
) -> Result<BoxStream<'static, Step>, Box<(Door, Call)>> {
    let sent = door.node.relay().send(&node, &request(&door, &call), &door.identity).await;
    match sent {
        Ok(relayed) => Ok(steps(relayed, call.id)),
        Err(Failure::Unsent { .. } | Failure::Moved(_)) => Err(Box::new((door, call))),
        Err(Failure::Full) => Ok(only(&call.id, &RpcError::overloaded(), StatusCode::SERVICE_UNAVAILABLE)),
        Err(Failure::Lost { .. }) => Ok(only(&call.id, &reply::gone(), StatusCode::BAD_GATEWAY)),
    }
}

fn request(door: &Door, call: &Call) -> Request<Bytes> {
    let params = call.params.object();
    let mut request = Request::new(splice::request(&call.id, &call.method, Some(&params)));
    *request.method_mut() = HttpMethod::POST;
    let path = path::streamable(door.view.gateway.name.as_str());
    *request.uri_mut() = path.parse().expect("names of gateways are fit for paths");
    let head = request.headers_mut();
    let name = call.method.name_param().and_then(|key| call.params.text(key));
    headers::write(head, call.client.version.as_str(), &call.method, name.as_deref());
    for (name, value) in &call.param_headers {
        head.append(name.clone(), value.clone());
    }
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    request
}

/// One step: an error.
fn only(id: &RawId, error: &RpcError, status: StatusCode) -> BoxStream<'static, Step> {
    let message = splice::error_response(Some(id), error).into();
    stream::iter([Step::Ended { message, status }]).boxed()
}

/// What is read of the other node's response.
struct Reading {
    relayed: Relayed,
    decoder: Option<sse::Decoder>,
    whole: Vec<u8>,
    id: RawId,
    over: bool,
}

fn steps(relayed: Relayed, id: RawId) -> BoxStream<'static, Step> {
    let decoder = headers::is_sse(&relayed.headers).then(|| sse::Decoder::new(MESSAGE_BYTES_MAX));
    let reading = Reading { relayed, decoder, whole: Vec::new(), id, over: false };
    stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) }).boxed()
}

impl Reading {
    async fn next(&mut self) -> Option<Step> {
        if self.over {
            return None;
        }
        loop {
            if let Some(decoder) = &mut self.decoder {
                match decoder.next_event() {
                    Ok(Some(event)) if event.is_message() => {
                        return Some(self.step(event.data.unwrap_or_default()));
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) => {}
                    Err(_) => return Some(self.cut()),
                }
            }
            match self.relayed.body.next().await {
                Some(Ok(chunk)) => match &mut self.decoder {
                    Some(decoder) => decoder.push(chunk),
                    None if self.whole.len() + chunk.len() > MESSAGE_BYTES_MAX => return Some(self.cut()),
                    None => self.whole.extend_from_slice(&chunk),
                },
                None if self.decoder.is_none() => {
                    self.over = true;
                    let message = Bytes::from(std::mem::take(&mut self.whole)).into();
                    return Some(Step::Ended { message, status: self.relayed.status });
                }
                Some(Err(_)) | None => return Some(self.cut()),
            }
        }
    }

    fn step(&mut self, message: Bytes) -> Step {
        self.over = matches!(Message::parse(message.clone(), Limits::BACKEND), Ok(Message::Response(_)));
        if self.over {
            Step::Ended { message: message.into(), status: self.relayed.status }
        } else {
            Step::Said(message)
        }
    }

    /// The answer was lost with the node.
    fn cut(&mut self) -> Step {
        self.over = true;
        let message = splice::error_response(Some(&self.id), &reply::gone()).into();
        Step::Ended { message, status: StatusCode::BAD_GATEWAY }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::relay::Cut;

    fn relayed(kind: &'static str, chunks: Vec<Result<Bytes, Cut>>) -> Relayed {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Relayed { status: StatusCode::OK, headers, body: stream::iter(chunks).boxed() }
    }

    async fn read(kind: &'static str, chunks: &[Result<&'static str, Cut>]) -> Vec<(bool, String)> {
        let chunks = chunks.iter().map(|chunk| chunk.map(Bytes::from)).collect();
        let steps = steps(relayed(kind, chunks), RawId::number(7));
        let told = steps.map(|step| match step {
            Step::Said(message) => (false, String::from_utf8(message.to_vec()).unwrap()),
            Step::Ended { message, .. } => (true, String::from_utf8(message.joined().to_vec()).unwrap()),
        });
        told.collect().await
    }

    const SAID: &str = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\n\n";

    #[tokio::test]
    async fn what_is_said_comes_before_the_answer_and_nothing_after_it() {
        let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
        let told = read("text/event-stream", &[Ok(SAID), Ok(answer), Ok(SAID)]).await;
        assert_eq!(told.iter().map(|(ended, _)| *ended).collect::<Vec<_>>(), [false, true]);
    }

    #[tokio::test]
    async fn an_answer_that_was_lost_on_the_way_is_one_error() {
        for (kind, chunks) in [
            ("text/event-stream", vec![Ok(SAID), Err(Cut)]),
            ("text/event-stream", vec![Ok(SAID)]),
            ("application/json", vec![Ok("{\"jsonrpc\""), Err(Cut)]),
        ] {
            let told = read(kind, &chunks).await;
            let (ended, last) = told.last().unwrap();
            assert!(*ended && last.contains("\"id\":7") && last.contains("may have taken effect"), "{last}");
        }
    }
}
