//! A backend behind a URL, in both eras.

use std::sync::Arc;

use mt_proto::{
    pb::discovery::ServerFacts,
    resource::{Backend, HttpTransport, Protocol},
};

use super::{
    Secrets,
    endpoint::Endpoint,
    hints::Hints,
    legacy::Legacy,
    meters::Meters,
    modern::Modern,
    probe::{self, Finding},
    shared::Shared,
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
        }
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
                return Err(super::repeat(error));
            }
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
