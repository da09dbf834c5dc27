//! Reads the journal at open and says where it ends, or why it must not be used.
//!
//! The hard question is the unreadable end of the last segment. A crash leaves
//! one, and then it was never acknowledged and goes; damage leaves the same, and
//! then acknowledged commits are behind it and nobody may go on. `HEAD` tells
//! the two apart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::record::Position;
use super::segment::{self, Segment};
use super::sidecar::Acknowledged;
use super::{Error, files, journal};

/// What an error tells the operator to do.
pub const REMEDY: &str = "restore the directory from a backup, or start mt-controlplane once with --salvage-store, \
     which keeps what can be proven and gives up the rest";

/// A journal that can be continued.
#[derive(Debug)]
pub struct Survey {
    pub end: Position,
    /// The segment to go on with, and where its sound part ends; `None`: start
    /// one at `end`.
    pub tail: Option<(PathBuf, u64)>,
    /// Why an unacknowledged end is to be cut.
    pub cut: Option<&'static str>,
    pub store: Option<Uuid>,
    /// The positions at the sequences that were asked for, where they were seen.
    pub seen: BTreeMap<u64, Position>,
    /// Bytes in the segments that were read.
    pub bytes: u64,
}

/// Acknowledged commits are lost, or the files are not of one history.
#[derive(Debug)]
pub struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    pub reason: String,
    /// The segments from the damaged one on.
    pub from: Vec<PathBuf>,
}

#[derive(Debug)]
pub enum Stopped {
    Damage(Damage),
    Failed(Error),
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        let Damage { path, offset, reason, .. } = damage;
        Error::Damaged { path, offset, reason, remedy: REMEDY.to_owned() }
    }
}

/// What the journal is held against.
pub struct Known {
    /// The newest snapshot, or the start: earlier records are not needed.
    pub base: Position,
    pub acknowledged: Acknowledged,
    pub store: Option<Uuid>,
    /// Where the index is, if it could be opened.
    pub index: Option<Position>,
}

/// What to do about bytes that are no record, at the end of the last segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tail {
    Cut,
    Refuse(&'static str),
}

fn judge_tail(sound: u64, acknowledged: Acknowledged, record_after: impl FnOnce() -> bool) -> Tail {
    match acknowledged {
        _ if acknowledged.position().sequence() > sound => Tail::Refuse("acknowledged commits are behind it"),
        // A group of commits is written at once, so the torn end of a crash may
        // hold a whole record behind a torn one.
        Acknowledged::Exactly(_) => Tail::Cut,
        Acknowledged::AtLeast(_) if record_after() => Tail::Refuse("sound records are behind it"),
        Acknowledged::AtLeast(_) => Tail::Cut,
    }
}

/// Reads the segments from the one that holds `known.base` on.
pub fn survey(store_dir: &Path, known: &Known) -> Result<Survey, Stopped> {
    let dir = journal::dir(store_dir);
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |error| Stopped::Failed(files::failed(doing, &path, error))
    };
    let segments = files::numbered(&dir, segment::EXTENSION).map_err(failed("listing", &dir))?;
    let base = known.base.sequence();
    let mut reading = Reading::new(known);
    let Some(first) = segments.iter().rposition(|(number, _)| *number <= base + 1) else {
        return match segments.first() {
            Some((number, path)) => {
                let reason = format!("commits {} to {} are in no file", base + 1, number - 1);
                Err(reading.damage(path, 0, reason, &segments))
            }
            None => reading.finish(&dir),
        };
    };
    let segments = &segments[first..];
    for (at, (number, path)) in segments.iter().enumerate() {
        let segment = Segment::read(path).map_err(failed("reading", path))?;
        reading.take(&segment, *number, &segments[at..])?;
    }
    reading.finish(&dir)
}

struct Reading<'a> {
    known: &'a Known,
    /// `None` before the first segment.
    end: Option<Position>,
    survey: Survey,
}

impl<'a> Reading<'a> {
    fn new(known: &'a Known) -> Self {
        let survey = Survey {
            end: known.base,
            tail: None,
            cut: None,
            store: known.store,
            seen: BTreeMap::from([(known.base.sequence(), known.base)]),
            bytes: 0,
        };
        Self { known, end: None, survey }
    }

