//! The clients, whatever they speak, and the loads that they make.

mod case;
mod closed;
mod collide;
mod grpc;
mod http;
mod open;
mod turns;
mod websocket;

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::Bytes;

use self::{case::Asker, grpc::Grpc, http::Http, websocket::WebSocket};
pub use self::{
    case::{Case, Era, Via, What},
    closed::{Sample, run},
    collide::{COLLISIONS, collide},
    http::{Headers, Session},
    open::{Arrivals, run as run_open},
    turns::in_turn,
};

/// Something that is measured.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub address: SocketAddr,
    pub pid: u32,
    /// Where it serves, if not where the case says.
    pub path: Option<String>,
}

impl Target {
    pub fn new(name: &str, address: SocketAddr, pid: u32) -> Self {
        Self { name: name.to_owned(), address, pid, path: None }
    }

    pub fn path<'a>(&'a self, case: &'a Case) -> &'a str {
        self.path.as_deref().unwrap_or(case.path)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Served,
    /// Refused for want of room.
    Rejected,
}

/// A client with a connection of its own.
pub struct Client {
    wire: Wire,
    asker: Asker,
}

enum Wire {
    Http(Http),
    WebSocket(Box<WebSocket>),
    Grpc(Box<Grpc>),
}

impl Client {
    /// Connects, and opens a session where the era has them. Its number tells
    /// its answers from those of others.
    ///
    /// # Errors
    /// If the target cannot be reached or refuses the session.
    pub async fn connect(target: &Target, case: &Case, number: usize) -> anyhow::Result<Self> {
        let wire = match case.via {
            Via::Http => Wire::Http(Http::connect(target, case).await?),
            Via::WebSocket => Wire::WebSocket(Box::new(WebSocket::connect(target, case).await?)),
            Via::Grpc => Wire::Grpc(Box::new(Grpc::connect(target).await?)),
        };
        Ok(Self { wire, asker: Asker::new(*case, number) })
    }

    /// The next request, and all that came for it; none if it was refused.
    async fn exchange(&mut self) -> anyhow::Result<Option<Bytes>> {
        self.asker.advance();
        match &mut self.wire {
            Wire::Http(http) => http.ask(&self.asker).await,
            Wire::WebSocket(socket) => socket.ask(&self.asker).await.map(Some),
            Wire::Grpc(grpc) => grpc.ask(&self.asker).await.map(Some),
        }
    }

    /// # Errors
    /// If the answer is not the one to this request, or there is none.
    pub async fn attempt(&mut self) -> anyhow::Result<Verdict> {
        let Some(answer) = self.exchange().await.with_context(|| self.asker.case.name)? else {
            return Ok(Verdict::Rejected);
        };
        if self.asker.is_own(&answer) {
            return Ok(Verdict::Served);
        }
        let start = String::from_utf8_lossy(&answer[..answer.len().min(300)]);
        bail!("{}: a wrong answer of {} bytes: {start}", self.asker.case.name, answer.len())
    }

    /// # Errors
    /// If there is no answer, a wrong one, or a refusal.
    pub async fn once(&mut self) -> anyhow::Result<()> {
        match self.attempt().await? {
            Verdict::Served => Ok(()),
            Verdict::Rejected => bail!("{}: refused", self.asker.case.name),
        }
    }
}
