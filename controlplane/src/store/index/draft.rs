//! A batch for the index while it is being made: reads see what it holds, the
//! digest follows every change, and history beyond its limit goes in the same
//! batch.

use std::collections::BTreeMap;

use super::super::record::{Position, Record, Version};
use super::super::{BlobHash, LogId};
use super::Fault;
use super::layout::{self, Blob, Head};

/// Most commits that one commit takes out of the history. More than one, so that
/// a lowered limit is reached in time; not all, so that no commit is slow.
const COMPACT_MAX: u64 = 32;

/// How many commits each log remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub config: u64,
    pub catalog: u64,
}

impl Limits {
    fn of(self, log: LogId) -> u64 {
        match log {
            LogId::Config => self.config,
            LogId::Catalog => self.catalog,
        }
    }
}

/// See the file's comment. Nothing happens before [`Draft::commit`].
pub struct Draft<'a> {
    db: &'a ::sled::Db,
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    head: Head,
    limits: Limits,
}

impl<'a> Draft<'a> {
    pub fn new(db: &'a ::sled::Db, head: Head, limits: Limits) -> Self {
        Self { db, pending: BTreeMap::new(), head, limits }
    }

    pub fn apply(&mut self, position: Position, record: &Record) -> Result<(), Fault> {
        let log = record.log;
        for step in &record.steps {
            if let (Some(hash), Some(value)) = (step.after, &step.value) {
                self.use_blob(hash, value)?;
            }
            let version = step.after.map(|hash| Version { hash, revision: record.revision });
            self.set(layout::entry_key(log, &step.key), version.map(layout::version_to_bytes))?;
        }
        let payload = record.without_values().encode();
        for (part, bytes) in (0..).zip(payload.chunks(layout::PART_BYTES)) {
            self.set(layout::commit_key(log, record.revision, part), Some(bytes.to_vec()))?;
        }
        self.head.position = position;
        self.compact(log, record.revision)
    }

    /// One atomic batch, with the head in it.
    pub fn commit(self) -> Result<Head, Fault> {
        let mut batch = ::sled::Batch::default();
        for (key, value) in self.pending {
            match value {
                Some(value) => batch.insert(key, layout::seal(&value)),
                None => batch.remove(key),
            }
        }
        batch.insert(layout::HEAD_KEY, layout::seal(&self.head.to_bytes()));
        self.db.apply_batch(batch)?;
        Ok(self.head)
    }

    /// Drops the commits that are beyond the limit, and the values that only they
    /// name.
    fn compact(&mut self, log: LogId, revision: u64) -> Result<(), Fault> {
        let keep_from = (revision + 1).saturating_sub(self.limits.of(log).max(1));
        let floor = self.head.floor(log);
        let next = keep_from.min(floor + COMPACT_MAX).max(floor);
        for revision in floor..next {
            let (record, parts) = self.record(log, revision)?;
            for version in record.steps.iter().filter_map(|step| step.before) {
                self.drop_blob(version.hash)?;
            }
            for part in 0..parts {
                self.set(layout::commit_key(log, revision, part), None)?;
            }
        }
        self.head.set_floor(log, next);
        Ok(())
    }

    /// A commit of the history, and in how many parts it stands.
    fn record(&self, log: LogId, revision: u64) -> Result<(Record, u32), Fault> {
        let (mut payload, mut parts) = (Vec::new(), 0);
        while let Some(bytes) = self.get(&layout::commit_key(log, revision, parts))? {
            payload.extend(bytes);
            parts += 1;
        }
        Ok((Record::decode(payload.into()).ok_or(Fault::Content("commit"))?, parts))
    }

    /// A value moves from the head to the history, and is dropped with it, so only
    /// a new one counts here.
    fn use_blob(&mut self, hash: BlobHash, value: &[u8]) -> Result<(), Fault> {
        let blob = match self.blob(hash)? {
            Some(blob) => Blob { uses: blob.uses + 1, ..blob },
            None => {
                for (part, bytes) in (0..).zip(value.chunks(layout::PART_BYTES)) {
                    self.set(layout::part_key(hash, part), Some(bytes.to_vec()))?;
                }
                Blob { uses: 1, bytes: value.len() as u64 }
            }
        };
        self.set(layout::blob_key(hash), Some(blob.to_bytes()))
    }

    fn drop_blob(&mut self, hash: BlobHash) -> Result<(), Fault> {
        let blob = self.blob(hash)?.ok_or(Fault::Content("value missing"))?;
        if blob.uses > 1 {
            return self.set(layout::blob_key(hash), Some(Blob { uses: blob.uses - 1, ..blob }.to_bytes()));
        }
        for part in 0..layout::parts(blob.bytes) {
            self.set(layout::part_key(hash, part), None)?;
        }
        self.set(layout::blob_key(hash), None)
    }

    fn blob(&self, hash: BlobHash) -> Result<Option<Blob>, Fault> {
        let Some(bytes) = self.get(&layout::blob_key(hash))? else { return Ok(None) };
        Blob::from_bytes(&bytes).map(Some).ok_or(Fault::Content("blob"))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        if let Some(value) = self.pending.get(key) {
            return Ok(value.clone());
        }
        let Some(sealed) = self.db.get(key)? else { return Ok(None) };
        Ok(Some(layout::open(&sealed).ok_or(Fault::Content("checksum"))?.to_vec()))
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), Fault> {
        if let Some(old) = self.get(&key)? {
            self.head.digest.toggle(&key, &old, false);
        }
        if let Some(new) = &value {
            self.head.digest.toggle(&key, new, true);
        }
        self.pending.insert(key, value);
        Ok(())
    }
}
