//! What writes itself into a message that is put together.

use bytes::Bytes;

/// Something that writes itself as one JSON value.
pub trait Raw {
    /// About how many bytes that will be.
    fn size(&self) -> usize;
    fn write(&self, out: &mut Vec<u8>);
}

impl Raw for [u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl Raw for Bytes {
    fn size(&self) -> usize {
        self.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}
