//! A JSON Web Token (RFC 7519), read and judged without I/O.
//!
//! Only signatures that everybody can check and only the issuer can make are
//! taken: none with a shared secret, none without a signature. What a token says
//! of its own keys (`jku`, `jwk`, `x5u`) is never followed, and an extension
//! that must be understood (`crit`) is refused, as none is.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use mt_proto::resource::JwtIssuer;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::{Key, algorithm};
use crate::gateway::call::{Identity, Shown};

/// By how much clocks may differ, in seconds.
pub const LEEWAY: u64 = 30;
/// Of a key's id.
const KID_BYTES_MAX: usize = 1024;
/// Of the name from a claim, and of a group's.
const NAME_CHARS_MAX: usize = 256;
/// Of one caller.
const GROUPS_MAX: usize = 512;

/// Why a token is not taken. Repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the token cannot be read")]
    Malformed,
    #[error("the token is not signed in a way that is taken here")]
    Algorithm,
    #[error("the token has an extension that is not known here")]
    Critical,
    #[error("the token is of another type")]
    Type,
    #[error("tokens of this issuer are not taken here")]
    Issuer,
    #[error("the token is signed with a key that its issuer does not show")]
    UnknownKey,
    #[error("the signature of the token is wrong")]
    Signature,
    #[error("the token does not say when it expires")]
    NoExpiry,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token does not name its caller as this gateway asks for")]
    Principal,
    #[error("the token does not list groups as this gateway asks for")]
    Groups,
}

/// A token whose signature nobody has checked.
pub struct Token<'a> {
    signed: &'a str,
    signature: &'a str,
    pub algorithm: Algorithm,
    pub kid: Option<String>,
    claims: Map<String, Value>,
    issuer: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Reads a token.
///
/// # Errors
/// [`Invalid`], as far as it shows without a key.
pub fn parse(text: &str) -> Result<Token<'_>, Invalid> {
    let (signed, signature) = text.rsplit_once('.').ok_or(Invalid::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(Invalid::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Invalid::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Invalid::Malformed)?;
    let algorithm = algorithm(&header.alg).ok_or(Invalid::Algorithm)?;
    if header.crit.is_some() {
        return Err(Invalid::Critical);
    }
    // A token that was made for something else, such as a logout, is no pass.
    let typ = header.typ.as_deref().map(|typ| typ.trim_start_matches("application/").to_ascii_lowercase());
    if !matches!(typ.as_deref(), None | Some("jwt" | "at+jwt")) {
        return Err(Invalid::Type);
    }
    if header.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err(Invalid::UnknownKey);
    }
    let claims: Map<String, Value> =
        serde_json::from_slice(&decode(payload)?).map_err(|_| Invalid::Malformed)?;
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Invalid::Issuer)?.to_owned();
    Ok(Token { signed, signature, algorithm, kid: header.kid, claims, issuer })
}

impl Token<'_> {
    /// Who it says has made it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &Key) -> bool {
        key.allows(self.algorithm)
            && jsonwebtoken::crypto::verify(
                self.signature,
                self.signed.as_bytes(),
                &key.decoding,
                self.algorithm,
            )
            .unwrap_or(false)
    }

    /// Who calls, and when the token expires, if its signature is right. `now` in
    /// seconds since the epoch.
    ///
    /// # Errors
    /// When it is not for this gateway, or not for now.
    pub fn judge(&self, terms: &JwtIssuer, now: u64) -> Result<(Arc<Identity>, u64), Invalid> {
        if self.issuer != terms.issuer {
            return Err(Invalid::Issuer);
        }
        let expires = time(self.claims.get("exp"))?.ok_or(Invalid::NoExpiry)?;
        if now >= expires.saturating_add(LEEWAY) {
            return Err(Invalid::Expired);
        }
        if time(self.claims.get("nbf"))?.is_some_and(|begins| now.saturating_add(LEEWAY) < begins) {
            return Err(Invalid::NotYet);
        }
        let wanted = |audience: &Value| {
            audience.as_str().is_some_and(|text| terms.audiences.iter().any(|wanted| wanted == text))
        };
        let is_for_us = match self.claims.get("aud") {
            Some(Value::Array(list)) => list.iter().any(wanted),
            Some(one) => wanted(one),
            None => false,
        };
        if !is_for_us {
            return Err(Invalid::Audience);
        }
        let name = self.claims.get(&terms.principal_claim).and_then(Value::as_str);
        let name = name.filter(|name| is_name(name)).ok_or(Invalid::Principal)?;
        let identity = Identity {
            principal: format!("{}{name}", terms.principal_prefix).into(),
            groups: groups(self.claims.get(&terms.groups_claim))?,
            shown: Shown::Jwt,
        };
        Ok((Arc::new(identity), expires))
    }
}

/// Seconds since the epoch (RFC 7519 §2: `NumericDate`).
fn time(value: Option<&Value>) -> Result<Option<u64>, Invalid> {
    let Some(value) = value else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    // Beyond what a u64 holds it is the end of time.
    seconds.map(|seconds| Some(seconds as u64)).ok_or(Invalid::Malformed)
}

/// All or none: a rule may be about a group that was left out.
fn groups(value: Option<&Value>) -> Result<Vec<Arc<str>>, Invalid> {
    let names: Vec<&str> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split_ascii_whitespace().collect(),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|group| group.as_str().ok_or(Invalid::Groups));
            texts.collect::<Result<_, _>>()?
        }
        Some(_) => return Err(Invalid::Groups),
    };
    if names.len() > GROUPS_MAX || !names.iter().all(|name| is_name(name)) {
        return Err(Invalid::Groups);
    }
    Ok(names.into_iter().map(Arc::from).collect())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= NAME_CHARS_MAX && !text.chars().any(char::is_control)
}
