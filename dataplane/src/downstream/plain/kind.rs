//! What kind of failure it is, for clients that know statuses: HTTP's and
//! gRPC's, from the code that MCP has for it. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use crate::mcp::{RpcError, error::code};

/// How long a client is told to wait that found no room, in seconds, at least.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Kinds of failures that clients can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong.
    Invalid,
    Unauthenticated,
    Forbidden,
    /// There is no such tool, prompt, resource, session, or gateway.
    NotFound,
    /// There is no such method.
    Unimplemented,
    /// It needs a client that can be asked.
    CannotAsk,
    TooLarge,
    RateLimited,
    /// No room now.
    Overloaded,
    /// The node does not serve now.
    Unavailable,
    /// The backend did not answer in time.
    Timeout,
    /// Nothing has reached the backend.
    Unreachable,
    /// The answer is lost; the call may have taken effect.
    Lost,
    /// The backend's fault.
    Backend,
    /// The tool was reached and has said no.
    Refused,
    Cancelled,
    /// Our own fault.
    Internal,
}

impl Kind {
    /// Of a code; `ours` tells whether this node has made the error.
    fn of(code: i32, ours: bool) -> Self {
        match code {
            // To a backend the request is the node's, except for what it is about.
            code::PARSE_ERROR | code::INVALID_REQUEST | code::HEADER_MISMATCH | code::UNSUPPORTED_VERSION
                if ours =>
            {
                Self::Invalid
            }
            code::INVALID_PARAMS => Self::Invalid,
            code::METHOD_NOT_FOUND => Self::Unimplemented,
            code::RESOURCE_NOT_FOUND | code::SESSION_NOT_FOUND => Self::NotFound,
            code::MISSING_CAPABILITY | code::CANNOT_ASK | code::URL_ELICITATION_REQUIRED => Self::CannotAsk,
            code::UPSTREAM_TIMEOUT => Self::Timeout,
            code::UPSTREAM_UNREACHABLE => Self::Unreachable,
            code::UPSTREAM_LOST | code::OWNER_LOST => Self::Lost,
            code::UPSTREAM_OVERLOADED
            | code::UPSTREAM_QUEUE_FULL
            | code::UPSTREAM_QUEUE_TIMEOUT
            | code::OVERLOADED => Self::Overloaded,
            code::RATE_LIMITED => Self::RateLimited,
            code::DRAINING | code::NOT_READY => Self::Unavailable,
            code::TOO_LARGE => Self::TooLarge,
            code::CANCELLED => Self::Cancelled,
            code::UNAUTHENTICATED => Self::Unauthenticated,
            code::ORIGIN_REFUSED => Self::Forbidden,
            code::INTERNAL if ours => Self::Internal,
            _ => Self::Backend,
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound | Self::Unimplemented => StatusCode::NOT_FOUND,
            Self::CannotAsk | Self::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::Unavailable | Self::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable | Self::Lost | Self::Backend => StatusCode::BAD_GATEWAY,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::Invalid => tonic::Code::InvalidArgument,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::Forbidden => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::Unimplemented => tonic::Code::Unimplemented,
            Self::CannotAsk | Self::Backend | Self::Refused => tonic::Code::FailedPrecondition,
            Self::TooLarge | Self::RateLimited | Self::Overloaded => tonic::Code::ResourceExhausted,
            Self::Unavailable | Self::Unreachable => tonic::Code::Unavailable,
            Self::Timeout => tonic::Code::DeadlineExceeded,
            Self::Lost => tonic::Code::Unknown,
            Self::Cancelled => tonic::Code::Cancelled,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// For programs, as `google.rpc.ErrorInfo` has it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID_ARGUMENT",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Unimplemented => "UNKNOWN_METHOD",
            Self::CannotAsk => "CANNOT_ASK",
            Self::TooLarge => "TOO_LARGE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Overloaded => "OVERLOADED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Timeout => "BACKEND_TIMEOUT",
            Self::Unreachable => "BACKEND_UNREACHABLE",
            Self::Lost => "OUTCOME_UNKNOWN",
            Self::Backend => "BACKEND_FAILED",
            Self::Refused => "TOOL_FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Internal => "INTERNAL",
        }
    }

