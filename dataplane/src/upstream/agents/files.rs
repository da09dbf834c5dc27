//! The files that resources are: beneath one directory of the node, whatever a
//! path, a link or a value says.
//!
//! The kernel holds every path to the directory while it resolves it (openat2
//! with RESOLVE_BENEATH), so nothing is checked first and used later. Only
//! regular files are read, and not more than a limit. All of it blocks, so it
//! happens off the threads of calls.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use metrics::counter;
use mt_proto::template::{Piece, Pieces};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::Errno,
};
use tokio::sync::Notify;

use super::watch::{Followed, Unfollowed, Watch};

/// Of a file that is served.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Of a directory that is looked into for what could be asked for.
const ENTRIES_MAX: usize = 10_000;
/// The kernel gives up when something is renamed at the same time.
const OPEN_TRIES_MAX: usize = 8;

/// The directory of files of a node.
pub struct Files {
    root: PathBuf,
    watch: Watch,
}

impl Default for Files {
    fn default() -> Self {
        Self { root: PathBuf::from("."), watch: Watch::default() }
    }
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none, or it is not one that may be read: the client cannot tell.
    #[error("there is no such file")]
    NotFound(#[source] io::Error),
    #[error("the file has {bytes} bytes, at most {FILE_BYTES_MAX} are served")]
    TooLarge { bytes: u64 },
    #[error("the file cannot be read")]
    Failed(#[source] io::Error),
}

/// Differs whenever a file does; none, while there is no file.
pub type Fingerprint = Option<(u64, u64, i64, (i64, i64), (i64, i64))>;

impl Files {
    /// A relative directory is one beneath the working directory as it is now.
    pub fn beneath(root: &Path) -> Arc<Self> {
        // Changes are told of by absolute paths.
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        if !root.is_dir() {
            tracing::warn!(directory = %root.display(), "the directory of files is not there yet");
        }
        Arc::new(Self { root, watch: Watch::default() })
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn read(self: &Arc<Self>, path: String) -> Result<Vec<u8>, ReadError> {
        self.apart(move |files| files.read_now(&path))
            .await
            .unwrap_or_else(|error| Err(ReadError::Failed(error)))
    }

    /// The names in a directory, in order, without hidden ones. As many as are
    /// looked at.
    pub async fn names(self: &Arc<Self>, directory: String) -> Vec<String> {
        let listed = self.apart(move |files| files.names_now(&directory)).await;
        match listed.and_then(|listed| listed) {
            Ok(names) => names,
            Err(error) => {
                tracing::debug!(%error, "a directory of resources cannot be listed");
                Vec::new()
            }
        }
    }

    /// How files are now.
    pub async fn fingerprints(self: &Arc<Self>, paths: Vec<String>) -> Vec<Fingerprint> {
        let count = paths.len();
        let looked =
            self.apart(move |files| paths.iter().map(|path| files.fingerprint(path)).collect()).await;
        looked.unwrap_or_else(|_| vec![None; count])
    }

    /// Follows a directory, also one that is not there yet. Blocks.
    ///
    /// # Errors
    /// If it is not inside, or too many are followed.
    pub fn follow(&self, directory: &str, changes: &Arc<Notify>) -> Result<Followed, Unfollowed> {
        if let Err(Errno::XDEV | Errno::LOOP) = self.open(directory, OFlags::PATH | OFlags::DIRECTORY) {
            return Err(Unfollowed::Outside);
        }
        self.watch.follow(&self.root.join(directory), changes)
    }

    /// Runs what blocks on a thread for that.
    pub async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> io::Result<T> {
        let files = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&files)).await.map_err(io::Error::other)
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root =
            openat(CWD, &self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let open = || openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        let mut opened = open();
        for _ in 1..OPEN_TRIES_MAX {
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                break;
            }
            opened = open();
        }
        opened
    }

    fn read_now(&self, path: &str) -> Result<Vec<u8>, ReadError> {
        // A pipe without a writer would keep the thread.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open(path, flags).map_err(|errno| match errno {
            Errno::XDEV | Errno::LOOP => {
                counter!("mt_files_refused_total").increment(1);
                tracing::warn!(path, "refused to read a file outside of the directory of files");
                ReadError::NotFound(errno.into())
            }
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::NAMETOOLONG
            | Errno::NXIO
            | Errno::INVAL => ReadError::NotFound(errno.into()),
            other => ReadError::Failed(other.into()),
        })?;
        let stat = fstat(&file).map_err(|errno| ReadError::Failed(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ReadError::NotFound(io::Error::other("it is not a regular file")));
        }
        let mut bytes = Vec::new();
        let read = File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(ReadError::Failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let listed = u64::try_from(stat.st_size).unwrap_or(0);
            return Err(ReadError::TooLarge { bytes: listed.max(bytes.len() as u64) });
        }
        Ok(bytes)
    }

    fn names_now(&self, directory: &str) -> io::Result<Vec<String>> {
        let opened = self.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(opened)?.take(ENTRIES_MAX) {
            let entry = entry?;
            let is_file =
                matches!(entry.file_type(), FileType::RegularFile | FileType::Symlink | FileType::Unknown);
            let name = entry.file_name().to_string_lossy();
            if is_file && !name.starts_with('.') && !name.contains(char::REPLACEMENT_CHARACTER) {
                names.push(name.into_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn fingerprint(&self, path: &str) -> Fingerprint {
        let stat = fstat(self.open(path, OFlags::PATH).ok()?).ok()?;
        let changed = (stat.st_ctime as i64, stat.st_ctime_nsec as i64);
        Some((
            stat.st_dev,
            stat.st_ino,
            stat.st_size,
            (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed,
        ))
    }
}

/// The path that a template has become. None: a value is more than a name in
/// it, or a hidden one.
pub fn path(pieces: &Pieces) -> Option<String> {
    let mut path = String::new();
    for piece in &pieces.0 {
        match piece {
            Piece::Literal(literal) => path.push_str(literal),
            value => {
                let value = value.text();
                let begins = path.is_empty() || path.ends_with('/');
                if value.contains(['/', '\0']) || (begins && value.starts_with('.')) {
                    return None;
                }
                path.push_str(&value);
            }
        }
    }
    let inside = !path.starts_with('/') && path.split('/').all(|segment| segment != "..");
    (inside && !path.is_empty()).then_some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn value(text: &str) -> Piece {
        Piece::Value(text.into())
    }

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.to_owned())
    }

    #[test]
    fn a_value_is_a_name_in_a_path_and_nothing_more() {
        let of = |name: &str| path(&Pieces(vec![literal("docs/"), value(name), literal(".md")]));
        assert_eq!(of("a b"), Some("docs/a b.md".into()));
        assert_eq!(of("Grüße…"), Some("docs/Grüße….md".into()));
        for name in ["a/b", "/etc/passwd", "..", ".", ".env", "../x", "a\0b", "x/../../y"] {
            assert_eq!(of(name), None, "{name:?}");
        }
        let split = |one: &str, two: &str| path(&Pieces(vec![value(one), value(two)]));
        assert_eq!(split("", ".."), None);
        assert_eq!(split("a", "..b"), Some("a..b".into()));
        assert_eq!(path(&Pieces(vec![literal("a/."), value(".")])), None);
        assert_eq!(path(&Pieces(vec![literal("a/."), value("x")])), Some("a/.x".into()));
        assert_eq!(path(&Pieces(vec![literal("/a")])), None);
        assert_eq!(path(&Pieces::default()), None);
    }

    /// A directory with a neighbor that must not be read.
    fn house() -> (tempfile::TempDir, Arc<Files>) {
        let house = tempfile::tempdir().unwrap();
        let at = |path: &str| house.path().join(path);
        std::fs::create_dir_all(at("files/docs/deep")).unwrap();
        std::fs::write(at("secret"), "secret").unwrap();
        std::fs::write(at("files/docs/a.md"), "a").unwrap();
        std::fs::write(at("files/docs/deep/b.md"), "b").unwrap();
        std::fs::write(at("files/docs/.hidden"), "h").unwrap();
        symlink("deep/b.md", at("files/docs/inside.md")).unwrap();
        symlink("../../secret", at("files/docs/outside.md")).unwrap();
        symlink(at("secret"), at("files/docs/absolute.md")).unwrap();
        symlink("/proc/self/root/etc/passwd", at("files/docs/magic.md")).unwrap();
        symlink("../..", at("files/docs/up")).unwrap();
        symlink("loop.md", at("files/docs/loop.md")).unwrap();
        let files = Files::beneath(&at("files"));
        (house, files)
    }

    #[tokio::test]
    async fn nothing_outside_of_the_directory_is_read() {
        let (_house, files) = house();
        assert_eq!(files.read("docs/a.md".into()).await.unwrap(), b"a");
        assert_eq!(files.read("docs/inside.md".into()).await.unwrap(), b"b");
        assert_eq!(files.read("docs/deep/../a.md".into()).await.unwrap(), b"a");
        for path in [
            "../secret",
            "docs/../../secret",
            "/etc/passwd",
            "docs/outside.md",
            "docs/absolute.md",
            "docs/magic.md",
            "docs/up/secret",
            "docs/up/files/docs/a.md",
            "docs/loop.md",
            "docs",
            "nothing",
            "docs/a.md/x",
            "",
            ".",
            "..",
            "/",
            &"x".repeat(300),
        ] {
            let read = files.read(path.into()).await;
            assert!(matches!(read, Err(ReadError::NotFound(_))), "{path:?}: {read:?}");
        }
        let changes = Arc::new(Notify::new());
        assert_eq!(files.follow("docs/up", &changes).err(), Some(Unfollowed::Outside));
        assert!(files.follow("docs/deep", &changes).is_ok());
    }

    #[tokio::test]
    async fn a_pipe_is_not_waited_for_and_a_large_file_not_read() {
        let (house, files) = house();
        let pipe = house.path().join("files/pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(matches!(files.read("pipe".into()).await, Err(ReadError::NotFound(_))));
        let large = File::create(house.path().join("files/large")).unwrap();
        large.set_len(FILE_BYTES_MAX).unwrap();
        assert_eq!(files.read("large".into()).await.unwrap().len() as u64, FILE_BYTES_MAX);
        large.set_len(FILE_BYTES_MAX + 1).unwrap();
        let read = files.read("large".into()).await;
        assert!(matches!(read, Err(ReadError::TooLarge { bytes }) if bytes == FILE_BYTES_MAX + 1));
    }

    #[tokio::test]
    async fn names_are_in_order_and_changes_show() {
        let (house, files) = house();
        let names = files.names("docs".into()).await;
        assert_eq!(names.first().map(String::as_str), Some("a.md"));
        assert!(names.is_sorted() && !names.iter().any(|name| name.starts_with('.') || name == "deep"));
        assert!(files.names("docs/up".into()).await.is_empty());
        let paths = vec!["docs/a.md".to_owned(), "docs/none".to_owned()];
        let before = files.fingerprints(paths.clone()).await;
        assert_eq!(before, files.fingerprints(paths.clone()).await);
        std::fs::write(house.path().join("files/docs/a.md"), "other").unwrap();
        let after = files.fingerprints(paths).await;
        assert!(before[0] != after[0] && before[1].is_none());
    }
}
