//! Streamable HTTP of both eras: sessions and a stream of their own in the one,
//! headers made from the body in the other.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use tokio::task::{AbortHandle, JoinSet};

use super::{Events, Inbox, Opened, Wire, failure, is_modern};

pub struct Streamable {
    url: String,
    http: Client,
    /// What the session is known by, once it is open.
    session: Arc<Mutex<HeaderMap>>,
    inbox: Inbox,
    /// The requests of the modern era, by id.
    running: Mutex<HashMap<u64, AbortHandle>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Streamable {
    pub fn open(url: &str, inbox: Inbox) -> Opened {
        Ok(Arc::new(Self {
            url: url.to_owned(),
            http: Client::new(),
            session: Arc::default(),
            inbox,
            running: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    fn post(&self, message: &Value) -> RequestBuilder {
        let request = self.http.post(&self.url).header("accept", "application/json, text/event-stream");
        let request = if is_modern(message) {
            modern_headers(request, message)
        } else {
            request.headers(self.session.lock().clone())
        };
        request.json(message)
    }

    /// The answer comes in its own time, on its own stream.
    fn request(&self, message: &Value) {
        let (id, initializes) = (message["id"].clone(), message["method"] == "initialize");
        let (posted, inbox, session) = (self.post(message).send(), self.inbox.clone(), self.session.clone());
        let answering = async move {
            let answered = async {
                let response = posted.await.map_err(|error| format!("no response: {error:?}"))?;
                if initializes && let Some(given) = response.headers().get("mcp-session-id") {
                    session.lock().insert("mcp-session-id", given.clone());
                    session.lock().insert("mcp-protocol-version", "2025-11-25".parse().unwrap());
                }
                receive(response, &inbox).await
            };
            if let Err(reason) = answered.await {
                _ = inbox.send(failure(&id, reason)).await;
            }
        };
        let handle = self.tasks.lock().spawn(answering);
        if let Some(id) = message["id"].as_u64().filter(|_| is_modern(message)) {
            self.running.lock().insert(id, handle);
        }
    }

    /// Opens the session's own stream.
    async fn listen(&self) -> Result<(), String> {
        let session = self.session.lock().clone();
        let request = self.http.get(&self.url).headers(session).header("accept", "text/event-stream");
        let response = request.send().await.map_err(|error| format!("no stream: {error:?}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("{} instead of the session's stream", response.status()));
        }
        let inbox = self.inbox.clone();
        self.tasks.lock().spawn(async move {
            _ = Events::of(response).into_inbox(&inbox).await;
        });
        Ok(())
    }
}

impl Wire for Streamable {
    fn send<'a>(&'a self, message: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if message.get("method").is_some() && message.get("id").is_some() {
                self.request(message);
                return Ok(());
            }
            let response = self.post(message).send().await.map_err(|error| format!("{error:?}"))?;
            if response.status() != StatusCode::ACCEPTED {
                let status = response.status();
                return Err(format!("{status} to {message}: {}", response.text().await.unwrap_or_default()));
            }
            if message["method"] == "notifications/initialized" {
                self.listen().await?;
            }
            Ok(())
        })
    }

    fn hang_up(&self, id: u64) -> bool {
        self.running.lock().remove(&id).map(|running| running.abort()).is_some()
    }
}

/// One message or a stream of them. An error of HTTP is fine if it is one of MCP too.
async fn receive(response: Response, inbox: &Inbox) -> Result<(), String> {
    let status = response.status();
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/event-stream") {
        return Events::of(response).into_inbox(inbox).await;
    }
    let text = response.text().await.map_err(|error| format!("{status}, and then {error:?}"))?;
    let message: Value = serde_json::from_str(&text).map_err(|_| format!("{status}: {text}"))?;
    if message["id"].is_null() {
        return Err(format!("{status}: {text}"));
    }
    _ = inbox.send(message).await;
    Ok(())
}

fn modern_headers(request: RequestBuilder, message: &Value) -> RequestBuilder {
    let params = &message["params"];
    let request = request
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", message["method"].as_str().unwrap());
    match params["name"].as_str().or(params["uri"].as_str()) {
        Some(name) if name.is_ascii() => request.header("mcp-name", name),
        Some(name) => request.header("mcp-name", format!("=?base64?{}?=", STANDARD.encode(name))),
        None => request,
    }
}
