//! Messages on a pipe: one per line.
//!
//! What is on the line is none of this file's business: garbage is a line like
//! any other. A line that is too long is dropped up to its end and reported
//! once, and the next one is read as if nothing had happened.

use bytes::{Buf, Bytes, BytesMut};

/// What was on the pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its line end; never empty.
    Whole(Bytes),
    /// A line that was dropped.
    TooLong { bytes: usize },
}

/// Bytes to lines.
#[derive(Debug)]
pub struct Framer {
    line_bytes_max: usize,
    chunk: Bytes,
    partial: BytesMut,
    /// Bytes of the line that is being dropped; 0 if none is.
    dropped: usize,
}

impl Framer {
    pub fn new(line_bytes_max: usize) -> Self {
        Self { line_bytes_max, chunk: Bytes::new(), partial: BytesMut::new(), dropped: 0 }
    }

    /// Takes what a read brought. Lines are fetched with
    /// [`next_line`](Self::next_line), until there is none, before the next
    /// chunk comes.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next complete line; `None` if more bytes are needed.
    pub fn next_line(&mut self) -> Option<Line> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.chunk) else {
                self.keep_partial();
                return None;
            };
            let rest = self.chunk.split_to(end);
            self.chunk.advance(1);
            let bytes = self.dropped + self.partial.len() + rest.len();
            // The line end may be CR LF; the CR does not count.
            let last = rest.last().or(self.partial.last());
            if self.dropped > 0 || bytes > self.line_bytes_max + usize::from(last == Some(&b'\r')) {
                self.dropped = 0;
                self.partial.clear();
                return Some(Line::TooLong { bytes });
            }
            let mut line = if self.partial.is_empty() {
                rest
            } else {
                self.partial.extend_from_slice(&rest);
                self.partial.split().freeze()
            };
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
            if !line.is_empty() {
                return Some(Line::Whole(line));
            }
        }
    }

    /// Whether a line that is too long has begun and not ended.
    pub fn is_dropping(&self) -> bool {
        self.dropped > 0
    }

    /// What is left when the pipe ends without a line end.
    pub fn finish(mut self) -> Option<Line> {
        self.push(Bytes::from_static(b"\n"));
        self.next_line()
    }

    fn keep_partial(&mut self) {
        let rest = std::mem::take(&mut self.chunk);
        if self.dropped > 0 {
            self.dropped += rest.len();
            return;
        }
        self.partial.extend_from_slice(&rest);
        // One more than allowed may still be the CR of a line end.
        if self.partial.len() > self.line_bytes_max + 1 {
            self.dropped = self.partial.len();
            // Gives the memory back.
            self.partial = BytesMut::new();
        }
    }
}

/// A message as a line. Pretty JSON has line ends between tokens, where a
/// space means the same; inside strings they are always escaped.
pub fn encode(message: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(message.len() + 1);
    out.extend_from_slice(message);
    let mut at = start;
    while let Some(found) = memchr::memchr2(b'\r', b'\n', &out[at..]) {
        out[at + found] = b' ';
        at += found + 1;
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(line_bytes_max: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Line> {
        let mut framer = Framer::new(line_bytes_max);
        let mut lines = Vec::new();
        for chunk in chunks {
            framer.push(Bytes::copy_from_slice(chunk));
            lines.extend(std::iter::from_fn(|| framer.next_line()));
        }
        lines.extend(framer.finish());
        lines
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(text.into())
    }

    #[test]
    fn lines_end_with_a_line_feed_or_the_pipe() {
        let wire: &[u8] = b"{}\n\r\n\nwarning: x\r\n last";
        assert_eq!(read(20, [wire]), [whole("{}"), whole("warning: x"), whole(" last")]);
    }

    #[test]
    fn a_line_in_one_piece_is_not_copied() {
        let chunk = Bytes::from_static(b"abc\n");
        let mut framer = Framer::new(10);
        framer.push(chunk.clone());
        let Some(Line::Whole(line)) = framer.next_line() else { panic!() };
        assert_eq!(line.as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_one_read() {
        let wire: &[u8] = b"1234\n12345\n1234\r\n123456789\r\nok\n";
        let expected = [
            whole("1234"),
            Line::TooLong { bytes: 5 },
            whole("1234"),
            Line::TooLong { bytes: 10 },
            whole("ok"),
        ];
        for size in 1..wire.len() {
            assert_eq!(read(4, wire.chunks(size)), expected, "in chunks of {size}");
        }
    }

    #[test]
    fn pretty_json_becomes_one_line() {
        let mut out = b"x".to_vec();
        encode(b"{\r\n \"a\": \"b\\n\"\n}", &mut out);
        assert_eq!(out, b"x{   \"a\": \"b\\n\" }\n");
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_lines(wire in "([a-c]{0,6}|\r|\n|\r\n){0,20}", size in 1usize..9, limit in 1usize..8) {
            prop_assert_eq!(read(limit, wire.as_bytes().chunks(size)), read(limit, [wire.as_bytes()]));
        }
    }
}
