//! MCP as `mtctl` itself speaks it: `call` and `tools list` through a gateway
//! or to any streamable HTTP endpoint, in either era.
//!
//! One request at a time and no state beyond the session: what has to be fast
//! or to run side by side is the node's business.

pub mod form;
pub mod headers;
mod host;
pub mod http;

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

pub use host::Host;

use headers::{Marks, PROTOCOL_VERSION, SESSION_ID};
use http::{Endpoint, Events, Reply};

/// Offered in `initialize`.
pub const LEGACY_VERSION: &str = "2025-11-25";
pub const MODERN_VERSION: &str = "2026-07-28";
/// An endpoint may ask for more input so often before it is given up.
const ROUNDS_MAX: usize = 8;
/// A broken stream is continued so often.
const RESUMES_MAX: usize = 5;
/// However long a server wants to be left alone, it is tried after this.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Pages of a list that are read; a server with more is going in circles.
const PAGES_MAX: usize = 1000;
/// How long saying goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Error codes that are acted on: those of MCP, and those of a gateway's own.
pub mod code {
    pub const METHOD_NOT_FOUND: i64 = -32601;
    pub const INVALID_PARAMS: i64 = -32602;
    pub const MISSING_CAPABILITY: i64 = -32021;
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    pub const UPSTREAM_TIMEOUT: i64 = -31001;
    pub const UPSTREAM_UNREACHABLE: i64 = -31002;
    pub const NOT_READY: i64 = -31013;
    pub const UNAUTHENTICATED: i64 = -31015;
    pub const ERA_MISMATCH: i64 = -31018;
}

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    Legacy,
    Modern,
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The other side has answered with an error.
    #[error("{message} ({code})")]
    Rpc { code: i64, message: String, data: Value },
    #[error("the server answered with something that is not MCP")]
    NotMcp { source: Option<serde_json::Error> },
    #[error("the server closed the stream without an answer; the call may have taken effect")]
    NoAnswer,
    #[error("the server asked for more input {ROUNDS_MAX} times")]
    Rounds,
}

impl Error {
    /// Whether what was refused in the legacy era may be taken in the modern
    /// one: an endpoint lists its revisions or knows no `initialize`, and a
    /// gateway names the mismatch with a backend.
    pub fn wants_modern(&self) -> bool {
        let Error::Rpc { code, data, .. } = self else { return false };
        match *code {
            code::ERA_MISMATCH | code::METHOD_NOT_FOUND => true,
            code::UNSUPPORTED_VERSION => {
                let versions = data["supported"].as_array();
                versions.is_none_or(|all| all.iter().any(|version| version == MODERN_VERSION))
            }
            _ => false,
        }
    }

    /// Whether a gateway has said that it has no such tool.
    pub fn is_unknown_tool(&self) -> bool {
        let Error::Rpc { code, message, .. } = self else { return false };
        *code == code::INVALID_PARAMS && message.starts_with("unknown tool")
    }
}

/// What is read of any message.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    pub method: Option<String>,
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    pub error: Option<RpcError>,
}

/// An error as JSON-RPC has it.
#[derive(Debug, Deserialize)]
pub struct RpcError {
    pub code: i64,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub data: Value,
}

/// A client of one endpoint.
pub struct Client {
    endpoint: Endpoint,
    era: Era,
    /// Of the legacy session, once it is open.
    session: HeaderMap,
    marks: Marks,
    next_id: u64,
    host: Host,
}

impl Client {
    /// Opens a legacy session, or nothing at all in the modern era.
    ///
    /// # Errors
    /// When the endpoint cannot be reached or does not take us.
    pub async fn connect(endpoint: Endpoint, era: Era, host: Host) -> Result<Self, Error> {
        let mut client =
            Self { endpoint, era, session: HeaderMap::new(), marks: Marks::default(), next_id: 0, host };
        if era == Era::Legacy {
            client.initialize().await?;
        }
        Ok(client)
    }

    /// Gives back what is needed to connect again.
    pub fn into_parts(self) -> (Endpoint, Host) {
        (self.endpoint, self.host)
    }

