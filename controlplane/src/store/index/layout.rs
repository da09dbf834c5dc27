//! Where things stand inside sled: keys, envelopes, the head, the digest.
//!
//! One keyspace, so that one batch changes all of it. No value is above 32 KiB.
//! Changing any of this means a new [`FORMAT`]: an index of another format is
//! rebuilt, a snapshot of another format is not read.

use super::super::record::{Position, Version};
use super::super::{BlobHash, LogId};

/// The format of keys and values.
pub const FORMAT: u8 = 1;
pub const HEAD_KEY: &[u8] = b"h";
/// Longest part of a value or a commit: with key and envelope below 32 KiB.
pub const PART_BYTES: usize = 31 << 10;

/// `e`: the version of a key at the head.
pub fn entry_key(log: LogId, key: &str) -> Vec<u8> {
    [b"e", [log as u8].as_slice(), key.as_bytes()].concat()
}

/// `c`: a part of a commit.
pub fn commit_key(log: LogId, revision: u64, part: u32) -> Vec<u8> {
    [b"c", [log as u8].as_slice(), &revision.to_be_bytes(), &part.to_be_bytes()].concat()
}

/// `b`: how often a value is used, and how long it is.
pub fn blob_key(hash: BlobHash) -> Vec<u8> {
    [b"b", hash.as_bytes().as_slice()].concat()
}

/// `p`: a part of a value.
pub fn part_key(hash: BlobHash, part: u32) -> Vec<u8> {
    [b"p", hash.as_bytes().as_slice(), &part.to_be_bytes()].concat()
}

/// How many parts a value of `bytes` has.
pub fn parts(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PART_BYTES as u64)).unwrap_or(u32::MAX)
}

/// Puts a checksum before a value.
pub fn seal(value: &[u8]) -> Vec<u8> {
    [crc32c::crc32c(value).to_le_bytes().as_slice(), value].concat()
}

/// The value, if its checksum holds.
pub fn open(sealed: &[u8]) -> Option<&[u8]> {
    let (crc, value) = sealed.split_first_chunk()?;
    (crc32c::crc32c(value) == u32::from_le_bytes(*crc)).then_some(value)
}

pub fn version_to_bytes(version: Version) -> Vec<u8> {
    [version.hash.as_bytes().as_slice(), &version.revision.to_le_bytes()].concat()
}

pub fn version_from_bytes(bytes: &[u8]) -> Option<Version> {
    let (hash, revision) = bytes.split_first_chunk()?;
    let revision = u64::from_le_bytes(revision.try_into().ok()?);
    Some(Version { hash: BlobHash::from_bytes(*hash), revision })
}

/// What is known of a value beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blob {
    /// Entries of the heads, and `before`s of the history, that name it.
    pub uses: u64,
    pub bytes: u64,
}

impl Blob {
    pub fn to_bytes(self) -> Vec<u8> {
        [self.uses.to_le_bytes(), self.bytes.to_le_bytes()].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (uses, bytes) = bytes.split_first_chunk()?;
        Some(Self { uses: u64::from_le_bytes(*uses), bytes: u64::from_le_bytes(bytes.try_into().ok()?) })
    }
}

/// Says whether two sets of pairs are the same, whatever their order: the
/// exclusive or of the hashes of the pairs, and their number. Against accidents;
/// whoever can forge it could write the store's files anyway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Digest {
    pairs: u64,
    sum: [u8; 32],
}

impl Digest {
    /// Takes a pair in, or out again.
    pub fn toggle(&mut self, key: &[u8], value: &[u8], present: bool) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
        hasher.update(value);
        let hash = hasher.finalize();
        self.sum.iter_mut().zip(hash.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
        self.pairs = if present { self.pairs.wrapping_add(1) } else { self.pairs.wrapping_sub(1) };
    }
}

/// What the index says of itself, in every batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    pub position: Position,
    floors: [u64; 2],
    pub digest: Digest,
}

impl Default for Head {
    fn default() -> Self {
        Self { position: Position::START, floors: [1; 2], digest: Digest::default() }
    }
}

impl Head {
    pub const BYTES: usize = 1 + Position::BYTES + 16 + 40;

    /// The oldest revision in the history; the head plus 1 if there is none.
    pub fn floor(&self, log: LogId) -> u64 {
        self.floors[log as usize]
    }

    pub fn set_floor(&mut self, log: LogId, floor: u64) {
        self.floors[log as usize] = floor;
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.position.to_bytes());
        self.floors.iter().for_each(|floor| bytes.extend(floor.to_le_bytes()));
        bytes.extend(self.digest.pairs.to_le_bytes());
        bytes.extend(self.digest.sum);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(&[FORMAT])?;
        let (position, bytes) = bytes.split_first_chunk()?;
        let (config, bytes) = bytes.split_first_chunk()?;
        let (catalog, bytes) = bytes.split_first_chunk()?;
        let (pairs, sum) = bytes.split_first_chunk()?;
        Some(Self {
            position: Position::from_bytes(position),
            floors: [u64::from_le_bytes(*config), u64::from_le_bytes(*catalog)],
            digest: Digest { pairs: u64::from_le_bytes(*pairs), sum: sum.try_into().ok()? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_in_any_order_and_forgets_what_is_taken_out() {
        let mut a = Digest::default();
        a.toggle(b"k1", b"v1", true);
        a.toggle(b"k2", b"v2", true);
        let mut b = Digest::default();
        b.toggle(b"k2", b"v2", true);
        b.toggle(b"x", b"y", true);
        b.toggle(b"k1", b"v1", true);
        assert_ne!(a, b);
        b.toggle(b"x", b"y", false);
        assert_eq!(a, b);
        let mut shifted = Digest::default();
        shifted.toggle(b"k1v", b"1", true);
        shifted.toggle(b"k2", b"v2", true);
        assert_ne!(a, shifted);
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let mut head = Head::default();
        head.set_floor(LogId::Catalog, 7);
        head.digest.toggle(b"k", b"v", true);
        let bytes = head.to_bytes();
        assert_eq!((Head::from_bytes(&bytes), bytes.len()), (Some(head), Head::BYTES));
    }

    #[test]
    fn a_changed_byte_breaks_the_seal() {
        let sealed = seal(b"value");
        assert_eq!(open(&sealed), Some(b"value".as_slice()));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(open(&damaged), None);
        }
    }
}
