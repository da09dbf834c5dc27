//! Reads files of resources from the disk: the only I/O here, besides
//! [`Library`](crate::Library), which reads them again when they change.

pub mod find;

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use self::find::Wanted;
use crate::{Document, FILE_BYTES_MAX, parse};

/// The files could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("reading {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not UTF-8 text")]
    NotText { path: PathBuf },
    #[error("{path} has too many files, at most 10000 are read")]
    ManyFiles { path: PathBuf },
    #[error("{pattern:?} is not a pattern of files: {reason}")]
    Pattern { pattern: String, reason: String },
}

/// Reads a file, or all `*.yaml`, `*.yml` and `*.json` of a directory and of
/// those in it, in the order of their names. Names that start with a dot are
/// left out. Blocks.
///
/// # Errors
/// If something cannot be read. What is wrong with what was read is in the
/// documents.
pub fn load(path: &Path) -> Result<Vec<Document>, LoadError> {
    load_all(&[path.to_owned()])
}

/// As [`load`], of several arguments of a command, which may be patterns too:
/// `caps/**/*.yaml`, and `!caps/drafts/**` for what to leave out. The files are
/// read on all cores; their order is that of the arguments and of names.
///
/// # Errors
/// As [`load`].
pub fn load_all(paths: &[PathBuf]) -> Result<Vec<Document>, LoadError> {
    let files = Wanted::new(paths)?.find()?;
    files.par_iter().map(|file| Ok(parse(&file.to_string_lossy(), &read_text(file)?))).collect()
}

/// Reads no more than is needed to see that a file is too large.
pub(crate) fn read_text(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        // The cut may be inside a character; the text is refused for its length anyway.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| LoadError::NotText { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.yaml");
        assert!(matches!(load(&path), Err(LoadError::Io { path: p, .. }) if p == path));
        fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(matches!(load(&path), Err(LoadError::NotText { path: p }) if p == path));
        fs::write(&path, vec![b'#'; FILE_BYTES_MAX + 10]).unwrap();
        let documents = load(&path).unwrap();
        assert!(documents[0].diagnostics[0].message.contains("at most"), "{documents:?}");
    }
}
