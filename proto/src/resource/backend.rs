//! A backend, validated.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::ResourceName;

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
