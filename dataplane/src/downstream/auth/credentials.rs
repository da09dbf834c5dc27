//! What a request shows, before anybody knows whether it is right.
//!
//! One thing, in one header: with two, somebody on the way could have decided
//! by another one than the node does.

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::Refusal;

/// What every key of ours begins with, so that scanners and people know one.
pub const KEY_PREFIX: &str = "mt_";
/// The longest key or token.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What is shown. Without `Debug`, so that it cannot be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credentials<'a> {
    Nothing,
    Key(&'a str),
    /// It looks like a JWT.
    Token(&'a str),
}

impl<'a> Credentials<'a> {
    /// From the headers of a request.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::Scheme`].
    pub fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut shown = headers.get_all(AUTHORIZATION).iter().map(|value| (true, value));
        let mut keys = headers.get_all(API_KEY).iter().map(|value| (false, value));
        let (first, more) = match (shown.next(), keys.next()) {
            (None, None) => return Ok(Self::Nothing),
            (Some(first), None) => (first, shown.next().is_some()),
            (None, Some(first)) => (first, keys.next().is_some()),
            (Some(_), Some(_)) => return Err(Refusal::Malformed("credentials come in one header")),
        };
        if more {
            return Err(Refusal::Malformed("credentials come once"));
        }
        let (has_scheme, value) = first;
        let text = value.to_str().map_err(|_| Refusal::Malformed("the credentials are not text"))?.trim();
        if !has_scheme {
            // A header of that name is for keys, whatever is in it.
            return Self::of(text)
                .map(|shown| if let Self::Token(text) = shown { Self::Key(text) } else { shown });
        }
        match text.split_once(' ') {
            Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => Self::of(secret.trim_start()),
            _ => Err(Refusal::Scheme),
        }
    }

    /// From a key or a token alone.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn of(secret: &'a str) -> Result<Self, Refusal> {
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return Err(Refusal::Malformed("the credentials are empty or too long"));
        }
        if secret.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(Refusal::Malformed("the credentials have a character that no key has"));
        }
        let dots = secret.bytes().filter(|b| *b == b'.').count();
        let is_token = dots == 2 && !secret.starts_with(KEY_PREFIX);
        Ok(if is_token { Self::Token(secret) } else { Self::Key(secret) })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(list: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match Credentials::read(&headers) {
            Ok(Credentials::Nothing) => "nothing".to_owned(),
            Ok(Credentials::Key(key)) => format!("key {key}"),
            Ok(Credentials::Token(token)) => format!("token {token}"),
            Err(refusal) => format!("{}", refusal.status().as_u16()),
        }
    }

    #[test]
    fn keys_and_tokens_are_told_apart() {
        for (headers, expected) in [
            (&[][..], "nothing"),
            (&[("authorization", "Bearer mt_1")], "key mt_1"),
            (&[("authorization", "bearer  mt_1 ")], "key mt_1"),
            (&[("authorization", "Bearer mt_a.b.c")], "key mt_a.b.c"),
            (&[("authorization", "Bearer a.b.c")], "token a.b.c"),
            (&[("authorization", "Bearer a.b")], "key a.b"),
            (&[("authorization", "Bearer a.b.c.d.e")], "key a.b.c.d.e"),
            (&[("x-api-key", "mt_1")], "key mt_1"),
            (&[("x-api-key", "a.b.c")], "key a.b.c"),
        ] {
            assert_eq!(read(headers), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        let long = format!("Bearer {}", "x".repeat(SECRET_BYTES_MAX + 1));
        for headers in [
            &[("authorization", "")][..],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "mt_1")],
            &[("authorization", "Bearer a b")],
            &[("authorization", "Bearer \u{e4}")],
            &[("authorization", &long)],
            &[("authorization", "Bearer a"), ("authorization", "Bearer a")],
            &[("authorization", "Bearer a"), ("x-api-key", "a")],
            &[("x-api-key", "a"), ("x-api-key", "a")],
            &[("x-api-key", &long)],
            &[("x-api-key", "")],
        ] {
            let (name, value) = headers[0];
            assert!(matches!(read(headers).as_str(), "400" | "401"), "{name} {value:.20}");
        }
    }
}
