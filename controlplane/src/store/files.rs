//! The few things the store does with files, each finished by the sync that
//! makes it last. No decision is taken here.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Error;

/// How many things that were moved aside are kept of each kind.
const ASIDE_MAX: usize = 2;

/// The store's error for a failed file operation.
pub fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let full = matches!(source.kind(), StorageFull | QuotaExceeded);
    let source = Arc::new(source);
    match full {
        true => Error::DiskFull { doing, source },
        false => Error::Io { doing, path: path.to_owned(), source },
    }
}

/// Makes the names in a directory last: a file is lost with its name.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and its parents where they are missing, for this user alone.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Puts a file in place whole or not at all: written under `temporary`, synced,
/// renamed, and the directory synced. A failure leaves no temporary file.
pub fn replace(
    temporary: &Path,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let result = File::create(temporary)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(temporary, path));
    if result.is_err() {
        // The space it takes may be the very space that is missing.
        let _ = fs::remove_file(temporary);
    }
    result?;
    sync_dir(path.parent().expect("a file of the store is in a directory"))
}

/// The files in `dir` named `<20 digits>.<extension>`, in the order of the numbers.
pub fn numbered(dir: &Path, extension: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 20);
        let number = stem.and_then(|stem| stem.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|found| found == extension)) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The path of such a file.
pub fn numbered_path(dir: &Path, number: u64, extension: &str) -> PathBuf {
    dir.join(format!("{number:020}.{extension}"))
}

/// Renames `path` to `<dir>/<prefix>-<milliseconds>`, and removes the oldest
/// of that prefix beyond two, so that damage cannot fill the disk.
pub fn move_aside(path: &Path, dir: &Path, prefix: &str) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let target = (0..)
        .map(|step| dir.join(format!("{prefix}-{:016}", now + step)))
        .find(|target| !target.exists())
        .expect("some number is free");
    fs::rename(path, &target)?;
    sync_dir(dir)?;
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
        })
        .collect();
    kept.sort();
    for old in kept.iter().rev().skip(ASIDE_MAX) {
        let _ = if old.is_dir() { fs::remove_dir_all(old) } else { fs::remove_file(old) };
    }
    Ok(target)
}

/// Takes the directory for this process, for as long as the file is open. The
/// lock is the kernel's, so a killed holder never leaves it behind; the process
/// id inside is only for the message.
pub fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("LOCK");
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|error| failed("opening", &path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Error::Held { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(failed("locking", &path, error)),
    }
    let note =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
    if let Err(error) = note {
        tracing::debug!(%error, "lock file does not name its holder");
    }
    Ok(file)
}
