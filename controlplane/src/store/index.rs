//! The index: sled, holding what can be rebuilt from snapshot and journal.
//!
//! sled answers history and old states; it is never asked whether a commit
//! happened. A damaged file can make sled panic, hang or open empty without an
//! error, so it is opened on a thread of its own, and all it holds is checked
//! against a digest that travels with every batch.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::record::{Position, Record, Version};
use super::{BlobHash, Entry, Error, LogId, State};

mod draft;
mod layout;

use draft::Draft;
pub use draft::Limits;
pub use layout::Head;

/// Longest wait for sled to open. A damaged file can make it loop.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for a database that this process has just closed.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// sled writes nodes above a quarter of this to files that it never syncs; a
/// leaf of ours stays below 1 MiB.
const SLED_SEGMENT_BYTES: usize = 8 << 20;
const SLED_CACHE_BYTES: u64 = 64 << 20;
/// Commits that are applied as one batch where many are.
const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// A key and a value of the index.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("sled panicked: {0}")]
    Panicked(String),
    #[error("sled did not open within {OPEN_LIMIT:?}")]
    TimedOut,
    #[error("the last attempt to open it did not finish")]
    Unfinished,
    #[error("its content is not what was written: {0}")]
    Content(&'static str),
    #[error("sled failed")]
    Sled(#[from] ::sled::Error),
    #[error("its files cannot be handled")]
    Io(#[from] io::Error),
}

impl Fault {
    /// The disk is full: what is there may be sound.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Fault::Io(error) | Fault::Sled(::sled::Error::Io(error)) => {
                matches!(error.kind(), StorageFull | QuotaExceeded)
            }
            _ => false,
        }
    }

    /// With its cause: it ends in a message or a log line, and nobody looks deeper.
    pub fn text(&self) -> String {
        match self {
            Fault::Sled(error) => format!("{self}: {error}"),
            Fault::Io(error) => format!("{self}: {error}"),
            _ => self.to_string(),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault.is_disk_full() {
            true => {
                let source = Arc::new(io::Error::new(io::ErrorKind::StorageFull, fault.text()));
                Error::DiskFull { doing: "writing the index", source }
            }
            false => Error::Index { reason: fault.text() },
        }
    }
}

/// Runs what may panic inside sled.
pub fn contained<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(Fault::Panicked(panic_text(&*payload))))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// sled's own lock outlives a closed database by as long as its background
/// threads need to end. Only this process can hold it, since the store's lock is
/// held.
#[expect(clippy::disallowed_methods, reason = "only the opening thread sleeps here")]
fn wait_until_free(path: &Path) -> io::Result<()> {
    let until = Instant::now() + LOCK_LIMIT;
    while path.exists() && Instant::now() < until {
        match File::open(path)?.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => break,
        }
    }
    Ok(())
}

/// The index, owned by whoever changes it.
pub struct Index {
    db: ::sled::Db,
    head: Head,
    limits: Limits,
}

