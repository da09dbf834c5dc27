//! Every JSON-RPC error that a client can see is made here.
//!
//! Each says which side failed, and whether repeating the request is safe and
//! may help. Codes from -32768 to -32000 are used only as JSON-RPC and MCP
//! define them; ours lie just above. A message never holds an address, a path
//! or a credential: those are for the log. Errors that a backend answered pass
//! through as they came and are not in this table.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::raw::Raw;
use crate::text;
use crate::version::{Era, ProtocolVersion};

/// The codes.
pub mod code {
    pub const PARSE_ERROR: i32 = -32700;
    pub const INVALID_REQUEST: i32 = -32600;
    pub const METHOD_NOT_FOUND: i32 = -32601;
    pub const INVALID_PARAMS: i32 = -32602;
    pub const INTERNAL: i32 = -32603;
    /// Legacy revisions only.
    pub const RESOURCE_NOT_FOUND: i32 = -32002;
    /// 2025-11-25 only; the data lists URLs that the user has to visit.
    pub const URL_ELICITATION_REQUIRED: i32 = -32042;
    /// From 2026-07-28.
    pub const HEADER_MISMATCH: i32 = -32020;
    /// From 2026-07-28.
    pub const MISSING_CAPABILITY: i32 = -32021;
    /// From 2026-07-28.
    pub const UNSUPPORTED_VERSION: i32 = -32022;

    /// The backend did not answer in time; it may still be working.
    pub const UPSTREAM_TIMEOUT: i32 = -31001;
    /// The backend could not be reached; it has not seen the request.
    pub const UPSTREAM_UNREACHABLE: i32 = -31002;
    /// The connection broke after the request was sent; nobody knows whether
    /// it took effect.
    pub const UPSTREAM_LOST: i32 = -31003;
    /// The backend answered with something that is not MCP.
    pub const UPSTREAM_INVALID: i32 = -31004;
    /// The backend refused the gateway (credentials, permissions).
    pub const UPSTREAM_REFUSED: i32 = -31005;
    /// The backend has as many calls as it may have.
    pub const UPSTREAM_OVERLOADED: i32 = -31006;
    /// The backend bears one call at a time, and too many wait for it.
    pub const UPSTREAM_QUEUE_FULL: i32 = -31019;
    /// The backend bears one call at a time, and was busy with others for too
    /// long; it has not seen the request.
    pub const UPSTREAM_QUEUE_TIMEOUT: i32 = -31020;
    /// The tool has failed. Clients of MCP are told by its result; this is for
    /// those who know only statuses.
    pub const TOOL_FAILED: i32 = -31021;
    /// The node has as much work as it may have.
    pub const OVERLOADED: i32 = -31007;
    /// The caller has used up its rate.
    pub const RATE_LIMITED: i32 = -31008;
    /// The node is shutting down.
    pub const DRAINING: i32 = -31009;
    /// What the request belongs to was held by a node that is gone.
    pub const OWNER_LOST: i32 = -31010;
    /// The session is unknown, has ended, or is not the caller's.
    pub const SESSION_NOT_FOUND: i32 = -31011;
    /// The message is longer than it may be.
    pub const TOO_LARGE: i32 = -31012;
    /// The node has no configuration yet.
    pub const NOT_READY: i32 = -31013;
    /// The client is gone or has cancelled.
    pub const CANCELLED: i32 = -31014;
    /// The credentials are missing or wrong.
    pub const UNAUTHENTICATED: i32 = -31015;
    /// A web page of another origin has asked.
    pub const ORIGIN_REFUSED: i32 = -31016;
    /// The call needs something from the client that it cannot be asked for.
    pub const CANNOT_ASK: i32 = -31017;
    /// The backend does not speak the era that its configuration demands.
    pub const ERA_MISMATCH: i32 = -31018;
}

/// Whose failure it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    Gateway,
    Backend(String),
}

/// An error, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    pub code: i32,
    pub message: Cow<'static, str>,
    pub side: Side,
    /// Whether the same request may be sent again: it has had no effect, and
    /// the reason may pass.
    pub retry: bool,
    /// Whether the request lacks what every request must say, which is HTTP 400
    /// even where the code is that of an ordinary failure.
    pub malformed: bool,
    /// Further members of `data`, as raw JSON.
    pub data: Vec<(&'static str, Bytes)>,
}

