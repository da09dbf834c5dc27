//! A validating scanner of JSON that copies nothing and builds no tree.
//!
//! It accepts exactly RFC 8259, within limits, and reports where things are.
//! It exists because a tree costs up to a hundred times the body's size, and
//! because raw passthrough without validation would forward what the next
//! parser reads differently: every byte that leaves the node has been here.
//! Deeper than [`DEPTH_MAX`] or longer than the token limit is refused, so the
//! cost is linear in the bytes and bounded.

use std::ops::Range;

pub use crate::reason::{BadMessage, ParseError, Reason};

/// The deepest nesting that any limits allow; the message itself is depth 1.
pub const DEPTH_MAX: u32 = 64;
/// Values and keys in one message, by default.
pub const TOKENS_MAX: u32 = 200_000;

/// What a message may cost its reader.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Containers inside each other; never above [`DEPTH_MAX`].
    pub depth_max: u32,
    /// Values and keys together.
    pub tokens_max: u32,
    /// Whether `"\ud83d"` alone passes inside payloads. Backends written in
    /// JavaScript produce it when they cut a text in the middle of an emoji;
    /// from clients it is only ever an attempt to be read in two ways.
    pub lone_surrogates: bool,
}

impl Limits {
    /// For what clients send.
    pub const CLIENT: Self = Self { depth_max: DEPTH_MAX, tokens_max: TOKENS_MAX, lone_surrogates: false };
    /// For what backends send.
    pub const BACKEND: Self = Self { depth_max: DEPTH_MAX, tokens_max: TOKENS_MAX, lone_surrogates: true };
}

impl Default for Limits {
    fn default() -> Self {
        Self::CLIENT
    }
}

/// Where a value is, in bytes of the scanned text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A string where it stands, quotes included.
#[derive(Clone, Copy, Debug)]
pub struct Quoted {
    pub span: Span,
    /// Whether it holds escapes, so that its bytes are not its text.
    pub escaped: bool,
}

impl Quoted {
    /// What is between the quotes.
    pub fn inner(self, text: &[u8]) -> &[u8] {
        &text[self.span.start as usize + 1..self.span.end as usize - 1]
    }
}

/// Reads one text from left to right. The caller has checked the UTF-8.
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    tokens: u32,
    limits: Limits,
}

impl<'a> Scanner<'a> {
    /// Checks what concerns the text as a whole: its length, a byte order
    /// mark, UTF-8.
    pub fn new(text: &'a [u8], limits: Limits) -> Result<Self, ParseError> {
        let fail = |offset, reason| Err(ParseError { offset, reason });
        if u32::try_from(text.len()).is_err() {
            return fail(0, Reason::Length);
        }
        if text.starts_with(b"\xef\xbb\xbf") {
            return fail(0, Reason::ByteOrderMark);
        }
        if let Err(error) = std::str::from_utf8(text) {
            return fail(error.valid_up_to(), Reason::Utf8);
        }
        let limits = Limits { depth_max: limits.depth_max.min(DEPTH_MAX), ..limits };
        Ok(Self { text, at: 0, depth: 0, tokens: 0, limits })
    }

    /// Reads a part again that has been read before with success.
    pub(crate) fn resume(text: &'a [u8], at: usize) -> Self {
        let limits = Limits { tokens_max: u32::MAX, ..Limits::BACKEND };
        Self { text, at, depth: 0, tokens: 0, limits }
    }

    /// The next byte that will be read.
    pub fn offset(&self) -> usize {
        self.at
    }

    pub fn error(&self, reason: Reason) -> ParseError {
        ParseError { offset: self.at, reason }
    }

    fn unexpected(&self) -> ParseError {
        self.error(if self.at >= self.text.len() { Reason::End } else { Reason::Syntax })
    }