    /// Every tool, over all pages.
    ///
    /// # Errors
    /// When a page cannot be read.
    pub async fn tools(&mut self) -> Result<Vec<Value>, Error> {
        let mut tools = Vec::new();
        let mut params = json!({});
        for _ in 0..PAGES_MAX {
            let raw = self.request("tools/list", params).await?;
            let mut page: Value = parse(raw.get().as_bytes())?;
            self.marks.learn(&page);
            if let Value::Array(items) = page["tools"].take() {
                tools.extend(items);
            }
            match page["nextCursor"].take() {
                // An empty cursor is a cursor.
                Value::String(cursor) => params = json!({"cursor": cursor}),
                _ => break,
            }
        }
        Ok(tools)
    }

    /// The result of one request, as it came.
    ///
    /// Dropping the future abandons the request; see [`Client::cancel`].
    ///
    /// # Errors
    /// When there is no result.
    pub async fn request(&mut self, method: &str, mut params: Value) -> Result<Box<RawValue>, Error> {
        for _ in 0..ROUNDS_MAX {
            let raw = self.exchange(method, params.clone()).await;
            self.host.finish();
            let raw = raw?;
            if self.era == Era::Legacy {
                return Ok(raw);
            }
            let result: Value = parse(raw.get().as_bytes())?;
            if result["resultType"] != "input_required" {
                return Ok(raw);
            }
            let mut responses = json!({});
            for (key, ask) in result["inputRequests"].as_object().into_iter().flatten() {
                let asked = ask["method"].as_str().unwrap_or_default();
                let answer = self.host.answer(asked, &ask["params"]);
                responses[key] = answer.map_err(|(code, message)| Error::Rpc {
                    code,
                    message: message.to_owned(),
                    data: Value::Null,
                })?;
            }
            params["inputResponses"] = responses;
            match result.get("requestState") {
                Some(state) => params["requestState"] = state.clone(),
                None => _ = params.as_object_mut().map(|params| params.remove("requestState")),
            }
        }
        Err(Error::Rounds)
    }

    /// Tells a legacy server that the last request is not wanted any more. A
    /// modern one has been told by the closing of its stream.
    pub async fn cancel(&mut self, reason: &str) {
        self.host.finish();
        if self.era == Era::Legacy {
            let params = json!({"requestId": self.next_id, "reason": reason});
            let body = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
            let sent = self.endpoint.post(body.to_string().into(), self.session.clone());
            _ = tokio::time::timeout(GOODBYE_TIMEOUT, sent).await;
        }
    }

