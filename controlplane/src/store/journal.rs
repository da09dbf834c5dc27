//! The journal: every commit since the older of the two snapshots, appended and
//! synced before anything else hears of it.
//!
//! Nothing is rewritten. What could not be written whole is cut away again, and
//! until that has worked nothing more is written: a later record behind a torn
//! one would look like damage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::record::Position;
use super::{Error, files, segment};

/// A segment is finished once it is this long.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// The directory of the segments.
pub fn dir(store: &Path) -> PathBuf {
    store.join("journal")
}

/// What must be put right before the next append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repair {
    Nothing,
    /// Bytes may lie behind the good ones.
    Cut,
    /// A sync failed, so the kernel may hold pages as clean that never reached
    /// the disk. A new file has none.
    CutAndRotate,
}

/// The segment that is written to.
pub struct Journal {
    dir: PathBuf,
    store: Uuid,
    path: PathBuf,
    file: File,
    /// Bytes in the segment that are good; there is nothing behind them.
    bytes: u64,
    position: Position,
    repair: Repair,
    segment_bytes: u64,
}

impl Journal {
    /// Continues the segment at `path` whose sound part of `bytes` bytes ends at
    /// `position`.
    pub fn resume(
        store_dir: &Path,
        store: Uuid,
        path: PathBuf,
        bytes: u64,
        position: Position,
        segment_bytes: u64,
    ) -> Result<Self, Error> {
        let open = OpenOptions::new().read(true).write(true).open(&path);
        let file = open.map_err(|error| files::failed("opening", &path, error))?;
        let mut journal = Self {
            dir: dir(store_dir),
            store,
            path,
            file,
            bytes,
            position,
            repair: Repair::Cut,
            segment_bytes,
        };
        journal.repair()?;
        Ok(journal)
    }

    /// Starts a new segment at `position`.
    pub fn start(
        store_dir: &Path,
        store: Uuid,
        position: Position,
        segment_bytes: u64,
    ) -> Result<Self, Error> {
        let dir = dir(store_dir);
        let (path, file) = create(&dir, store, position)?;
        let bytes = segment::HEADER_BYTES as u64;
        Ok(Self { dir, store, path, file, bytes, position, repair: Repair::Nothing, segment_bytes })
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Appends whole frames that lead to `position`, durable when it returns.
    /// After an error nothing of them counts.
    pub fn append(&mut self, frames: &[u8], position: Position) -> Result<(), Error> {
        self.repair()?;
        if self.bytes >= self.segment_bytes {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all_at(frames, self.bytes) {
            self.repair = Repair::Cut;
            // At once where possible, so that a full disk is not fuller for it.
            let _ = self.repair();
            return Err(files::failed("writing", &self.path, error));
        }
        if let Err(error) = self.file.sync_data() {
            self.repair = Repair::CutAndRotate;
            let _ = self.repair();
            return Err(files::failed("syncing", &self.path, error));
        }
        self.bytes += frames.len() as u64;
        self.position = position;
        Ok(())
    }

    /// Cuts away what a failed append left behind. Does nothing where nothing is
    /// left.
    pub fn repair(&mut self) -> Result<(), Error> {
        if self.repair != Repair::Nothing {
            let cut = self.file.set_len(self.bytes).and_then(|()| self.file.sync_all());
            cut.map_err(|error| files::failed("cutting", &self.path, error))?;
        }
        if self.repair == Repair::CutAndRotate {
            self.rotate()?;
        }
        self.repair = Repair::Nothing;
        Ok(())
    }

    /// Continues in a new segment, unless this one is empty.
    pub fn rotate(&mut self) -> Result<(), Error> {
        if self.bytes > segment::HEADER_BYTES as u64 {
            (self.path, self.file) = create(&self.dir, self.store, self.position)?;
            self.bytes = segment::HEADER_BYTES as u64;
        }
        Ok(())
    }

    /// Removes the segments that hold nothing after `sequence`, and says how many
    /// bytes are left.
    pub fn prune(&self, sequence: u64) -> io::Result<u64> {
        let segments = files::numbered(&self.dir, segment::EXTENSION)?;
        let mut left = 0;
        for (at, (_, path)) in segments.iter().enumerate() {
            let covered = segments.get(at + 1).is_some_and(|(next, _)| *next <= sequence + 1);
            match covered && *path != self.path {
                true => fs::remove_file(path)?,
                false => left += fs::metadata(path)?.len(),
            }
        }
        files::sync_dir(&self.dir)?;
        Ok(left)
    }
}

/// A file of this name can only be left by a start that did not finish: it holds
/// no record, since it would be the current segment if it did.
fn create(dir: &Path, store: Uuid, start: Position) -> Result<(PathBuf, File), Error> {
    let path = files::numbered_path(dir, start.sequence() + 1, segment::EXTENSION);
    let open = || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all_at(&segment::header(store, start), 0)?;
        file.sync_all()?;
        files::sync_dir(dir)?;
        Ok(file)
    };
    match open() {
        Ok(file) => Ok((path, file)),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(files::failed("starting", &path, error))
        }
    }
}
