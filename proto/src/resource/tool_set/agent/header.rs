//! Which headers an agent may send, and what may stand in them.

use super::super::text::Text;
use crate::{resource::check::quoted, template::Template};

/// What the connection says by itself.
const CONNECTION_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Who asks, and whom: never said by the arguments of a call.
const IDENTITY_HEADERS: [&str; 7] =
    ["authorization", "cookie", "forwarded", "host", "origin", "referer", "x-real-ip"];

/// Whether nothing of a template is the caller's: it is all written out, or of
/// the node's environment.
pub(super) fn is_fixed(template: &Template) -> bool {
    first_argument(template.text()).is_none()
}

/// The first tag that is not just a variable of the environment.
pub(super) fn first_argument(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find("{{").map(|at| from + at) {
        let inside = &text[at + 2..];
        let name = inside.split_once("}}").map(|(name, _)| name.trim())?;
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match name.strip_prefix("env.") {
            Some(name) if plain(name) => from = at + 2 + inside.find("}}")? + 2,
            _ => return Some(at),
        }
    }
    None
}

/// What is wrong with a header, and what to try.
pub(super) fn check_header(name: &str, value: &Text) -> Option<(String, Option<String>)> {
    let lower = name.to_ascii_lowercase();
    if !is_header_name(name) {
        let hint = "letters, digits and `-`; names of headers are not templates";
        return Some((format!("{} is not the name of a header", quoted(name)), Some(hint.to_owned())));
    }
    if CONNECTION_HEADERS.contains(&lower.as_str()) || lower.starts_with("sec-websocket-") {
        return Some((
            format!("the connection itself decides about `{name}`"),
            Some("leave it out".to_owned()),
        ));
    }
    let Text::Template(template) = value else { return None };
    if is_identity_header(&lower) && !is_fixed(template) {
        let message = format!("an argument decides about `{name}`, which says who is asking or whom");
        let hint = "write the text itself, `{{env.NAME}}` or `{secret: name}`";
        return Some((message, Some(hint.to_owned())));
    }
    if template.literal().is_some_and(|text| text.contains(['\r', '\n', '\0'])) {
        return Some(("a header is one line".to_owned(), None));
    }
    None
}

/// Whether a header says who is asking, or whom.
pub(super) fn is_identity_header(lower: &str) -> bool {
    IDENTITY_HEADERS.contains(&lower) || lower.starts_with("x-forwarded-")
}

/// A token (RFC 9110 §5.6.2), of at most 128 bytes.
fn is_header_name(name: &str) -> bool {
    matches!(name.len(), 1..=128)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
