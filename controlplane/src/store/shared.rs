//! What the writer shows to everyone else: the head states in memory, the heads
//! to watch, and the index to read history from.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::index::{Fault, Reader, contained};
use super::record::{Position, Record, Version};
use super::{Commit, Entry, Error, LogId, State};

pub struct Shared {
    states: [RwLock<Arc<State>>; 2],
    heads: [watch::Sender<u64>; 2],
    /// `None` while the index cannot be used. Reading happens under the lock, so
    /// that nobody holds sled open when the writer closes it.
    reader: RwLock<Option<Reader>>,
}

impl Shared {
    pub fn new(states: [State; 2], reader: Reader) -> Self {
        let heads = [states[0].revision, states[1].revision];
        Self {
            states: states.map(|state| RwLock::new(Arc::new(state))),
            heads: heads.map(watch::Sender::new),
            reader: RwLock::new(Some(reader)),
        }
    }

    pub fn state(&self, log: LogId) -> Arc<State> {
        self.states[log as usize].read().clone()
    }

    pub fn head(&self, log: LogId) -> u64 {
        self.states[log as usize].read().revision
    }

    pub fn watch(&self, log: LogId) -> watch::Receiver<u64> {
        self.heads[log as usize].subscribe()
    }

    /// Shows durable commits. The map is changed in place where nobody reads it,
    /// so a commit costs what it changes.
    pub fn publish(&self, records: Vec<(Position, Record)>) {
        for (_, record) in records {
            let mut state = self.states[record.log as usize].write();
            let state = Arc::make_mut(&mut state);
            state.revision = record.revision;
            for step in record.steps {
                match (step.after, step.value) {
                    (Some(hash), Some(value)) => {
                        _ = state.entries.insert(step.key, Entry { value, hash, revision: record.revision })
                    }
                    _ => _ = state.entries.remove(&step.key),
                }
            }
        }
        for log in LogId::ALL {
            let head = self.head(log);
            self.heads[log as usize].send_if_modified(|seen| std::mem::replace(seen, head) != head);
        }
    }

    pub fn set_reader(&self, reader: Option<Reader>) {
        *self.reader.write() = reader;
    }

    /// Blocks on sled.
    pub fn state_at(&self, log: LogId, revision: u64) -> Result<Arc<State>, Error> {
        let head = self.state(log);
        if revision > head.revision {
            return Err(Error::NotFound { log, revision, head: head.revision });
        }
        if revision == head.revision {
            return Ok(head);
        }
        self.read(|reader| match take_back(reader, log, &head, revision)? {
            Some(state) => Ok(Ok(Arc::new(state))),
            None => Ok(Err(Error::Compacted { log, revision, oldest: reader.floor(log)? - 1 })),
        })?
    }

    /// Blocks on sled.
    pub fn history(&self, log: LogId, before: Option<u64>, limit: usize) -> Result<Vec<Arc<Commit>>, Error> {
        let newest = before.map_or(u64::MAX, |before| before.saturating_sub(1)).min(self.head(log));
        self.read(|reader| {
            let mut commits = Vec::new();
            for revision in (1..=newest).rev().take(limit) {
                match reader.commit(log, revision)? {
                    Some(record) => commits.push(Arc::new(record.to_commit())),
                    None if revision < reader.floor(log)? => break,
                    None => return Err(Fault::Content("commit missing")),
                }
            }
            Ok(commits)
        })
    }

    fn read<T>(&self, work: impl FnOnce(&Reader) -> Result<T, Fault>) -> Result<T, Error> {
        let reader = self.reader.read();
        let reader = reader.as_ref().ok_or(Error::Index { reason: "it is being repaired".to_owned() })?;
        Ok(contained(|| work(reader))?)
    }
}

/// The state at `revision`, by taking back one commit after the other from the
/// head; `None` if one of them, or a value, is compacted.
fn take_back(reader: &Reader, log: LogId, head: &State, revision: u64) -> Result<Option<State>, Fault> {
    let mut changed = std::collections::BTreeMap::<String, Option<Version>>::new();
    for undone in (revision + 1..=head.revision).rev() {
        match reader.commit(log, undone)? {
            Some(record) => {
                changed.extend(record.steps.into_iter().map(|step| (step.key, step.before)));
            }
            None if undone < reader.floor(log)? => return Ok(None),
            None => return Err(Fault::Content("commit missing")),
        }
    }
    let mut entries = head.entries.clone();
    for (key, before) in changed {
        let Some(Version { hash, revision: changed_at }) = before else {
            entries.remove(&key);
            continue;
        };
        match reader.blob(hash)? {
            Some(value) => _ = entries.insert(key, Entry { value, hash, revision: changed_at }),
            None if revision + 1 < reader.floor(log)? => return Ok(None),
            None => return Err(Fault::Content("value missing")),
        }
    }
    Ok(Some(State { revision, entries }))
}
