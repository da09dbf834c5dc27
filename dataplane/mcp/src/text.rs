//! JSON strings to text and back, borrowed whenever the bytes are the text.

use std::borrow::Cow;

use crate::scan::run::Plain;

/// The text of a JSON string given with its quotes; `None` if it is not a
/// string or holds half a surrogate pair. The bytes have passed the scanner.
pub fn decode(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let plain = Plain::<true>::from(0).stop(inner);
    if plain == inner.len() || memchr::memchr(b'\\', &inner[plain..]).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(raw).ok().map(Cow::Owned)
}

/// Whether a JSON string given with its quotes is `text`.
pub fn is(raw: &[u8], text: &str) -> bool {
    let Some(inner) = raw.strip_prefix(b"\"").and_then(|raw| raw.strip_suffix(b"\"")) else { return false };
    // Escapes only ever make the bytes longer than the text.
    inner == text.as_bytes() || inner.len() > text.len() && decode(raw).as_deref() == Some(text)
}

/// `text` as a JSON string, with its quotes.
pub fn encode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    write(text, &mut out);
    out
}

/// Appends `text` as a JSON string, with its quotes. Line and paragraph
/// separators (U+2028, U+2029) are legal in JSON and stay.
pub fn write(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    loop {
        let at = Plain::<true>::from(copied).stop(bytes);
        out.extend_from_slice(&bytes[copied..at]);
        let Some(byte) = bytes.get(at) else { break };
        let short = match byte {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => b'u',
            // A quote or a backslash.
            other => *other,
        };
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(&[b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
        }
        copied = at + 1;
    }
    out.push(b'"');
}

/// Whether a key that is not `known` would pass for it in a parser that
/// ignores case. Go's does, and it folds two letters that are not ASCII.
pub fn folds_to(key: &[u8], known: &str) -> bool {
    // The long s and the Kelvin sign take more bytes than what they fold to.
    if key.len() <= known.len() {
        return key.eq_ignore_ascii_case(known.as_bytes());
    }
    if key.len() > 3 * known.len() || key.is_ascii() {
        return false;
    }
    let Ok(key) = std::str::from_utf8(key) else { return false };
    let folded = key.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    folded.eq(known.chars().map(|c| c.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_without_escapes_is_borrowed() {
        assert!(matches!(decode("\"héllo\"".as_bytes()), Some(Cow::Borrowed("héllo"))));
        assert!(matches!(decode(br#""tools\/call""#), Some(Cow::Owned(text)) if text == "tools/call"));
    }

    #[test]
    fn what_is_no_text_decodes_to_none() {
        for raw in ["1", "null", "\"", "", r#""\ud800""#, "{\"a\":\"\"}"] {
            assert_eq!(decode(raw.as_bytes()), None, "{raw}");
        }
    }

    #[test]
    fn a_text_is_itself_however_it_is_written() {
        assert!(is(br#""a""#, "a") && is(br#""\u0061""#, "a") && is(br#""""#, ""));
        assert!(!is(br#""ab""#, "a") && !is(br#""a""#, "ab") && !is(b"a", "a") && !is(br#""\ud800""#, ""));
    }

    #[test]
    fn keys_that_pass_for_others_are_told() {
        for key in ["METHOD", "Method", "mEthod"] {
            assert!(folds_to(key.as_bytes(), "method"));
        }
        assert!(folds_to("param\u{17f}".as_bytes(), "params"));
        assert!(folds_to("Tas\u{212a}Id".as_bytes(), "taskId"));
        for key in ["methods", "metho", "m\u{e9}thod", "\u{17f}\u{17f}\u{17f}\u{17f}\u{17f}\u{17f}"] {
            assert!(!folds_to(key.as_bytes(), "method"));
        }
    }

    proptest! {
        #[test]
        fn text_survives_the_round_trip(text in any::<String>()) {
            let raw = encode(&text);
            prop_assert_eq!(decode(&raw).unwrap(), text.as_str());
            prop_assert_eq!(serde_json::from_slice::<String>(&raw).unwrap(), text.as_str());
        }
    }
}
