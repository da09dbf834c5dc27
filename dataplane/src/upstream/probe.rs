//! Finds out which eras a backend speaks and what it says of itself.
//!
//! Both eras are asked, because many servers speak both. What is no evidence
//! (no credentials, overload, silence) is never taken for an answer: a wrong
//! verdict would work badly and quietly for a long time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use mt_proto::{pb::discovery::ServerFacts, resource::ResourceName};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{endpoint::Reply, legacy::Legacy, message, modern::Modern};
use crate::{
    gateway::call::{Answer, CallError, Caller},
    mcp::{
        envelope::Outcome,
        error::code,
        id::RawId,
        method::Method,
        params::Params,
        scan::Limits,
        version::{LATEST_LEGACY, LATEST_MODERN, MODERN, ProtocolVersion},
    },
};

/// How long one era's answer may take over HTTP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest instructions that are kept.
const INSTRUCTIONS_BYTES_MAX: usize = 64 * 1024;

/// What asking in one era has brought.
#[derive(Debug)]
pub enum Finding {
    Speaks(Said),
    /// It has answered as one that does not speak it.
    Not(CallError),
    /// It has not answered, or not to this.
    Unclear(CallError),
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub versions: Vec<String>,
    pub capabilities: Bytes,
    pub server_info: Bytes,
    pub instructions: String,
}

#[derive(Deserialize)]
struct InitializeResult<'a> {
    #[serde(rename = "protocolVersion")]
    version: String,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "serverInfo")]
    server_info: Option<&'a RawValue>,
    #[serde(default)]
    instructions: Option<String>,
}

#[derive(Deserialize)]
struct DiscoverResult<'a> {
    #[serde(rename = "supportedVersions")]
    versions: Vec<String>,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<DiscoverMeta<'a>>,
    #[serde(default)]
    instructions: Option<String>,
}

#[derive(Deserialize)]
struct DiscoverMeta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/serverInfo")]
    server_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorHead {
    code: i32,
    #[serde(default)]
    data: Option<ErrorData>,
}

#[derive(Deserialize)]
struct ErrorData {
    #[serde(default)]
    supported: Vec<String>,
}

impl Said {
    /// Reads an `InitializeResult`.
    pub fn by_initialize(result: &[u8]) -> Option<Self> {
        let result: InitializeResult<'_> = serde_json::from_slice(result).ok()?;
        Some(Self {
            versions: vec![result.version],
            capabilities: raw(result.capabilities),
            server_info: raw(result.server_info),
            instructions: shortened(result.instructions),
        })
    }

    /// Reads a `DiscoverResult`; none if no revision in it is a modern one
    /// that we speak.
    pub fn by_discover(result: &[u8]) -> Option<Self> {
        let result: DiscoverResult<'_> = serde_json::from_slice(result).ok()?;
        // Some list every revision they know, some only the modern ones.
        let versions: Vec<String> = MODERN
            .iter()
            .map(|version| version.as_str().to_owned())
            .filter(|version| result.versions.contains(version))
            .collect();
        (!versions.is_empty()).then(|| Self {
            versions,
            capabilities: raw(result.capabilities),
            server_info: raw(result.meta.and_then(|meta| meta.server_info)),
            instructions: shortened(result.instructions),
        })
    }
}

fn raw(value: Option<&RawValue>) -> Bytes {
    Bytes::copy_from_slice(value.map_or(b"{}", |value| value.get().as_bytes()))
}

