//! The closed loop: each connection sends its next request when it has the
//! answer to the one before, and every answer is checked for its own mark.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

/// Before counting.
const WARM_UP: Duration = Duration::from_secs(1);
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// Something that is measured.
pub struct Target {
    pub name: &'static str,
    pub address: SocketAddr,
    pub pid: u32,
}

/// What is sent.
pub struct Case {
    pub name: &'static str,
    version: &'static str,
    method: &'static str,
    payload_bytes: usize,
}

pub const CASES: &[Case] = &[
    Case { name: "tools/call, session", version: LEGACY, method: "tools/call", payload_bytes: 32 },
    Case { name: "tools/call, stateless", version: MODERN, method: "tools/call", payload_bytes: 32 },
    Case {
        name: "tools/call of 64 KiB, session",
        version: LEGACY,
        method: "tools/call",
        payload_bytes: 64 << 10,
    },
    Case { name: "tools/list, session", version: LEGACY, method: "tools/list", payload_bytes: 0 },
    Case { name: "tools/list, stateless", version: MODERN, method: "tools/list", payload_bytes: 0 },
];

/// What one measurement gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// In the counted time.
    pub requests: u64,
    /// Sent while CPU time was counted, warm-up included.
    pub all_requests: u64,
    pub elapsed: Duration,
    pub p50: Duration,
    pub p99: Duration,
}

/// Loads one target.
pub async fn run(
    target: &Target,
    case: &'static Case,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Sample> {
    let mut clients = JoinSet::new();
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    for number in 0..connections {
        let mut client = Client::connect(target.address, case, number).await?;
        clients.spawn(async move {
            let mut times = Vec::new();
            let mut all = 0u64;
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok((times, all));
                }
                client.once().await?;
                all += 1;
                if sent >= begin {
                    times.push(sent.elapsed());
                }
            }
        });
    }
    let mut times = Vec::new();
    let mut all_requests = 0;
    while let Some(done) = clients.join_next().await {
        let (more, all) = done??;
        times.extend(more);
        all_requests += all;
    }
    ensure!(!times.is_empty(), "no answers from {}", target.name);
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    Ok(Sample { requests: times.len() as u64, all_requests, elapsed: length, p50: at(0.5), p99: at(0.99) })
}

struct Client {
    send: SendRequest<Full<Bytes>>,
    case: &'static Case,
    authority: HeaderValue,
    session: Option<HeaderValue>,
    payload: String,
    mark: String,
    next_id: u64,
    _connection: JoinSet<()>,
}

impl Client {
    async fn connect(address: SocketAddr, case: &'static Case, number: usize) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await.context("connecting")?;
        socket.set_nodelay(true)?;
        let (send, connection) = http1::handshake(TokioIo::new(socket)).await?;
        let mut owned = JoinSet::new();
        owned.spawn(async move { _ = connection.await });
        let mut client = Self {
            send,
            case,
            authority: HeaderValue::from_str(&address.to_string())?,
            session: None,
            payload: "x".repeat(case.payload_bytes),
            mark: format!("mark-{number}"),
            next_id: 0,
            _connection: owned,
        };
        if case.version == LEGACY {
            client.initialize().await?;
        }
        Ok(client)
    }

    async fn initialize(&mut self) -> anyhow::Result<()> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"i","method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#
        );
        let (session, _) = self.post("initialize", body).await?;
        self.session = session;
        let body = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
        self.post("notifications/initialized", body).await?;
        Ok(())
    }

    async fn once(&mut self) -> anyhow::Result<()> {
        self.next_id += 1;
        let (id, mark, payload) = (self.next_id, &self.mark, &self.payload);
        let meta = if self.case.version == MODERN {
            r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}"#
        } else {
            ""
        };
        let params = match self.case.method {
            "tools/call" => {
                format!(r#""name":"echo","arguments":{{"mark":"{mark}-{id}","text":"{payload}"}}{meta}"#)
            }
            _ => meta.trim_start_matches(',').to_owned(),
        };
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":{{{params}}}}}"#, self.case.method);
        let wanted = match self.case.method {
            "tools/call" => format!(r#""mark":"{mark}-{id}""#),
            _ => r#""name":"echo""#.to_owned(),
        };
        let (_, answer) = self.post(self.case.method, body).await?;
        if memchr::memmem::find(&answer, wanted.as_bytes()).is_none() {
            bail!("a wrong answer: {}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
        }
        Ok(())
    }

    async fn post(&mut self, method: &str, body: String) -> anyhow::Result<(Option<HeaderValue>, Bytes)> {
        let mut request = Request::post("/mcp")
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", self.case.version);
        if self.case.version == MODERN {
            request = request.header("mcp-method", method);
            if method == "tools/call" {
                request = request.header("mcp-name", "echo");
            }
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        self.send.ready().await?;
        let response = self.send.send_request(request.body(Full::from(body))?).await?;
        let session = response.headers().get("mcp-session-id").cloned();
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "HTTP {status}: {}", String::from_utf8_lossy(&answer));
        Ok((session, answer))
    }
}
