//! MCP as bytes over HTTP: for what a client library would hide.

use std::time::Duration;

use reqwest::{Client, Response, header::HeaderMap};
use serde_json::{Value, json};

use crate::cluster::{PATIENCE, eventually};

/// A client that keeps nothing from the tests.
pub fn http() -> Client {
    Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// A modern request, its headers made from its body.
pub fn modern(url: &str, id: u64, method: &str, mut params: Value) -> reqwest::RequestBuilder {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
    let mut request = http()
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", method);
    if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
        request = request.header("mcp-name", name);
    }
    request.json(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// Sends a modern request and gives its one JSON answer (also from a stream).
pub async fn ask(url: &str, method: &str, params: Value) -> Value {
    let response = modern(url, 1, method, params).send().await.unwrap();
    answer(response).await
}

/// The last message of a response, whether JSON or a stream.
pub async fn answer(response: Response) -> Value {
    messages(response).await.pop().unwrap_or(Value::Null)
}

/// All messages of a response.
pub async fn messages(response: Response) -> Vec<Value> {
    messages_to_its_end(response).await.unwrap()
}

/// The same, of a response that may be cut off.
pub async fn messages_to_its_end(response: Response) -> reqwest::Result<Vec<Value>> {
    let stream = response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream");
    let text = response.text().await?;
    if !stream {
        return Ok(vec![serde_json::from_str(&text).unwrap()]);
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    Ok(data.filter(|data| !data.trim().is_empty()).map(|data| serde_json::from_str(data).unwrap()).collect())
}

/// The names of a gateway's tools, all pages.
pub async fn tool_names(url: &str) -> Result<Vec<String>, String> {
    let (mut names, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let params = cursor.as_ref().map_or(json!({}), |cursor| json!({"cursor": cursor}));
        let response = modern(url, 1, "tools/list", params).send().await.map_err(|e| e.to_string())?;
        let listed = answer(response).await;
        let tools = listed["result"]["tools"].as_array().ok_or_else(|| listed.to_string())?;
        names.extend(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()));
        match listed["result"]["nextCursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(names),
        }
    }
}

/// Waits until a gateway shows a tool.
pub async fn shows_tool(url: &str, tool: &str) -> Vec<String> {
    eventually(&format!("{tool} at {url}"), async || {
        let names = tool_names(url).await?;
        if names.iter().any(|name| name == tool) { Ok(names) } else { Err(format!("{names:?}")) }
    })
    .await
}

/// A legacy session.
pub struct Session {
    pub url: String,
    pub headers: HeaderMap,
    next_id: u64,
}

impl Session {
    /// One that somebody else has opened.
    pub fn of(url: &str, id: &str, version: &str) -> Self {
        let headers = [("mcp-session-id", id), ("mcp-protocol-version", version)];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Self { url: url.to_owned(), headers: HeaderMap::from_iter(headers), next_id: 2 }
    }

    /// Sends `initialize` and `notifications/initialized`.
    pub async fn open(url: &str, version: &str, capabilities: Value) -> Self {
        let mut session = Self { url: url.to_owned(), headers: HeaderMap::new(), next_id: 1 };
        let info = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": version, "capabilities": capabilities, "clientInfo": info});
        let response = session.request("initialize", params).send().await.unwrap();
        assert_eq!(response.status(), 200, "initialize");
        let id = response.headers()["mcp-session-id"].clone();
        let negotiated = answer(response).await["result"]["protocolVersion"].as_str().unwrap().to_owned();
        session.headers.insert("mcp-session-id", id);
        session.headers.insert("mcp-protocol-version", negotiated.parse().unwrap());
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(session.post(&initialized).send().await.unwrap().status(), 202);
        session
    }

    /// A POST of this session.
    pub fn post(&self, body: &Value) -> reqwest::RequestBuilder {
        http()
            .post(&self.url)
            .headers(self.headers.clone())
            .header("accept", "application/json, text/event-stream")
            .json(body)
    }

    /// A request with the next id.
    pub fn request(&mut self, method: &str, params: Value) -> reqwest::RequestBuilder {
        let id = self.next_id;
        self.next_id += 1;
        self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    }

    /// Sends a request and gives its answer.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        answer(self.request(method, params).send().await.unwrap()).await
    }

    /// Opens the session's own stream.
    pub async fn stream(&self) -> Response {
        let request =
            http().get(&self.url).headers(self.headers.clone()).header("accept", "text/event-stream");
        request.send().await.unwrap()
    }
}

/// The messages of an open stream, as they come.
pub struct Events {
    response: Response,
    text: Vec<u8>,
}

impl Events {
    pub fn of(response: Response) -> Self {
        Self { response, text: Vec::new() }
    }

    /// The next message; comments and events without data are passed over.
    pub async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(PATIENCE, self.next_or_end()).await;
        next.expect("the stream says something in time").expect("the stream goes on")
    }

    /// As [`next`](Self::next), but none at the end of the stream.
    pub async fn next_or_end(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let data = line.strip_prefix(b"data:").unwrap_or_default().trim_ascii();
                if !data.is_empty() {
                    return Some(serde_json::from_slice(data).unwrap());
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.extend_from_slice(&chunk);
        }
    }
}
