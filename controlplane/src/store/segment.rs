//! One file of the journal: a header that says where it starts, then frames.
//!
//! Reading decides nothing about damage: it says how far the file is sound and
//! whether anything sound lies behind. `recovery` knows what that means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use super::record::{self, Position, Record};

const MAGIC: [u8; 8] = *b"MTJRNL01";
pub const HEADER_BYTES: usize = 8 + 16 + Position::BYTES + 4;
/// The file extension of segments.
pub const EXTENSION: &str = "log";

/// The header of a segment of `store` whose first record follows `start`.
pub fn header(store: Uuid, start: Position) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..24].copy_from_slice(store.as_bytes());
    bytes[24..24 + Position::BYTES].copy_from_slice(&start.to_bytes());
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A segment in memory. Its size is bounded by when the journal starts a new
/// one, plus one group of commits.
pub struct Segment {
    pub path: PathBuf,
    pub bytes: Bytes,
    /// The store and the position in the header; `None` if it cannot be read.
    pub start: Option<(Uuid, Position)>,
}

/// How far a segment is sound.
pub struct Sound {
    pub position: Position,
    /// Where the sound part ends.
    pub bytes: usize,
    /// Why it ends there; `None` at the end of the file.
    pub broken: Option<&'static str>,
}

impl Segment {
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = Bytes::from(fs::read(path)?);
        let start = parse_header(&bytes);
        Ok(Self { path: path.to_owned(), bytes, start })
    }

    /// Visits the records in order, each with the position after it, until one
    /// is not sound. The segment must have a start.
    pub fn walk<E>(&self, mut visit: impl FnMut(Position, Record) -> Result<(), E>) -> Result<Sound, E> {
        let (_, mut position) = self.start.expect("only segments with a header are walked");
        let mut at = HEADER_BYTES;
        let broken = loop {
            if at == self.bytes.len() {
                break None;
            }
            let Some(payload) = record::frame_at(&self.bytes, at) else {
                break Some("a record is torn or damaged");
            };
            let end = payload.end;
            let payload = self.bytes.slice(payload);
            let Some(record) = Record::decode(payload.clone()) else {
                break Some("a record is of an unknown format");
            };
            let Some(after) = position.after(&record, &payload) else {
                break Some("a record does not follow the one before it");
            };
            (position, at) = (after, end);
            visit(position, record)?;
        };
        Ok(Sound { position, bytes: at, broken })
    }

    /// Whether a sound record lies behind `from`.
    pub fn any_record_after(&self, from: usize) -> bool {
        record::any_record_after(&self.bytes, from)
    }
}

fn parse_header(bytes: &[u8]) -> Option<(Uuid, Position)> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let (body, crc) = header.split_last_chunk()?;
    let sound = body.starts_with(&MAGIC) && crc32c::crc32c(body) == u32::from_le_bytes(*crc);
    let store = Uuid::from_slice(&body[8..24]).ok()?;
    sound.then(|| Some((store, Position::from_bytes(body[24..].first_chunk()?))))?
}

#[cfg(test)]
mod tests {
    use super::super::LogId;
    use super::super::record::tests::framed;
    use super::*;

    fn segment(records: u64) -> (Vec<u8>, Vec<usize>, Vec<Position>) {
        let mut bytes = header(Uuid::nil(), Position::START).to_vec();
        let (mut ends, mut positions) = (vec![bytes.len()], vec![Position::START]);
        for revision in 1..=records {
            let record = Record {
                log: LogId::Config,
                revision,
                time_ms: revision,
                author: "a".into(),
                message: "m".repeat(revision as usize),
                steps: vec![],
                previous: positions.last().unwrap().chain(),
            };
            positions.push(positions.last().unwrap().after(&record, &record.encode()).unwrap());
            bytes.extend(framed(&record));
            ends.push(bytes.len());
        }
        (bytes, ends, positions)
    }

    fn sound(bytes: Vec<u8>) -> Option<Sound> {
        let bytes = Bytes::from(bytes);
        let segment = Segment { path: PathBuf::new(), start: parse_header(&bytes), bytes };
        segment.start?;
        Some(segment.walk(|_, _| Ok::<(), ()>(())).unwrap())
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_records_before_it() {
        let (bytes, ends, positions) = segment(4);
        for length in 0..=bytes.len() {
            let Some(sound) = sound(bytes[..length].to_vec()) else {
                assert!(length < HEADER_BYTES);
                continue;
            };
            let whole = ends.iter().rposition(|end| *end <= length).unwrap();
            assert_eq!((sound.bytes, sound.position), (ends[whole], positions[whole]), "cut at {length}");
            assert_eq!(sound.broken.is_some(), length != ends[whole]);
        }
    }

    #[test]
    fn a_changed_byte_leaves_the_records_before_it() {
        let (bytes, ends, positions) = segment(4);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x01;
            let Some(sound) = sound(damaged) else {
                assert!(at < HEADER_BYTES);
                continue;
            };
            let whole = ends.iter().rposition(|end| *end <= at).unwrap();
            assert_eq!((sound.bytes, sound.position), (ends[whole], positions[whole]), "byte {at}");
        }
    }

    #[test]
    fn a_record_twice_in_a_row_is_not_taken_twice() {
        let (bytes, ends, positions) = segment(2);
        let twice = [&bytes[..], &bytes[ends[1]..ends[2]]].concat();
        let sound = sound(twice).unwrap();
        assert_eq!((sound.bytes, sound.position), (ends[2], positions[2]));
    }
}
