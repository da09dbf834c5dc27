//! The least MCP server that a gateway takes for one: both eras, some tools,
//! `echo` answers with its arguments.

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};

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
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a RawValue>,
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
        return status(http::StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else {
        return status(http::StatusCode::BAD_REQUEST);
    };
    let Some(body) = reply(&message, list, modern) else {
        return status(http::StatusCode::ACCEPTED);
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if message.method == "initialize" {
        headers.insert("mcp-session-id", HeaderValue::from_static("bench"));
    }
    response
}

fn status(status: http::StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// Serves on stdin and stdout. Before it answers a call that has a progress
/// token it reports progress, with the arguments in the message.
pub async fn serve_lines(tools: usize) -> anyhow::Result<()> {
    let list = listing(tools);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = BufWriter::new(tokio::io::stdout());
    while let Some(line) = lines.next_line().await? {
        let Ok(message) = serde_json::from_str::<Message<'_>>(&line) else { continue };
        let params = message.params.as_ref();
        let modern = params.and_then(|p| p.meta.as_ref()).is_some_and(|meta| meta.version.is_some());
        if let Some(token) = params.and_then(|p| p.meta.as_ref()?.progress_token) {
            let arguments = params.and_then(|p| p.arguments).map_or("{}", RawValue::get);
            let message = serde_json::to_string(arguments)?;
            let progress = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1,"message":{message}}}}}"#,
                token.get()
            );
            out.write_all(progress.as_bytes()).await?;
            out.write_all(b"\n").await?;
        }
        if let Some(reply) = reply(&message, &list, modern) {
            out.write_all(reply.as_bytes()).await?;
            out.write_all(b"\n").await?;
            out.flush().await?;
        }
    }
    Ok(())
}

/// The answer to a request; none to a notification.
fn reply(message: &Message<'_>, list: &str, modern: bool) -> Option<String> {
    let id = message.id?;
    let complete = if modern { r#","resultType":"complete""# } else { "" };
    let cache = if modern { r#","ttlMs":0,"cacheScope":"public""# } else { "" };
    let result = match message.method {
        "initialize" => r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#.to_owned(),
        "server/discover" => format!(r#"{{"supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{}}}}{complete}{cache}}}"#),
        "tools/list" => format!(r#"{{"tools":[{list}]{complete}{cache}}}"#),
        "tools/call" => {
            let arguments = message.params.as_ref().and_then(|p| p.arguments).map_or("{}", RawValue::get);
            format!(r#"{{"content":[{{"type":"text","text":"ok"}}],"structuredContent":{arguments}{complete}}}"#)
        }
        _ => "{}".to_owned(),
    };
    Some(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.get()))
}
