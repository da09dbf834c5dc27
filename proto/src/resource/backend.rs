//! A backend, validated.

mod remote;
mod stdio;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use self::{
    remote::{BackendAuth, ClientCredentials, Header, HttpTransport, QueryParameter, is_protocol_header},
    stdio::StdioTransport,
};
use super::{
    ResourceName, ToolSet,
    check::{Checker, quoted},
    problem::closest,
};
use crate::pb::resource as pb;

const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const CONCURRENT_CALLS_DEFAULT: u64 = 256;
const CONCURRENT_CALLS_MAX: u64 = 65_536;
const QUEUE_DEFAULT: u64 = 100;
const QUEUE_MAX: u64 = 10_000;
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
const PROBE_AGE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
const PROBE_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What `protocol` may be.
const PROTOCOLS: [&str; 8] =
    ["auto", "legacy", "modern", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

/// Those of them that belong to the modern era.
const MODERN_REVISIONS: [&str; 1] = ["2026-07-28"];

/// An MCP server.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub name: ResourceName,
    pub labels: BTreeMap<String, String>,
    pub transport: Transport,
    pub protocol: Protocol,
    pub call_timeout: Duration,
    pub concurrent_calls_max: usize,
    pub disabled: bool,
    pub trust_hints: bool,
    /// None: calls run side by side.
    pub single_session: Option<SingleSession>,
    pub probe_max_age: Duration,
}

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// Streamable HTTP.
    Http(HttpTransport),
    Stdio(StdioTransport),
    /// HTTP+SSE, the transport of 2024-11-05.
    Sse(HttpTransport),
    /// The subprotocol `mcp` of a WebSocket.
    WebSocket(HttpTransport),
    /// It is no MCP server: agents of the node serve it.
    Agents(Arc<ToolSet>),
}

/// A text, or where a node finds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Secret(ResourceName),
}

/// Who shares one process or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    Shared,
    PerPrincipal,
    PerSession,
    PerCall,
}

/// The line in front of a server that bears one session at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SingleSession {
    pub queue_max: usize,
    pub wait_max: Duration,
}

/// Which protocol is spoken to a backend. The names of revisions are those of
/// the specification; the node's table knows what each can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    Auto,
    Legacy,
    Modern,
    /// One dated revision, such as `2025-06-18`.
    Revision(String),
}

pub(super) fn check(
    checker: &mut Checker<'_>,
    name: &ResourceName,
    labels: &BTreeMap<String, String>,
    backend: &pb::Backend,
) -> Option<Backend> {
    let transport = match &backend.transport {
        Some(pb::backend::Transport::Http(http)) => {
            remote::check(checker, http, &remote::STREAMABLE).map(Transport::Http)
        }
        Some(pb::backend::Transport::Sse(sse)) => {
            remote::check(checker, sse, &remote::SSE).map(Transport::Sse)
        }
        Some(pb::backend::Transport::Websocket(socket)) => {
            remote::check(checker, socket, &remote::WEBSOCKET).map(Transport::WebSocket)
        }
        Some(pb::backend::Transport::Stdio(stdio)) => Some(Transport::Stdio(stdio::check(checker, stdio))),
        None => {
            let hint = "add `http: {url: ...}`, `stdio: {command: ...}`, `sse: {url: ...}` or `websocket: {url: ...}`";
            checker.problem_with_hint("spec", "nothing says how the backend is reached", hint);
            None
        }
    };
    let protocol = check_protocol(checker, &backend.protocol);
    if matches!(transport, Some(Transport::Sse(_))) {
        check_sse_protocol(checker, &protocol);
    }
    let call_timeout = checker.duration(
        "spec.callTimeout",
        backend.call_timeout.as_ref(),
        TIMEOUT_MIN..=CALL_TIMEOUT_MAX,
        CALL_TIMEOUT_DEFAULT,
    );
    let concurrent_calls_max = checker.count(
        "spec.concurrentCallsMax",
        backend.concurrent_calls_max.into(),
        1..=CONCURRENT_CALLS_MAX,
        CONCURRENT_CALLS_DEFAULT,
    );
    let probe_max_age = checker.duration(
        "spec.probeMaxAge",
        backend.probe_max_age.as_ref(),
        Duration::from_secs(1)..=PROBE_AGE_MAX,
        PROBE_AGE_DEFAULT,
    );
    let single_session = backend.single_session.as_ref().map(|line| SingleSession {
        queue_max: checker.count(
            "spec.singleSession.queueMax",
            line.queue_max.into(),
            1..=QUEUE_MAX,
            QUEUE_DEFAULT,
        ),
        wait_max: checker.duration(
            "spec.singleSession.waitMax",
            line.wait_max.as_ref(),
            TIMEOUT_MIN..=CALL_TIMEOUT_MAX,
            WAIT_DEFAULT,
        ),
    });
    Some(Backend {
        name: name.clone(),
        labels: labels.clone(),
        transport: transport?,
        protocol,
        call_timeout,
        concurrent_calls_max,
        disabled: backend.disabled,
        trust_hints: backend.trust_hints,
        single_session,
        probe_max_age,
    })
}

fn check_protocol(checker: &mut Checker<'_>, text: &str) -> Protocol {
    match text {
        "" | "auto" => Protocol::Auto,
        "legacy" => Protocol::Legacy,
        "modern" => Protocol::Modern,
        revision if PROTOCOLS.contains(&revision) => Protocol::Revision(revision.to_owned()),
        other => {
            let hint = match closest(other, PROTOCOLS) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("one of {}", PROTOCOLS.join(", ")),
            };
            checker.problem_with_hint("spec.protocol", format!("{} is not a protocol", quoted(other)), hint);
            Protocol::Auto
        }
    }
}

/// HTTP+SSE ends with the revisions that have a handshake.
fn check_sse_protocol(checker: &mut Checker<'_>, protocol: &Protocol) {
    let modern = match protocol {
        Protocol::Modern => true,
        Protocol::Revision(revision) => MODERN_REVISIONS.contains(&revision.as_str()),
        Protocol::Auto | Protocol::Legacy => false,
    };
    if modern {
        let hint = "leave `protocol` out, or reach the server by `http` at the url of its streamable HTTP";
        checker.problem_with_hint("spec.protocol", "over HTTP+SSE there is no modern protocol", hint);
    }
}

fn check_sharing(checker: &mut Checker<'_>, path: &str, sharing: i32) -> Sharing {
    match pb::Sharing::try_from(sharing) {
        Ok(pb::Sharing::Unspecified | pb::Sharing::Shared) => Sharing::Shared,
        Ok(pb::Sharing::PerPrincipal) => Sharing::PerPrincipal,
        Ok(pb::Sharing::PerSession) => Sharing::PerSession,
        Ok(pb::Sharing::PerCall) => Sharing::PerCall,
        Err(_) => {
            checker.problem(path, format!("{sharing} is not a way of sharing that is known here"));
            Sharing::Shared
        }
    }
}
