//! A backend, validated.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use super::{
    ResourceName,
    check::{Checker, is_env_name, quoted},
    problem::closest,
};
use crate::pb::resource as pb;

const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const START_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const CONCURRENT_CALLS_DEFAULT: u64 = 256;
const CONCURRENT_CALLS_MAX: u64 = 65_536;
const LINE_BYTES_DEFAULT: u64 = 4 << 20;
const LINE_BYTES_MIN: u64 = 1 << 10;
const LINE_BYTES_MAX: u64 = 64 << 20;
const URL_BYTES_MAX: usize = 8192;

/// The protocol's own, by which it means something else than the operator
/// could, and those that belong to one connection (RFC 9110 §7.6.1).
const HEADERS_REFUSED: [&str; 21] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "last-event-id",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "traceparent",
    "tracestate",
    "baggage",
];

/// What `protocol` may be.
const PROTOCOLS: [&str; 8] =
    ["auto", "legacy", "modern", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

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
}

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    Http(HttpTransport),
    Stdio(StdioTransport),
}

/// Streamable HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTransport {
    pub url: url::Url,
    pub headers: Vec<Header>,
    pub connect_timeout: Duration,
}

/// A header of the operator's; never one of the protocol's.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Lower case.
    pub name: String,
    pub value: Value,
}

/// A text, or where a node finds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Secret(ResourceName),
}

/// A child process.
#[derive(Clone, Debug, PartialEq)]
pub struct StdioTransport {
    pub command: String,
    pub args: Vec<String>,
    pub env: Vec<(String, Value)>,
    pub cwd: Option<PathBuf>,
    pub sharing: Sharing,
    pub start_timeout: Duration,
    pub line_bytes_max: usize,
}

/// Who shares one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    Shared,
    PerPrincipal,
    PerSession,
    PerCall,
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
        Some(pb::backend::Transport::Http(http)) => check_http(checker, http).map(Transport::Http),
        Some(pb::backend::Transport::Stdio(stdio)) => Some(Transport::Stdio(check_stdio(checker, stdio))),
        None => {
            let hint = "add `http: {url: ...}` or `stdio: {command: ...}`";
            checker.problem_with_hint("spec", "nothing says how the backend is reached", hint);
            None
        }
    };
    let protocol = check_protocol(checker, &backend.protocol);
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
    Some(Backend {
        name: name.clone(),
        labels: labels.clone(),
        transport: transport?,
        protocol,
        call_timeout,
        concurrent_calls_max,
        disabled: backend.disabled,
        trust_hints: backend.trust_hints,
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

fn check_http(checker: &mut Checker<'_>, http: &pb::HttpTransport) -> Option<HttpTransport> {
    let url = check_url(checker, &http.url);
    let mut seen = BTreeSet::new();
    let mut headers = Vec::with_capacity(http.headers.len());
    for (i, header) in http.headers.iter().enumerate() {
        let path = format!("spec.http.headers[{i}]");
        let name = header.name.to_ascii_lowercase();
        check_header_name(checker, &format!("{path}.name"), &name);
        if !seen.insert(name.clone()) {
            checker
                .problem(&format!("{path}.name"), format!("header {} is in the list twice", quoted(&name)));
        }
        let path = format!("{path}.value");
        if let Some(value) = checker.value(&path, header.value.as_ref()) {
            if let Value::Text(text) = &value
                && text.bytes().any(|b| (b < b' ' && b != b'\t') || b >= 0x7f)
            {
                checker.problem(&path, "the value of a header is printable ASCII");
            }
            headers.push(Header { name, value });
        }
    }
    let connect_timeout = checker.duration(
        "spec.http.connectTimeout",
        http.connect_timeout.as_ref(),
        TIMEOUT_MIN..=CONNECT_TIMEOUT_MAX,
        CONNECT_TIMEOUT_DEFAULT,
    );
    Some(HttpTransport { url: url?, headers, connect_timeout })
}

fn check_url(checker: &mut Checker<'_>, text: &str) -> Option<url::Url> {
    const PATH: &str = "spec.http.url";
    const EXAMPLE: &str = "for example `https://mcp.example.com/mcp`";
    if text.is_empty() {
        checker.problem_with_hint(PATH, "the url is missing", EXAMPLE);
        return None;
    }
    if text.len() > URL_BYTES_MAX {
        checker.problem(PATH, format!("the url is longer than {URL_BYTES_MAX} bytes"));
        return None;
    }
    let url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            checker.problem_with_hint(PATH, format!("{} is not a url: {error}", quoted(text)), EXAMPLE);
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        let hint = match closest(url.scheme(), ["http", "https"]) {
            Some(near) => format!("did you mean `{near}://`?"),
            None => EXAMPLE.to_owned(),
        };
        checker.problem_with_hint(
            PATH,
            format!("the url starts with {:?}, it must be http or https", url.scheme()),
            hint,
        );
    } else if url.host_str().is_none_or(str::is_empty) {
        checker.problem_with_hint(PATH, "the url names no host", EXAMPLE);
    } else if !url.username().is_empty() || url.password().is_some() {
        let hint = "send it as a header: `headers: [{name: Authorization, value: {secret: ...}}]`";
        checker.problem_with_hint(PATH, "the url holds a user or a password, which would not be sent", hint);
    }
    Some(url)
}

/// Whether a header, in lower case, is one that the operator cannot set.
pub fn is_protocol_header(name: &str) -> bool {
    HEADERS_REFUSED.contains(&name) || name.starts_with("mcp-")
}

fn check_header_name(checker: &mut Checker<'_>, path: &str, name: &str) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        checker.problem(path, format!("{} is not the name of a header", quoted(name)));
    } else if is_protocol_header(name) {
        let hint = "leave it out; the node sends it as the protocol asks";
        checker.problem_with_hint(path, format!("header {name:?} is the protocol's own"), hint);
    }
}

