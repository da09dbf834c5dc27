//! A validating scanner of JSON that copies nothing and builds no tree.
//!
//! It accepts exactly RFC 8259, within limits, and reports where things are.
//! It exists because a tree costs up to a hundred times the body's size, and
//! because raw passthrough without validation would forward what the next
//! parser reads differently: every byte that leaves the node has been here.
//! Deeper than [`DEPTH_MAX`] or longer than the token limit is refused, so the
//! cost is linear in the bytes and bounded.

pub(crate) mod run;

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
    /// No value is empty, so an empty span is none.
    pub(crate) const NONE: Self = Self { start: 0, end: 0 };

    #[inline]
    pub(crate) fn or_none(self) -> Option<Self> {
        (self.end != 0).then_some(self)
    }

    #[inline]
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
    #[inline]
    pub fn inner(self, text: &[u8]) -> &[u8] {
        &text[self.span.start as usize + 1..self.span.end as usize - 1]
    }
}

/// Reads one text from left to right.
///
/// What it has read over is valid, UTF-8 included: outside of strings nothing
/// but ASCII is JSON, and at the first other byte in a string all that follows
/// is checked at once. Most texts have none.
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    tokens_left: u32,
    limits: Limits,
    /// Whether the rest of the text is known to be UTF-8.
    wide: bool,
}

impl<'a> Scanner<'a> {
    /// Checks what concerns the text as a whole: its length, a byte order mark.
    #[inline]
    pub fn new(text: &'a [u8], limits: Limits) -> Result<Self, ParseError> {
        let fail = |reason| Err(ParseError { offset: 0, reason });
        if u32::try_from(text.len()).is_err() {
            return fail(Reason::Length);
        }
        if text.starts_with(b"\xef\xbb\xbf") {
            return fail(Reason::ByteOrderMark);
        }
        let limits = Limits { depth_max: limits.depth_max.min(DEPTH_MAX), ..limits };
        Ok(Self { text, at: 0, depth: 0, tokens_left: limits.tokens_max, limits, wide: false })
    }

    /// Reads a part again that has been read before with success.
    #[inline]
    pub(crate) fn resume(text: &'a [u8], at: usize) -> Self {
        let limits = Limits { tokens_max: u32::MAX, ..Limits::BACKEND };
        Self { text, at, depth: 0, tokens_left: u32::MAX, limits, wide: true }
    }

    /// The next byte that will be read.
    #[inline]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// An error at the next byte; or that the text is not UTF-8 (anywhere: a
    /// text of which nothing is certain has no better error).
    #[cold]
    pub fn error(&self, reason: Reason) -> ParseError {
        let error = ParseError { offset: self.at, reason };
        if self.wide { error } else { or_not_utf8(self.text, error) }
    }

