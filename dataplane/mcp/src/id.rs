//! JSON-RPC ids, kept as the bytes their owner wrote.
//!
//! `1`, `"1"` and `1.0` are three ids here, and 2^53+1 keeps its last digit: a
//! client finds its call again only if the id comes back as it was sent. An id
//! does not hold on to the message it came in.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::text;

/// The longest id a peer may use for its own requests, quotes included.
pub const ID_BYTES_MAX: usize = 256;
/// The longest id in a response: ids the node made carry a sealed route.
pub const RESPONSE_ID_BYTES_MAX: usize = 1024;

/// Long enough for a quoted UUID, so that ids in use cost no allocation.
const INLINE: usize = 38;
/// Of any `u64`.
const DECIMAL_DIGITS_MAX: usize = 20;

/// An id (or a progress token, which has the same form) as raw JSON.
#[derive(Clone)]
pub struct RawId(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

impl RawId {
    /// Takes raw JSON: an integer (`1`, `-1`, `1.0`; no exponent) or a string,
    /// already scanned. `None` for anything else.
    pub fn from_json(raw: &[u8]) -> Option<Self> {
        let legal = match raw.first()? {
            b'"' => text::decode(raw).is_some(),
            b'-' | b'0'..=b'9' => is_integer(raw),
            _ => false,
        };
        legal.then(|| Self::from_raw(raw))
    }

    /// An id of our own.
    pub fn number(mut number: u64) -> Self {
        let mut digits = [0; DECIMAL_DIGITS_MAX];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self::from_raw(&digits[at..]);
            }
        }
    }

    /// An id of our own.
    pub fn text(id: &str) -> Self {
        Self::from_raw(&text::encode(id))
    }

    fn from_raw(raw: &[u8]) -> Self {
        if raw.len() > INLINE {
            return Self(Repr::Shared(raw.into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..raw.len()].copy_from_slice(raw);
        Self(Repr::Inline { len: raw.len() as u8, bytes })
    }

    /// The raw JSON.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The number, if this is one that [`IdCounter`] could have made.
    pub fn as_u64(&self) -> Option<u64> {
        let raw = self.as_bytes();
        if !raw.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(raw).ok()?.parse().ok()
    }

    /// The text, if this is a string.
    pub fn as_text(&self) -> Option<std::borrow::Cow<'_, str>> {
        text::decode(self.as_bytes())
    }

    /// Whether a peer that reads and writes ids in its own way may have meant
    /// the same one: `"\u0061"` is `"a"`, `1.0` is `1`; `"1"` is never `1`.
    pub fn same_value(&self, other: &Self) -> bool {
        let (a, b) = (self.as_bytes(), other.as_bytes());
        a == b
            || match (self.as_text(), other.as_text()) {
                (Some(a), Some(b)) => a == b,
                (None, None) => integer_part(a) == integer_part(b),
                _ => false,
            }
    }
}

fn integer_part(raw: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'.', raw).unwrap_or(raw.len());
    match &raw[..end] {
        b"-0" => b"0",
        part => part,
    }
}

fn is_integer(raw: &[u8]) -> bool {
    if raw.iter().all(u8::is_ascii_digit) {
        return true;
    }
    let mut parts = raw.strip_prefix(b"-").unwrap_or(raw).splitn(2, |byte| *byte == b'.');
    let digits = parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit));
    digits && parts.next().is_none_or(|part| !part.is_empty() && part.iter().all(|byte| *byte == b'0'))
}

impl PartialEq for RawId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RawId {}

impl Hash for RawId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// As raw JSON.
impl fmt::Display for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawId({self})")
    }
}

/// Ids for one pipe or socket that the node shares between calls: never used
/// twice, and never 0, which many servers use for their own first request.
#[derive(Debug)]
pub struct IdCounter(AtomicU64);

impl Default for IdCounter {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl IdCounter {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn id(raw: &str) -> RawId {
        RawId::from_json(raw.as_bytes()).unwrap()
    }

    #[test]
    fn ids_that_look_alike_are_different_and_keep_their_bytes() {
        let ids =
            ["1", "\"1\"", "1.0", "-1", "9007199254740993", "12345678901234567890123", "\"\\u0031\"", "\"\""];
        let set: HashSet<_> = ids.iter().map(|raw| id(raw)).collect();
        assert_eq!(set.len(), ids.len());
        for raw in ids {
            assert_eq!(id(raw).as_bytes(), raw.as_bytes());
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for raw in ["null", "true", "1.5", "1e3", "1.", "-", "", "{}", "[1]", r#""\ud800""#] {
            assert_eq!(RawId::from_json(raw.as_bytes()), None, "{raw}");
        }
    }

    #[test]
    fn long_ids_are_kept_as_well() {
        for len in [36, 37, 38, 39, 200] {
            let text = "x".repeat(len);
            assert_eq!(RawId::text(&text).as_text().unwrap(), text);
        }
    }

    #[test]
    fn a_peer_may_write_an_id_in_its_own_way() {
        assert!(id("1").same_value(&id("1.0")));
        assert!(id("0").same_value(&id("-0")));
        assert!(id("\"a\"").same_value(&id("\"\\u0061\"")));
        assert!(!id("1").same_value(&id("\"1\"")));
        assert!(!id("1").same_value(&id("10")));
    }

    #[test]
    fn numbers_of_ours_come_back() {
        let counter = IdCounter::default();
        assert_eq!(RawId::number(counter.next()).as_u64(), Some(1));
        assert_eq!(RawId::number(counter.next()).as_u64(), Some(2));
        assert_eq!(RawId::number(u64::MAX).as_u64(), Some(u64::MAX));
        for raw in ["\"1\"", "1.0", "-1", "18446744073709551616"] {
            assert_eq!(id(raw).as_u64(), None);
        }
    }
}
