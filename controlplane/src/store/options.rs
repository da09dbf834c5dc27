//! What may be chosen when a store is opened.

use super::{index::Limits, journal, recovery::OnDamage};

/// Limits of a store. Each may change from one start to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// How many commits of the configuration are remembered.
    pub history_config: u64,
    /// How many commits of the catalog are remembered.
    pub history_catalog: u64,
    /// A snapshot is made after so many commits, or after [`Self::snapshot_bytes`].
    pub snapshot_commits: u64,
    /// A snapshot is made after so many bytes of journal.
    pub snapshot_bytes: u64,
    /// A file of the journal is finished once it is this long.
    pub segment_bytes: u64,
    /// Most commits that wait for the writer; one more is
    /// [`Overloaded`](super::Error::Overloaded).
    pub waiting_commits: usize,
    pub on_damage: OnDamage,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_config: 10_000,
            history_catalog: 100,
            snapshot_commits: 10_000,
            snapshot_bytes: 64 << 20,
            segment_bytes: journal::SEGMENT_BYTES,
            waiting_commits: 1_024,
            on_damage: OnDamage::Refuse,
        }
    }
}

impl Options {
    pub(super) fn limits(&self) -> Limits {
        Limits { config: self.history_config, catalog: self.history_catalog }
    }
}
