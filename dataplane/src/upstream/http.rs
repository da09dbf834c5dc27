//! A backend behind a URL, in both eras.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, HttpTransport, Protocol},
};

use super::{
    endpoint::Endpoint,
    hints::Hints,
    legacy::Legacy,
    meters::Meters,
    modern::Modern,
    probe::{self, Finding},
    secrets::Secrets,
    shared::Shared,
    sse,
    state::Eras,
};
use crate::{
    gateway::call::CallError,
    mcp::version::{Era, ProtocolVersion},
};

pub struct Http {
    pub legacy: Arc<Legacy>,
    pub modern: Modern,
    pin: Option<ProtocolVersion>,
    /// It was found out to speak HTTP+SSE instead.
    is_sse: AtomicBool,
}

impl Http {
    pub fn new(
        config: &Backend,
        transport: &HttpTransport,
        secrets: Secrets,
        meters: &Arc<Meters>,
        hints: &Arc<Hints>,
        shared: &Arc<Shared>,
    ) -> Self {
        let endpoint =
            Arc::new(Endpoint::new(config.name.clone(), transport, secrets, Arc::clone(meters), shared));
        let pin = pinned_legacy(&config.protocol);
        Self {
            legacy: Legacy::new(endpoint.clone(), Arc::clone(hints), Arc::clone(shared), pin),
            modern: Modern { endpoint, hints: Arc::clone(hints) },
            pin,
            is_sse: AtomicBool::new(false),
        }
    }

    /// What a call has failed of, said so that somebody can do something about it.
    pub fn explain(&self, error: CallError) -> CallError {
        match error {
            CallError::Protocol { .. } if self.is_sse.load(Ordering::Relaxed) => self.speaks_sse(),
            error => error,
        }
    }

    /// It would work, but not well: who configures it shall know what it is.
    fn speaks_sse(&self) -> CallError {
        self.modern.endpoint.protocol("speaks HTTP+SSE: configure it as `sse:`, not as `http:`".to_owned())
    }

    /// Asks in the eras that are wanted. Silence in an era that it is known to
    /// speak is no evidence that it has forgotten it.
    pub async fn probe(&self, wanted: Eras, known: Option<Eras>) -> Result<ServerFacts, CallError> {
        let backend = &self.modern.endpoint.backend;
        let unasked = || Finding::Not(CallError::Disabled { backend: backend.clone() });
        let modern = if wanted.modern { Box::pin(probe::modern_http(&self.modern)).await } else { unasked() };
        if let Finding::Unclear(error @ CallError::Unreachable { .. }) = modern {
            // Nobody is there, so nobody has to be asked again.
            return Err(error);
        }
        let legacy = if wanted.legacy {
            Box::pin(probe::legacy_http(&self.legacy, self.pin)).await
        } else {
            unasked()
        };
        for (era, finding) in [(Era::Legacy, &legacy), (Era::Modern, &modern)] {
            if let Finding::Unclear(error) = finding
                && known.is_some_and(|known| known.speaks(era))
            {
                return Err(error.repeat());
            }
        }
        let refused = matches!((&legacy, &modern), (Finding::Not(_), Finding::Not(_)));
        let is_sse = refused && wanted.legacy && sse::is_spoken(&self.modern.endpoint).await;
        self.is_sse.store(is_sse, Ordering::Relaxed);
        if is_sse {
            return Err(self.speaks_sse());
        }
        probe::conclude(backend, legacy, modern)
    }
}

/// The legacy revision that a configuration demands.
pub fn pinned_legacy(protocol: &Protocol) -> Option<ProtocolVersion> {
    match protocol {
        Protocol::Revision(revision) => {
            ProtocolVersion::parse(revision).filter(|version| version.era() == Era::Legacy)
        }
        _ => None,
    }
}