impl Index {
    /// Opens or creates the index in `dir`, and checks everything in it.
    ///
    /// On a thread of its own: a panic must not unwind through half-made state of
    /// ours, and a loop must not hold the caller for ever. An abort takes the
    /// process; then the marker file says at the next start that sled is not to
    /// be tried again.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, Fault> {
        let marker = dir.with_extension("opening");
        if marker.exists() {
            return Err(Fault::Unfinished);
        }
        File::create(&marker)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let path = dir.to_owned();
        let open = move || {
            let opened = contained(|| Self::open_and_check(&path, limits));
            // Nobody is left to tell after the limit; then the index is dropped.
            let _ = sender.send(opened);
        };
        let opener = thread::Builder::new().name("store-open".into()).spawn(open)?;
        let opened = receiver.recv_timeout(OPEN_LIMIT).unwrap_or(Err(Fault::TimedOut));
        if !matches!(opened, Err(Fault::TimedOut)) {
            let _ = opener.join();
        }
        fs::remove_file(&marker)?;
        opened
    }

    fn open_and_check(dir: &Path, limits: Limits) -> Result<Self, Fault> {
        let config = ::sled::Config::new()
            .path(dir)
            .mode(::sled::Mode::HighThroughput)
            .segment_size(SLED_SEGMENT_BYTES)
            .cache_capacity(SLED_CACHE_BYTES)
            .flush_every_ms(None);
        wait_until_free(&dir.join("db"))?;
        let db = config.open()?;
        let stored = match db.get(layout::HEAD_KEY)? {
            Some(value) => {
                Some(layout::open(&value).and_then(Head::from_bytes).ok_or(Fault::Content("head"))?)
            }
            None => None,
        };
        let mut seen = layout::Digest::default();
        for pair in db.iter() {
            let (key, value) = pair?;
            if *key != *layout::HEAD_KEY {
                seen.toggle(&key, layout::open(&value).ok_or(Fault::Content("checksum"))?, true);
            }
        }
        let head = stored.unwrap_or_default();
        if head.digest != seen {
            return Err(Fault::Content("digest"));
        }
        Ok(Self { db, head, limits })
    }

    pub fn position(&self) -> Position {
        self.head.position
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Repeats `records`, which follow what is here, as one batch that carries
    /// the new head.
    pub fn apply(&mut self, records: &[(Position, Record)]) -> Result<(), Fault> {
        let mut draft = Draft::new(&self.db, self.head.clone(), self.limits);
        for (position, record) in records {
            draft.apply(*position, record)?;
        }
        self.head = draft.commit()?;
        Ok(())
    }

    /// A handle for reading, from any thread.
    pub fn reader(&self) -> Reader {
        Reader { db: self.db.clone() }
    }

    /// Hands what is in sled's buffers to its file. Only saves work at the next
    /// open: nothing rests on it.
    pub fn flush(&self) -> Result<(), Fault> {
        self.db.flush()?;
        Ok(())
    }

    pub fn size_on_disk(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// Visits every pair but the head, in order, and checks at the end that it was
    /// all.
    pub fn export(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut seen = layout::Digest::default();
        for pair in self.db.iter() {
            let (key, value) = pair?;
            if *key != *layout::HEAD_KEY {
                let value = layout::open(&value).ok_or(Fault::Content("checksum"))?;
                seen.toggle(&key, value, true);
                visit(&key, value)?;
            }
        }
        if seen != self.head.digest {
            return Err(Fault::Content("digest"));
        }
        Ok(())
    }

    /// Fills an empty index with what was exported at `head`. The head comes last:
    /// until then the index says that it is not whole.
    pub fn import(
        &mut self,
        head: Head,
        mut next: impl FnMut() -> Result<Option<Pair>, Fault>,
    ) -> Result<(), Fault> {
        let mut seen = layout::Digest::default();
        let (mut batch, mut bytes) = (::sled::Batch::default(), 0);
        while let Some((key, value)) = next()? {
            seen.toggle(&key, &value, true);
            bytes += key.len() + value.len();
            batch.insert(key, layout::seal(&value));
            if bytes >= BATCH_BYTES {
                self.db.apply_batch(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        if seen != head.digest {
            return Err(Fault::Content("digest"));
        }
        batch.insert(layout::HEAD_KEY, layout::seal(&head.to_bytes()));
        self.db.apply_batch(batch)?;
        self.head = head;
        Ok(())
    }

    /// The head state of `log`, with every value checked.
    pub fn state(&self, log: LogId) -> Result<State, Fault> {
        let reader = self.reader();
        let mut entries = BTreeMap::new();
        let prefix = layout::entry_key(log, "");
        for pair in self.db.scan_prefix(&prefix) {
            let (key, value) = pair?;
            let key = std::str::from_utf8(&key[prefix.len()..]).map_err(|_| Fault::Content("key"))?;
            let version = layout::open(&value).and_then(layout::version_from_bytes);
            let Version { hash, revision } = version.ok_or(Fault::Content("entry"))?;
            let value = reader.blob(hash)?.ok_or(Fault::Content("value missing"))?;
            entries.insert(key.to_owned(), Entry { value, hash, revision });
        }
        Ok(State { revision: self.head.position.head(log), entries })
    }
}

/// Collects records into batches for [`Index::apply`].
pub struct Replay<'a> {
    index: &'a mut Index,
    records: Vec<(Position, Record)>,
    bytes: usize,
    at: Position,
}

impl<'a> Replay<'a> {
    pub fn new(index: &'a mut Index) -> Self {
        let at = index.position();
        Self { index, records: Vec::new(), bytes: 0, at }
    }

    pub fn add(&mut self, position: Position, record: Record) -> Result<(), Fault> {
        if position.sequence() <= self.at.sequence() {
            return Ok(());
        }
        if record.previous != self.at.chain() {
            return Err(Fault::Content("the journal does not continue it"));
        }
        self.at = position;
        self.bytes +=
            record.steps.iter().filter_map(|step| step.value.as_ref()).map(Bytes::len).sum::<usize>();
        self.records.push((position, record));
        if self.records.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES {
            self.finish()?;
        }
        Ok(())
    }

    pub fn finish(&mut self) -> Result<(), Fault> {
        self.index.apply(&self.records)?;
        self.records.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Reads commits and values. `None` is "not there (any more)".
#[derive(Clone)]
pub struct Reader {
    db: ::sled::Db,
}

impl Reader {
    /// The oldest revision of `log` that is still in the history.
    pub fn floor(&self, log: LogId) -> Result<u64, Fault> {
        match self.db.get(layout::HEAD_KEY)? {
            Some(value) => {
                let head = layout::open(&value).and_then(Head::from_bytes).ok_or(Fault::Content("head"))?;
                Ok(head.floor(log))
            }
            None => Ok(1),
        }
    }

    pub fn commit(&self, log: LogId, revision: u64) -> Result<Option<Record>, Fault> {
        let (mut payload, mut parts) = (Vec::new(), 0);
        while let Some(value) = self.db.get(layout::commit_key(log, revision, parts))? {
            payload.extend_from_slice(layout::open(&value).ok_or(Fault::Content("checksum"))?);
            parts += 1;
        }
        if payload.is_empty() {
            return Ok(None);
        }
        Record::decode(payload.into()).map(Some).ok_or(Fault::Content("commit"))
    }

    pub fn blob(&self, hash: BlobHash) -> Result<Option<Bytes>, Fault> {
        let Some(value) = self.db.get(layout::blob_key(hash))? else { return Ok(None) };
        let blob = layout::open(&value).and_then(layout::Blob::from_bytes).ok_or(Fault::Content("blob"))?;
        let mut bytes = Vec::with_capacity(blob.bytes.min(super::VALUE_BYTES_MAX as u64) as usize);
        for part in 0..layout::parts(blob.bytes) {
            let Some(value) = self.db.get(layout::part_key(hash, part))? else { return Ok(None) };
            bytes.extend_from_slice(layout::open(&value).ok_or(Fault::Content("checksum"))?);
        }
        if BlobHash::of(&bytes) != hash {
            return Err(Fault::Content("value"));
        }
        Ok(Some(bytes.into()))
    }
}
