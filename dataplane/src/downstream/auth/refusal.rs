//! Why a caller is not served, and what it is told.

use http::{HeaderValue, Response, StatusCode, header};

use super::token::Invalid;
use crate::{
    downstream::{body::Body, reply},
    mcp::{RpcError, error::code},
};

/// Why a caller is not served. Holds nothing of what it has shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("authentication required: send an API key as `Authorization: Bearer KEY`")]
    Missing,
    #[error("authentication required from other machines: send an API key as `Authorization: Bearer KEY`")]
    NotLocal,
    #[error("credentials are written as `Authorization: Bearer KEY`")]
    Scheme,
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the API key is not known, or has been revoked")]
    UnknownKey,
    #[error(transparent)]
    Token(#[from] Invalid),
    /// Not the caller's fault, who shall keep its token and come again.
    #[error("the keys of the token's issuer cannot be had now")]
    Unavailable,
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    pub fn to_rpc(&self) -> RpcError {
        match self {
            Refusal::Malformed(why) => RpcError::invalid_request(*why),
            Refusal::Unavailable => {
                let mut error = RpcError::not_ready();
                error.message = self.to_string().into();
                error
            }
            _ => RpcError::new(code::UNAUTHENTICATED, self.to_string()),
        }
    }

    /// The whole response.
    pub fn response(&self) -> Response<Body> {
        let mut response = reply::refuse(self.status(), None, &self.to_rpc());
        let headers = response.headers_mut();
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if *self == Refusal::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    /// How to be let in (RFC 6750 §3). A caller who has shown nothing is told of
    /// no error, nor is one who has tried another way. `resource_metadata` (RFC 9728 §5.1) and `scope` are further
    /// parameters of it, for gateways that have an authorization server.
    fn challenge(&self) -> Option<HeaderValue> {
        let error = match self {
            Refusal::Missing | Refusal::NotLocal | Refusal::Scheme => {
                return Some(HeaderValue::from_static("Bearer"));
            }
            Refusal::Malformed(_) => "invalid_request",
            Refusal::UnknownKey | Refusal::Token(_) => "invalid_token",
            Refusal::Unavailable => return None,
        };
        // The texts are ours; a quote in one would end the parameter.
        let description = self.to_string().replace('"', "'");
        HeaderValue::try_from(format!("Bearer error=\"{error}\", error_description=\"{description}\"")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_the_error_only_to_who_has_shown_something() {
        let challenge = |refusal: Refusal| {
            let response = refusal.response();
            let value = response.headers().get(header::WWW_AUTHENTICATE);
            (response.status().as_u16(), value.map(|v| v.to_str().unwrap().to_owned()))
        };
        assert_eq!(challenge(Refusal::Missing), (401, Some("Bearer".to_owned())));
        assert_eq!(challenge(Refusal::NotLocal), (401, Some("Bearer".to_owned())));
        let (status, value) = challenge(Refusal::Token(Invalid::Expired));
        assert_eq!(status, 401);
        assert_eq!(
            value.unwrap(),
            r#"Bearer error="invalid_token", error_description="the token has expired""#
        );
        let (status, value) = challenge(Refusal::Malformed("no `x`"));
        assert_eq!((status, value.unwrap().contains("invalid_request")), (400, true));
        assert_eq!(challenge(Refusal::Unavailable), (503, None));
    }
}