impl RpcError {
    /// A failure of the gateway, or of the request in its eyes.
    pub fn new(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            side: Side::Gateway,
            retry: false,
            malformed: false,
            data: Vec::new(),
        }
    }

    fn backend(code: i32, name: &str, what: impl std::fmt::Display, retry: bool) -> Self {
        let message = format!("backend {name} {what}").into();
        Self {
            code,
            message,
            side: Side::Backend(name.to_owned()),
            retry,
            malformed: false,
            data: Vec::new(),
        }
    }

    fn may_repeat(self) -> Self {
        Self { retry: true, ..self }
    }

    /// Adds a member to `data`, given as raw JSON.
    pub fn with(mut self, key: &'static str, raw: impl Into<Bytes>) -> Self {
        self.data.push((key, raw.into()));
        self
    }

    /// Adds a text to `data`.
    pub fn with_text(self, key: &'static str, value: &str) -> Self {
        self.with(key, text::encode(value))
    }

    /// Adds the id under which logs and traces have this request.
    pub fn with_trace(self, id: &str) -> Self {
        self.with_text("request", id)
    }

    pub fn parse_error(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::PARSE_ERROR, why)
    }

    pub fn invalid_request(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::INVALID_REQUEST, why)
    }

    pub fn invalid_params(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::INVALID_PARAMS, why)
    }

    /// A modern request without a member of `_meta` that all must have.
    pub fn missing_meta(key: &str) -> Self {
        Self::malformed_meta(format!("params._meta[{key:?}] is required"))
    }

    /// `_meta` with a member that is not what it must be.
    pub fn malformed_meta(why: impl Into<Cow<'static, str>>) -> Self {
        Self { malformed: true, ..Self::invalid_params(why) }
    }

    /// Our own fault; the cause is in the log.
    pub fn internal() -> Self {
        Self::new(code::INTERNAL, "internal error")
    }

    pub fn method_not_found(method: &str) -> Self {
        Self::new(code::METHOD_NOT_FOUND, format!("method {method:?} not found"))
    }

    /// Also for a tool that the caller may not see.
    pub fn unknown_tool(name: &str) -> Self {
        Self::new(code::INVALID_PARAMS, format!("unknown tool {name:?}"))
    }

    /// Also for a prompt that the caller may not see.
    pub fn unknown_prompt(name: &str) -> Self {
        Self::new(code::INVALID_PARAMS, format!("unknown prompt {name:?}"))
    }

    pub fn unknown_task(id: &str) -> Self {
        Self::new(code::INVALID_PARAMS, format!("unknown task {id:?}"))
    }

    pub fn invalid_cursor() -> Self {
        Self::new(code::INVALID_PARAMS, "the cursor is not valid or no longer valid")
    }

    /// Also for a resource that the caller may not see.
    pub fn resource_not_found(version: ProtocolVersion, uri: &str) -> Self {
        let code = if version.has_resource_not_found_code() {
            code::RESOURCE_NOT_FOUND
        } else {
            code::INVALID_PARAMS
        };
        Self::new(code, "resource not found").with_text("uri", uri)
    }

    /// `why` names the header.
    pub fn header_mismatch(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code::HEADER_MISMATCH, why)
    }

    /// `required` is a raw `ClientCapabilities` object.
    pub fn missing_capability(required: impl Into<Bytes>) -> Self {
        Self::new(code::MISSING_CAPABILITY, "the client did not declare a capability that this needs")
            .with("requiredCapabilities", required)
    }

    /// `supported` is what `server/discover` names too.
    pub fn unsupported_version(requested: &str, supported: &[ProtocolVersion]) -> Self {
        let mut versions = vec![b'['];
        for (at, version) in supported.iter().enumerate() {
            if at > 0 {
                versions.push(b',');
            }
            text::write(version.as_str(), &mut versions);
        }
        versions.push(b']');
        Self::new(code::UNSUPPORTED_VERSION, "unsupported protocol version")
            .with("supported", versions)
            .with_text("requested", requested)
    }

    pub fn upstream_timeout(backend: &str, limit: Duration) -> Self {
        Self::backend(code::UPSTREAM_TIMEOUT, backend, format_args!("did not answer within {limit:?}"), false)
    }

    pub fn upstream_unreachable(backend: &str) -> Self {
        Self::backend(code::UPSTREAM_UNREACHABLE, backend, "is unreachable", true)
    }

    /// `may_have_run`: whether the request had been sent.
    pub fn upstream_lost(backend: &str, may_have_run: bool) -> Self {
        let what = if may_have_run {
            "went away before it answered; the call may have taken effect"
        } else {
            "went away before the call reached it"
        };
        Self::backend(code::UPSTREAM_LOST, backend, what, !may_have_run)
    }

    pub fn upstream_invalid(backend: &str) -> Self {
        Self::backend(code::UPSTREAM_INVALID, backend, "gave an answer that is not MCP", false)
    }

    pub fn upstream_refused(backend: &str, status: u16) -> Self {
        Self::backend(
            code::UPSTREAM_REFUSED,
            backend,
            format_args!("refused the gateway with HTTP {status}"),
            false,
        )
    }

    pub fn upstream_overloaded(backend: &str) -> Self {
        Self::backend(code::UPSTREAM_OVERLOADED, backend, "has no room for another call", true)
    }

    pub fn upstream_queue_full(backend: &str) -> Self {
        let what = "takes one call at a time, and too many wait for it";
        Self::backend(code::UPSTREAM_QUEUE_FULL, backend, what, true)
    }

    pub fn upstream_queue_timeout(backend: &str, waited: Duration) -> Self {
        let what = format_args!("takes one call at a time, and was busy with others for {waited:?}");
        Self::backend(code::UPSTREAM_QUEUE_TIMEOUT, backend, what, true)
    }

    pub fn overloaded() -> Self {
        Self::new(code::OVERLOADED, "the gateway has no room for another request").may_repeat()
    }

    pub fn rate_limited(retry_after: Duration) -> Self {
        let wait = retry_after.as_millis().to_string();
        Self::new(code::RATE_LIMITED, "too many requests").may_repeat().with("retryAfterMs", wait)
    }

    pub fn draining() -> Self {
        Self::new(code::DRAINING, "the node is shutting down").may_repeat()
    }

    pub fn not_ready() -> Self {
        Self::new(code::NOT_READY, "the node has no configuration yet").may_repeat()
    }

    pub fn owner_lost() -> Self {
        Self::new(code::OWNER_LOST, "the node that held this is gone")
    }

    pub fn session_not_found() -> Self {
        Self::new(code::SESSION_NOT_FOUND, "session not found; initialize again")
    }

    pub fn too_large(bytes_max: usize) -> Self {
        Self::new(code::TOO_LARGE, format!("the message is longer than {bytes_max} bytes"))
    }

    pub fn cancelled() -> Self {
        Self::new(code::CANCELLED, "the request was cancelled")
    }

    pub fn unauthenticated() -> Self {
        Self::new(code::UNAUTHENTICATED, "authentication required")
    }

    pub fn origin_refused() -> Self {
        Self::new(code::ORIGIN_REFUSED, "this origin may not use the gateway")
    }

    /// `what` is the method that would have to be sent to the client.
    pub fn cannot_ask(what: &str) -> Self {
        Self::new(code::CANNOT_ASK, format!("the client cannot be asked: {what}"))
    }

    /// The status of an HTTP response that carries only this error. Errors of
    /// a call that was understood are ordinary answers (200): client libraries
    /// read the body of nothing else.
    pub fn http_status(&self, era: Era) -> u16 {
        match self.code {
            code::PARSE_ERROR
            | code::INVALID_REQUEST
            | code::HEADER_MISMATCH
            | code::MISSING_CAPABILITY
            | code::UNSUPPORTED_VERSION => 400,
            _ if self.malformed => 400,
            code::METHOD_NOT_FOUND if era == Era::Modern => 404,
            code::UNAUTHENTICATED => 401,
            code::ORIGIN_REFUSED => 403,
            code::SESSION_NOT_FOUND => 404,
            code::TOO_LARGE => 413,
            code::RATE_LIMITED => 429,
            code::OVERLOADED | code::DRAINING | code::NOT_READY => 503,
            _ => 200,
        }
    }

    /// The `error` object.
    pub fn to_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size());
        self.write(&mut out);
        out.into()
    }
}

