//! Reads files of resources from the disk: the only I/O here.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{Document, FILE_BYTES_MAX, parse};

/// In one directory and those in it.
const FILES_MAX: usize = 10_000;
/// Directories in each other, which also ends a circle of links.
const DIRECTORY_DEPTH_MAX: usize = 16;
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The files could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("reading {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not UTF-8 text")]
    NotText { path: PathBuf },
    #[error("{path} has more than {FILES_MAX} files")]
    ManyFiles { path: PathBuf },
}

/// Reads a file, or all `*.yaml`, `*.yml` and `*.json` of a directory and of
/// those in it, in the order of their names. Names that start with a dot are
/// left out. Blocks.
///
/// # Errors
/// If something cannot be read. What is wrong with what was read is in the
/// documents.
pub fn load(path: &Path) -> Result<Vec<Document>, LoadError> {
    let mut files = Vec::new();
    let metadata = fs::metadata(path).map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
    if metadata.is_dir() {
        list(path, path, 0, &mut files)?;
    } else {
        files.push(path.to_owned());
    }
    files.iter().map(|file| Ok(parse(&file.to_string_lossy(), &read_text(file)?))).collect()
}

fn list(root: &Path, directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let failed = |source| LoadError::Io { path: directory.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let is_config =
            path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)));
        if path.is_dir() {
            if depth < DIRECTORY_DEPTH_MAX {
                list(root, &path, depth + 1, files)?;
            }
        } else if is_config {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(LoadError::ManyFiles { path: root.to_owned() });
        }
    }
    Ok(())
}

/// Reads no more than is needed to see that a file is too large.
fn read_text(path: &Path) -> Result<String, LoadError> {
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
    fn a_directory_is_read_in_the_order_of_names() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("b/.git")).unwrap();
        for file in ["c.yml", "a.YAML", "b/x.json", "b/.git/y.yaml", "notes.txt", ".hidden.yaml"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let documents = load(root.path()).unwrap();
        let names: Vec<_> = documents
            .iter()
            .map(|d| Path::new(d.source.name()).strip_prefix(root.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a.YAML", "b/x.json", "c.yml"]);
    }

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
