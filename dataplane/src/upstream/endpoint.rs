//! The HTTP endpoint of one backend: requests out, replies in.
//!
//! Knows HTTP and nothing of sessions or eras. Bodies are read within limits,
//! redirects are not followed (they would carry credentials elsewhere), and
//! what a backend says in an error reaches people only as a short excerpt,
//! without what was shown to it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
    response::Parts,
};
use http_body::Body as _;
use metrics::counter;
use mt_proto::resource::{Header, HttpTransport, ResourceName, Value};

use super::{
    auth::{Auth, Credentials},
    client::{self, Incoming, Origin, Sending},
    excerpt::excerpt,
    message::Outgoing,
    meters::Meters,
    request::{AGENT, Cut, JSON, collect, host, target},
    secrets::Secrets,
    shared::Shared,
};
use crate::{
    chain,
    gateway::call::CallError,
    mcp::{
        envelope::{Message, Response as RpcResponse},
        headers as protocol,
        scan::Limits,
    },
};

/// The longest answer of a backend.
pub const RESULT_BYTES_MAX: usize = 10 * 1024 * 1024;
/// How much of an error page is read.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// Where one backend is reached.
pub struct Endpoint {
    pub backend: ResourceName,
    pub meters: Arc<Meters>,
    place: Option<Place>,
    operator: Vec<Header>,
    secrets: Secrets,
    auth: Auth,
    /// Headers of every request, with the secrets in them.
    headers: ArcSwapOption<HeaderMap>,
}

/// Where requests go, taken apart once.
struct Place {
    uri: Uri,
    origin: Arc<Origin>,
    /// The path and query alone, as they are on the wire.
    target: Uri,
    host: HeaderValue,
}

/// What came back.
pub enum Reply {
    /// One JSON message.
    Message(Bytes),
    /// An event stream.
    Events(Incoming),
    /// Success, and nothing to say.
    Accepted,
    /// No success.
    Refused(Refusal),
}

/// A response that is no success.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    retry_after: Option<HeaderValue>,
    body: Bytes,
}

impl Endpoint {
    pub fn new(
        backend: ResourceName,
        transport: &HttpTransport,
        secrets: Secrets,
        meters: Arc<Meters>,
        shared: &Shared,
    ) -> Self {
        Self {
            meters,
            place: Place::of(transport, shared),
            operator: transport.headers.clone(),
            auth: Auth::new(&backend, transport, secrets.clone(), shared),
            backend,
            secrets,
            headers: ArcSwapOption::empty(),
        }
    }

    /// The headers of every request, without what is shown to be let in: the
    /// operator's, and over them ours.
    pub fn headers(&self) -> Result<HeaderMap, CallError> {
        if let Some(headers) = &*self.headers.load() {
            return Ok(HeaderMap::clone(headers));
        }
        let headers = self.resolve().map_err(|reason| self.unreachable(reason))?;
        self.headers.store(Some(Arc::new(headers.clone())));
        Ok(headers)
    }

