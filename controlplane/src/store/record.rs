//! What a commit looks like on disk: a record, in a frame, at a position.
//!
//! A frame is `length | CRC32C | payload`, so that a torn or damaged one is
//! seen. A record carries the hash of everything before it, so that a journal
//! put together from two histories is seen too. Pure: bytes in, values out.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;

use super::{BlobHash, Change, Commit, LogId};

/// Bytes before the payload of a frame.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Largest payload of a frame: a full commit with its keys, hashes and note.
pub const PAYLOAD_BYTES_MAX: usize = 96 << 20;
/// First byte of every record, so that a later format can be told apart.
const FORMAT: u8 = 1;

/// How far the two logs have come, and a hash over every record up to here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    heads: [u64; 2],
    chain: [u8; 32],
}

impl Position {
    pub const BYTES: usize = 48;
    /// Before the first record.
    pub const START: Position = Position { heads: [0; 2], chain: [0; 32] };

    /// How many records there are up to here, in both logs.
    pub fn sequence(&self) -> u64 {
        self.heads[0].saturating_add(self.heads[1])
    }

    pub fn head(&self, log: LogId) -> u64 {
        self.heads[log as usize]
    }

    pub fn chain(&self) -> [u8; 32] {
        self.chain
    }

    /// The position after `record`, whose payload is given; `None` if the record
    /// is not the one that comes next.
    pub fn after(&self, record: &Record, payload: &[u8]) -> Option<Position> {
        let mut heads = self.heads;
        heads[record.log as usize] += 1;
        if record.previous != self.chain || record.revision != heads[record.log as usize] {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.chain);
        hasher.update(payload);
        Some(Position { heads, chain: *hasher.finalize().as_bytes() })
    }

    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.heads[0].to_le_bytes());
        bytes[8..16].copy_from_slice(&self.heads[1].to_le_bytes());
        bytes[16..].copy_from_slice(&self.chain);
        bytes
    }

    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (config, rest) = bytes.split_first_chunk().expect("48 bytes hold 8");
        let (catalog, chain) = rest.split_first_chunk().expect("40 bytes hold 8");
        let heads = [u64::from_le_bytes(*config), u64::from_le_bytes(*catalog)];
        Self { heads, chain: chain.try_into().expect("32 bytes are left of 48") }
    }
}

/// A value by its hash, and the revision that put it there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    pub hash: BlobHash,
    pub revision: u64,
}

/// What a record does to one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub key: String,
    pub before: Option<Version>,
    pub after: Option<BlobHash>,
    /// The bytes of `after`. Absent once the record is history: the index holds
    /// them by hash.
    pub value: Option<Bytes>,
}

/// One commit, with all that is needed to repeat it or take it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub log: LogId,
    pub revision: u64,
    pub time_ms: u64,
    pub author: String,
    pub message: String,
    pub steps: Vec<Step>,
    /// [`Position::chain`] before this record.
    pub previous: [u8; 32],
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let wire = wire::Record {
            log: self.log as u32,
            revision: self.revision,
            time_ms: self.time_ms,
            author: self.author.clone(),
            message: self.message.clone(),
            steps: self.steps.iter().map(wire::Step::from).collect(),
            previous: Bytes::copy_from_slice(&self.previous),
        };
        let mut bytes = Vec::with_capacity(1 + wire.encoded_len());
        bytes.push(FORMAT);
        wire.encode(&mut bytes).expect("a Vec grows");
        bytes
    }

    /// `None`: these bytes are not a record of a format we know.
    pub fn decode(mut payload: Bytes) -> Option<Self> {
        if payload.first() != Some(&FORMAT) {
            return None;
        }
        let _format = payload.split_to(1);
        let wire = wire::Record::decode(payload).ok()?;
        Some(Self {
            log: *LogId::ALL.get(usize::try_from(wire.log).ok()?)?,
            revision: wire.revision,
            time_ms: wire.time_ms,
            author: wire.author,
            message: wire.message,
            steps: wire.steps.into_iter().map(Step::from_wire).collect::<Option<_>>()?,
            previous: wire.previous.as_ref().try_into().ok()?,
        })
    }

    /// The same record as history keeps it.
    pub fn without_values(&self) -> Self {
        let steps = self.steps.iter().map(|step| Step { value: None, ..step.clone() }).collect();
        Self { steps, ..self.clone() }
    }

    pub fn to_commit(&self) -> Commit {
        let change = |step: &Step| Change {
            key: step.key.clone(),
            before: step.before.map(|version| version.hash),
            after: step.after,
        };
        Commit {
            revision: self.revision,
            time: time_of(self.time_ms),
            author: self.author.clone(),
            message: self.message.clone(),
            changes: self.steps.iter().map(change).collect(),
        }
    }
}