    /// Ends the session. That a server does not care to know is no error.
    pub async fn close(self) {
        if self.session.contains_key(SESSION_ID) {
            _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.endpoint.delete(self.session)).await;
        }
    }

    async fn initialize(&mut self) -> Result<(), Error> {
        let params = json!({
            "protocolVersion": LEGACY_VERSION,
            "capabilities": self.host.capabilities(),
            "clientInfo": client_info(),
        });
        let raw = self.exchange("initialize", params).await?;
        let result: Value = parse(raw.get().as_bytes())?;
        let version = result["protocolVersion"].as_str().ok_or(Error::NotMcp { source: None })?;
        let version = HeaderValue::from_str(version).map_err(|_| Error::NotMcp { source: None })?;
        self.session.insert(PROTOCOL_VERSION, version);
        let body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.endpoint.post(body.to_string().into(), self.session.clone()).await?;
        Ok(())
    }

    async fn exchange(&mut self, method: &str, mut params: Value) -> Result<Box<RawValue>, Error> {
        self.next_id += 1;
        if method == "tools/call" {
            params["_meta"]["progressToken"] = self.next_id.into();
        }
        let headers = match self.era {
            Era::Legacy => self.session.clone(),
            Era::Modern => {
                params["_meta"]["io.modelcontextprotocol/protocolVersion"] = MODERN_VERSION.into();
                params["_meta"]["io.modelcontextprotocol/clientInfo"] = client_info();
                params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.host.capabilities();
                self.marks.headers(method, &params, MODERN_VERSION)
            }
        };
        let body = json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params});
        let (headers, reply) = match self.endpoint.post(body.to_string().into(), headers).await {
            Ok(answer) => answer,
            Err(error) => return Err(rpc_of(&error).unwrap_or(Error::Http(error))),
        };
        if method == "initialize"
            && let Some(id) = headers.get(SESSION_ID)
        {
            self.session.insert(SESSION_ID, id.clone());
        }
        match reply {
            Reply::Accepted => Err(Error::NoAnswer),
            Reply::Message(body) => match self.take(&body).await? {
                Some(result) => Ok(result),
                None => Err(Error::NotMcp { source: None }),
            },
            Reply::Stream(events) => self.follow(events).await,
        }
    }

    async fn follow(&mut self, mut events: Events) -> Result<Box<RawValue>, Error> {
        let mut resumes = 0;
        loop {
            let ended = loop {
                match events.next().await {
                    Ok(Some(body)) => {
                        if let Some(result) = self.take(&body).await? {
                            return Ok(result);
                        }
                    }
                    Ok(None) => break Error::NoAnswer,
                    Err(error) => break Error::Http(error),
                }
            };
            let last_id = events.last_id.clone().filter(|_| self.era == Era::Legacy && resumes < RESUMES_MAX);
            let Some(last_id) = last_id else { return Err(ended) };
            resumes += 1;
            tokio::time::sleep(events.retry.unwrap_or(Duration::from_secs(1)).min(RETRY_MAX)).await;
            events = self.endpoint.get(self.session.clone(), Some(&last_id)).await?;
            events.last_id = Some(last_id);
        }
    }

    /// Takes one message: the result, if this is the answer.
    async fn take(&mut self, body: &Bytes) -> Result<Option<Box<RawValue>>, Error> {
        let message: Message = parse(body)?;
        let params =
            || message.params.map_or(Value::Null, |raw| parse(raw.get().as_bytes()).unwrap_or_default());
        match (&message.method, message.id) {
            (Some(method), Some(id)) => {
                let answer = match self.host.answer(method, &params()) {
                    Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                    Err((code, text)) => {
                        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
                    }
                };
                self.endpoint.post(answer.to_string().into(), self.session.clone()).await?;
                Ok(None)
            }
            (Some(method), None) => {
                self.host.notice(method, &params());
                Ok(None)
            }
            (None, id) => {
                if let Some(error) = message.error {
                    return Err(Error::Rpc { code: error.code, message: error.message, data: error.data });
                }
                let ours = id.is_some_and(|id| id.get() == self.next_id.to_string());
                Ok(message.result.filter(|_| ours).map(ToOwned::to_owned))
            }
        }
    }
}

/// The JSON-RPC error in the body of a refusal, if it has one.
fn rpc_of(error: &http::Error) -> Option<Error> {
    let (_, body) = error.status()?;
    let error = serde_json::from_slice::<Message>(body).ok()?.error?;
    Some(Error::Rpc { code: error.code, message: error.message, data: error.data })
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|source| Error::NotMcp { source: Some(source) })
}

fn client_info() -> Value {
    json!({"name": "mtctl", "title": "MagicTunnel", "version": env!("CARGO_PKG_VERSION")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_with_a_json_rpc_body_is_that_error() {
        let body = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"x","data":{"supported":["2026-07-28"]}}}"#;
        let error = http::Error::Status {
            url: "http://x/".to_owned(),
            status: reqwest::StatusCode::BAD_REQUEST,
            body: Bytes::from_static(body),
        };
        assert!(rpc_of(&error).unwrap().wants_modern());
    }

    #[test]
    fn other_errors_do_not_ask_for_the_modern_era() {
        assert!(
            !Error::Rpc { code: code::INVALID_PARAMS, message: String::new(), data: Value::Null }
                .wants_modern()
        );
        assert!(!Error::NoAnswer.wants_modern());
    }
}
