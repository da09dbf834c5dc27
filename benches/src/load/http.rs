//! A client over HTTP: one connection, and in the legacy era one session on it.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{
    Target,
    case::{Asker, Case, Era, LEGACY},
};

/// Errors that say there is no room: at a backend, and in the line before it.
const NO_ROOM: [&[u8]; 2] = [br#""code":-31006,"#, br#""code":-31019,"#];
/// No refusal is longer.
const REFUSAL_BYTES_MAX: usize = 1024;

/// What a client shows of itself.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// Its API key.
    pub key: Option<&'static str>,
}

/// A connection, and the session that is used on it.
pub struct Session {
    send: SendRequest<Full<Bytes>>,
    path: String,
    authority: HeaderValue,
    version: &'static str,
    headers: Headers,
    pub id: Option<HeaderValue>,
    _connection: JoinSet<()>,
}

impl Session {
    /// Connects; there is no session yet.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(target: &Target, case: &Case, headers: Headers) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(target.address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let (send, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let mut owned = JoinSet::new();
        owned.spawn(async move { _ = connection.await });
        Ok(Self {
            send,
            path: target.path(case).to_owned(),
            authority: HeaderValue::from_str(&target.address.to_string())?,
            version: case.version(),
            headers,
            id: None,
            _connection: owned,
        })
    }

    /// Opens a session; one that was open before is left as it is.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn initialize(&mut self) -> anyhow::Result<()> {
        self.id = None;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#
        );
        let response = self.post("initialize", None, body).await?;
        let session = response.headers().get("mcp-session-id").cloned();
        accepted(response).await.context("initialize")?;
        self.id = session;
        let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
        let response = self.post("notifications/initialized", None, body).await?;
        accepted(response).await.context("notifications/initialized")?;
        Ok(())
    }

    /// Opens the stream of the session, whose head it waits for.
    ///
    /// # Errors
    /// If the target refuses it.
    pub async fn listen(&mut self) -> anyhow::Result<Incoming> {
        let request = self.request(Method::GET).header(header::ACCEPT, "text/event-stream");
        self.send.ready().await?;
        let response = self.send.send_request(request.body(Full::default())?).await?;
        ensure!(response.status().is_success(), "GET: HTTP {}", response.status());
        Ok(response.into_body())
    }

    fn request(&self, method: Method) -> http::request::Builder {
        let mut request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(header::HOST, &self.authority)
            .header("mcp-protocol-version", self.version);
        if let Some(session) = &self.id {
            request = request.header("mcp-session-id", session);
        }
        if let Some(key) = self.headers.key {
            request = request.header("x-api-key", key);
        }
        request
    }

    async fn post(
        &mut self,
        method: &str,
        name: Option<&str>,
        body: String,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = self
            .request(Method::POST)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        if self.version != LEGACY {
            request = request.header("mcp-method", method);
            if let Some(name) = name {
                request = request.header("mcp-name", name);
            }
        }
        self.send.ready().await?;
        Ok(self.send.send_request(request.body(Full::from(body))?).await?)
    }
}

async fn accepted(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "HTTP {status}: {}", String::from_utf8_lossy(&answer));
    Ok(answer)
}

/// A client that asks.
pub struct Http(Session);

impl Http {
    pub async fn connect(target: &Target, case: &Case) -> anyhow::Result<Self> {
        let mut session = Session::connect(target, case, Headers::default()).await?;
        if case.era == Era::Legacy {
            session.initialize().await?;
        }
        Ok(Self(session))
    }

    /// All that came for the present request; none if there was no room for it.
    pub async fn ask(&mut self, asker: &Asker) -> anyhow::Result<Option<Bytes>> {
        // Only then is the name looked at.
        let name = if asker.case.era == Era::Modern { asker.name() } else { None };
        let response = self.0.post(asker.case.method(), name.as_deref(), asker.message()).await?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            response.into_body().collect().await?;
            return Ok(None);
        }
        let answer = accepted(response).await?;
        let refused = answer.len() < REFUSAL_BYTES_MAX
            && NO_ROOM.iter().any(|code| memchr::memmem::find(&answer, code).is_some());
        Ok((!refused).then_some(answer))
    }
}
