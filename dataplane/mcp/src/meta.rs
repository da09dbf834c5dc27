//! What a request says about itself (`_meta`, `initialize`), and what a server
//! says about itself in return.
//!
//! `clientInfo` and `serverInfo` are for display: nothing here or behind it
//! routes or authorizes on them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::error::RpcError;
use crate::id::{ID_BYTES_MAX, RawId};
use crate::key::Key;
use crate::params::Params;
use crate::raw::Raw;
use crate::scan::{ParseError, Quoted, Reason, Scanner, Span};
use crate::splice::Object;
use crate::text;
use crate::version::{self, Era, ProtocolVersion};

/// The keys of `_meta`.
pub mod key {
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
    pub const PROGRESS_TOKEN: &str = "progressToken";
    pub const TRACEPARENT: &str = "traceparent";
    pub const TRACESTATE: &str = "tracestate";
    pub const BAGGAGE: &str = "baggage";

    /// What only modern requests carry.
    pub const MODERN: [&str; 4] = [PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES, LOG_LEVEL];
}

/// The members that are looked at.
#[derive(Clone, Copy)]
enum Field {
    ProtocolVersion,
    ClientInfo,
    ClientCapabilities,
    LogLevel,
    ProgressToken,
    Traceparent,
    Tracestate,
    SubscriptionId,
}

const FIELDS: [(&str, Field); 8] = [
    (key::PROTOCOL_VERSION, Field::ProtocolVersion),
    (key::CLIENT_INFO, Field::ClientInfo),
    (key::CLIENT_CAPABILITIES, Field::ClientCapabilities),
    (key::LOG_LEVEL, Field::LogLevel),
    (key::PROGRESS_TOKEN, Field::ProgressToken),
    (key::TRACEPARENT, Field::Traceparent),
    (key::TRACESTATE, Field::Tracestate),
    (key::SUBSCRIPTION_ID, Field::SubscriptionId),
];

impl Field {
    fn of(quoted: Quoted, raw: &[u8]) -> Option<Self> {
        let named = |name: &[u8]| FIELDS.into_iter().find(|(known, _)| name == known.as_bytes());
        let (_, field) = if quoted.escaped {
            named(text::decode(&raw[quoted.span.range()])?.as_bytes())?
        } else {
            named(quoted.inner(raw))?
        };
        Some(field)
    }
}

/// `_meta` of a request or notification: where the known members are.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    raw: Bytes,
    spans: [Option<Span>; FIELDS.len()],
}

impl Meta {
    /// Reads `_meta` of params; empty if there is none.
    pub fn of(params: &Params) -> Result<Self, RpcError> {
        let Some(raw) = params.meta() else { return Ok(Self::default()) };
        if !raw.starts_with(b"{") {
            return Err(RpcError::malformed_meta("params._meta must be an object"));
        }
        Self::scan(raw).map_err(|error| RpcError::malformed_meta(format!("_meta: {error}")))
    }

    fn scan(raw: Bytes) -> Result<Self, ParseError> {
        let mut meta = Self::default();
        // Part of params, which have been scanned.
        let mut scanner = Scanner::resume(&raw, 0);
        let mut more = scanner.open_object()?;
        while more {
            let quoted = scanner.key()?;
            let value = scanner.value()?;
            if let Some(field) = Field::of(quoted, &raw)
                && meta.spans[field as usize].replace(value).is_some()
            {
                return Err(scanner.error(Reason::DuplicateKey));
            }
            more = scanner.next_member()?;
        }
        meta.raw = raw;
        Ok(meta)
    }

    fn get(&self, field: Field) -> Option<Bytes> {
        Some(self.raw.slice(self.spans[field as usize]?.range()))
    }

    fn peek(&self, field: Field) -> Option<&[u8]> {
        Some(&self.raw[self.spans[field as usize]?.range()])
    }

