//! What an answer to `initialize` means, on any transport.

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use serde::Deserialize;

use super::{excerpt::excerpt, state::era_name};
use crate::{
    gateway::call::{Answer, CallError},
    mcp::{error::code, version::Era},
};

/// A raw `InitializeResult`, and the revision that it names.
pub struct Negotiated {
    pub facts: Bytes,
    pub version: String,
}

#[derive(Deserialize)]
struct InitializeResult {
    #[serde(rename = "protocolVersion")]
    version: String,
}

/// The parts of an `error` object that decide.
#[derive(Deserialize)]
pub struct ErrorHead {
    pub code: i64,
    #[serde(default)]
    pub message: String,
}

/// Reads the answer to `initialize`.
pub fn read(backend: &ResourceName, answer: Answer) -> Result<Negotiated, CallError> {
    let protocol = |reason: String| CallError::Protocol { backend: backend.clone(), reason };
    match answer {
        Answer::Result(facts) => {
            let result: InitializeResult = serde_json::from_slice(&facts)
                .map_err(|_| protocol("answered initialize without a protocolVersion".to_owned()))?;
            Ok(Negotiated { facts, version: result.version })
        }
        Answer::Error(error) => {
            let head: Option<ErrorHead> = serde_json::from_slice(&error).ok();
            // What servers say that know only the modern era.
            let modern = [code::UNSUPPORTED_VERSION, code::METHOD_NOT_FOUND].map(i64::from);
            if head.is_some_and(|head| modern.contains(&head.code)) {
                return Err(CallError::EraMismatch {
                    backend: backend.clone(),
                    backend_era: era_name(Era::Modern),
                    client_era: era_name(Era::Legacy),
                });
            }
            Err(protocol(format!("refused initialize: {}", excerpt(&error))))
        }
    }
}
