//! The least MCP server that a gateway takes for one: both eras, some tools,
//! `echo` answers with its arguments.

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::listen;

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// Serves `tools` tools on a free port.
pub async fn serve(tools: usize) -> anyhow::Result<()> {
    let list = listing(tools);
    listen::serve(move |request| {
        let list = list.clone();
        async move { answer(request, &list).await }
    })
    .await
}

fn listing(tools: usize) -> String {
    let tool = |name: String| {
        format!(
            r#"{{"name":"{name}","description":"Answers with its arguments, as they came.","inputSchema":{{"type":"object","properties":{{"text":{{"type":"string","description":"Any text at all"}},"count":{{"type":"integer","minimum":0}}}},"required":["text"]}}}}"#
        )
    };
    let names = std::iter::once("echo".to_owned()).chain((1..tools).map(|n| format!("tool_{n}")));
    names.map(tool).collect::<Vec<_>>().join(",")
}

async fn answer(request: Request<Incoming>, list: &str) -> Response<Full<Bytes>> {
    let modern = request.headers().get("mcp-protocol-version").is_some_and(|v| v == "2026-07-28");
    if request.method() != http::Method::POST {
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        return response;
    };
    let Some(id) = message.id else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = http::StatusCode::ACCEPTED;
        return response;
    };
    let complete = if modern { r#","resultType":"complete""# } else { "" };
    let cache = if modern { r#","ttlMs":0,"cacheScope":"public""# } else { "" };
    let result = match message.method {
        "initialize" => r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#.to_owned(),
        "server/discover" => format!(r#"{{"supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{}}}}{complete}{cache}}}"#),
        "tools/list" => format!(r#"{{"tools":[{list}]{complete}{cache}}}"#),
        "tools/call" => {
            let arguments = message.params.and_then(|p| p.arguments).map_or("{}", RawValue::get);
            format!(r#"{{"content":[{{"type":"text","text":"ok"}}],"structuredContent":{arguments}{complete}}}"#)
        }
        _ => "{}".to_owned(),
    };
    let body = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.get());
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if message.method == "initialize" {
        headers.insert("mcp-session-id", HeaderValue::from_static("bench"));
    }
    response
}