fn time_of(time_ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(time_ms)).unwrap_or(UNIX_EPOCH)
}

impl Step {
    fn from_wire(wire: wire::Step) -> Option<Self> {
        let hash = |bytes: Bytes| bytes.as_ref().try_into().ok().map(BlobHash::from_bytes);
        let before = match wire.before {
            Some(bytes) => Some(Version { hash: hash(bytes)?, revision: wire.before_revision }),
            None => None,
        };
        let after = match wire.after {
            Some(bytes) => Some(hash(bytes)?),
            None => None,
        };
        Some(Self { key: wire.key, before, after, value: wire.value })
    }
}

impl From<&Step> for wire::Step {
    fn from(step: &Step) -> Self {
        let bytes = |hash: BlobHash| Bytes::copy_from_slice(hash.as_bytes());
        Self {
            key: step.key.clone(),
            before: step.before.map(|version| bytes(version.hash)),
            before_revision: step.before.map_or(0, |version| version.revision),
            after: step.after.map(bytes),
            value: step.value.clone(),
        }
    }
}

/// Protobuf, because old records must stay readable when a field is added.
mod wire {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Record {
        #[prost(uint32, tag = "1")]
        pub log: u32,
        #[prost(uint64, tag = "2")]
        pub revision: u64,
        #[prost(uint64, tag = "3")]
        pub time_ms: u64,
        #[prost(string, tag = "4")]
        pub author: String,
        #[prost(string, tag = "5")]
        pub message: String,
        #[prost(message, repeated, tag = "6")]
        pub steps: Vec<Step>,
        #[prost(bytes = "bytes", tag = "7")]
        pub previous: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Step {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub before: Option<Bytes>,
        #[prost(uint64, tag = "3")]
        pub before_revision: u64,
        #[prost(bytes = "bytes", optional, tag = "4")]
        pub after: Option<Bytes>,
        #[prost(bytes = "bytes", optional, tag = "5")]
        pub value: Option<Bytes>,
    }
}

/// The header of the frame that holds `payload`.
pub fn frame_header(payload: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let length = u32::try_from(payload.len()).expect("payloads are below 4 GiB").to_le_bytes();
    let crc = frame_crc(length, payload).to_le_bytes();
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(&length);
    header[4..].copy_from_slice(&crc);
    header
}

/// The length and the checksum in the header of a frame.
pub fn parse_header(header: &[u8; FRAME_HEADER_BYTES]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = *header;
    (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]))
}

/// The length is covered too: a stretch of zeros must not be an empty frame.
pub fn frame_crc(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// Where the payload of the frame at `at` is; `None` if there is no whole and
/// undamaged frame.
pub fn frame_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let header = bytes.get(at..)?.first_chunk()?;
    let (length, crc) = parse_header(header);
    let start = at + FRAME_HEADER_BYTES;
    let payload = bytes.get(start..start.checked_add(length)?)?;
    let whole = length <= PAYLOAD_BYTES_MAX
        && frame_crc([header[0], header[1], header[2], header[3]], payload) == crc;
    whole.then(|| start..start + length)
}

