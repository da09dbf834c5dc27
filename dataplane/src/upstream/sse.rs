//! A pipe over HTTP+SSE, the transport of 2024-11-05: what the server says
//! comes on one event stream, and what it is told is POSTed to a place that it
//! names there.
//!
//! The stream is the session: when it ends, so does everything on it. Nothing
//! is POSTed to another server than the configured one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{
    HeaderValue, Method as HttpMethod, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use mt_proto::resource::HttpTransport;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use url::Url;

use super::{
    connection::{Tasks, supervise},
    endpoint::{Endpoint, Reply},
    message::Outgoing,
    pending::Failure,
    pipe::{Pipe, Queued, Terms},
    pump::Garbage,
    request::collect,
    stream::{End, EventStream},
};
use crate::{gateway::call::CallError, mcp::headers as protocol};

/// How long a server may take to say where messages go.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that are on their way at the same time.
const POSTS_MAX: usize = 64;
/// How long a server may take to accept a message. Some do so only when they
/// have answered it on the stream.
const POST_TIMEOUT: Duration = Duration::from_secs(300);
/// How long what is no call is waited for before anything else is sent:
/// servers refuse calls that overtake `notifications/initialized`.
const ORDER_WAIT: Duration = Duration::from_secs(1);
/// How much is read of what comes back for a message.
const ACCEPTED_BYTES_MAX: usize = 4 * 1024;
/// The event that names the place.
const ENDPOINT: &[u8] = b"endpoint";
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

pub struct Sse {
    endpoint: Arc<Endpoint>,
    url: Url,
}

impl Sse {
    pub fn new(endpoint: Endpoint, transport: &HttpTransport) -> Self {
        Self { endpoint: Arc::new(endpoint), url: transport.url.clone() }
    }

    /// Opens a stream with the tasks that serve it. Dropping it opens none.
    pub async fn open(&self, terms: Terms, idle_max: Duration) -> Result<Arc<Pipe>, CallError> {
        let mut events = open_stream(&self.endpoint).await?;
        let place = match timeout(ENDPOINT_TIMEOUT, first_endpoint(&mut events)).await {
            Ok(Ok(place)) => self.resolve(&place)?,
            Ok(Err(end)) => return Err(self.endpoint.unreachable(end.to_string())),
            Err(_) => {
                let seconds = ENDPOINT_TIMEOUT.as_secs();
                return Err(self
                    .endpoint
                    .unreachable(format!("its stream did not say within {seconds} s where messages go")));
            }
        };
        let shared = Arc::clone(&terms.shared);
        let (pipe, queue) = Pipe::new(terms);
        let poster = Poster { endpoint: Arc::clone(&self.endpoint), place, pipe: pipe.clone() };
        let tasks = Tasks {
            wrote: shared.tasks.spawn(write(poster, queue)),
            read: shared.tasks.spawn(read(pipe.clone(), events)),
        };
        shared.tasks.spawn(supervise(pipe.clone(), tasks, idle_max));
        Ok(pipe)
    }

    /// Where messages go. Anywhere else than on the same server, what is shown
    /// to the backend would be shown to somebody else.
    fn resolve(&self, place: &[u8]) -> Result<Uri, CallError> {
        let text = String::from_utf8_lossy(place);
        let url = self
            .url
            .join(text.trim())
            .map_err(|_| self.endpoint.protocol("its stream names no place for messages".to_owned()))?;
        if url.origin() != self.url.origin() {
            return Err(self
                .endpoint
                .protocol("its stream names a place on another server for messages".to_owned()));
        }
        let mut url = url;
        url.set_fragment(None);
        url.as_str()
            .parse()
            .map_err(|_| self.endpoint.protocol("its stream names no place for messages".to_owned()))
    }
}

/// Whether a server that refuses POSTs speaks HTTP+SSE.
pub async fn is_spoken(endpoint: &Endpoint) -> bool {
    let looked = async {
        let mut events = open_stream(endpoint).await.ok()?;
        first_endpoint(&mut events).await.ok()
    };
    matches!(timeout(ENDPOINT_TIMEOUT, looked).await, Ok(Some(_)))
}

