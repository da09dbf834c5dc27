//! Runs of bytes that need no attention: inside strings, between tokens, in
//! numbers.
//!
//! Short runs are measured by words of eight bytes, long ones by blocks, in a
//! form that compilers turn into vector instructions of any x86-64 or arm64.
//! Nothing here knows of JSON's grammar.

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x80 * ONES;
const BLOCK: usize = 64;
const BLOCK_WORDS: u32 = BLOCK as u32 / 8;
/// Runs of up to so many words are the usual ones: lines, names, sentences.
const SHORT_WORDS: u32 = 8;

/// Where a string ends, quote included, if that is within the first word from
/// `at` on and nothing before needs attention.
#[inline(always)]
pub fn short(text: &[u8], at: usize) -> Option<usize> {
    let word = u64::from_le_bytes(*text.get(at..)?.first_chunk()?);
    let stop = at + first(stops::<false>(word))?;
    (text.get(stop) == Some(&b'"')).then_some(stop + 1)
}

/// Over what needs no attention inside a string.
pub struct Plain<const WIDE: bool> {
    at: usize,
    /// Words to go until blocks are tried.
    words_left: u32,
}

impl<const WIDE: bool> Plain<WIDE> {
    #[inline(always)]
    pub fn from(at: usize) -> Self {
        Self { at, words_left: SHORT_WORDS }
    }

    /// The first byte that needs attention: a quote, a backslash, a control
    /// character and, unless `WIDE`, what is not ASCII. The length of the text
    /// if there is none. (To look for the quote alone would let raw control
    /// characters through.)
    #[inline(always)]
    pub fn stop(mut self, text: &[u8]) -> usize {
        while let Some(word) = text.get(self.at..).and_then(|rest| rest.first_chunk()) {
            if let Some(stop) = first(stops::<WIDE>(u64::from_le_bytes(*word))) {
                return self.at + stop;
            }
            self.at += 8;
            self.words_left -= 1;
            if self.words_left == 0 {
                self.at = blocks::<WIDE>(text, self.at);
                // In the block that is next there is a stop, or the end.
                self.words_left = BLOCK_WORDS + 1;
            }
        }
        while text.get(self.at).is_some_and(|byte| !is_stop::<WIDE>(*byte)) {
            self.at += 1;
        }
        self.at
    }
}

/// Over whole blocks without a stop.
#[inline(never)]
fn blocks<const WIDE: bool>(text: &[u8], at: usize) -> usize {
    let mut run = at;
    for block in text[run..].as_chunks::<BLOCK>().0 {
        if block.iter().fold(false, |found, byte| found | is_stop::<WIDE>(*byte)) {
            break;
        }
        run += BLOCK;
    }
    run
}

#[inline(always)]
fn is_stop<const WIDE: bool>(byte: u8) -> bool {
    // Seen as signed, what is not ASCII is below the space as well. No short
    // circuit: a branch would keep the blocks from being vectors.
    let low = if WIDE { byte < 0x20 } else { byte.cast_signed() < 0x20 };
    low | (byte == b'"') | (byte == b'\\')
}

/// Marks the top bits of stops. Subtracting `n` from a byte borrows into its
/// top bit if it is below `n`; a borrow may also mark bytes after a stop, never
/// before it.
#[inline(always)]
fn stops<const WIDE: bool>(word: u64) -> u64 {
    let low = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let found = low | quote | backslash;
    (if WIDE { found & !word } else { found | word }) & TOPS
}

/// The first byte whose top bit is set.
#[inline(always)]
fn first(tops: u64) -> Option<usize> {
    (tops != 0).then(|| tops.trailing_zeros() as usize / 8)
}

/// The first byte from `at` on that is no space of JSON.
#[inline(never)]
pub fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\t' | b'\r') = text.get(at) {
        at += 1;
        // Indentation.
        if let Some(word) = text[at..].first_chunk() {
            let others = u64::from_le_bytes(*word) ^ (ONES * b' ' as u64);
            at += others.trailing_zeros() as usize / 8;
        }
    }
    at
}

/// The first byte from `at` on that is no decimal digit.
#[inline]
pub fn digits(text: &[u8], mut at: usize) -> usize {
    while let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        // A digit is at most nine now; adding to a larger byte sets its top
        // bit, or carries out of a byte that has it set already.
        let digits = u64::from_le_bytes(*word) ^ (ONES * b'0' as u64);
        match first((digits.wrapping_add(ONES * (0x80 - 10)) | digits) & TOPS) {
            Some(stop) => return at + stop,
            None => at += 8,
        }
    }
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(text: &[u8], at: usize, ends: impl Fn(u8) -> bool) -> usize {
        text[at..].iter().position(|byte| ends(*byte)).map_or(text.len(), |found| at + found)
    }

    fn check(text: &[u8], at: usize) {
        let wide = |byte| byte < 0x20 || byte == b'"' || byte == b'\\';
        assert_eq!(Plain::<true>::from(at).stop(text), slow(text, at, wide), "{text:?} from {at}");
        let ascii = slow(text, at, |byte| wide(byte) || byte >= 0x80);
        assert_eq!(Plain::<false>::from(at).stop(text), ascii, "{text:?} from {at}");
        assert_eq!(space(text, at), slow(text, at, |byte| !b" \t\r\n".contains(&byte)), "{text:?} from {at}");
        assert_eq!(digits(text, at), slow(text, at, |byte| !byte.is_ascii_digit()), "{text:?} from {at}");
    }

    #[test]
    fn every_byte_ends_the_runs_that_it_should_wherever_it_stands() {
        for filler in [b'a', b' ', b'7'] {
            for byte in 0..=255 {
                for at in [0, 1, 7, 8, 30, 31, 32, 33, 63, 64, 95, 96, 97, 130, 149] {
                    let mut text = [filler; 150];
                    text[at] = byte;
                    check(&text, 0);
                    check(&text, at);
                }
            }
        }
        check(b"", 0);
        check(b"1", 1);
    }

    proptest! {
        #[test]
        fn runs_end_where_a_loop_over_bytes_ends(text in prop::collection::vec(prop_oneof![Just(b'a'), Just(b' '), Just(b'1'), any::<u8>()], 0..200)) {
            for at in [0, text.len() / 2, text.len()] {
                check(&text, at);
            }
        }
    }
}
