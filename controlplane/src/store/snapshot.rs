//! Snapshots: the whole index at one position, in a file that is put in place
//! whole or not at all. They bound the journal, and are where a rebuild starts.
//!
//! A snapshot is only believed after every pair in it was read and the digest
//! in its header came out.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::files;
use super::index::{Fault, Head, Index, Pair};
use super::record::{self, FRAME_HEADER_BYTES};

const MAGIC: [u8; 8] = *b"MTSNAP01";
const HEADER_BYTES: usize = 8 + 16 + Head::BYTES + 4;
const EXTENSION: &str = "snap";
/// Largest pair: a part of a value with its key.
const PAIR_BYTES_MAX: usize = 64 << 10;
/// How many are kept. The journal is kept from the older one on, so that one
/// damaged snapshot costs nothing.
const KEPT: usize = 2;

/// The directory of the snapshots.
pub fn dir(store: &Path) -> PathBuf {
    store.join("snapshots")
}

/// A snapshot whose header is sound.
#[derive(Debug)]
pub struct Snapshot {
    pub path: PathBuf,
    pub store: Uuid,
    pub head: Head,
}

/// The snapshots that have a sound header, newest first, and the paths of those
/// that do not.
pub fn list(store_dir: &Path) -> io::Result<(Vec<Snapshot>, Vec<PathBuf>)> {
    let (mut sound, mut damaged) = (Vec::new(), Vec::new());
    for (number, path) in files::numbered(&dir(store_dir), EXTENSION)?.into_iter().rev() {
        let mut header = [0; HEADER_BYTES];
        let read = File::open(&path)?.read_exact(&mut header);
        match parse_header(&header) {
            Some((store, head)) if read.is_ok() && head.position.sequence() == number => {
                sound.push(Snapshot { path, store, head });
            }
            _ => damaged.push(path),
        }
    }
    Ok((sound, damaged))
}

/// Writes the whole index. Blocks for as long as that takes, since sled has no
/// view that stands still.
pub fn write(store_dir: &Path, store: Uuid, index: &Index) -> Result<(), Fault> {
    let dir = dir(store_dir);
    let path = files::numbered_path(&dir, index.position().sequence(), EXTENSION);
    let mut fault = None;
    let written = files::replace(&dir.join("new"), &path, |file| {
        let mut out = BufWriter::with_capacity(256 << 10, file);
        out.write_all(&header(store, index.head()))?;
        let exported = index.export(|key, value| Ok(write_pair(&mut out, key, value)?));
        match exported {
            Ok(()) => out.flush(),
            Err(Fault::Io(error)) => Err(error),
            Err(other) => {
                let text = other.to_string();
                fault = Some(other);
                Err(io::Error::other(text))
            }
        }
    });
    match (written, fault) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(fault)) => Err(fault),
        (Err(error), None) => Err(Fault::Io(error)),
    }
}

/// Removes all but the newest two, and says from which sequence on the journal
/// is still needed.
pub fn prune(store_dir: &Path) -> io::Result<u64> {
    let (sound, damaged) = list(store_dir)?;
    for old in sound.iter().skip(KEPT).map(|snapshot| &snapshot.path).chain(&damaged) {
        fs::remove_file(old)?;
    }
    files::sync_dir(&dir(store_dir))?;
    Ok(sound.get(KEPT - 1).map_or(0, |oldest| oldest.head.position.sequence()))
}

impl Snapshot {
    /// Fills an empty index; an error says that this snapshot is damaged, or that
    /// the index failed.
    pub fn restore(&self, index: &mut Index) -> Result<(), Fault> {
        let mut file = BufReader::with_capacity(256 << 10, File::open(&self.path)?);
        io::copy(&mut file.by_ref().take(HEADER_BYTES as u64), &mut io::sink())?;
        index.import(self.head.clone(), || read_pair(&mut file))
    }
}

fn header(store: Uuid, head: &Head) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(store.as_bytes());
    bytes.extend(head.to_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Option<(Uuid, Head)> {
    let (body, crc) = header.split_last_chunk()?;
    let sound = body.starts_with(&MAGIC) && crc32c::crc32c(body) == u32::from_le_bytes(*crc);
    let store = Uuid::from_slice(&body[8..24]).ok()?;
    sound.then(|| Some((store, Head::from_bytes(&body[24..])?)))?
}

fn write_pair(out: &mut impl Write, key: &[u8], value: &[u8]) -> io::Result<()> {
    let length = u16::try_from(key.len()).expect("keys of the index are short").to_le_bytes();
    let payload = [length.as_slice(), key, value].concat();
    out.write_all(&record::frame_header(&payload))?;
    out.write_all(&payload)
}

fn read_pair(file: &mut impl Read) -> Result<Option<Pair>, Fault> {
    let mut header = [0; FRAME_HEADER_BYTES];
    match file.read(&mut header[..1])? {
        0 => return Ok(None),
        _ => file.read_exact(&mut header[1..])?,
    }
    let (length, crc) = record::parse_header(&header);
    if length > PAIR_BYTES_MAX {
        return Err(Fault::Content("snapshot frame"));
    }
    let mut payload = vec![0; length];
    file.read_exact(&mut payload)?;
    if record::frame_crc([header[0], header[1], header[2], header[3]], &payload) != crc {
        return Err(Fault::Content("snapshot frame"));
    }
    let pair = payload
        .split_first_chunk()
        .and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_le_bytes(*length))));
    let (key, value) = pair.ok_or(Fault::Content("snapshot pair"))?;
    Ok(Some((key.to_vec(), value.to_vec())))
}
