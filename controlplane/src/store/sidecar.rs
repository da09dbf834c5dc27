//! `HEAD`: how far the journal must reach, kept apart from the journal.
//!
//! Written and synced after the journal and before the acknowledgement. So a
//! journal that ends earlier has lost acknowledged commits, and what is beyond
//! was never acknowledged; without this file the two look the same. Two slots
//! on separate pages are written in turn: a torn write leaves the other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::files;
use super::record::Position;

const MAGIC: [u8; 8] = *b"MTHEAD01";
/// A slot per page: a page is what a disk tears at.
const SLOT_STRIDE: usize = 4096;
const SLOT_BYTES: usize = 8 + 16 + Position::BYTES + 4;

/// What must be in the journal at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acknowledged {
    /// Both slots are sound: nothing after this was acknowledged.
    Exactly(Position),
    /// A slot or the whole file is missing or damaged: there may be more.
    AtLeast(Position),
}

impl Acknowledged {
    pub fn position(&self) -> Position {
        match self {
            Acknowledged::Exactly(position) | Acknowledged::AtLeast(position) => *position,
        }
    }
}

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// `None`: no slot can be read.
    pub store: Option<Uuid>,
    pub acknowledged: Acknowledged,
}

/// Never fails for what is in the file: a missing or damaged one reads as
/// "at least nothing".
pub fn read(dir: &Path) -> io::Result<Reading> {
    match std::fs::read(path(dir)) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(parse(&[])),
        Err(error) => Err(error),
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("HEAD")
}

fn parse(bytes: &[u8]) -> Reading {
    let slot = |at: usize| bytes.get(at..at + SLOT_BYTES).and_then(|slot| decode(slot.try_into().ok()?));
    match (slot(0), slot(SLOT_STRIDE)) {
        (Some(a), Some(b)) => {
            let (store, position) = if a.1.sequence() >= b.1.sequence() { a } else { b };
            Reading { store: Some(store), acknowledged: Acknowledged::Exactly(position) }
        }
        (Some((store, position)), None) | (None, Some((store, position))) => {
            Reading { store: Some(store), acknowledged: Acknowledged::AtLeast(position) }
        }
        (None, None) => Reading { store: None, acknowledged: Acknowledged::AtLeast(Position::START) },
    }
}

fn encode(store: Uuid, position: Position) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..24].copy_from_slice(store.as_bytes());
    slot[24..24 + Position::BYTES].copy_from_slice(&position.to_bytes());
    let crc = crc32c::crc32c(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(Uuid, Position)> {
    let (body, crc) = slot.split_last_chunk()?;
    let sound = body.starts_with(&MAGIC) && crc32c::crc32c(body) == u32::from_le_bytes(*crc);
    let store = Uuid::from_slice(&body[8..24]).ok()?;
    sound.then(|| Some((store, Position::from_bytes(body[24..].first_chunk()?))))?
}

/// The file, open for writing.
#[derive(Debug)]
pub struct Sidecar {
    file: File,
    store: Uuid,
    next_slot: usize,
}

impl Sidecar {
    /// Writes the file anew with both slots at `position`, and opens it.
    pub fn create(dir: &Path, store: Uuid, position: Position) -> io::Result<Self> {
        let slot = encode(store, position);
        files::replace(&dir.join("HEAD.new"), &path(dir), |file| {
            file.write_all_at(&slot, 0)?;
            file.write_all_at(&slot, SLOT_STRIDE as u64)
        })?;
        let file = OpenOptions::new().write(true).open(path(dir))?;
        Ok(Self { file, store, next_slot: 0 })
    }

    /// Durable when it returns. After an error the same slot is written again
    /// next time, so the sound one is never at risk.
    pub fn acknowledge(&mut self, position: Position) -> io::Result<()> {
        self.file.write_all_at(&encode(self.store, position), (self.next_slot * SLOT_STRIDE) as u64)?;
        self.file.sync_data()?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::position;
    use super::*;

    fn written(dir: &Path) -> Vec<u8> {
        let mut sidecar = Sidecar::create(dir, Uuid::from_u128(9), position(0)).unwrap();
        for revisions in 1..=5 {
            sidecar.acknowledge(position(revisions)).unwrap();
        }
        std::fs::read(path(dir)).unwrap()
    }

    #[test]
    fn the_newest_of_two_sound_slots_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let expected =
            Reading { store: Some(Uuid::from_u128(9)), acknowledged: Acknowledged::Exactly(position(5)) };
        assert_eq!(read(dir.path()).unwrap(), expected);
    }

    #[test]
    fn a_damaged_slot_leaves_a_lower_bound() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = written(dir.path());
        for at in (0..SLOT_BYTES).chain(SLOT_STRIDE..SLOT_STRIDE + SLOT_BYTES) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let left = if at < SLOT_STRIDE { 4 } else { 5 };
            assert_eq!(parse(&damaged).acknowledged, Acknowledged::AtLeast(position(left)), "byte {at}");
        }
    }

    #[test]
    fn a_missing_or_cut_file_claims_nothing_it_cannot_know() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = Reading { store: None, acknowledged: Acknowledged::AtLeast(Position::START) };
        assert_eq!(read(dir.path()).unwrap(), nothing);
        let bytes = written(dir.path());
        for length in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..length]).acknowledged, Acknowledged::AtLeast(_)), "{length}");
        }
    }
}
