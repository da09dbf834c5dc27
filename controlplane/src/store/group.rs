//! A group of commits while it is being put together: what each becomes if all
//! before it stand. Pure: nothing is written, and no clock is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, PAYLOAD_BYTES_MAX, Position, Record, Step, Version};
use super::{
    BlobHash, COMMIT_BYTES_MAX, COMMIT_WRITES_MAX, Commit, Error, KEY_BYTES_MAX, LogId, NOTE_BYTES_MAX, Note,
    State, VALUE_BYTES_MAX, Write,
};

/// See the file's comment.
pub struct Group {
    states: [Arc<State>; 2],
    /// What the group has changed so far.
    changed: HashMap<(LogId, String), Option<Version>>,
    position: Position,
    records: Vec<(Position, Record)>,
    frames: Vec<u8>,
}

/// What a group comes to.
pub struct Drafted {
    /// After the last record.
    pub position: Position,
    pub records: Vec<(Position, Record)>,
    /// The records as the journal takes them.
    pub frames: Vec<u8>,
}

impl Group {
    pub fn new(states: [Arc<State>; 2], position: Position) -> Self {
        Self { states, changed: HashMap::new(), position, records: Vec::new(), frames: Vec::new() }
    }

    /// Takes one more commit, or says why it is refused; then the group is as
    /// before.
    pub fn add(
        &mut self,
        log: LogId,
        expected_head: Option<u64>,
        writes: Vec<Write>,
        note: Note,
        time_ms: u64,
    ) -> Result<Arc<Commit>, Error> {
        let head = self.position.head(log);
        if let Some(expected) = expected_head.filter(|expected| *expected != head) {
            return Err(Error::HeadMoved { expected, head });
        }
        let writes = check(writes, &note)?;
        let record = Record {
            log,
            revision: head + 1,
            time_ms,
            author: note.author,
            message: note.message,
            steps: self.steps(log, writes),
            previous: self.position.chain(),
        };
        let payload = record.encode();
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(invalid(format!("it is above {PAYLOAD_BYTES_MAX} bytes")));
        }
        let position = self.position.after(&record, &payload).expect("the record was made for this position");
        for step in &record.steps {
            let version = step.after.map(|hash| Version { hash, revision: record.revision });
            self.changed.insert((log, step.key.clone()), version);
        }
        self.frames.extend(record::frame_header(&payload));
        self.frames.extend(payload);
        let commit = Arc::new(record.to_commit());
        self.position = position;
        self.records.push((position, record));
        Ok(commit)
    }

    /// Lets go of the states, so that they can be changed in place.
    pub fn finish(self) -> Drafted {
        let Self { position, records, frames, .. } = self;
        Drafted { position, records, frames }
    }

    fn steps(&self, log: LogId, writes: BTreeMap<String, Option<Bytes>>) -> Vec<Step> {
        let step = |(key, value): (String, Option<Bytes>)| {
            let before = self.version(log, &key);
            let after = value.as_deref().map(BlobHash::of);
            // A copy, lest a small value keep the large message alive that it came in.
            let value = value.map(|value| Bytes::copy_from_slice(&value));
            (before.map(|version| version.hash) != after).then_some(Step { key, before, after, value })
        };
        writes.into_iter().filter_map(step).collect()
    }

    fn version(&self, log: LogId, key: &str) -> Option<Version> {
        if let Some(version) = self.changed.get(&(log, key.to_owned())) {
            return *version;
        }
        let entry = self.states[log as usize].entries.get(key)?;
        Some(Version { hash: entry.hash, revision: entry.revision })
    }
}

fn check(writes: Vec<Write>, note: &Note) -> Result<BTreeMap<String, Option<Bytes>>, Error> {
    if writes.len() > COMMIT_WRITES_MAX {
        return Err(invalid(format!("it has {} writes, the limit is {COMMIT_WRITES_MAX}", writes.len())));
    }
    if note.author.len() + note.message.len() > NOTE_BYTES_MAX {
        return Err(invalid(format!("its author and message are above {NOTE_BYTES_MAX} bytes")));
    }
    let (mut checked, mut bytes) = (BTreeMap::new(), 0);
    for Write { key, value } in writes {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(invalid(format!(
                "a key has {} bytes, the limits are 1 and {KEY_BYTES_MAX}",
                key.len()
            )));
        }
        let length = value.as_ref().map_or(0, Bytes::len);
        if length > VALUE_BYTES_MAX {
            return Err(invalid(format!(
                "the value of {key:?} has {length} bytes, the limit is {VALUE_BYTES_MAX}"
            )));
        }
        bytes += key.len() + length;
        if bytes > COMMIT_BYTES_MAX {
            return Err(invalid(format!("its keys and values are above {COMMIT_BYTES_MAX} bytes")));
        }
        if checked.contains_key(&key) {
            return Err(invalid(format!("key {key:?} is written twice")));
        }
        checked.insert(key, value);
    }
    Ok(checked)
}

fn invalid(reason: String) -> Error {
    Error::Invalid { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        Group::new([Arc::default(), Arc::default()], Position::START)
    }

    fn add(group: &mut Group, head: Option<u64>, writes: Vec<Write>) -> Result<Arc<Commit>, Error> {
        group.add(LogId::Config, head, writes, Note::default(), 0)
    }

    #[test]
    fn a_commit_sees_those_before_it_in_the_group() {
        let mut group = group();
        add(&mut group, Some(0), vec![Write::put("k", "1")]).unwrap();
        let second = add(&mut group, Some(1), vec![Write::put("k", "2"), Write::put("l", "3")]).unwrap();
        assert_eq!(second.changes[0].before, Some(BlobHash::of(b"1")));
        assert_eq!(second.changes[1].before, None);
        let third = add(&mut group, None, vec![Write::delete("k"), Write::put("l", "3")]).unwrap();
        assert_eq!((third.revision, third.changes.len(), third.changes[0].after), (3, 1, None));
        assert_eq!(group.records[2].1.steps[0].before.unwrap().revision, 2);
    }

    #[test]
    fn the_logs_are_numbered_apart() {
        let mut group = group();
        add(&mut group, None, vec![]).unwrap();
        let other = group.add(LogId::Catalog, Some(0), vec![], Note::default(), 0).unwrap();
        assert_eq!((other.revision, group.position.sequence()), (1, 2));
    }

    #[test]
    fn what_is_refused_leaves_no_trace() {
        let mut group = group();
        let refused = [
            vec![Write::put("k", "1"), Write::delete("k")],
            vec![Write::put("", "1")],
            vec![Write::put("k".repeat(KEY_BYTES_MAX + 1), "1")],
            vec![Write::put("k", vec![0; VALUE_BYTES_MAX + 1])],
            vec![Write::delete("k"); COMMIT_WRITES_MAX + 1],
        ];
        for writes in refused {
            assert!(matches!(add(&mut group, None, writes), Err(Error::Invalid { .. })));
        }
        assert!(matches!(add(&mut group, Some(1), vec![]), Err(Error::HeadMoved { expected: 1, head: 0 })));
        assert_eq!((group.position, group.records.len(), group.frames.len()), (Position::START, 0, 0));
    }

    #[test]
    fn a_write_that_changes_nothing_is_no_change() {
        let mut group = group();
        add(&mut group, None, vec![Write::put("k", "1")]).unwrap();
        let same = add(&mut group, None, vec![Write::put("k", "1"), Write::delete("none")]).unwrap();
        assert_eq!((same.revision, same.changes.len()), (2, 0));
    }
}
