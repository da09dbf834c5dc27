//! The codec's rules once more, the slow way: on top of `serde_json`, with
//! trees and copies. What is said here is what the fast code must do.

use mt_mcp::Key;
use mt_mcp::id::{ID_BYTES_MAX, RESPONSE_ID_BYTES_MAX};
use mt_mcp::{Method, scan};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, repeated ones included.
pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

impl<'a> Members<'a> {
    pub fn of(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, raw)| raw.get())
    }

    fn count(&self, key: &str) -> usize {
        self.0.iter().filter(|(known, _)| known == key).count()
    }
}

pub fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// What a valid JSON text is made of.
#[derive(Default)]
pub struct Shape {
    pub depth: u32,
    pub tokens: u32,
    /// Whether some string holds half a surrogate pair.
    pub lone_surrogate: bool,
}

impl Shape {
    /// The text is valid JSON.
    pub fn of(text: &str) -> Self {
        let mut shape = Self::default();
        let bytes = text.as_bytes();
        let (mut at, mut depth) = (0, 0);
        while at < bytes.len() {
            let start = at;
            at += 1;
            match bytes[start] {
                b'"' => {
                    while bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                    shape.lone_surrogate |= string(&text[start..at]).is_none();
                }
                b'{' | b'[' => {
                    depth += 1;
                    shape.depth = shape.depth.max(depth);
                }
                b'}' | b']' => {
                    depth -= 1;
                    continue;
                }
                byte if byte.is_ascii_whitespace() || byte == b',' || byte == b':' => continue,
                _ => {
                    while bytes
                        .get(at)
                        .is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
                    {
                        at += 1;
                    }
                }
            }
            shape.tokens += 1;
        }
        shape
    }

    pub fn is_within(&self, limits: scan::Limits) -> bool {
        self.depth <= limits.depth_max
            && self.tokens <= limits.tokens_max
            && (limits.lone_surrogates || !self.lone_surrogate)
    }
}

/// Whether a text is valid JSON within limits.
pub fn is_json(text: &[u8], limits: scan::Limits) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    serde_json::from_str::<&RawValue>(text).is_ok() && Shape::of(text).is_within(limits)
}

/// What `Message::parse` must make of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    Result,
    Error,
}

const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Seen by a parser that ignores case, and does so for two letters more.
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

fn passes_for(key: &str, known: &str) -> bool {
    key != known && folded(key) == folded(known)
}

fn is_id(raw: &str, bytes_max: usize) -> bool {
    if raw.len() > bytes_max {
        return false;
    }
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    string(raw).is_some()
        || (integer.bytes().all(|byte| byte.is_ascii_digit()) && fraction.bytes().all(|byte| byte == b'0'))
}

/// Whether a text is a message, by every rule that is stricter than JSON's:
/// no key of the envelope, and no member of params that the gateway looks at,
/// may occur twice or in another case; `jsonrpc`, ids and shapes are right.
pub fn kind(text: &str) -> Option<Kind> {
    let members = Members::of(text)?;
    for known in ENVELOPE {
        if members.count(known) > 1 || members.0.iter().any(|(key, _)| passes_for(key, known)) {
            return None;
        }
    }
    let known = || Key::ALL.iter().map(|key| key.as_str());
    let params = members.get("params").map(Members::of);
    // Looked at before the method is known.
    if let Some(Some(params)) = &params
        && known().any(|known| params.count(known) > 1)
    {
        return None;
    }
    if members.get("jsonrpc").and_then(string)? != "2.0" {
        return None;
    }
    let id = members.get("id");
    match (members.get("method"), members.get("result"), members.get("error")) {
        (Some(method), None, None) => {
            let method = string(method)?;
            match params {
                None => {}
                Some(None) if members.get("params") == Some("null") => {}
                Some(None) => return None,
                Some(Some(params)) => {
                    let odd = |(key, _): &(String, _)| known().any(|known| passes_for(key, known));
                    if Method::parse(&method).is_known() && params.0.iter().any(odd) {
                        return None;
                    }
                }
            }
            match id {
                None => Some(Kind::Notification),
                Some(id) => is_id(id, ID_BYTES_MAX).then_some(Kind::Request),
            }
        }
        (None, Some(_), None) => is_id(id?, RESPONSE_ID_BYTES_MAX).then_some(Kind::Result),
        (None, None, Some(_)) => {
            let fits = id.is_none_or(|id| id == "null" || is_id(id, RESPONSE_ID_BYTES_MAX));
            fits.then_some(Kind::Error)
        }
        _ => None,
    }
}
