//! The least MCP server that a gateway takes for one: both eras, some tools.
//! `echo` answers with its arguments, `progress` reports as often as it is
//! asked to before it answers, `links` answers with links to resources.

mod body;
mod reply;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

use self::{
    body::Body,
    reply::{Contents, Message},
};
use crate::listen;

/// How the server behaves.
#[derive(clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 4)]
    tools: usize,
    /// Serve resources as well.
    #[arg(long)]
    resources: bool,
    /// Hold the streams that are opened with GET, instead of refusing them.
    #[arg(long)]
    streams: bool,
    /// How long a call takes, ms.
    #[arg(long, default_value_t = 0)]
    service_ms: u64,
    /// Calls that are served at once; others wait. 0 is no bound.
    #[arg(long, default_value_t = 0)]
    slots: usize,
    /// Accept connections and never answer.
    #[arg(long)]
    hang: bool,
    /// On stdin and stdout instead of HTTP.
    #[arg(long)]
    lines: bool,
}

/// Serves until killed.
///
/// # Errors
/// If it cannot listen, or its client has gone.
pub async fn serve(options: Options) -> anyhow::Result<()> {
    if options.hang {
        return hang().await;
    }
    let server = Arc::new(Server {
        contents: Contents::new(options.tools, options.resources),
        streams: options.streams,
        service: Duration::from_millis(options.service_ms),
        slots: (options.slots > 0).then(|| Semaphore::new(options.slots)),
    });
    if options.lines {
        return serve_lines(&server.contents).await;
    }
    listen::serve(move |request| {
        let server = server.clone();
        async move { server.answer(request).await }
    })
    .await
}

struct Server {
    contents: Contents,
    streams: bool,
    service: Duration,
    slots: Option<Semaphore>,
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let modern = request.headers().get("mcp-protocol-version").is_some_and(|v| v == "2026-07-28");
        match *request.method() {
            Method::POST => {}
            Method::GET if self.streams => return events(Body::held()),
            _ => return status(StatusCode::METHOD_NOT_ALLOWED),
        }
        let body = match request.into_body().collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::new(),
        };
        let Ok(message) = serde_json::from_slice::<Message<'_>>(&body) else {
            return status(StatusCode::BAD_REQUEST);
        };
        if message.method == "tools/call" && !self.service.is_zero() {
            // Nobody closes the semaphore.
            let _slot = match &self.slots {
                Some(slots) => slots.acquire().await.ok(),
                None => None,
            };
            sleep(self.service).await;
        }
        let Some(reply) = self.contents.reply(&message, modern) else {
            return status(StatusCode::ACCEPTED);
        };
        if let Some(report) = message.report() {
            return events(Body::reports(report, reply));
        }
        let mut response = Response::new(Body::full(reply));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if message.method == "initialize" {
            headers.insert("mcp-session-id", HeaderValue::from_static("bench"));
        }
        response
    }
}

fn events(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Listens, reads and says nothing.
async fn hang() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        let (mut socket, _) = listener.accept().await?;
        connections.spawn(async move {
            let mut buffer = [0; 4096];
            while socket.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {}
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Serves on stdin and stdout. Before it answers a call that has a progress
/// token it reports progress, with the arguments in the message.
async fn serve_lines(contents: &Contents) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = BufWriter::new(tokio::io::stdout());
    while let Some(line) = lines.next_line().await? {
        let Ok(message) = serde_json::from_str::<Message<'_>>(&line) else { continue };
        let params = message.params.as_ref();
        let modern = params.and_then(|p| p.meta.as_ref()).is_some_and(|meta| meta.version.is_some());
        if let Some(token) = params.and_then(|p| p.meta.as_ref()?.progress_token) {
            let arguments = params.and_then(|p| p.arguments).map_or("{}", RawValue::get);
            let progress = reply::progress(token.get(), 1, &serde_json::to_string(arguments)?);
            out.write_all(progress.as_bytes()).await?;
            out.write_all(b"\n").await?;
        }
        if let Some(reply) = contents.reply(&message, modern) {
            out.write_all(reply.as_bytes()).await?;
            out.write_all(b"\n").await?;
            out.flush().await?;
        }
    }
    Ok(())
}