    /// The first byte of the next value, without reading it.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, ParseError> {
        self.space().ok_or_else(|| self.error(Reason::End))
    }

    /// Steps into an object; true if it has a first member.
    #[inline]
    pub fn open_object(&mut self) -> Result<bool, ParseError> {
        self.open(b'{', b'}').map_err(|reason| self.error(reason))
    }

    /// Steps into an array; true if it has a first element.
    #[inline]
    pub fn open_array(&mut self) -> Result<bool, ParseError> {
        self.open(b'[', b']').map_err(|reason| self.error(reason))
    }

    /// After a member's value: true if another member follows.
    #[inline]
    pub fn next_member(&mut self) -> Result<bool, ParseError> {
        self.next(b'}').map_err(|reason| self.error(reason))
    }

    /// After an element: true if another one follows.
    #[inline]
    pub fn next_element(&mut self) -> Result<bool, ParseError> {
        self.next(b']').map_err(|reason| self.error(reason))
    }

    /// A member's key, and the colon after it.
    pub fn key(&mut self) -> Result<Quoted, ParseError> {
        self.space();
        let start = self.at;
        match self.read_key() {
            Ok((end, escaped)) => Ok(Quoted { span: span(start, end), escaped }),
            Err(reason) => Err(self.error(reason)),
        }
    }

    /// Nothing but space may follow.
    #[inline]
    pub fn end(&mut self) -> Result<(), ParseError> {
        if self.space().is_some() { Err(self.error(Reason::Trailing)) } else { Ok(()) }
    }

    /// Reads over one value of any kind.
    pub fn value(&mut self) -> Result<Span, ParseError> {
        self.space();
        let start = self.at;
        match self.read_value() {
            Ok(()) => Ok(span(start, self.at)),
            Err(reason) => Err(self.error(reason)),
        }
    }

    // What follows fails with a reason alone, which fits into a register; the
    // place is where the scanner then stands.

    fn read_value(&mut self) -> Result<(), Reason> {
        // One bit per open container, 1 for an object: no recursion, no heap.
        let mut kinds = 0_u64;
        let base = self.depth;
        'values: loop {
            self.token()?;
            match self.text.get(self.at) {
                Some(b'"') => _ = self.string()?,
                Some(b'{') => {
                    if self.enter(b'}')? {
                        kinds = kinds << 1 | 1;
                        self.read_key()?;
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
            while self.depth != base {
                let object = kinds & 1 == 1;
                if self.next(if object { b'}' } else { b']' })? {
                    if object {
                        self.read_key()?;
                    }
                    continue 'values;
                }
                kinds >>= 1;
            }
            return Ok(());
        }
    }

    /// Over a key and its colon, to the value. Where the key ends, and whether
    /// it has escapes.
    #[inline(always)]
    fn read_key(&mut self) -> Result<(usize, bool), Reason> {
        match self.text.get(self.at) {
            Some(b'"') => self.token()?,
            _ => return Err(self.unexpected()),
        }
        let escaped = self.string()?;
        let end = self.at;
        match self.space() {
            Some(b':') => self.at += 1,
            _ => return Err(self.unexpected()),
        }
        self.space();
        Ok((end, escaped))
    }

    #[inline]
    fn open(&mut self, open: u8, close: u8) -> Result<bool, Reason> {
        if self.space() != Some(open) {
            return Err(self.unexpected());
        }
        self.token()?;
        self.enter(close)
    }

    /// Over an opening bracket; true if the container is not empty.
    #[inline(always)]
    fn enter(&mut self, close: u8) -> Result<bool, Reason> {
        if self.depth >= self.limits.depth_max {
            return Err(Reason::Depth);
        }
        self.at += 1;
        match self.space() {
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            Some(_) => {
                self.depth += 1;
                Ok(true)
            }
            None => Err(Reason::End),
        }
    }

    #[inline(always)]
    fn next(&mut self, close: u8) -> Result<bool, Reason> {
        match self.space() {
            Some(b',') => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ => Err(self.unexpected()),
        }
    }

    #[inline(always)]
    fn token(&mut self) -> Result<(), Reason> {
        self.tokens_left = self.tokens_left.checked_sub(1).ok_or(Reason::Tokens)?;
        Ok(())
    }

    /// Over space, to the byte after it.
    #[inline(always)]
    fn space(&mut self) -> Option<u8> {
        match self.text.get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => {
                self.at = run::space(self.text, self.at);
                self.text.get(self.at).copied()
            }
        }
    }

    #[cold]
    fn unexpected(&self) -> Reason {
        if self.at >= self.text.len() { Reason::End } else { Reason::Syntax }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Reason> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Reason::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Result<(), Reason> {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        match self.text.get(self.at) {
            Some(b'.' | b'e' | b'E') => self.fraction(),
            _ => Ok(()),
        }
    }

    /// What may follow the integer part of a number.
    fn fraction(&mut self) -> Result<(), Reason> {
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
    #[inline]
    fn digits(&mut self) -> Result<(), Reason> {
        match self.text.get(self.at) {
            Some(b'0'..=b'9') => self.at = run::digits(self.text, self.at + 1),
            _ => return Err(self.unexpected()),
        }
        Ok(())
    }

    /// Over a string, from its quote on; whether it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Result<bool, Reason> {
        // Most keys, and many values, end within a word.
        if let Some(end) = run::short(self.text, self.at + 1) {
            self.at = end;
            return Ok(false);
        }
        self.at += 1;
        if self.wide { self.long_string::<true>(false) } else { self.long_string::<false>(false) }
    }

    /// From within a string on, to its end. `WIDE` is what `wide` is.
    #[inline(never)]
    fn long_string<const WIDE: bool>(&mut self, mut escaped: bool) -> Result<bool, Reason> {
        let text = self.text;
        let mut run = run::Plain::<WIDE>::from(self.at);
        loop {
            let at = run.stop(text);
            match text.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    let simple = matches!(
                        text.get(at + 1),
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
                    );
                    if simple {
                        run = run::Plain::from(at + 2);
                        continue;
                    }
                    self.at = at;
                    self.unicode_escape()?;
                    run = run::Plain::from(self.at);
                }
                found => {
                    self.at = at;
                    return match found {
                        Some(0x80..) => {
                            self.check_rest()?;
                            self.long_string::<true>(escaped)
                        }
                        Some(_) => Err(Reason::ControlCharacter),
                        None => Err(Reason::End),
                    };
                }
            }
        }
    }

    /// At the first byte that is not ASCII.
    #[inline(never)]
    fn check_rest(&mut self) -> Result<(), Reason> {
        let rest = &self.text[self.at..];
        if simdutf8::basic::from_utf8(rest).is_err() {
            self.at += valid_up_to(rest);
            return Err(Reason::Utf8);
        }
        self.wide = true;
        Ok(())
    }

    #[inline(never)]
    fn unicode_escape(&mut self) -> Result<(), Reason> {
        if self.text.get(self.at + 1) != Some(&b'u') {
            self.at += 1;
            return Err(self.unexpected());
        }
        let unit = self.unit(self.at).ok_or(Reason::Syntax)?;
        let mut end = self.at + 6;
        if let 0xd800..=0xdbff = unit
            && self.text[end..].starts_with(b"\\u")
        {
            let Some(second) = self.unit(end) else {
                self.at = end;
                return Err(Reason::Syntax);
            };
            if let 0xdc00..=0xdfff = second {
                end += 6;
            }
        }
        let alone = matches!(unit, 0xd800..=0xdfff) && end == self.at + 6;
        if alone && !self.limits.lone_surrogates {
            return Err(Reason::LoneSurrogate);
        }
        self.at = end;
        Ok(())
    }

    /// The four hex digits of the `\u` at `at`.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.text.get(at + 2..at + 6)?;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
    }
}

/// The error, unless the text is not even UTF-8, which is told before all else.
#[cold]
pub(crate) fn or_not_utf8(text: &[u8], error: ParseError) -> ParseError {
    let offset = valid_up_to(text);
    match error.reason {
        Reason::Length | Reason::ByteOrderMark => error,
        _ if offset < text.len() => ParseError { offset, reason: Reason::Utf8 },
        _ => error,
    }
}

fn valid_up_to(text: &[u8]) -> usize {
    std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len)
}

fn span(start: usize, end: usize) -> Span {
    // `Scanner::new` refused texts whose offsets would not fit.
    Span { start: start as u32, end: end as u32 }
}

#[cfg(test)]
mod tests;
