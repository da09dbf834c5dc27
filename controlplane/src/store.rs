//! The control plane's memory: two append-only logs of commits, and the only
//! place that decides what "committed" means.
//!
//! A commit is all or nothing, numbered from 1 without a gap, and durable
//! before it is acknowledged. Callers see keys, bytes and revisions; nothing
//! here knows what a resource is, and nothing outside names the engine below.
//!
//! Map: `record` what a commit looks like on disk · `journal` the truth, made of
//! `segment`s · `sidecar` how far the truth must reach · `index` sled, which can
//! be rebuilt · `snapshot` what bounds the journal · `recovery` and `survey` how
//! these are compared at open · `writer` the one thread that changes them, a
//! `group` at a time · `shared` what readers see · `options` what
//! may be chosen · `sled` the store itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;

mod files;
mod group;
mod index;
mod journal;
mod options;
mod record;
mod recovery;
mod segment;
mod shared;
mod sidecar;
pub mod sled;
mod snapshot;
mod survey;
mod writer;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Largest sum of keys and values in one commit, in bytes.
pub const COMMIT_BYTES_MAX: usize = 48 << 20;
/// Most writes in one commit.
pub const COMMIT_WRITES_MAX: usize = 100_000;
/// Longest author plus message of a commit, in bytes.
pub const NOTE_BYTES_MAX: usize = 16 << 10;
/// Most commits that one call of [`Store::history`] returns.
pub const HISTORY_PAGE_MAX: usize = 1_000;

/// One of the two logs. They are separate because they move differently: the
/// configuration is staged and remembered for long, the catalog follows its
/// backends at once and forgets early.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LogId {
    Config,
    Catalog,
}

impl LogId {
    pub const ALL: [LogId; 2] = [LogId::Config, LogId::Catalog];

    /// The name in messages, metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            LogId::Config => "config",
            LogId::Catalog => "catalog",
        }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The BLAKE3 hash of a value. Displays as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);

impl BlobHash {
    pub fn of(value: &[u8]) -> Self {
        Self(*blake3::hash(value).as_bytes())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key to set, or to delete where `value` is `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub key: String,
    pub value: Option<Bytes>,
}

impl Write {
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: Some(value.into()) }
    }

    pub fn delete(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None }
    }
}

/// Who commits, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Note {
    pub author: String,
    pub message: String,
}

/// One committed revision of one log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    pub revision: u64,
    /// The wall clock when it was committed, in whole milliseconds. For people
    /// only: the order is that of the revisions.
    pub time: SystemTime,
    pub author: String,
    pub message: String,
    /// What differs from the revision before, in the order of the keys. A write
    /// that changed nothing is not here, so this may be empty.
    pub changes: Vec<Change>,
}

/// What a commit did to one key. `before` and `after` are never equal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub key: String,
    pub before: Option<BlobHash>,
    pub after: Option<BlobHash>,
}

/// A value in a [`State`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub value: Bytes,
    pub hash: BlobHash,
    /// The revision that last changed it.
    pub revision: u64,
}

/// Everything one log holds at one revision.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub revision: u64,
    pub entries: BTreeMap<String, Entry>,
}

/// What callers tell apart.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("expected head {expected}, but the head is {head}")]
    HeadMoved { expected: u64, head: u64 },
    #[error("revision {revision} of {log} is compacted, the oldest that can be read is {oldest}")]
    Compacted { log: LogId, revision: u64, oldest: u64 },
    #[error("{log} has no revision {revision}, the head is {head}")]
    NotFound { log: LogId, revision: u64, head: u64 },
    #[error("commit refused: {reason}")]
    Invalid { reason: String },
    #[error("store is at its limit of {limit} waiting commits")]
    Overloaded { limit: usize },
    /// Nothing of the commit stays. The store goes on by itself once there is
    /// space.
    #[error("no space left for the store while {doing}")]
    DiskFull { doing: &'static str, source: Arc<std::io::Error> },
    #[error("failed while {doing} {}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: Arc<std::io::Error> },
    #[error("store is held by another process{}: {}", .holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), .dir.display())]
    Held { dir: PathBuf, holder: Option<u32> },
    /// The store refuses to open: going on would lose acknowledged commits.
    #[error("{} is damaged at byte {offset}: {reason}; {remedy}", .path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String, remedy: String },
    /// The index cannot answer now. Heads and commits do not depend on it.
    #[error("the store's index cannot be read: {reason}")]
    Index { reason: String },
    #[error("store is closed")]
    Closed,
}

/// What the control plane asks of an engine.
pub trait Store: Send + Sync + 'static {
    /// The newest revision; 0 when nothing has been committed yet.
    fn head(&self, log: LogId) -> u64;

    /// Commits all of `writes` or none, as the revision after the head, and
    /// only if the head is `expected_head` where that is given. Durable before
    /// `Ok`. A key may appear once. Writes that change nothing are dropped, and
    /// a commit of no changes is still a revision.
    ///
    /// Dropping the future does not take the commit back. After any error but
    /// [`Error::Closed`] nothing of it is in the log; only if the process dies
    /// before a failed write could be cut away may it be found there afterwards.
    fn commit(
        &self,
        log: LogId,
        expected_head: Option<u64>,
        writes: Vec<Write>,
        note: Note,
    ) -> BoxFuture<'_, Result<Arc<Commit>, Error>>;

    /// Everything in `log` at `revision`; `None` is the head, and cheap.
    /// Revision 0 is the empty state, as long as nothing is compacted.
    fn state(&self, log: LogId, revision: Option<u64>) -> BoxFuture<'_, Result<Arc<State>, Error>>;

    /// Commits with a revision below `before` (`None`: from the head), newest
    /// first: at most `limit`, at most [`HISTORY_PAGE_MAX`], and none that are
    /// compacted.
    fn history(
        &self,
        log: LogId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Arc<Commit>>, Error>>;

    /// Follows the head. A receiver sees the newest revision, not every one.
    fn watch(&self, log: LogId) -> tokio::sync::watch::Receiver<u64>;
}
