//! Asks a server behind a pipe which eras it speaks.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mt_proto::pb::discovery::ServerFacts;
use tokio::time::{Instant, timeout};

use super::{IDLE_MAX, Pipes};
use crate::{
    gateway::call::{CallError, Client, Identity, Scope},
    mcp::{
        method::Method,
        version::{Era, LATEST_LEGACY, LATEST_MODERN},
    },
    upstream::{
        message,
        probe::{self, Finding, Said},
        sharing::{self, Clients},
        state::Eras,
    },
};

/// How long a server may take to say that it is modern. Some never answer.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(3);

impl Pipes {
    /// Asks in the eras that are wanted: the legacy one on the pipe that then
    /// goes on working, the modern one on a pipe that is thrown away.
    pub async fn probe(self: &Arc<Self>, wanted: Eras) -> Result<ServerFacts, CallError> {
        let unasked = || Finding::Not(CallError::Disabled { backend: self.backend.clone() });
        let began = Instant::now();
        let legacy = if wanted.legacy { self.probe_legacy().await } else { unasked() };
        if let Finding::Unclear(error @ CallError::Unreachable { .. }) = legacy {
            return Err(error);
        }
        // What the first start has taken is a measure for the second.
        let patience = if wanted.legacy {
            (began.elapsed() * 2).max(DISCOVER_TIMEOUT)
        } else {
            self.carrier.open_timeout()
        };
        let modern = if wanted.modern {
            Box::pin(self.probe_modern(patience.min(self.carrier.open_timeout().max(DISCOVER_TIMEOUT)))).await
        } else {
            unasked()
        };
        probe::conclude(&self.backend, legacy, modern)
    }

    async fn probe_legacy(self: &Arc<Self>) -> Finding {
        let node = node_client();
        let key = sharing::key(self.carrier.sharing(), &node, 0);
        let pipe = match self.pipe(&key, &node).await {
            Ok(pipe) => pipe,
            Err(error) => return probe::sort(error),
        };
        match pipe.facts.get().and_then(|facts| Said::by_initialize(facts)) {
            Some(said) => Finding::Speaks(said),
            None => Finding::Not(self.protocol("answered initialize with something else".to_owned())),
        }
    }

    async fn probe_modern(self: &Arc<Self>, patience: Duration) -> Finding {
        let clients = Clients { sole: false, asks: false, events: None };
        let pipe = match self.start(Era::Modern, clients, IDLE_MAX, None).await {
            Ok(open) => open.pipe,
            Err(error) => return Finding::Unclear(error),
        };
        // Also when nobody waits for the outcome any more.
        let _thrown_away = pipe.stop.clone().drop_guard();
        let asked = timeout(patience, pipe.ask(&Method::Discover, &message::own_params(LATEST_MODERN))).await;
        match asked {
            Ok(Ok(answer)) => probe::discovered(&self.backend, answer),
            // Some old servers end when they are asked what they do not know.
            Ok(Err(_)) | Err(_) => Finding::Not(self.protocol("does not answer server/discover".to_owned())),
        }
    }
}

/// The node as a client of its own.
fn node_client() -> Client {
    Client {
        identity: Identity::node(),
        version: LATEST_LEGACY,
        info: message::own_info(),
        capabilities: Bytes::from_static(b"{}"),
        scope: Scope::Node,
        events: None,
    }
}