    /// The first byte of the next value, without reading it.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, ParseError> {
        self.space();
        self.text.get(self.at).copied().ok_or_else(|| self.error(Reason::End))
    }

    /// Steps into an object; true if it has a first member.
    pub fn open_object(&mut self) -> Result<bool, ParseError> {
        self.open(b'{', b'}')
    }

    /// Steps into an array; true if it has a first element.
    pub fn open_array(&mut self) -> Result<bool, ParseError> {
        self.open(b'[', b']')
    }

    /// After a member's value: true if another member follows.
    pub fn next_member(&mut self) -> Result<bool, ParseError> {
        self.next(b'}')
    }

    /// After an element: true if another one follows.
    pub fn next_element(&mut self) -> Result<bool, ParseError> {
        self.next(b']')
    }

    /// A member's key, and the colon after it.
    pub fn key(&mut self) -> Result<Quoted, ParseError> {
        if self.peek()? != b'"' {
            return Err(self.error(Reason::Syntax));
        }
        self.token()?;
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(self.error(Reason::Syntax));
        }
        self.at += 1;
        self.space();
        Ok(key)
    }

    /// Nothing but space may follow.
    pub fn end(&mut self) -> Result<(), ParseError> {
        self.space();
        if self.at < self.text.len() { Err(self.error(Reason::Trailing)) } else { Ok(()) }
    }

    /// Reads over one value of any kind.
    pub fn value(&mut self) -> Result<Span, ParseError> {
        self.space();
        let start = self.at;
        // One bit per open container, 1 for an object: no recursion, no heap.
        let mut kinds = 0_u64;
        let base = self.depth;
        loop {
            self.token()?;
            match self.text.get(self.at) {
                Some(b'"') => _ = self.string()?,
                Some(b'{') => {
                    if self.enter(b'}')? {
                        kinds = kinds << 1 | 1;
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    if self.enter(b']')? {
                        kinds <<= 1;
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.unexpected()),
            }
            // A value has ended: close what ends with it.
            loop {
                if self.depth == base {
                    return Ok(span(start, self.at));
                }
                let object = kinds & 1 == 1;
                if self.next(if object { b'}' } else { b']' })? {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                kinds >>= 1;
            }
        }
    }

    fn open(&mut self, open: u8, close: u8) -> Result<bool, ParseError> {
        if self.peek()? != open {
            return Err(self.error(Reason::Syntax));
        }
        self.token()?;
        self.enter(close)
    }

    /// Over an opening bracket; true if the container is not empty.
    fn enter(&mut self, close: u8) -> Result<bool, ParseError> {
        if self.depth >= self.limits.depth_max {
            return Err(self.error(Reason::Depth));
        }
        self.at += 1;
        if self.peek()? == close {
            self.at += 1;
            return Ok(false);
        }
        self.depth += 1;
        Ok(true)
    }

    #[inline]
    fn next(&mut self, close: u8) -> Result<bool, ParseError> {
        let byte = self.peek()?;
        if byte == b',' {
            self.at += 1;
            self.space();
            Ok(true)
        } else if byte == close {
            self.at += 1;
            self.depth -= 1;
            Ok(false)
        } else {
            Err(self.error(Reason::Syntax))
        }
    }

    #[inline]
    fn token(&mut self) -> Result<(), ParseError> {
        self.tokens += 1;
        if self.tokens > self.limits.tokens_max { Err(self.error(Reason::Tokens)) } else { Ok(()) }
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), ParseError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error(Reason::Syntax));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), ParseError> {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one.
    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected()) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Quoted, ParseError> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain_run(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Quoted { span: span(start, self.at), escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.error(Reason::ControlCharacter)),
                None => return Err(self.error(Reason::End)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ParseError> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit(self.at)?;
                let pair = match unit {
                    0xd800..=0xdbff => {
                        self.text[self.at + 6..].starts_with(b"\\u")
                            && matches!(self.unit(self.at + 6)?, 0xdc00..=0xdfff)
                    }
                    _ => false,
                };
                if !pair && matches!(unit, 0xd800..=0xdfff) && !self.limits.lone_surrogates {
                    return Err(self.error(Reason::LoneSurrogate));
                }
                self.at += if pair { 12 } else { 6 };
            }
            _ => {
                self.at += 1;
                return Err(self.unexpected());
            }
        }
        Ok(())
    }

    /// The four hex digits of the `\u` at `at`.
    fn unit(&self, at: usize) -> Result<u16, ParseError> {
        let short = || ParseError { offset: at, reason: Reason::Syntax };
        let digits = self.text.get(at + 2..at + 6).ok_or_else(short)?;
        let mut unit = 0;
        for digit in digits {
            let digit = char::from(*digit).to_digit(16).ok_or_else(short)?;
            unit = unit << 4 | digit as u16;
        }
        Ok(unit)
    }
}

fn span(start: usize, end: usize) -> Span {
    // `Scanner::new` refused texts whose offsets would not fit.
    Span { start: start as u32, end: end as u32 }
}

/// How many bytes from the front need no attention inside a string. Short
/// strings by words; long runs by blocks, in a form that compilers turn into
/// vector instructions. (A `memchr` for the quote alone would let raw control
/// characters through.)
fn plain_run(text: &[u8]) -> usize {
    let mut run = 0;
    for word in text.as_chunks().0.iter().take(2) {
        match stop_in(*word) {
            Some(at) => return run + at,
            None => run += 8,
        }
    }
    for block in text[run..].as_chunks::<32>().0 {
        if block.iter().fold(0, |stops, byte| stops | u8::from(is_stop(*byte))) != 0 {
            break;
        }
        run += 32;
    }
    for word in text[run..].as_chunks().0 {
        match stop_in(*word) {
            Some(at) => return run + at,
            None => run += 8,
        }
    }
    run + text[run..].iter().position(|byte| is_stop(*byte)).unwrap_or(text.len() - run)
}

