//! What carries the messages of a pipe, and in what that differs.

use std::time::Duration;

use mt_proto::resource::{HttpTransport, Sharing};

use super::{
    pipe::{CONNECTION, Open, PROCESS, Terms},
    sse::Sse,
    stdio::Stdio,
    websocket::WebSocket,
};
use crate::gateway::call::CallError;

/// Connections to one backend on this node.
const CONNECTIONS_MAX: usize = 1_024;
/// How long the handshake on a connection may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

pub enum Carrier {
    Process(Box<Stdio>),
    Connection(Connector, Sharing),
}

/// How a connection is opened.
pub enum Connector {
    Sse(Box<Sse>),
    WebSocket(Box<WebSocket>),
}

impl Carrier {
    pub fn process(stdio: Stdio) -> Self {
        Self::Process(Box::new(stdio))
    }

    pub fn sse(sse: Sse, transport: &HttpTransport) -> Self {
        Self::Connection(Connector::Sse(Box::new(sse)), transport.sharing)
    }

    pub fn websocket(socket: WebSocket, transport: &HttpTransport) -> Self {
        Self::Connection(Connector::WebSocket(Box::new(socket)), transport.sharing)
    }

    /// Opens a pipe with the tasks that serve it, and says nothing on it.
    /// Dropping it opens none.
    pub async fn open(&self, terms: Terms, idle_max: Duration) -> Result<Open, CallError> {
        let pipe = match self {
            Self::Process(stdio) => return stdio.open(terms, idle_max).await,
            Self::Connection(Connector::Sse(sse), _) => sse.open(terms, idle_max).await?,
            Self::Connection(Connector::WebSocket(socket), _) => socket.open(terms, idle_max).await?,
        };
        tracing::debug!(backend = %pipe.backend, "connection opened");
        Ok(Open { pipe, words: None })
    }

    /// What it is, in words.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Process(_) => PROCESS,
            Self::Connection(..) => CONNECTION,
        }
    }

    /// Who is at the other end, in words.
    pub fn server(&self) -> &'static str {
        match self {
            Self::Process(_) => PROCESS,
            Self::Connection(..) => "backend",
        }
    }

    /// What is done to it at the beginning, in words.
    pub fn opened(&self) -> &'static str {
        match self {
            Self::Process(_) => "started",
            Self::Connection(..) => "opened",
        }
    }

    /// What a server does that brings what is no message, in words.
    pub fn garbled(&self) -> &'static str {
        match self {
            Self::Process(_) => ", and writes to stdout what is not MCP",
            Self::Connection(..) => ", and sends what is not MCP",
        }
    }

    pub fn sharing(&self) -> Sharing {
        match self {
            Self::Process(stdio) => stdio.transport.sharing,
            Self::Connection(_, sharing) => *sharing,
        }
    }

    /// How long a server may take from the opening to its first answer.
    pub fn open_timeout(&self) -> Duration {
        match self {
            Self::Process(stdio) => stdio.transport.start_timeout,
            Self::Connection(..) => HANDSHAKE_TIMEOUT,
        }
    }

    /// How many there may be on this node.
    pub fn pipes_max(&self) -> usize {
        match self {
            Self::Process(stdio) => stdio.transport.processes_max,
            Self::Connection(..) => CONNECTIONS_MAX,
        }
    }

    /// After which time without a call one is closed, if that is configured.
    pub fn idle_max(&self) -> Option<Duration> {
        match self {
            Self::Process(stdio) => stdio.transport.idle_max,
            Self::Connection(..) => None,
        }
    }
}
