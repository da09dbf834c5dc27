//! A message in the pieces that it is made of: what stands before a value, the
//! value as it came or as it is kept for all, what stands after it.
//!
//! A long value is neither copied nor moved on its way out: the socket takes all
//! pieces in one call. A short one is copied, because one piece is cheaper than
//! three.

use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::framing::Framing;
use crate::mcp::{RawId, splice};

/// From so many bytes on a value stays a piece of its own.
pub const VALUE_BYTES_MIN: usize = 4 << 10;

/// A message, or more than one, as bytes that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    head: Bytes,
    /// Empty, or the result of a response, as it came.
    value: Bytes,
    tail: &'static [u8],
}

impl Pieces {
    /// A response with a result.
    pub fn response(id: &RawId, result: &Bytes) -> Self {
        if result.len() < VALUE_BYTES_MIN {
            return splice::response(id, result).into();
        }
        let head = [&b"{\"jsonrpc\":\"2.0\",\"id\":"[..], id.as_bytes(), b",\"result\":"].concat();
        Self { head: head.into(), value: result.clone(), tail: b"}" }
    }

    /// As one of the messages of a stream, behind what is written already.
    pub fn framed(self, framing: Framing, mut before: Vec<u8>) -> Self {
        // A line end would have to be replaced.
        if self.value.is_empty() || memchr::memchr2(b'\r', b'\n', &self.value).is_some() {
            framing.write(&self.joined(), &mut before);
            return Bytes::from(before).into();
        }
        let (open, tail): (&[u8], &[u8]) = match framing {
            Framing::Events => (b"data: ", b"}\n\n"),
            Framing::Lines => (b"", b"}\n"),
        };
        before.extend_from_slice(open);
        before.extend_from_slice(&self.head);
        Self { head: before.into(), value: self.value, tail }
    }

    /// As one piece; copied only if there are several.
    pub fn joined(mut self) -> Bytes {
        self.copy_to_bytes(self.remaining())
    }

    fn each(&self) -> [&[u8]; 3] {
        [&self.head, &self.value, self.tail]
    }
}

impl From<Bytes> for Pieces {
    fn from(head: Bytes) -> Self {
        Self { head, ..Self::default() }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.head.len() + self.value.len() + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.each().into_iter().find(|piece| !piece.is_empty()).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.each().into_iter().filter(|piece| !piece.is_empty());
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, count: usize) {
        let mut left = count;
        for piece in [&mut self.head, &mut self.value] {
            let step = left.min(piece.len());
            // Frees what has been written.
            if step == piece.len() {
                *piece = Bytes::new()
            } else {
                piece.advance(step)
            }
            left -= step;
        }
        self.tail = &self.tail[left..];
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        if count == self.head.len() {
            return std::mem::take(&mut self.head);
        }
        let mut out = Vec::with_capacity(count);
        while out.len() < count {
            let chunk = self.chunk();
            let step = chunk.len().min(count - out.len());
            assert!(step > 0, "no more than there is can be taken");
            out.extend_from_slice(&chunk[..step]);
            self.advance(step);
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long() -> Bytes {
        format!("\"{}\"", "x".repeat(VALUE_BYTES_MIN)).into()
    }

    fn response(result: &Bytes) -> Pieces {
        Pieces::response(&RawId::text("a"), result)
    }

    #[test]
    fn a_long_result_is_shared_a_short_one_copied_and_both_are_the_same_message() {
        let result = long();
        assert_eq!(response(&result).value.as_ptr(), result.as_ptr());
        for result in [result.clone(), result.slice(..VALUE_BYTES_MIN - 1)] {
            assert_eq!(response(&result).joined(), splice::response(&RawId::text("a"), &result));
        }
        assert!(response(&result.slice(..VALUE_BYTES_MIN - 1)).value.is_empty());
    }

    #[test]
    fn the_pieces_are_written_in_order_however_much_is_taken_at_once() {
        let result = long();
        let whole = response(&result).joined();
        for step in [1, 7, 1000, whole.len() - 1, whole.len()] {
            let mut pieces = response(&result);
            let mut read = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 8];
                let count = pieces.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(all.len(), pieces.remaining());
                let step = step.min(all.len());
                read.extend_from_slice(&all[..step]);
                pieces.advance(step);
            }
            assert_eq!(read, whole, "{step}");
        }
        let mut pieces = response(&result);
        assert_eq!(pieces.copy_to_bytes(3), whole[..3]);
        assert_eq!(pieces.joined(), whole[3..]);
    }

    #[test]
    fn one_piece_is_joined_without_a_copy() {
        let message = long();
        assert_eq!(Pieces::from(message.clone()).joined().as_ptr(), message.as_ptr());
        assert!(Pieces::from(Bytes::new()).joined().is_empty());
    }

    #[test]
    fn events_and_lines_share_a_result_unless_it_has_line_ends() {
        let result = long();
        let pretty = Bytes::from([b"{\n\"a\": ", &result[..], b"}"].concat());
        for framing in [Framing::Events, Framing::Lines] {
            for result in [&result, &pretty, &Bytes::from_static(b"{\r\n}")] {
                let mut written = b"before".to_vec();
                framing.write(&response(result).joined(), &mut written);
                assert_eq!(response(result).framed(framing, b"before".to_vec()).joined(), written);
            }
            assert_eq!(response(&result).framed(framing, Vec::new()).value.as_ptr(), result.as_ptr());
        }
    }

    #[test]
    fn a_message_is_one_line() {
        let message = Pieces::from(Bytes::from_static(b"{\n\"a\": 1}"));
        assert_eq!(message.framed(Framing::Lines, Vec::new()).joined(), "{ \"a\": 1}\n");
    }
}