fn is_stop(byte: u8) -> bool {
    // No short circuit: a branch would keep the blocks from being vectors.
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// The first stop of eight bytes, found in one word: a byte is below `n` if
/// subtracting `n` borrows into its top bit. A borrow may also mark bytes after
/// a stop, never before it.
fn stop_in(bytes: [u8; 8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(bytes);
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let stops = (below(word, 0x20) | equals(b'"') | equals(b'\\')) & (ONES * 0x80);
    (stops != 0).then(|| stops.trailing_zeros() as usize / 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &[u8], limits: Limits) -> Result<Span, ParseError> {
        let mut scanner = Scanner::new(text, limits)?;
        let span = scanner.value()?;
        scanner.end()?;
        Ok(span)
    }

    fn check(text: impl AsRef<[u8]>, expected: Result<(), (Reason, usize)>) {
        let found = scan(text.as_ref(), Limits::CLIENT);
        let found = found.map(|_| ()).map_err(|error| (error.reason, error.offset));
        assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(text.as_ref()));
    }

    #[test]
    fn json_is_accepted() {
        for text in [
            "null",
            " true\r\n",
            "-0",
            "0.10e-7",
            "1E2",
            "[]",
            "[ [ ] , { } ]",
            r#"{"a":{"b":[1,"x",null]}}"#,
            r#""\"\\\/\b\f\n\r\t\u00e9""#,
            r#""\ud83d\ude00""#,
            "\"\u{2028}\u{ffff}\"",
            "12345678901234567890123",
        ] {
            check(text, Ok(()));
        }
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_goes_wrong() {
        check("", Err((Reason::End, 0)));
        check("[1,]", Err((Reason::Syntax, 3)));
        check("[1 2]", Err((Reason::Syntax, 3)));
        check("{\"a\":1,}", Err((Reason::Syntax, 7)));
        check("{a:1}", Err((Reason::Syntax, 1)));
        check("[1}", Err((Reason::Syntax, 2)));
        check("[\"a", Err((Reason::End, 3)));
        check("01", Err((Reason::Trailing, 1)));
        check("-", Err((Reason::End, 1)));
        check("1.", Err((Reason::End, 2)));
        check("+1", Err((Reason::Syntax, 0)));
        check("NaN", Err((Reason::Syntax, 0)));
        check("nul", Err((Reason::Syntax, 0)));
        check("{} x", Err((Reason::Trailing, 3)));
        check("\u{feff}{}", Err((Reason::ByteOrderMark, 0)));
        check(b"[\"a\xff\"]", Err((Reason::Utf8, 3)));
        check(b"\"\xed\xa0\x80\"", Err((Reason::Utf8, 1)));
        check("\"a\nb\"", Err((Reason::ControlCharacter, 2)));
        check(r#""\x""#, Err((Reason::Syntax, 2)));
        check(r#""\u12g4""#, Err((Reason::Syntax, 1)));
        check(r#""\ud83d""#, Err((Reason::LoneSurrogate, 1)));
        check(r#""\ude00\ud83d""#, Err((Reason::LoneSurrogate, 1)));
        check(r#""\ud83d\u0041""#, Err((Reason::LoneSurrogate, 1)));
    }

    #[test]
    fn a_cut_emoji_of_a_backend_passes() {
        assert!(scan(br#"["\ud83d", "\ude00x", "\ud83d\u0041"]"#, Limits::BACKEND).is_ok());
    }

    #[test]
    fn nesting_and_values_are_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        check(nested(64), Ok(()));
        check(nested(65), Err((Reason::Depth, 64)));
        check("{\"a\":".repeat(100_000), Err((Reason::Depth, 64 * 5)));
        let limits = Limits { tokens_max: 4, ..Limits::CLIENT };
        assert!(scan(b"[1,2,3]", limits).is_ok());
        assert_eq!(scan(b"[1,2,3,4]", limits).unwrap_err().reason, Reason::Tokens);
        assert_eq!(scan(b"{\"a\":1,\"b\":2}", limits).unwrap_err().reason, Reason::Tokens);
    }

    #[test]
    fn a_stop_is_found_at_every_place_of_a_long_string() {
        for at in 0..100 {
            let mut text = format!("\"{}\"", "é".repeat(50)).into_bytes();
            text[1 + at] = 7;
            // Breaks the character, so the check of the encoding is left out.
            let mut scanner = Scanner::resume(&text, 0);
            assert_eq!(scanner.value().unwrap_err().offset, 1 + at);
        }
    }

    /// JSON and near misses of it.
    fn jsonish() -> impl Strategy<Value = String> {
        let atom = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\"a\"",
            "\"\\u0041\"",
            "\"\\ud800\"",
            "0",
            "-1",
            "1.5",
            "e3",
            ".",
            "true",
            "null",
            " ",
            "\n",
            "é",
            "\u{1}",
        ]);
        prop::collection::vec(atom, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn serde_json_accepts_the_same_texts(text in jsonish()) {
            let ours = scan(text.as_bytes(), Limits::CLIENT).is_ok();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let ours = scan(&bytes, Limits::CLIENT).is_ok();
            let theirs = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
            prop_assert_eq!(ours, theirs);
        }
    }
}