/// Whether a record begins anywhere after `from`: then what is unreadable
/// before it is not the torn end of a file.
pub fn any_record_after(bytes: &Bytes, from: usize) -> bool {
    let starts = from + 1..bytes.len().saturating_sub(FRAME_HEADER_BYTES);
    starts.into_iter().any(|at| {
        bytes[at + FRAME_HEADER_BYTES] == FORMAT
            && frame_at(bytes, at).is_some_and(|range| Record::decode(bytes.slice(range)).is_some())
    })
}

#[cfg(test)]
pub mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    pub fn framed(record: &Record) -> Vec<u8> {
        let payload = record.encode();
        [frame_header(&payload).as_slice(), &payload].concat()
    }

    /// After so many empty commits of the configuration.
    pub fn position(revisions: u64) -> Position {
        (1..=revisions).fold(Position::START, |position, revision| {
            let record = Record {
                log: LogId::Config,
                revision,
                time_ms: 0,
                author: String::new(),
                message: String::new(),
                steps: vec![],
                previous: position.chain(),
            };
            position.after(&record, &record.encode()).unwrap()
        })
    }

    fn records() -> impl Strategy<Value = Record> {
        let value = vec(any::<u8>(), 0..64);
        let step =
            ("[a-z/]{1,12}", proptest::option::of((value.clone(), 0u64..99)), proptest::option::of(value));
        let step = step.prop_map(|(key, before, after)| Step {
            key,
            before: before.map(|(value, revision)| Version { hash: BlobHash::of(&value), revision }),
            after: after.as_deref().map(BlobHash::of),
            value: after.map(Bytes::from),
        });
        (any::<bool>(), any::<u64>(), any::<u64>(), ".{0,9}", vec(step, 0..5), any::<[u8; 32]>()).prop_map(
            |(config, revision, time_ms, author, steps, previous)| Record {
                log: if config { LogId::Config } else { LogId::Catalog },
                revision,
                time_ms,
                message: author.chars().rev().collect(),
                author,
                steps,
                previous,
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(record in records()) {
            prop_assert_eq!(Record::decode(record.encode().into()), Some(record));
        }

        #[test]
        fn a_changed_bit_is_noticed(record in records(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut bytes = framed(&record);
            prop_assert!(frame_at(&bytes, 0).is_some());
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert_eq!(frame_at(&bytes, 0), None);
        }

        #[test]
        fn a_cut_frame_is_noticed(record in records(), at in any::<prop::sample::Index>()) {
            let bytes = framed(&record);
            prop_assert_eq!(frame_at(&bytes[..at.index(bytes.len())], 0), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200), at in 0usize..220) {
            let _ = frame_at(&bytes, at);
            let _ = any_record_after(&bytes.clone().into(), at);
            let _ = Record::decode(bytes.into());
        }

        #[test]
        fn a_record_is_found_behind_damage(record in records(), junk in vec(any::<u8>(), 1..40)) {
            let behind = Bytes::from([junk.as_slice(), &framed(&record)].concat());
            prop_assert!(any_record_after(&behind, 0));
        }
    }

    #[test]
    fn zeros_are_not_a_frame() {
        assert_eq!(frame_at(&[0; 64], 0), None);
    }

    #[test]
    fn a_record_fits_only_where_it_was_made() {
        let record = Record {
            log: LogId::Catalog,
            revision: 1,
            time_ms: 5,
            author: "a".into(),
            message: String::new(),
            steps: vec![],
            previous: Position::START.chain(),
        };
        let payload = record.encode();
        let after = Position::START.after(&record, &payload).unwrap();
        assert_eq!((after.head(LogId::Config), after.head(LogId::Catalog), after.sequence()), (0, 1, 1));
        assert_eq!(after.after(&record, &payload), None, "the same record again");
        let skipped = Record { revision: 2, ..record.clone() };
        assert_eq!(Position::START.after(&skipped, &skipped.encode()), None, "a revision is missing");
        let foreign = Record { previous: [7; 32], ..record };
        assert_eq!(Position::START.after(&foreign, &foreign.encode()), None, "of another history");
        assert_eq!(Position::from_bytes(&after.to_bytes()), after);
    }
}