fn shortened(instructions: Option<String>) -> String {
    let mut text = instructions.unwrap_or_default();
    if text.len() > INSTRUCTIONS_BYTES_MAX {
        let mut end = INSTRUCTIONS_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// What both findings amount to.
///
/// # Errors
/// If neither era is known to be spoken: why.
pub fn conclude(backend: &ResourceName, legacy: Finding, modern: Finding) -> Result<ServerFacts, CallError> {
    let (legacy, modern) = match (legacy, modern) {
        // Credentials may open another door, so nothing is known.
        (Finding::Unclear(error @ CallError::NeedsAuth { .. }), _)
        | (_, Finding::Unclear(error @ CallError::NeedsAuth { .. })) => return Err(error),
        (Finding::Speaks(legacy), Finding::Speaks(modern)) => (Some(legacy), Some(modern)),
        (Finding::Speaks(legacy), _) => (Some(legacy), None),
        (_, Finding::Speaks(modern)) => (None, Some(modern)),
        (Finding::Unclear(error), _) | (_, Finding::Unclear(error)) => return Err(error),
        (Finding::Not(error @ CallError::Protocol { .. }), _) => return Err(error),
        (Finding::Not(_), _) => {
            return Err(CallError::Protocol {
                backend: backend.clone(),
                reason: "answers in no era of MCP".to_owned(),
            });
        }
    };
    let mut facts = ServerFacts::default();
    if let Some(said) = legacy {
        facts.legacy = true;
        facts.legacy_version = said.versions.into_iter().next().unwrap_or_default();
        facts.legacy_capabilities = said.capabilities;
        facts.server_info = said.server_info;
        facts.instructions = said.instructions;
    }
    if let Some(said) = modern {
        facts.modern_versions = said.versions;
        facts.modern_capabilities = said.capabilities;
        // Where a server says it twice, the newer words count; `{}` is no word.
        if said.server_info.len() > b"{}".len() || facts.server_info.is_empty() {
            facts.server_info = said.server_info;
        }
        if !said.instructions.is_empty() {
            facts.instructions = said.instructions;
        }
    }
    Ok(facts)
}

/// Asks an HTTP backend in the legacy era; the session is ended again.
pub async fn legacy_http(legacy: &Arc<Legacy>, pin: Option<ProtocolVersion>) -> Finding {
    let backend = &legacy.endpoint.backend;
    let (nothing, info) = (Bytes::from_static(b"{}"), message::own_info());
    let asked = legacy.initialize(pin.unwrap_or(LATEST_LEGACY), &nothing, &info);
    let session = match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return sort(error),
        Err(_) => return Finding::Unclear(silent(backend)),
    };
    let said = Said::by_initialize(&session.facts);
    let ending = Arc::clone(legacy);
    legacy.shared.tasks.spawn(async move { ending.delete(&session).await });
    match said {
        Some(said) => Finding::Speaks(said),
        None => Finding::Not(legacy.endpoint.protocol("answered initialize with something else".to_owned())),
    }
}

/// Asks an HTTP backend in the modern era.
pub async fn modern_http(modern: &Modern) -> Finding {
    timeout(ANSWER_TIMEOUT, discover(modern))
        .await
        .unwrap_or_else(|_| Finding::Unclear(silent(&modern.endpoint.backend)))
}

async fn discover(modern: &Modern) -> Finding {
    let endpoint = &modern.endpoint;
    let not = || Finding::Not(endpoint.protocol("does not answer server/discover".to_owned()));
    let params = Params::scan(&message::own_params(LATEST_MODERN), Limits::BACKEND)
        .expect("what the node writes is valid");
    let reply = match modern.ask(LATEST_MODERN, &Method::Discover, &params).await {
        Ok(reply) => reply,
        Err(error) => return sort(error),
    };
    let id = RawId::number(1);
    let answer = match reply {
        Reply::Message(bytes) => modern.answer(bytes, &id),
        Reply::Events(body) => modern.follow(body, &id, &Caller::channel().0).await,
        Reply::Accepted => return not(),
        Reply::Refused(refusal) => match refusal.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                return Finding::Unclear(endpoint.refused(&refusal));
            }
            status if status.is_server_error() => return Finding::Unclear(endpoint.refused(&refusal)),
            _ => match refusal.rpc().map(|rpc| rpc.outcome) {
                Some(Outcome::Error(error)) => Ok(Answer::Error(error)),
                _ => return not(),
            },
        },
    };
    match answer {
        Ok(answer) => discovered(&endpoint.backend, answer),
        Err(error) => sort(error),
    }
}

