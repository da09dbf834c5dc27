//! The HTTP headers of MCP: their names, the encoding of their values, and the
//! comparison of what they say with the body (2026-07-28, Transports,
//! "Standard Request Headers").
//!
//! Policy always goes by the body; the headers are only ever checked against
//! it, so a mismatch cannot route one thing and run another.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::RpcError;
use crate::method::Method;
use crate::params::Params;

pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What the names of the headers start with that repeat tool arguments.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// What a request to a backend accepts; real servers refuse less.
pub const ACCEPT_BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// A value that looks encoded and is not, or a header that is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header value is malformed")]
pub struct Malformed;

/// A text as a header value: itself if it is visible ASCII (spaces inside) and
/// does not look encoded, otherwise in base64 between markers.
pub fn encode(text: &str) -> Cow<'_, str> {
    let visible = text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    let trimmed = !text.starts_with(' ') && !text.ends_with(' ');
    if visible && trimmed && !looks_encoded(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(text)))
}

/// The text of a header value.
pub fn decode(value: &str) -> Result<Cow<'_, str>, Malformed> {
    // Usually the server that read the header has done so.
    let padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    let value =
        if padded(bytes.first()) || padded(bytes.last()) { value.trim_matches([' ', '\t']) } else { value };
    if !looks_encoded(value) {
        return Ok(Cow::Borrowed(value));
    }
    let inner = &value[OPEN.len()..value.len() - CLOSE.len()];
    let bytes = STANDARD.decode(inner).map_err(|_| Malformed)?;
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Malformed)
}

fn looks_encoded(value: &str) -> bool {
    value.len() >= OPEN.len() + CLOSE.len() && value.starts_with(OPEN) && value.ends_with(CLOSE)
}

/// A text as the value of a header of ours. Always possible, because what a
/// header cannot carry is encoded.
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(&encode(text)).expect("encoded text is visible ASCII")
}

/// The one value of a header, decoded; `None` if it is absent.
pub fn get<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, str>>, Malformed> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed);
    }
    decode(value.to_str().map_err(|_| Malformed)?).map(Some)
}

/// Whether the version header of a modern request says what its body says.
pub fn check_version(headers: &HeaderMap, version: &str) -> Result<(), RpcError> {
    agree(headers, &PROTOCOL_VERSION, "MCP-Protocol-Version", version)
}

/// Whether the headers of a modern request say what its body says: version,
/// method, and name. Each must be there exactly once.
pub fn check(headers: &HeaderMap, version: &str, method: &Method, params: &Params) -> Result<(), RpcError> {
    agree(headers, &PROTOCOL_VERSION, "MCP-Protocol-Version", version)?;
    agree(headers, &METHOD, "Mcp-Method", method.as_str())?;
    if let Some(key) = method.name_param() {
        match params.text(key) {
            Some(name) => agree(headers, &NAME, "Mcp-Name", &name)?,
            None if headers.contains_key(NAME) => {
                return Err(RpcError::header_mismatch(format!(
                    "Mcp-Name is set, but params.{} is not",
                    key.as_str()
                )));
            }
            None => {}
        }
    }
    Ok(())
}

fn agree(headers: &HeaderMap, name: &HeaderName, shown: &str, body: &str) -> Result<(), RpcError> {
    match get(headers, name) {
        Ok(Some(value)) if value == body => Ok(()),
        Ok(Some(_)) => Err(RpcError::header_mismatch(format!("{shown} differs from the body"))),
        Ok(None) => Err(RpcError::header_mismatch(format!("{shown} is missing"))),
        Err(Malformed) => Err(RpcError::header_mismatch(format!("{shown} is malformed"))),
    }
}

/// The headers that a modern request to a backend needs.
pub fn write(headers: &mut HeaderMap, version: &str, method: &Method, name: Option<&str>) {
    headers.insert(PROTOCOL_VERSION, value(version));
    headers.insert(METHOD, value(method.as_str()));
    match name {
        Some(name) => _ = headers.insert(NAME, value(name)),
        None => _ = headers.remove(NAME),
    }
}

/// What the answer to a request may be, by its `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepts {
    pub json: bool,
    pub sse: bool,
}

/// Reads `Accept` leniently: `*/*` and an absent header accept both, parameters
/// (also `q=0`) are ignored.
pub fn accepts(headers: &HeaderMap) -> Accepts {
    let mut accepts = Accepts { json: false, sse: false };
    let mut any = false;
    for value in headers.get_all(http::header::ACCEPT) {
        any = true;
        // What nearly every client sends.
        if value == ACCEPT_BOTH {
            return Accepts { json: true, sse: true };
        }
        for range in value.as_bytes().split(|byte| *byte == b',') {
            let range = range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let is = |names: &[&str]| names.iter().any(|name| range.eq_ignore_ascii_case(name.as_bytes()));
            accepts.json |= is(&["application/json", "application/*", "*/*"]);
            accepts.sse |= is(&["text/event-stream", "text/*", "*/*"]);
        }
    }
    if any { accepts } else { Accepts { json: true, sse: true } }
}

