//! One MCP endpoint over HTTP: posts messages and reads what comes back, as one
//! message or as a stream of them.
//!
//! Knows framing only. What a message means, and whether one may be sent
//! again, is for those who use it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use reqwest::{
    Response, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use sse_stream::{Sse, SseByteStream};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest message that is read. Tool results hold images and files.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of an error's body only the beginning is of interest.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    client: reqwest::Client,
    url: Url,
}

/// What a POST brought.
pub enum Reply {
    /// Taken; there is nothing to say.
    Accepted,
    Message(Bytes),
    Stream(Events),
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{url:?} is not the URL of an MCP endpoint")]
    Url { url: String },
    #[error("cannot set up HTTP")]
    Setup(#[source] reqwest::Error),
    /// Nothing was sent: it is safe to try again.
    #[error("cannot connect to {url}")]
    Connect { url: String, source: reqwest::Error },
    #[error("the connection to {url} broke")]
    Broken { url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode, body: Bytes },
    #[error("{url} answered with {found:?} instead of JSON or an event stream")]
    ContentType { url: String, found: String },
    #[error("{url} sent a message longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong { url: String },
}

impl Error {
    /// The status and body of an answer that says no.
    pub fn status(&self) -> Option<(StatusCode, &Bytes)> {
        match self {
            Error::Status { status, body, .. } => Some((*status, body)),
            _ => None,
        }
    }
}

impl Endpoint {
    /// `key` goes with every request to it, and nowhere else.
    ///
    /// # Errors
    /// When the URL is not one of http or https.
    pub fn new(url: &str, key: Option<&str>) -> Result<Self, Error> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = parsed.ok_or_else(|| Error::Url { url: url.to_owned() })?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirected POST would lose its body; an endpoint says where it is.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("mtctl/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        if let Some(mut value) = key.and_then(|key| HeaderValue::try_from(format!("Bearer {key}")).ok()) {
            value.set_sensitive(true);
            builder = builder.default_headers(HeaderMap::from_iter([(header::AUTHORIZATION, value)]));
        }
        Ok(Self { client: builder.build().map_err(Error::Setup)?, url })
    }

    /// Posts one message. Dropping the future closes the connection, which
    /// cancels a modern request and does nothing to a legacy one.
    ///
    /// # Errors
    /// When there is no answer, or it says no.
    pub async fn post(&self, body: Bytes, headers: HeaderMap) -> Result<(HeaderMap, Reply), Error> {
        let request = self
            .client
            .post(self.url.clone())
            .headers(headers)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(body);
        let response = self.checked(request.send().await).await?;
        let headers = response.headers().clone();
        let reply = match content_type(&headers) {
            "text/event-stream" => Reply::Stream(self.events(response)),
            "application/json" => Reply::Message(self.body(response).await?),
            // 202 has no content, whatever it claims to be.
            _ if response.status() == StatusCode::ACCEPTED || response.content_length() == Some(0) => {
                Reply::Accepted
            }
            found => return Err(Error::ContentType { url: self.url.to_string(), found: found.to_owned() }),
        };
        let empty = matches!(&reply, Reply::Message(body) if body.trim_ascii().is_empty());
        Ok((headers, if empty { Reply::Accepted } else { reply }))
    }