impl Raw for RpcError {
    /// An estimate.
    fn size(&self) -> usize {
        96 + self.message.len() + self.data.iter().map(|(key, raw)| key.len() + raw.len() + 4).sum::<usize>()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"code\":");
        out.extend_from_slice(self.code.to_string().as_bytes());
        out.extend_from_slice(b",\"message\":");
        text::write(&self.message, out);
        out.extend_from_slice(b",\"data\":{\"side\":");
        match &self.side {
            Side::Gateway => out.extend_from_slice(b"\"gateway\""),
            Side::Backend(name) => text::write(&format!("backend {name}"), out),
        }
        out.extend_from_slice(if self.retry { b",\"retry\":true" } else { b",\"retry\":false" });
        for (key, raw) in &self.data {
            out.push(b',');
            text::write(key, out);
            out.push(b':');
            out.extend_from_slice(raw);
        }
        out.extend_from_slice(b"}}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::version;
    use crate::version::ProtocolVersion::*;

    fn value(error: &RpcError) -> Value {
        serde_json::from_slice(&error.to_json()).unwrap()
    }

    #[test]
    fn an_error_says_which_side_failed_and_whether_a_retry_is_safe() {
        let error = RpcError::upstream_unreachable("web \"1\"").with_trace("abc");
        assert_eq!(
            value(&error),
            json!({"code": -31002, "message": "backend web \"1\" is unreachable",
                   "data": {"side": "backend web \"1\"", "retry": true, "request": "abc"}})
        );
        assert_eq!(value(&RpcError::overloaded())["data"], json!({"side": "gateway", "retry": true}));
        assert_eq!(value(&RpcError::upstream_lost("b", true))["data"]["retry"], false);
        assert_eq!(value(&RpcError::upstream_lost("b", false))["data"]["retry"], true);
        assert_eq!(value(&RpcError::upstream_timeout("b", Duration::from_secs(60)))["data"]["retry"], false);
    }

    #[test]
    fn errors_of_the_specification_carry_their_data() {
        let error = value(&RpcError::unsupported_version("1900-01-01", &version::ALL));
        assert_eq!(error["code"], -32022);
        assert_eq!(error["data"]["requested"], "1900-01-01");
        assert_eq!(error["data"]["supported"][0], "2026-07-28");
        let error = value(&RpcError::missing_capability(&br#"{"sampling":{}}"#[..]));
        assert_eq!(
            (&error["code"], &error["data"]["requiredCapabilities"]),
            (&json!(-32021), &json!({"sampling": {}}))
        );
        let error = value(&RpcError::resource_not_found(V2026_07_28, "f:x"));
        assert_eq!((&error["code"], &error["data"]["uri"]), (&json!(-32602), &json!("f:x")));
        assert_eq!(value(&RpcError::resource_not_found(V2025_11_25, "f:x"))["code"], -32002);
    }

    #[test]
    fn the_status_of_http_follows_the_era() {
        let check = |error: RpcError, legacy, modern| {
            let found = (error.http_status(Era::Legacy), error.http_status(Era::Modern));
            assert_eq!(found, (legacy, modern), "{error}");
        };
        check(RpcError::method_not_found("ping"), 200, 404);
        check(RpcError::unknown_tool("x"), 200, 200);
        check(RpcError::missing_meta("x"), 400, 400);
        check(RpcError::header_mismatch("x"), 400, 400);
        check(RpcError::unsupported_version("x", &version::ALL), 400, 400);
        check(RpcError::parse_error("x"), 400, 400);
        check(RpcError::session_not_found(), 404, 404);
        check(RpcError::upstream_unreachable("x"), 200, 200);
        check(RpcError::overloaded(), 503, 503);
    }
}