    fn resolve(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::with_capacity(self.operator.len() + 8);
        if let Some(place) = &self.place {
            headers.insert(HOST, place.host.clone());
        }
        headers.insert(USER_AGENT, AGENT);
        for header in &self.operator {
            let Ok(name) = HeaderName::try_from(&header.name) else {
                return Err(format!("{:?} is no header name", header.name));
            };
            if is_reserved(&name) {
                continue;
            }
            let text = match &header.value {
                Value::Text(text) => text.clone(),
                Value::Secret(secret) => (self.secrets)(secret)?,
            };
            let mut value = HeaderValue::try_from(text)
                .map_err(|_| format!("the value of header {name} cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(ACCEPT, protocol::ACCEPT_BOTH);
        headers.insert(CONTENT_TYPE, JSON);
        Ok(headers)
    }

    /// Sends a request and waits for the head of the response. It may
    /// hold a connection from the beginning, which is closed if it is dropped.
    pub fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Outgoing,
    ) -> impl Future<Output = Result<Response<Incoming>, CallError>> + Send + '_ {
        let way = match &self.place {
            Some(place) if self.auth.is_none() => {
                Way::Open(place.origin.send(request(place.target.clone(), method, headers, body)))
            }
            Some(place) => Way::Showing(Box::pin(self.send_showing(&place.uri, method, headers, body))),
            None => Way::Nowhere,
        };
        self.head_of(way)
    }

    /// The same to another place of the same server, such as the one that it
    /// names for messages.
    pub async fn send_to(
        &self,
        uri: &Uri,
        method: Method,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response<Incoming>, CallError> {
        let place = self.place()?;
        if place.uri.scheme() != uri.scheme() || place.uri.authority() != uri.authority() {
            // It would get what is shown to the backend.
            return Err(self.protocol("names a place on another server".to_owned()));
        }
        let way = if self.auth.is_none() {
            Way::Open(place.origin.send(request(target(uri), method, headers, body)))
        } else {
            Way::Showing(Box::pin(self.send_showing(uri, method, headers, body)))
        };
        self.head_of(way).await
    }

    /// Small, whatever is sent: it is a part of every call's future.
    async fn head_of(&self, way: Way<'_>) -> Result<Response<Incoming>, CallError> {
        match way {
            Way::Open(sending) => {
                let response = sending.await.map_err(|error| self.send_error(&error))?;
                self.note(response.status());
                Ok(response)
            }
            Way::Showing(sending) => sending.await,
            Way::Nowhere => Err(self.nowhere()),
        }
    }

    async fn send_showing(
        &self,
        uri: &Uri,
        method: Method,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response<Incoming>, CallError> {
        let shown = self.credentials().await?;
        let again = (method.clone(), headers.clone(), body.clone());
        let response = self.exchange_showing(&shown, uri, method, headers, body).await?;
        let Some(renewed) = self.renewed(response.status(), &shown).await else { return Ok(response) };
        // Who is not let in has begun nothing, so it can be sent once more.
        let (method, headers, body) = again;
        let response = self.exchange_showing(&renewed, uri, method, headers, body).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.auth.refused_again();
        }
        Ok(response)
    }

    async fn exchange_showing(
        &self,
        shown: &Credentials,
        uri: &Uri,
        method: Method,
        mut headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Response<Incoming>, CallError> {
        let uri = shown.apply(uri, &mut headers);
        let sending = self.place()?.origin.send(request(target(&uri), method, headers, body));
        sending.await.map_err(|error| self.send_error(&error))
    }

    fn place(&self) -> Result<&Place, CallError> {
        self.place.as_ref().ok_or_else(|| self.nowhere())
    }

    fn nowhere(&self) -> CallError {
        self.unreachable("its URL cannot be dialled".to_owned())
    }

    async fn credentials(&self) -> Result<Arc<Credentials>, CallError> {
        self.auth.credentials().await.map_err(|reason| CallError::NeedsAuth {
            backend: self.backend.clone(),
            status: StatusCode::UNAUTHORIZED.as_u16(),
            reason,
        })
    }

    /// Takes note of a status; what to show instead, if it was a refusal and
    /// there is something.
    async fn renewed(&self, status: StatusCode, shown: &Arc<Credentials>) -> Option<Arc<Credentials>> {
        self.note(status);
        match status {
            // 403 is about what is allowed, not about who asks.
            StatusCode::UNAUTHORIZED => self.auth.renew(shown).await,
            StatusCode::FORBIDDEN => self.auth.reread(shown),
            _ => None,
        }
    }

    fn note(&self, status: StatusCode) {
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // A secret may have been rotated.
            self.headers.store(None);
        }
    }

    /// Reads a response as far as it is not a stream. What its head says is read
    /// at once.
    pub fn read(
        &self,
        response: Response<Incoming>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + '_ {
        let (head, body) = response.into_parts();
        let kind = Kind::of(&head);
        async move {
            match kind {
                Kind::Message => self.read_message(body).await,
                Kind::Events => Ok(Reply::Events(body)),
                // Boxed: they are rare, and every call would carry their state.
                Kind::Unknown => Box::pin(self.read_unknown(body)).await,
                Kind::Refused(status, retry_after) => {
                    let read = Box::pin(collect(body, ERROR_BODY_BYTES_MAX)).await;
                    let body = read.unwrap_or_else(|(read, _)| read);
                    Ok(Reply::Refused(Refusal { status, retry_after, body }))
                }
            }
        }
    }

    async fn read_message(&self, body: Incoming) -> Result<Reply, CallError> {
        if body.size_hint().lower() > RESULT_BYTES_MAX as u64 {
            return Err(self.too_large());
        }
        match collect(body, RESULT_BYTES_MAX).await {
            Ok(body) if body.trim_ascii().is_empty() => Ok(Reply::Accepted),
            Ok(body) => Ok(Reply::Message(body)),
            Err((_, Cut::TooLarge)) => Err(self.too_large()),
            Err((_, Cut::NoRoom(full))) => {
                counter!("mt_long_bodies_refused_total", "from" => "backend").increment(1);
                Err(self.lost(full.to_string()))
            }
            Err((_, Cut::Broken(error))) => {
                Err(self.lost(format!("the answer broke off: {}", chain(&error))))
            }
        }
    }

    async fn read_unknown(&self, body: Incoming) -> Result<Reply, CallError> {
        let read = collect(body, ERROR_BODY_BYTES_MAX).await.unwrap_or_else(|(read, _)| read);
        if read.trim_ascii().is_empty() {
            return Ok(Reply::Accepted);
        }
        Err(self.protocol(format!("answered neither JSON nor an event stream: {}", self.said(&read))))
    }

    pub fn unreachable(&self, reason: String) -> CallError {
        CallError::Unreachable { backend: self.backend.clone(), reason }
    }

    pub fn lost(&self, reason: String) -> CallError {
        CallError::Lost { backend: self.backend.clone(), reason }
    }

    pub fn protocol(&self, reason: String) -> CallError {
        CallError::Protocol { backend: self.backend.clone(), reason }
    }

    fn too_large(&self) -> CallError {
        self.protocol(format!("the answer is longer than {RESULT_BYTES_MAX} bytes"))
    }

    /// What a refusal means where nothing else is known about it.
    pub fn refused(&self, refusal: &Refusal) -> CallError {
        let status = refusal.status;
        let said = self.said(&refusal.body);
        let reason = match &refusal.retry_after {
            Some(after) => format!("HTTP {}, retry after {}", status.as_u16(), excerpt(after.as_bytes())),
            None if said.is_empty() => format!("HTTP {}", status.as_u16()),
            None => format!("HTTP {}: {said}", status.as_u16()),
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = format!("it refuses the credentials of the node (HTTP {})", status.as_u16());
                CallError::NeedsAuth { backend: self.backend.clone(), status: status.as_u16(), reason }
            }
            // Both say that the request was not begun.
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => self.unreachable(reason),
            status if status.is_server_error() => self.lost(reason),
            status if status.is_redirection() => self
                .protocol(format!("redirects elsewhere (HTTP {}), which is not followed", status.as_u16())),
            _ => self.protocol(reason),
        }
    }

    /// A few words of the backend, without what was shown to it.
    fn said(&self, body: &[u8]) -> String {
        if self.auth.is_none() {
            return excerpt(body);
        }
        // Before it is cut: half of a secret is not found any more.
        excerpt(self.auth.hide(String::from_utf8_lossy(body).into_owned()).as_bytes())
    }

    fn send_error(&self, error: &client::Error) -> CallError {
        let reason = error.reason();
        if error.is_unsent() { self.unreachable(reason) } else { self.lost(reason) }
    }
}

impl Refusal {
    /// The JSON-RPC response in it, if it is one.
    pub fn rpc(&self) -> Option<RpcResponse> {
        match Message::parse(self.body.clone(), Limits::BACKEND) {
            Ok(Message::Response(response)) => Some(response),
            _ => None,
        }
    }
}

/// What a response is, by its head.
enum Kind {
    Message,
    Events,
    Unknown,
    Refused(StatusCode, Option<HeaderValue>),
}

impl Kind {
    fn of(head: &Parts) -> Self {
        if !head.status.is_success() {
            Self::Refused(head.status, head.headers.get(RETRY_AFTER).cloned())
        } else if protocol::is_sse(&head.headers) {
            Self::Events
        } else if protocol::is_json(&head.headers) {
            Self::Message
        } else {
            Self::Unknown
        }
    }
}

/// How a request is sent.
enum Way<'a> {
    /// With nothing shown.
    Open(Sending<'a>),
    Showing(BoxFuture<'a, Result<Response<Incoming>, CallError>>),
    Nowhere,
}

fn request(target: Uri, method: Method, headers: HeaderMap, body: Outgoing) -> Request<Outgoing> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    request
}

impl Place {
    fn of(transport: &HttpTransport, shared: &Shared) -> Option<Self> {
        let uri: Uri = transport.url.as_str().parse().ok()?;
        let origin = shared.origin(&uri, transport.connect_timeout)?;
        Some(Self { target: target(&uri), host: host(&uri)?, origin, uri })
    }
}

/// Headers that are the protocol's or the connection's.
fn is_reserved(name: &HeaderName) -> bool {
    const RESERVED: [&str; 11] = [
        "host",
        "content-length",
        "content-type",
        "accept",
        "connection",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "te",
        "trailer",
        "last-event-id",
    ];
    name.as_str().starts_with("mcp-") || RESERVED.contains(&name.as_str())
}