    /// Opens the stream of a legacy session, or continues a broken one after
    /// the event `last_event_id`.
    ///
    /// # Errors
    /// When there is no stream.
    pub async fn get(&self, mut headers: HeaderMap, last_event_id: Option<&str>) -> Result<Events, Error> {
        if let Some(value) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert("last-event-id", value);
        }
        let request =
            self.client.get(self.url.clone()).headers(headers).header(header::ACCEPT, "text/event-stream");
        let response = self.checked(request.send().await).await?;
        match content_type(response.headers()) {
            "text/event-stream" => Ok(self.events(response)),
            found => Err(Error::ContentType { url: self.url.to_string(), found: found.to_owned() }),
        }
    }

    /// Ends a legacy session.
    ///
    /// # Errors
    /// When the endpoint does not take it; it may not know how to.
    pub async fn delete(&self, headers: HeaderMap) -> Result<(), Error> {
        let request = self.client.delete(self.url.clone()).headers(headers);
        self.checked(request.send().await).await.map(|_| ())
    }

    async fn checked(&self, sent: Result<Response, reqwest::Error>) -> Result<Response, Error> {
        let response = match sent {
            Ok(response) => response,
            Err(source) if source.is_connect() => {
                return Err(Error::Connect { url: self.url.to_string(), source });
            }
            Err(source) => return Err(Error::Broken { url: self.url.to_string(), source: source.into() }),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            let room = ERROR_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if body.len() == ERROR_BYTES_MAX {
                break;
            }
        }
        Err(Error::Status { url: self.url.to_string(), status, body: body.freeze() })
    }

    async fn body(&self, response: Response) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|error| Error::Broken { url: self.url.to_string(), source: error.into() })?;
            if body.len() + chunk.len() > MESSAGE_BYTES_MAX {
                return Err(Error::TooLong { url: self.url.to_string() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn events(&self, response: Response) -> Events {
        Events::new(self.url.clone(), response.bytes_stream())
    }
}

/// The messages of an event stream.
pub struct Events {
    url: Url,
    inner: Pin<Box<dyn Stream<Item = Result<Sse, sse_stream::Error>> + Send>>,
    /// Bytes since the last event, counted below the decoder, which has no bound of its own.
    pending: Arc<AtomicUsize>,
    /// The id of the last event, from which the stream can be continued.
    pub last_id: Option<String>,
    /// How long the server wants to be left alone before that.
    pub retry: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
enum ChunkError {
    #[error("the connection broke")]
    Http(#[from] reqwest::Error),
    #[error("an event is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
}

impl Events {
    fn new(url: Url, chunks: impl Stream<Item = Result<Bytes, reqwest::Error>> + Send + 'static) -> Self {
        let pending = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pending);
        let bounded = chunks.map(move |chunk| {
            let chunk = chunk?;
            let before = counted.fetch_add(chunk.len(), Ordering::Relaxed);
            if before + chunk.len() > MESSAGE_BYTES_MAX { Err(ChunkError::TooLong) } else { Ok(chunk) }
        });
        Self { url, inner: Box::pin(SseByteStream::new(bounded)), pending, last_id: None, retry: None }
    }

    /// The next message; none at the end of the stream. Cancel safe.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(event) = self.inner.next().await {
            let event =
                event.map_err(|error| Error::Broken { url: self.url.to_string(), source: error.into() })?;
            self.pending.store(0, Ordering::Relaxed);
            if event.id.is_some() {
                self.last_id = event.id.filter(|id| !id.is_empty());
            }
            if let Some(retry) = event.retry {
                self.retry = Some(Duration::from_millis(retry));
            }
            let is_message = event.event.as_deref().is_none_or(|name| name == "message");
            // Events without data prime the stream with an id.
            if let Some(data) = event.data.filter(|data| is_message && !data.trim().is_empty()) {
                return Ok(Some(data.into()));
            }
        }
        Ok(None)
    }
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn events(text: &'static str, chunk: usize) -> Events {
        let chunks: Vec<Result<Bytes, reqwest::Error>> =
            text.as_bytes().chunks(chunk).map(|c| Ok(Bytes::from_static(c))).collect();
        Events::new(Url::parse("http://x/").unwrap(), stream::iter(chunks))
    }

    #[tokio::test]
    async fn priming_events_leave_an_id_and_no_message() {
        let mut events = events("id: 7\nretry: 3000\ndata:\n\ndata: {\"a\":1}\nid: 8\n\nid: 9\n\n", 3);
        assert_eq!(events.next().await.unwrap().unwrap(), "{\"a\":1}");
        assert_eq!((events.last_id.as_deref(), events.retry), (Some("8"), Some(Duration::from_secs(3))));
        assert!(events.next().await.unwrap().is_none());
        assert_eq!(events.last_id.as_deref(), Some("9"));
    }

    #[tokio::test]
    async fn events_of_another_name_are_skipped() {
        let mut events = events("event: ping\ndata: x\n\nevent: message\ndata: {}\n\n", 100);
        assert_eq!(events.next().await.unwrap().unwrap(), "{}");
    }

    #[tokio::test]
    async fn an_endless_event_ends_the_stream() {
        let chunk = Bytes::from(vec![b'x'; 1024 * 1024]);
        let chunks = stream::iter((0..100).map(move |_| Ok(chunk.clone())));
        let mut events = Events::new(Url::parse("http://x/").unwrap(), chunks);
        let error = events.next().await.unwrap_err();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
    }

    #[test]
    fn only_http_urls_are_endpoints() {
        assert!(matches!(Endpoint::new("ftp://x/mcp", None), Err(Error::Url { .. })));
        assert!(matches!(Endpoint::new("nonsense", None), Err(Error::Url { .. })));
    }
}