    fn text(&self, field: Field) -> Option<Cow<'_, str>> {
        text::decode(self.peek(field)?)
    }

    /// The revision as the client wrote it, whether or not we know it. That it
    /// is there makes a request modern.
    pub fn protocol_version(&self) -> Option<Cow<'_, str>> {
        self.text(Field::ProtocolVersion)
    }

    /// Whether the request claims to be modern (even if wrongly so).
    pub fn is_modern(&self) -> bool {
        self.peek(Field::ProtocolVersion).is_some()
    }

    pub fn client_info(&self) -> Option<Bytes> {
        self.get(Field::ClientInfo)
    }

    pub fn client_capabilities(&self) -> Option<Bytes> {
        self.get(Field::ClientCapabilities)
    }

    pub fn log_level(&self) -> Option<LogLevel> {
        LogLevel::parse(&self.text(Field::LogLevel)?)
    }

    /// Under which token the client wants to hear of progress.
    pub fn progress_token(&self) -> Option<RawId> {
        RawId::from_json(self.peek(Field::ProgressToken)?)
    }

    /// W3C trace context, as the client wrote it.
    pub fn traceparent(&self) -> Option<Cow<'_, str>> {
        self.text(Field::Traceparent)
    }

    pub fn tracestate(&self) -> Option<Cow<'_, str>> {
        self.text(Field::Tracestate)
    }

    /// Which `subscriptions/listen` a notification belongs to.
    pub fn subscription_id(&self) -> Option<RawId> {
        RawId::from_json(self.peek(Field::SubscriptionId)?)
    }

    /// What a modern request must say, or the error that it gets.
    pub fn modern(&self) -> Result<Modern, RpcError> {
        let requested =
            self.protocol_version().ok_or_else(|| RpcError::missing_meta(key::PROTOCOL_VERSION))?;
        let version = ProtocolVersion::parse(&requested)
            .filter(|version| version.era() == Era::Modern)
            .ok_or_else(|| RpcError::unsupported_version(&requested, &version::ALL))?;
        let capabilities = self
            .client_capabilities()
            .filter(|raw| raw.starts_with(b"{"))
            .ok_or_else(|| RpcError::missing_meta(key::CLIENT_CAPABILITIES))?;
        if let Some(token) = self.peek(Field::ProgressToken)
            && (token.len() > ID_BYTES_MAX || RawId::from_json(token).is_none())
        {
            return Err(RpcError::malformed_meta("progressToken must be a short string or an integer"));
        }
        if self.peek(Field::LogLevel).is_some() && self.log_level().is_none() {
            return Err(RpcError::malformed_meta("unknown log level"));
        }
        let client_info = self.client_info().filter(|raw| raw.starts_with(b"{"));
        Ok(Modern { version, capabilities, client_info })
    }
}

/// What every modern request says.
#[derive(Clone, Debug)]
pub struct Modern {
    pub version: ProtocolVersion,
    /// A raw `ClientCapabilities` object.
    pub capabilities: Bytes,
    /// A raw `Implementation` object.
    pub client_info: Option<Bytes>,
}

/// How serious a log message is, least first (RFC 5424).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LogLevel {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// What `initialize` says.
#[derive(Clone, Debug)]
pub struct Initialize {
    /// As the client wrote it.
    pub requested: String,
    /// What we answer.
    pub version: ProtocolVersion,
    /// A raw `ClientCapabilities` object.
    pub capabilities: Bytes,
    /// A raw `Implementation` object.
    pub client_info: Bytes,
}

impl Initialize {
    pub fn read(params: &Params) -> Result<Self, RpcError> {
        let object = |key: Key| {
            params
                .get(key)
                .filter(|raw| raw.starts_with(b"{"))
                .ok_or_else(|| RpcError::invalid_params(format!("{} must be an object", key.as_str())))
        };
        let requested = params
            .text(Key::ProtocolVersion)
            .ok_or_else(|| RpcError::invalid_params("protocolVersion must be a string"))?
            .into_owned();
        Ok(Self {
            version: version::negotiate(&requested),
            requested,
            capabilities: object(Key::Capabilities)?,
            client_info: object(Key::ClientInfo)?,
        })
    }
}

/// What we say of ourselves.
#[derive(Clone, Copy, Debug)]
pub struct ServerSaying<'a> {
    /// A raw `ServerCapabilities` object.
    pub capabilities: &'a [u8],
    /// A raw `Implementation` object.
    pub server_info: &'a [u8],
    pub instructions: Option<&'a str>,
}

/// Who may keep a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheScope {
    Public,
    Private,
}

impl CacheScope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// The result of `initialize`.
pub fn initialize_result(version: ProtocolVersion, server: ServerSaying<'_>) -> Bytes {
    let result = Object::default()
        .set_text("protocolVersion", version.as_str())
        .set("capabilities", server.capabilities)
        .set("serverInfo", server.server_info);
    with_instructions(result, server).finish()
}

/// The result of `server/discover`.
pub fn discover_result(
    supported: &[ProtocolVersion],
    server: ServerSaying<'_>,
    ttl_ms: u64,
    scope: CacheScope,
) -> Bytes {
    let mut versions = vec![b'['];
    for (at, version) in supported.iter().enumerate() {
        if at > 0 {
            versions.push(b',');
        }
        text::write(version.as_str(), &mut versions);
    }
    versions.push(b']');
    let result = Object::default()
        .set_text("resultType", "complete")
        .set("supportedVersions", &versions[..])
        .set("capabilities", server.capabilities);
    with_instructions(result, server)
        .set("ttlMs", ttl_ms.to_string().as_bytes())
        .set_text("cacheScope", scope.as_str())
        .set("_meta", &server_meta(server.server_info))
        .finish()
}

/// `_meta` of a modern result.
pub fn server_meta(server_info: &[u8]) -> Bytes {
    Object::default().set(key::SERVER_INFO, server_info).finish()
}

/// `params` of an `initialize` that we send to a backend.
pub fn initialize_params(
    version: ProtocolVersion,
    capabilities: &(impl Raw + ?Sized),
    client_info: &[u8],
) -> Bytes {
    Object::default()
        .set_text("protocolVersion", version.as_str())
        .set("capabilities", capabilities)
        .set("clientInfo", client_info)
        .finish()
}