/// What an answer to `server/discover` means.
pub fn discovered(backend: &ResourceName, answer: Answer) -> Finding {
    let protocol = |reason: &str| CallError::Protocol { backend: backend.clone(), reason: reason.to_owned() };
    let error = match answer {
        Answer::Result(result) => {
            return match Said::by_discover(&result) {
                Some(said) => Finding::Speaks(said),
                None => {
                    Finding::Not(protocol("answered server/discover with no revision that is spoken here"))
                }
            };
        }
        Answer::Error(error) => error,
    };
    let Ok(head) = serde_json::from_slice::<ErrorHead>(&error) else {
        return Finding::Not(protocol("does not answer server/discover"));
    };
    let lists_ours =
        head.data.is_some_and(|data| data.supported.iter().any(|one| one == LATEST_MODERN.as_str()));
    match head.code {
        code::UNSUPPORTED_VERSION if lists_ours => {
            Finding::Unclear(protocol("refuses a revision that it lists"))
        }
        code::HEADER_MISMATCH | code::MISSING_CAPABILITY => {
            Finding::Unclear(protocol("refuses server/discover for its headers or capabilities"))
        }
        _ => Finding::Not(protocol("does not answer server/discover")),
    }
}

/// Which errors are an answer.
pub fn sort(error: CallError) -> Finding {
    match error {
        CallError::Protocol { .. } | CallError::EraMismatch { .. } => Finding::Not(error),
        error => Finding::Unclear(error),
    }
}

pub fn silent(backend: &ResourceName) -> CallError {
    CallError::Timeout { backend: backend.clone(), limit: ANSWER_TIMEOUT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> ResourceName {
        "time".parse().unwrap()
    }

    fn error() -> CallError {
        CallError::Unreachable { backend: backend(), reason: "gone".into() }
    }

    #[test]
    fn a_dual_server_is_known_in_both_eras() {
        let legacy = Said::by_initialize(
            br#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"t"},"instructions":"a"}"#,
        )
        .unwrap();
        let modern = Said::by_discover(
            br#"{"resultType":"complete","supportedVersions":["2026-07-28","2025-11-25"],"capabilities":{"tools":{"x":1}},"ttlMs":0,
                "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"t","version":"2"}}}"#,
        )
        .unwrap();
        let facts = conclude(&backend(), Finding::Speaks(legacy), Finding::Speaks(modern)).unwrap();
        assert!(facts.legacy);
        assert_eq!(facts.legacy_version, "2025-06-18");
        assert_eq!(facts.modern_versions, ["2026-07-28"]);
        assert_eq!(&facts.legacy_capabilities[..], br#"{"tools":{}}"#);
        assert_eq!(&facts.modern_capabilities[..], br#"{"tools":{"x":1}}"#);
        assert_eq!(&facts.server_info[..], br#"{"name":"t","version":"2"}"#);
        assert_eq!(facts.instructions, "a");
    }

    #[test]
    fn silence_is_no_evidence() {
        assert!(matches!(
            conclude(&backend(), Finding::Unclear(error()), Finding::Not(error())),
            Err(CallError::Unreachable { .. })
        ));
        let facts =
            conclude(&backend(), Finding::Speaks(Said::default()), Finding::Unclear(error())).unwrap();
        assert!(facts.legacy && facts.modern_versions.is_empty());
    }

    #[test]
    fn missing_credentials_leave_everything_open() {
        let refused = CallError::NeedsAuth { backend: backend(), status: 401, reason: "no".into() };
        assert!(matches!(
            conclude(&backend(), Finding::Speaks(Said::default()), Finding::Unclear(refused)),
            Err(CallError::NeedsAuth { .. })
        ));
    }

    #[test]
    fn a_server_that_lists_only_legacy_revisions_is_not_modern() {
        assert_eq!(Said::by_discover(br#"{"supportedVersions":["2025-11-25"]}"#), None);
        let method_not_found =
            Answer::Error(Bytes::from_static(br#"{"code":-32601,"message":"Method not found"}"#));
        assert!(matches!(discovered(&backend(), method_not_found), Finding::Not(_)));
        let python = Answer::Error(Bytes::from_static(
            br#"{"code":-32602,"message":"Invalid request parameters","data":""}"#,
        ));
        assert!(matches!(discovered(&backend(), python), Finding::Not(_)));
    }
}