/// Whether a `Content-Type` is JSON, whatever its parameters.
pub fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json"))
}

/// Whether a `Content-Type` is an event stream.
pub fn is_sse(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(http::header::CONTENT_TYPE)?.as_bytes();
    if value == b"application/json" {
        return Some(value);
    }
    value.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::scan::Limits;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn values_that_a_header_cannot_carry_are_encoded() {
        assert_eq!(encode("us-west1 a"), "us-west1 a");
        assert_eq!(encode("Hello, 世界"), "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_eq!(encode(" padded "), "=?base64?IHBhZGRlZCA=?=");
        assert_eq!(encode("=?base64?literal?="), "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
        assert_eq!(decode("=?BASE64?eA==?="), Ok("=?BASE64?eA==?=".into()));
        for malformed in ["=?base64?%%?=", "=?base64?eA?=", "=?base64?/w==?=", "=?base64?eB==?="] {
            assert_eq!(decode(malformed), Err(Malformed), "{malformed}");
        }
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let params = Params::scan(&Bytes::from_static(r#"{"name":"é"}"#.as_bytes()), Limits::CLIENT).unwrap();
        let check = |list: &[(&'static str, &str)]| {
            check(&headers(list), "2026-07-28", &Method::ToolsCall, &params)
                .map_err(|error| error.message.into_owned())
        };
        let version = ("mcp-protocol-version", "2026-07-28");
        let method = ("mcp-method", "tools/call");
        let name = ("mcp-name", "=?base64?w6k=?=");
        assert_eq!(check(&[version, method, name]), Ok(()));
        assert_eq!(check(&[version, (" mcp-method".trim(), " tools/call "), name]), Ok(()));
        assert_eq!(check(&[method, name]).unwrap_err(), "MCP-Protocol-Version is missing");
        assert_eq!(
            check(&[version, ("mcp-method", "Tools/call"), name]).unwrap_err(),
            "Mcp-Method differs from the body"
        );
        assert_eq!(check(&[version, method]).unwrap_err(), "Mcp-Name is missing");
        assert_eq!(check(&[version, method, ("mcp-name", "é")]).unwrap_err(), "Mcp-Name is malformed");
        assert_eq!(check(&[version, method, name, name]).unwrap_err(), "Mcp-Name is malformed");
        assert_eq!(
            check(&[version, method, ("mcp-name", "=?base64?w6k?=")]).unwrap_err(),
            "Mcp-Name is malformed"
        );
    }

    #[test]
    fn headers_we_write_pass_our_own_check() {
        let params =
            Params::scan(&Bytes::from_static(r#"{"uri":"f:\/ö"}"#.as_bytes()), Limits::CLIENT).unwrap();
        let mut map = headers(&[("mcp-name", "old")]);
        write(&mut map, "2026-07-28", &Method::ResourcesRead, params.uri().as_deref());
        assert_eq!(check(&map, "2026-07-28", &Method::ResourcesRead, &params), Ok(()));
        write(&mut map, "2026-07-28", &Method::ToolsList, None);
        assert_eq!(check(&map, "2026-07-28", &Method::ToolsList, &Params::NONE), Ok(()));
    }

    #[test]
    fn accept_is_read_leniently() {
        let check = |value: &str, json, sse| {
            assert_eq!(accepts(&headers(&[("accept", value)])), Accepts { json, sse }, "{value}");
        };
        check("application/json, text/event-stream", true, true);
        check("Application/JSON; q=0.5", true, false);
        check("text/event-stream", false, true);
        check("*/*", true, true);
        check("text/html", false, false);
        assert_eq!(accepts(&HeaderMap::new()), Accepts { json: true, sse: true });
        assert!(is_json(&headers(&[("content-type", "application/json; charset=utf-8")])));
        assert!(is_sse(&headers(&[("content-type", "text/event-stream")])));
        assert!(!is_json(&headers(&[("content-type", "application/jsonp")])));
    }

    proptest! {
        #[test]
        fn every_text_survives_a_header(text in any::<String>()) {
            let header = value(&text);
            prop_assert_eq!(decode(header.to_str().unwrap()).unwrap(), text.as_str());
        }

        #[test]
        fn texts_that_look_encoded_survive_as_well(inner in "[ -~]{0,8}") {
            let text = format!("=?base64?{inner}?=");
            let header = value(&text);
            prop_assert_eq!(decode(header.to_str().unwrap()).unwrap(), text.as_str());
        }
    }
}
