//! Lines of bounded length.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// The longest message that a client may send: arguments hold files.
pub const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Whole(Bytes),
    /// It was skipped up to its end.
    TooLong,
}

/// Reads lines. A last one without a line feed counts.
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    too_long: bool,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self::bounded(reader, LINE_BYTES_MAX)
    }

    fn bounded(reader: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), too_long: false, bytes_max }
    }

    /// The next line; none at the end. Cancel safe: what was read stays here.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            let at_end = chunk.is_empty();
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > self.bytes_max {
                self.too_long = true;
                self.line = Vec::new();
            }
            if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let consumed = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(consumed);
            if end.is_some() || at_end {
                let line = std::mem::take(&mut self.line);
                if std::mem::take(&mut self.too_long) {
                    return Ok(Some(Line::TooLong));
                }
                if !(at_end && line.is_empty()) {
                    return Ok(Some(Line::Whole(line.into())));
                }
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &'static str, bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::bounded(text.as_bytes(), bytes_max);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            read.push(line);
        }
        read
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn lines_end_with_a_line_feed_or_the_stream() {
        assert_eq!(all("a\n\nb", 10).await, [whole("a"), whole(""), whole("b")]);
        assert_eq!(all("", 10).await, []);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
        assert_eq!(all("0123456789x\nok\n", 10).await, [Line::TooLong, whole("ok")]);
        assert_eq!(all("0123456789x", 10).await, [Line::TooLong]);
    }
}
