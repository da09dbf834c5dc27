//! The agent that listens to server-sent events until there are enough.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{Stream, StreamExt as _, future, stream};
use http::{HeaderValue, StatusCode, header};
use mt_proto::resource::Sse;
use serde_json::{Map, Value};
use sse_stream::SseByteStream;
use tokio::time::{Instant, timeout_at};

use crate::{
    Failure, Level, Output, Reason, Run,
    client::{self, Answer, Prepared, Tries},
    collect::{Collected, Ended, Message},
};

/// Of one event.
const EVENT_BYTES_MAX: usize = 4 << 20;
/// Times that a stream which breaks is taken up again.
const RECONNECTS_MAX: u32 = 1;
/// What a server may be asked to go on after.
const ID_BYTES_MAX: usize = 1024;

/// What a tool of this kind keeps between calls: nothing, connections are of
/// the node.
pub struct Runner {
    config: Arc<Sse>,
}

impl Runner {
    pub fn new(config: &Arc<Sse>) -> Self {
        Self { config: config.clone() }
    }

    /// Dropping the future closes the stream.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let limit = self.config.timeout;
        let deadline = run.deadline.min(Instant::now() + limit);
        let limit = limit.min(deadline.saturating_duration_since(Instant::now()));
        let listening = self.listen(run, deadline, limit);
        timeout_at(deadline, Box::pin(listening)).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
    }

    async fn listen(
        &self,
        run: &Run<'_>,
        deadline: Instant,
        limit: std::time::Duration,
    ) -> Result<Output, Failure> {
        let config = &*self.config;
        let mut prepared = Prepared::new(run, &config.request)?;
        let headers = &mut prepared.filled.headers;
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("text/event-stream"));
        let mut collected = Collected::new(&config.collect, run, deadline)?;
        let tries = Tries::of(&config.request);
        let mut last_id = None;
        let mut reconnects = 0;
        let ended = loop {
            let opening =
                client::send(run, &prepared, tries, deadline, |status: StatusCode| status.is_success());
            let answer = match timeout_at(collected.wait_until(), opening).await {
                Ok(answer) => answer?,
                Err(_) => break collected.waited(limit)?,
            };
            check_type(&answer)?;
            match self.collect(&mut collected, &mut last_id, answer, limit).await {
                Ok(ended) => break ended,
                Err(failure)
                    if failure.reason == Reason::Broken
                        && reconnects < RECONNECTS_MAX
                        && tries.may_repeat(&prepared.method) =>
                {
                    reconnects += 1;
                    run.reporter.log(Level::Warning, "the stream broke off, taking it up again".into());
                    if let Some(id) = last_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok()) {
                        prepared.filled.headers.insert("last-event-id", id);
                    }
                }
                Err(failure) => return Err(failure),
            }
        };
        collected.output(ended, config.extract.as_ref())
    }

    /// Until there is enough, or the stream ends or breaks.
    async fn collect(
        &self,
        collected: &mut Collected<'_>,
        last_id: &mut Option<String>,
        answer: Answer,
        limit: std::time::Duration,
    ) -> Result<Ended, Failure> {
        let mut events = Box::pin(events(answer, EVENT_BYTES_MAX));
        loop {
            let event = match timeout_at(collected.wait_until(), events.next()).await {
                Err(_) => return collected.waited(limit),
                Ok(None) => return Ok(Ended::Closed),
                Ok(Some(event)) => event?,
            };
            if let Some(id) = event.id.as_ref().filter(|id| id.len() <= ID_BYTES_MAX) {
                *last_id = Some(id.clone());
            }
            let json = event.json();
            let name = event.event.as_deref();
            let message = Message { event: name, text: &event.data, json: json.as_ref() };
            let wanted = &self.config.events;
            let shown = wanted.is_empty() || wanted.iter().any(|wanted| wanted == name.unwrap_or("message"));
            if let Some(ended) = collected.take(message, || shown.then(|| event.to_value())).await? {
                return Ok(ended);
            }
        }
    }
}

fn check_type(answer: &Answer) -> Result<(), Failure> {
    match answer.content_type().as_deref() {
        Some("text/event-stream") => Ok(()),
        other => {
            let other = answer.excerpt(other.unwrap_or("nothing"));
            let message = format!("the service answers with {other}, not with a stream of events");
            Err(Failure::new(Reason::Refused, message))
        }
    }
}

/// An event that has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub event: Option<String>,
    pub id: Option<String>,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.data).ok()
    }

    /// As it stands in a result.
    pub fn to_value(&self) -> Value {
        let mut entry = Map::new();
        entry.insert("event".to_owned(), self.event.as_deref().unwrap_or("message").into());
        entry.extend(self.id.as_ref().map(|id| ("id".to_owned(), id.as_str().into())));
        entry.insert("data".to_owned(), self.json().unwrap_or_else(|| self.data.as_str().into()));
        Value::Object(entry)
    }
}

/// The events of an answer, none larger than that. Dropping it closes the
/// stream.
pub(crate) fn events(answer: Answer, event_bytes_max: usize) -> impl Stream<Item = Result<Event, Failure>> {
    // Bytes since the last event, which the decoder keeps.
    let kept = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&kept);
    let chunks = answer.response.bytes_stream().map(move |chunk| {
        let chunk = chunk.map_err(Broken::Off)?;
        let bytes = counted.fetch_add(chunk.len(), Ordering::Relaxed);
        if bytes > event_bytes_max { Err(Broken::TooLarge) } else { Ok(chunk) }
    });
    let events = SseByteStream::new(Box::pin(chunks)).filter_map(move |event| {
        kept.store(0, Ordering::Relaxed);
        future::ready(match event {
            // Without data it is none (HTML Standard §9.2.6).
            Ok(event) => event.data.map(|data| {
                let name = event.event.filter(|name| !name.is_empty());
                Ok(Event { event: name, id: event.id, data })
            }),
            Err(error) => Some(Err(failure(error, event_bytes_max))),
        })
    });
    stream::StreamExt::fuse(events)
}

/// What is wrong with the bytes of a stream.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the stream broke off")]
    Off(#[source] reqwest::Error),
    #[error("an event is too large")]
    TooLarge,
}

fn failure(error: sse_stream::Error, event_bytes_max: usize) -> Failure {
    match error {
        sse_stream::Error::Body(error) => match error.downcast::<Broken>() {
            Ok(broken) => match *broken {
                Broken::TooLarge => client::too_large(event_bytes_max),
                Broken::Off(error) => client::failure_of(error),
            },
            Err(error) => Failure::new(Reason::Broken, "the stream broke off").detail(error),
        },
        other => Failure::new(Reason::Broken, "the service sends no proper events").detail(other),
    }
}

#[cfg(test)]
mod tests;
