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
    path: &'static str,
    version: &'static str,
    method: &'static str,
    payload_bytes: usize,
    /// Ask for progress, with the same tokens on every connection.
    progress: bool,
}

const DEFAULT: &str = "/mcp";
const PIPE: &str = "/g/pipe/mcp";

const fn call(name: &'static str, path: &'static str, version: &'static str, payload_bytes: usize) -> Case {
    Case { name, path, version, method: "tools/call", payload_bytes, progress: false }
}

const fn list(name: &'static str, version: &'static str) -> Case {
    Case { name, path: DEFAULT, version, method: "tools/list", payload_bytes: 0, progress: false }
}

pub const CASES: &[Case] = &[
    call("tools/call, session", DEFAULT, LEGACY, 32),
    call("tools/call, stateless", DEFAULT, MODERN, 32),
    call("tools/call of 64 KiB, session", DEFAULT, LEGACY, 64 << 10),
    list("tools/list, session", LEGACY),
    list("tools/list, stateless", MODERN),
];

/// Where ids and tokens of many clients meet: on the pipe all of them share one
/// process.
pub const COLLISIONS: &[Case] = &[
    call("HTTP backend, sessions", DEFAULT, LEGACY, 16),
    call("HTTP backend, stateless", DEFAULT, MODERN, 16),
    Case { progress: true, ..call("one process, sessions", PIPE, LEGACY, 16) },
    Case { progress: true, ..call("one process, stateless", PIPE, MODERN, 16) },
];

/// What came of a collision.
pub struct Counted {
    pub calls: u64,
    pub misrouted: u64,
}

/// Lets `clients` call at once until `calls` are answered, all with the same ids.
pub async fn collide(
    target: &Target,
    case: &'static Case,
    clients: usize,
    calls: u64,
) -> anyhow::Result<Counted> {
    let each = calls.div_ceil(clients as u64);
    let mut running = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::connect(target.address, case, number).await?;
        running.spawn(async move {
            let mut misrouted = 0;
            for _ in 0..each {
                let answer = client.exchange().await?;
                misrouted += u64::from(!client.is_own(&answer));
            }
            anyhow::Ok(misrouted)
        });
    }
    let mut misrouted = 0;
    while let Some(done) = running.join_next().await {
        misrouted += done??;
    }
    Ok(Counted { calls: each * clients as u64, misrouted })
}

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
        let answer = self.exchange().await?;
        if !self.is_own(&answer) {
            bail!("a wrong answer: {}", String::from_utf8_lossy(&answer[..answer.len().min(300)]));
        }
        Ok(())
    }

    /// Whether all that came back is what was asked for, and nobody else's.
    fn is_own(&self, answer: &[u8]) -> bool {
        if self.case.method != "tools/call" {
            return memchr::memmem::find(answer, br#""name":"echo""#).is_some();
        }
        let own = format!("<{}-{}>", self.mark, self.next_id);
        let expected = if self.case.progress { 2 } else { 1 };
        let own = memchr::memmem::find_iter(answer, own.as_bytes()).count();
        let all = memchr::memmem::find_iter(answer, b"<mark-").count();
        own == expected && all == expected
    }

    /// The next request, and all that came for it.
    async fn exchange(&mut self) -> anyhow::Result<Bytes> {
        self.next_id += 1;
        let (id, mark, payload) = (self.next_id, &self.mark, &self.payload);
        let mut meta = Vec::new();
        if self.case.version == MODERN {
            meta.push(r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}"#.to_owned());
        }
        if self.case.progress {
            meta.push(format!(r#""progressToken":{id}"#));
        }
        let meta = meta.join(",");
        let params = match self.case.method {
            "tools/call" => {
                format!(
                    r#""name":"echo","arguments":{{"mark":"<{mark}-{id}>","text":"{payload}"}},"_meta":{{{meta}}}"#
                )
            }
            _ => format!(r#""_meta":{{{meta}}}"#),
        };
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":{{{params}}}}}"#, self.case.method);
        Ok(self.post(self.case.method, body).await?.1)
    }

    async fn post(&mut self, method: &str, body: String) -> anyhow::Result<(Option<HeaderValue>, Bytes)> {
        let mut request = Request::post(self.case.path)
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