    /// Whether the client is told when to come again.
    pub fn comes_again(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::Unavailable)
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: Kind,
    pub code: i32,
    pub message: String,
    pub retry: bool,
    pub side: String,
    /// When to come again, if that would help.
    pub retry_after_seconds: u64,
    /// The raw error object, as clients of MCP would get it.
    pub error: Bytes,
}

#[derive(Deserialize)]
struct Object<'a> {
    code: i32,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a serde_json::value::RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    side: String,
    retry: bool,
    retry_after_ms: u64,
}

impl Failure {
    /// Of an error that is made here.
    pub fn of(error: &RpcError) -> Self {
        Self::read(error.to_json(), false)
    }

    /// There is nothing under this name.
    pub fn not_found(error: &RpcError) -> Self {
        Self { kind: Kind::NotFound, ..Self::of(error) }
    }

    /// From a raw error object. `unknown_name`: what the call names is not there.
    pub fn read(error: Bytes, unknown_name: bool) -> Self {
        let Ok(read) = serde_json::from_slice::<Object<'_>>(&error) else {
            return Self {
                kind: Kind::Backend,
                code: code::UPSTREAM_INVALID,
                message: "the backend answered with an error that cannot be read".to_owned(),
                retry: false,
                side: String::new(),
                retry_after_seconds: RETRY_AFTER_SECONDS,
                error,
            };
        };
        let data: Data = read.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default();
        let kind = match Kind::of(read.code, data.side == "gateway") {
            Kind::Invalid if unknown_name => Kind::NotFound,
            kind => kind,
        };
        let (code, message) = (read.code, read.message.into_owned());
        let retry_after_seconds = data.retry_after_ms.div_ceil(1_000).max(RETRY_AFTER_SECONDS);
        Self { kind, code, message, retry: data.retry, side: data.side, retry_after_seconds, error }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failure_has_the_status_of_its_kind() {
        let check = |error: RpcError, status: u16, grpc| {
            let failure = Failure::of(&error);
            assert_eq!((failure.kind.status().as_u16(), failure.kind.grpc()), (status, grpc), "{error}");
        };
        check(RpcError::invalid_params("x"), 400, tonic::Code::InvalidArgument);
        check(RpcError::upstream_timeout("b", Duration::from_secs(1)), 504, tonic::Code::DeadlineExceeded);
        check(RpcError::upstream_unreachable("b"), 502, tonic::Code::Unavailable);
        check(RpcError::upstream_lost("b", true), 502, tonic::Code::Unknown);
        check(RpcError::upstream_overloaded("b"), 503, tonic::Code::ResourceExhausted);
        check(RpcError::rate_limited(Duration::ZERO), 429, tonic::Code::ResourceExhausted);
        check(RpcError::unauthenticated(), 401, tonic::Code::Unauthenticated);
        check(RpcError::cannot_ask("x"), 422, tonic::Code::FailedPrecondition);
        check(RpcError::internal(), 500, tonic::Code::Internal);
    }

    #[test]
    fn wrong_arguments_are_not_an_unknown_name() {
        let error = RpcError::unknown_tool("x").to_json();
        assert_eq!(Failure::read(error.clone(), true).kind, Kind::NotFound);
        assert_eq!(Failure::read(error, false).kind, Kind::Invalid);
    }

    #[test]
    fn a_backends_own_error_is_the_backends() {
        for raw in [r#"{"code":-32603,"message":"oops"}"#, r#"{"code":7,"message":"a\u0062"}"#, "[]"] {
            let failure = Failure::read(Bytes::from_static(raw.as_bytes()), false);
            assert_eq!(failure.kind, Kind::Backend, "{raw}");
            assert_eq!(failure.error, raw.as_bytes());
        }
    }
}