/// `_meta` of a modern request that we send to a backend on our own account.
pub fn request_meta(
    version: ProtocolVersion,
    capabilities: &(impl Raw + ?Sized),
    client_info: &[u8],
) -> Bytes {
    Object::default()
        .set(key::PROTOCOL_VERSION, &text::encode(version.as_str())[..])
        .set(key::CLIENT_CAPABILITIES, capabilities)
        .set(key::CLIENT_INFO, client_info)
        .finish()
}

fn with_instructions(result: Object, server: ServerSaying<'_>) -> Object {
    match server.instructions {
        Some(text) => result.set_text("instructions", text),
        None => result,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scan::Limits;

    fn meta(meta: &str) -> Result<Meta, RpcError> {
        let params = Bytes::from(format!("{{\"_meta\":{meta}}}"));
        Meta::of(&Params::scan(&params, Limits::CLIENT).unwrap())
    }

    const FULL: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":0,
        "io.modelcontextprotocol/clientCapabilities":{"roots":{}},"io.modelcontextprotocol/logLevel":"warning",
        "io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"traceparent":"00-a-b-01","x":1}"#;

    #[test]
    fn a_modern_request_says_everything_about_itself() {
        let meta = meta(FULL).unwrap();
        let modern = meta.modern().unwrap();
        assert_eq!(modern.version, ProtocolVersion::V2026_07_28);
        assert_eq!(&modern.capabilities[..], br#"{"roots":{}}"#);
        assert_eq!(&modern.client_info.unwrap()[..], br#"{"name":"c","version":"1"}"#);
        assert_eq!(meta.log_level(), Some(LogLevel::Warning));
        assert_eq!(meta.progress_token(), Some(RawId::number(0)));
        assert_eq!(meta.traceparent().as_deref(), Some("00-a-b-01"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let check = |text: &str, code: i32, status: u16, word: &str| {
            let error = meta(text).and_then(|meta| meta.modern()).unwrap_err();
            assert_eq!((error.code, error.http_status(Era::Modern)), (code, status), "{text}");
            assert!(error.message.contains(word), "{}", error.message);
        };
        check("{}", -32602, 400, "protocolVersion");
        check(
            r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
            -32602,
            400,
            "clientCapabilities",
        );
        check(r#"{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}"#, -32022, 400, "version");
        check(r#"{"io.modelcontextprotocol/protocolVersion":"2031-01-01"}"#, -32022, 400, "version");
        check("[]", -32602, 400, "_meta");
        check(&FULL.replace(":0,", ":{},"), -32602, 400, "progressToken");
        check(&FULL.replace("warning", "loud"), -32602, 400, "log level");
        check(&FULL.replace("\"x\":1", "\"progressToken\":1"), -32602, 400, "twice");
    }

    #[test]
    fn a_request_without_meta_is_not_modern() {
        let none = Meta::of(&Params::NONE).unwrap();
        assert!(!none.is_modern() && none.progress_token().is_none());
        assert!(meta(r#"{"io.modelcontextprotocol/protocolVersion":7}"#).unwrap().is_modern());
    }

    #[test]
    fn initialize_is_read_and_answered() {
        let params = Bytes::from_static(
            br#"{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}"#,
        );
        let read = Initialize::read(&Params::scan(&params, Limits::CLIENT).unwrap()).unwrap();
        assert_eq!((read.requested.as_str(), read.version), ("2025-06-18", ProtocolVersion::V2025_06_18));
        let params = Bytes::from_static(br#"{"protocolVersion":"2025-06-18","capabilities":[]}"#);
        let error = Initialize::read(&Params::scan(&params, Limits::CLIENT).unwrap()).unwrap_err();
        assert_eq!(error.message, "capabilities must be an object");
    }

    #[test]
    fn what_servers_say_has_the_form_of_its_era() {
        let server = ServerSaying {
            capabilities: b"{\"tools\":{}}",
            server_info: b"{\"name\":\"g\"}",
            instructions: Some("hi"),
        };
        let value = |raw: Bytes| serde_json::from_slice::<Value>(&raw).unwrap();
        assert_eq!(
            value(initialize_result(ProtocolVersion::V2025_11_25, server)),
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "g"}, "instructions": "hi"})
        );
        assert_eq!(
            value(discover_result(&version::MODERN, server, 5000, CacheScope::Private)),
            json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                   "instructions": "hi", "ttlMs": 5000, "cacheScope": "private",
                   "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "g"}}})
        );
        let meta = request_meta(ProtocolVersion::V2026_07_28, &b"{}"[..], b"{\"name\":\"g\"}");
        let params = Bytes::from(format!("{{\"_meta\":{}}}", std::str::from_utf8(&meta).unwrap()));
        let read = Meta::of(&Params::scan(&params, Limits::CLIENT).unwrap()).unwrap();
        assert!(read.modern().is_ok());
    }
}