    fn take(&mut self, segment: &Segment, number: u64, rest: &[(u64, PathBuf)]) -> Result<(), Stopped> {
        let (path, last) = (&segment.path, rest.len() == 1);
        let expected = self.end.or((self.known.base.sequence() + 1 == number).then_some(self.known.base));
        let Some((store, start)) = segment.start else {
            return self.take_headless(segment, number, expected, rest);
        };
        if *self.survey.store.get_or_insert(store) != store {
            return Err(self.damage(path, 0, "it belongs to another store".to_owned(), rest));
        }
        if start.sequence() + 1 != number || expected.is_some_and(|expected| expected != start) {
            return Err(self.damage(path, 0, "it does not continue what is before it".to_owned(), rest));
        }
        self.see(start).map_err(|reason| self.damage(path, 0, reason.to_owned(), rest))?;
        let walked = segment.walk(|position, _| self.see(position));
        let sound = walked.map_err(|reason| self.damage(path, 0, reason.to_owned(), rest))?;
        let offset = sound.bytes as u64;
        if let Some(broken) = sound.broken {
            let judged = match last {
                true => judge_tail(sound.position.sequence(), self.known.acknowledged, || {
                    segment.any_record_after(sound.bytes)
                }),
                false => Tail::Refuse("another segment follows"),
            };
            match judged {
                Tail::Cut => self.survey.cut = Some(broken),
                Tail::Refuse(why) => {
                    return Err(self.damage(path, offset, format!("{broken}, and {why}"), rest));
                }
            }
        }
        self.survey.bytes += offset;
        self.survey.tail = Some((path.clone(), offset));
        self.end = Some(sound.position);
        Ok(())
    }

    /// A segment whose header cannot be read: one that was being started, or
    /// damage.
    fn take_headless(
        &mut self,
        segment: &Segment,
        number: u64,
        expected: Option<Position>,
        rest: &[(u64, PathBuf)],
    ) -> Result<(), Stopped> {
        let judged = match expected {
            Some(at) if rest.len() == 1 && at.sequence() + 1 == number => {
                judge_tail(at.sequence(), self.known.acknowledged, || segment.any_record_after(0))
            }
            _ => Tail::Refuse("it is not the newest segment"),
        };
        match judged {
            Tail::Cut => {
                self.survey.cut = Some("a segment was being started");
                self.survey.tail = None;
                self.end = expected;
                Ok(())
            }
            Tail::Refuse(why) => {
                Err(self.damage(&segment.path, 0, format!("its header cannot be read, and {why}"), rest))
            }
        }
    }

    /// Compares a position with all that is known of this sequence.
    fn see(&mut self, position: Position) -> Result<(), &'static str> {
        let sequence = position.sequence();
        let differs = |known: Position| known.sequence() == sequence && known != position;
        if differs(self.known.base) {
            return Err("it is not of the same history as the newest snapshot");
        }
        if differs(self.known.acknowledged.position()) {
            return Err("it is not of the same history as HEAD");
        }
        if self.known.index.is_some_and(|index| index.sequence() == sequence) {
            self.survey.seen.insert(sequence, position);
        }
        Ok(())
    }

    fn finish(mut self, dir: &Path) -> Result<Survey, Stopped> {
        if let Some(end) = self.end.filter(|end| end.sequence() >= self.known.base.sequence()) {
            self.survey.end = end;
        } else {
            // All that was acknowledged may still be in the snapshot.
            self.survey.tail = None;
        }
        let (end, acknowledged) = (self.survey.end.sequence(), self.known.acknowledged.position().sequence());
        if acknowledged > end {
            let (path, offset) = self.survey.tail.clone().unwrap_or((dir.to_owned(), 0));
            let reason =
                format!("the journal ends at commit {end}, but HEAD says {acknowledged} were acknowledged");
            return Err(self.damage(&path, offset, reason, &[]));
        }
        Ok(self.survey)
    }

    fn damage(&self, path: &Path, offset: u64, reason: String, from: &[(u64, PathBuf)]) -> Stopped {
        let from = from.iter().map(|(_, path)| path.clone()).collect();
        Stopped::Damage(Damage { path: path.to_owned(), offset, reason, from })
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::position;
    use super::*;

    #[test]
    fn only_what_nobody_was_promised_is_cut() {
        let exactly = |n| Acknowledged::Exactly(position(n));
        let at_least = |n| Acknowledged::AtLeast(position(n));
        assert_eq!(judge_tail(5, exactly(5), || false), Tail::Cut);
        assert_eq!(judge_tail(5, exactly(5), || true), Tail::Cut);
        assert_eq!(judge_tail(5, exactly(4), || true), Tail::Cut);
        assert_eq!(judge_tail(5, at_least(5), || false), Tail::Cut);
        assert_eq!(judge_tail(5, at_least(0), || true), Tail::Refuse("sound records are behind it"));
        assert_eq!(judge_tail(5, exactly(6), || false), Tail::Refuse("acknowledged commits are behind it"));
        assert_eq!(judge_tail(5, at_least(6), || false), Tail::Refuse("acknowledged commits are behind it"));
    }
}