fn check_stdio(checker: &mut Checker<'_>, stdio: &pb::StdioTransport) -> StdioTransport {
    check_command(checker, &stdio.command);
    for (i, arg) in stdio.args.iter().enumerate() {
        checker.no_nul(&format!("spec.stdio.args[{i}]"), arg);
    }
    let mut seen = BTreeSet::new();
    let mut env = Vec::with_capacity(stdio.env.len());
    for (i, var) in stdio.env.iter().enumerate() {
        let path = format!("spec.stdio.env[{i}]");
        let name = format!("{path}.name");
        if !is_env_name(&var.name) {
            let message = format!("{} is not the name of a variable", quoted(&var.name));
            checker.problem_with_hint(&name, message, "letters, digits and '_', not starting with a digit");
        } else if !seen.insert(&var.name) {
            checker.problem(&name, format!("variable {:?} is in the list twice", var.name));
        }
        let path = format!("{path}.value");
        if let Some(value) = checker.value(&path, var.value.as_ref()) {
            if let Value::Text(text) = &value {
                checker.no_nul(&path, text);
            }
            env.push((var.name.clone(), value));
        }
    }
    checker.no_nul("spec.stdio.cwd", &stdio.cwd);
    let sharing = match pb::Sharing::try_from(stdio.sharing) {
        Ok(pb::Sharing::Unspecified | pb::Sharing::Shared) => Sharing::Shared,
        Ok(pb::Sharing::PerPrincipal) => Sharing::PerPrincipal,
        Ok(pb::Sharing::PerSession) => Sharing::PerSession,
        Ok(pb::Sharing::PerCall) => Sharing::PerCall,
        Err(_) => {
            checker.problem(
                "spec.stdio.sharing",
                format!("{} is not a way of sharing that is known here", stdio.sharing),
            );
            Sharing::Shared
        }
    };
    let start_timeout = checker.duration(
        "spec.stdio.startTimeout",
        stdio.start_timeout.as_ref(),
        TIMEOUT_MIN..=START_TIMEOUT_MAX,
        START_TIMEOUT_DEFAULT,
    );
    let line_bytes_max = checker.count(
        "spec.stdio.lineBytesMax",
        stdio.line_bytes_max,
        LINE_BYTES_MIN..=LINE_BYTES_MAX,
        LINE_BYTES_DEFAULT,
    );
    StdioTransport {
        command: stdio.command.clone(),
        args: stdio.args.clone(),
        env,
        cwd: (!stdio.cwd.is_empty()).then(|| stdio.cwd.as_str().into()),
        sharing,
        start_timeout,
        line_bytes_max,
    }
}

fn check_command(checker: &mut Checker<'_>, command: &str) {
    const PATH: &str = "spec.stdio.command";
    checker.no_nul(PATH, command);
    let mut words = command.split_whitespace();
    let Some(first) = words.next() else {
        checker.problem_with_hint(PATH, "the command is missing", "a path, or the name of a program in PATH");
        return;
    };
    // A path may hold spaces; a name that is looked up in PATH never does in
    // practice, so this is a shell line in the wrong place.
    let is_path = first.contains(['/', '\\']);
    if !is_path && first.len() != command.len() {
        let args: Vec<_> = words.take(20).map(|word| format!("{word:?}")).collect();
        let hint = format!("write `command: {first}` and `args: [{}]`", args.join(", "));
        checker.problem_with_hint(
            PATH,
            "the command is a line of several words, and no shell reads it",
            hint,
        );
    }
}