async fn open_stream(endpoint: &Endpoint) -> Result<EventStream, CallError> {
    let mut headers = endpoint.headers()?;
    headers.remove(CONTENT_TYPE);
    headers.insert(ACCEPT, EVENT_STREAM);
    let response = endpoint.send(HttpMethod::GET, headers, Outgoing::default()).await?;
    match endpoint.read(response).await? {
        Reply::Events(body) => Ok(EventStream::new(body)),
        Reply::Refused(refusal) => Err(endpoint.refused(&refusal)),
        Reply::Message(_) | Reply::Accepted => {
            Err(endpoint.protocol("does not answer a GET with an event stream".to_owned()))
        }
    }
}

/// Nothing may come before it, but a few servers send comments and greetings.
async fn first_endpoint(events: &mut EventStream) -> Result<Bytes, End> {
    loop {
        let event = events.next_event().await?;
        if event.name.as_deref() == Some(ENDPOINT)
            && let Some(place) = event.data
        {
            return Ok(place);
        }
    }
}

/// Reads messages to the end of the stream; how it came.
async fn read(pipe: Arc<Pipe>, mut events: EventStream) -> String {
    let mut garbage = Garbage::default();
    loop {
        let event = match events.next_event().await {
            Ok(event) => event,
            Err(End::TooLong(_)) => {
                pipe.give_up("the backend sent a message that is too long");
                return String::new();
            }
            Err(end) => return end.to_string(),
        };
        if !event.is_message() {
            continue;
        }
        let message = event.data.unwrap_or_default();
        if !pipe.take(message) && !garbage.one_more(Instant::now()) {
            pipe.give_up("the backend sends too much that is no message");
            return String::new();
        }
    }
}

/// POSTs the queue until the pipe is stopped.
async fn write(poster: Poster, mut queue: mpsc::Receiver<Queued>) {
    let mut posts: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    let send = async {
        loop {
            let queued = tokio::select! {
                queued = queue.recv(), if posts.len() < POSTS_MAX => match queued {
                    Some(queued) => queued,
                    None => return,
                },
                Some(()) = posts.next() => continue,
            };
            let is_call = queued.call.is_some();
            let mut post = poster.post(queued).boxed();
            if !is_call && timeout(ORDER_WAIT, &mut post).await.is_ok() {
                continue;
            }
            posts.push(post);
        }
    };
    _ = poster.pipe.stop.run_until_cancelled(send).await;
}

struct Poster {
    endpoint: Arc<Endpoint>,
    place: Uri,
    pipe: Arc<Pipe>,
}

impl Poster {
    async fn post(&self, queued: Queued) {
        let failure = match timeout(POST_TIMEOUT, self.exchange(queued.line.clone())).await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            // It may still answer on the stream.
            Err(_) => return,
        };
        match queued.call {
            Some(call) => self.pipe.pending.fail(call, failure),
            None => tracing::debug!(backend = %self.pipe.backend, ?failure, "a message was not taken"),
        }
    }

    async fn exchange(&self, line: Bytes) -> Result<(), Failure> {
        let headers = self.endpoint.headers().map_err(Failure::Call)?;
        let sent = self.endpoint.send_to(&self.place, HttpMethod::POST, headers, line.into()).await;
        let response = sent.map_err(Failure::Call)?;
        if response.status().is_success() && !protocol::is_json(response.headers()) {
            // Mostly the word "Accepted". Read, so that the connection can be used again.
            _ = collect(response.into_body(), ACCEPTED_BYTES_MAX).await;
            return Ok(());
        }
        match self.endpoint.read(response).await.map_err(Failure::Call)? {
            Reply::Accepted | Reply::Events(_) => Ok(()),
            // Not as it should be, but an answer.
            Reply::Message(message) => {
                self.pipe.take(message);
                Ok(())
            }
            Reply::Refused(refusal) if matches!(refusal.status, StatusCode::NOT_FOUND | StatusCode::GONE) => {
                // The session is gone, and nothing of the call was begun.
                self.pipe.give_up("the backend does not know the session any more");
                Err(Failure::Unsent)
            }
            Reply::Refused(refusal) => Err(Failure::Call(self.endpoint.refused(&refusal))),
        }
    }
}
