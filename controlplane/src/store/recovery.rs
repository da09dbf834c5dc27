//! Opening: sidecar, journal, snapshots and index are compared, and what can be
//! rebuilt is rebuilt from what cannot.
//!
//! | found | done |
//! |---|---|
//! | index at the end of the journal | served |
//! | index behind | the rest is replayed |
//! | index empty, damaged, of another history, or sled panics | moved aside, rebuilt |
//! | journal ends in what was never acknowledged | cut |
//! | journal damaged before that, missing, or behind the index | refused |
//!
//! Refusing has one way out, which the operator must ask for: [`OnDamage::Salvage`].

use std::fs;
use std::path::{Path, PathBuf};

use tracing::{info, warn};
use uuid::Uuid;

use super::index::{Fault, Index, Limits, Replay, contained};
use super::journal::Journal;
use super::record::Position;
use super::segment::{self, Segment};
use super::sidecar::{self, Acknowledged, Sidecar};
use super::snapshot::{self, Snapshot};
use super::survey::{self, Damage, Known, REMEDY, Stopped, Survey};
use super::{Error, LogId, State, files, journal};

/// Rounds of salvage: each sets at least one file aside.
const SALVAGE_ROUNDS: usize = 64;

/// What to do where acknowledged commits may be lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDamage {
    /// Refuse to open, and say where the damage is.
    #[default]
    Refuse,
    /// Go on with the longest history that can be proven, from the index or from
    /// the journal. Damaged files are set aside, not removed.
    Salvage,
}

/// All parts of the store at one position.
pub struct Opened {
    pub store: Uuid,
    pub journal: Journal,
    pub sidecar: Sidecar,
    pub index: Index,
    pub states: [State; 2],
    /// Where the newest snapshot is.
    pub snapshot: Position,
    /// Bytes in the journal after it, about.
    pub journal_bytes: u64,
}

pub fn index_dir(store_dir: &Path) -> PathBuf {
    store_dir.join("sled")
}

/// Opens the store in `dir`, whose lock the caller holds.
pub fn open(dir: &Path, limits: Limits, on_damage: OnDamage, segment_bytes: u64) -> Result<Opened, Error> {
    for wanted in [journal::dir(dir), snapshot::dir(dir)] {
        files::create_dir(&wanted).map_err(|error| files::failed("creating", &wanted, error))?;
    }
    let head = sidecar::read(dir).map_err(|error| files::failed("reading", &dir.join("HEAD"), error))?;
    let snapshots = list_snapshots(dir, head.store)?;
    let index = match Index::open(&index_dir(dir), limits) {
        // What is there may be sound: nothing is moved aside for want of space.
        Err(full) if full.is_disk_full() => return Err(full.into()),
        index => index,
    };
    let known = Known {
        base: snapshots.first().map_or(Position::START, |snapshot| snapshot.head.position),
        acknowledged: head.acknowledged,
        store: head.store.or(snapshots.first().map(|snapshot| snapshot.store)),
        index: index.as_ref().ok().map(Index::position),
    };
    let mut survey = survey_or_salvage(dir, known, on_damage)?;
    let store = survey.store.unwrap_or_else(Uuid::new_v4);
    if let Some(reason) = survey.cut {
        warn!(reason, commits = survey.end.sequence(), "end of the journal was never acknowledged, cut");
    }

    let verdict = match &index {
        Ok(index) => judge_position(index.position(), &survey),
        Err(fault) => Verdict::Rebuild(fault.text()),
    };
    if let (Verdict::Ahead, Ok(index)) = (&verdict, &index) {
        match on_damage {
            OnDamage::Salvage => adopt(dir, store, index, &mut survey)?,
            OnDamage::Refuse => return Err(ahead(dir, index, &survey)),
        }
    }
    let journal = open_journal(dir, store, &survey, segment_bytes)?;
    let mut index = match (verdict, index) {
        (Verdict::Serve | Verdict::Replay | Verdict::Ahead, Ok(index)) => index,
        (verdict, index) => {
            drop(index);
            warn!(reason = verdict.reason(), "index cannot be used, rebuilding it");
            rebuild(dir, &snapshots, survey.end, limits)?
        }
    };

    contained(|| replay(dir, &mut index, survey.end))?;
    if index.position() != survey.end {
        let reason = "it did not reach the end of the journal".to_owned();
        return Err(Error::Index { reason });
    }
    // Only now: what HEAD promises must be in the journal and synced.
    let sidecar = Sidecar::create(dir, store, survey.end)
        .map_err(|error| files::failed("writing", &dir.join("HEAD"), error))?;
    let states = contained(|| Ok([index.state(LogId::Config)?, index.state(LogId::Catalog)?]))?;
    let snapshot = snapshots.first().map_or(Position::START, |snapshot| snapshot.head.position);
    Ok(Opened { store, journal, sidecar, index, states, snapshot, journal_bytes: survey.bytes })
}

fn list_snapshots(dir: &Path, store: Option<Uuid>) -> Result<Vec<Snapshot>, Error> {
    let path = snapshot::dir(dir);
    let listed = snapshot::list(dir).map_err(|error| files::failed("listing", &path, error))?;
    let (sound, damaged) = listed;
    for path in damaged {
        warn!(path = %path.display(), "snapshot is damaged, not used");
    }
    let store = store.or(sound.first().map(|snapshot| snapshot.store));
    if let Some(foreign) = sound.iter().find(|snapshot| Some(snapshot.store) != store) {
        let (path, remedy) = (foreign.path.clone(), "move it away".to_owned());
        return Err(Error::Damaged {
            path,
            offset: 8,
            reason: "it belongs to another store".to_owned(),
            remedy,
        });
    }
    Ok(sound)
}

/// Opens the journal for writing, without what was never acknowledged.
fn open_journal(dir: &Path, store: Uuid, survey: &Survey, segment_bytes: u64) -> Result<Journal, Error> {
    match &survey.tail {
        Some((path, bytes)) => Journal::resume(dir, store, path.clone(), *bytes, survey.end, segment_bytes),
        None => Journal::start(dir, store, survey.end, segment_bytes),
    }
}

/// What the index is good for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Serve,
    Replay,
    /// It holds commits that the journal does not.
    Ahead,
    Rebuild(String),
}

impl Verdict {
    fn reason(&self) -> &str {
        match self {
            Verdict::Rebuild(reason) => reason,
            _ => "it was not opened",
        }
    }
}

fn judge_position(at: Position, survey: &Survey) -> Verdict {
    let end = survey.end;
    match survey.seen.get(&at.sequence()) {
        _ if at == end => Verdict::Serve,
        _ if at.sequence() > end.sequence() => Verdict::Ahead,
        Some(same) if *same == at => Verdict::Replay,
        _ if at == Position::START => Verdict::Rebuild("it is empty".to_owned()),
        Some(_) => Verdict::Rebuild("it is of another history than the journal".to_owned()),
        None => Verdict::Rebuild("it is older than the newest snapshot".to_owned()),
    }
}

fn ahead(dir: &Path, index: &Index, survey: &Survey) -> Error {
    let (path, offset) = survey.tail.clone().unwrap_or((journal::dir(dir), 0));
    let (end, ahead) = (survey.end.sequence(), index.position().sequence());
    let reason = format!("the journal ends at commit {end}, but the index holds {ahead}");
    Error::Damaged { path, offset, reason, remedy: REMEDY.to_owned() }
}

/// Applies what the journal holds after the index, up to `end`.
fn replay(dir: &Path, index: &mut Index, end: Position) -> Result<(), Fault> {
    let from = index.position();
    if from == end {
        return Ok(());
    }
    let segments = files::numbered(&journal::dir(dir), segment::EXTENSION)?;
    let first = segments.iter().rposition(|(number, _)| *number <= from.sequence() + 1);
    let first = first.ok_or(Fault::Content("journal starts later"))?;
    let mut replay = Replay::new(index);
    for (_, path) in &segments[first..] {
        let segment = Segment::read(path)?;
        match segment.start {
            Some(_) => _ = segment.walk(|position, record| replay.add(position, record))?,
            None => return Err(Fault::Content("journal header")),
        }
    }
    replay.finish()?;
    info!(from = from.sequence(), to = end.sequence(), "index has caught up with the journal");
    Ok(())
}

/// Makes a new index from the newest snapshot that is sound, else from the
/// whole journal. The old one is moved aside.
pub fn rebuild(dir: &Path, snapshots: &[Snapshot], end: Position, limits: Limits) -> Result<Index, Error> {
    let path = index_dir(dir);
    let mut reasons = Vec::new();
    for base in snapshots.iter().map(Some).chain([None]) {
        let marker = path.with_extension("opening");
        let cleared = match (path.exists(), reasons.is_empty()) {
            (true, true) => files::move_aside(&path, dir, "store.corrupt").map(|aside| {
                warn!(path = %aside.display(), "old index was moved aside");
            }),
            (true, false) => fs::remove_dir_all(&path),
            (false, _) => Ok(()),
        };
        cleared.map_err(|error| files::failed("clearing", &path, error))?;
        let _ = fs::remove_file(&marker);
        metrics::counter!("mt_store_rebuilds_total").increment(1);
        match contained(|| rebuild_from(dir, base, end, limits)) {
            Ok(index) => return Ok(index),
            Err(fault) => {
                let from = base.map_or("the start".to_owned(), |base| base.path.display().to_string());
                if fault.is_disk_full() {
                    return Err(fault.into());
                }
                reasons.push(format!("from {from}: {}", fault.text()));
            }
        }
    }
    let (path, reason) =
        (snapshot::dir(dir), format!("the index cannot be rebuilt ({})", reasons.join("; ")));
    Err(Error::Damaged { path, offset: 0, reason, remedy: REMEDY.to_owned() })
}

fn rebuild_from(dir: &Path, base: Option<&Snapshot>, end: Position, limits: Limits) -> Result<Index, Fault> {
    let mut index = Index::open(&index_dir(dir), limits)?;
    if let Some(base) = base {
        base.restore(&mut index)?;
    }
    replay(dir, &mut index, end)?;
    if index.position() != end {
        return Err(Fault::Content("it ends before the journal"));
    }
    index.flush()?;
    Ok(index)
}

fn survey_or_salvage(dir: &Path, mut known: Known, on_damage: OnDamage) -> Result<Survey, Error> {
    for _ in 0..SALVAGE_ROUNDS {
        match survey::survey(dir, &known) {
            Ok(survey) => return Ok(survey),
            Err(Stopped::Failed(error)) => return Err(error),
            Err(Stopped::Damage(damage)) if on_damage == OnDamage::Refuse => return Err(damage.into()),
            Err(Stopped::Damage(damage)) => {
                warn!(path = %damage.path.display(), offset = damage.offset, reason = damage.reason, "salvaging");
                set_aside(&damage)?;
                known.acknowledged = Acknowledged::AtLeast(Position::START);
            }
        }
    }
    let (path, reason) = (journal::dir(dir), "it cannot be salvaged".to_owned());
    Err(Error::Damaged { path, offset: 0, reason, remedy: "restore the directory from a backup".to_owned() })
}

/// Keeps a copy of what is damaged, and the sound part in place.
fn set_aside(damage: &Damage) -> Result<(), Error> {
    for path in &damage.from {
        let copy = path.with_extension(format!("damaged-{}", Uuid::now_v7()));
        let sound = (*path == damage.path).then_some(damage.offset).filter(|bytes| *bytes > 0);
        let done = match sound {
            Some(bytes) => fs::copy(path, &copy).and_then(|_| {
                let file = fs::OpenOptions::new().write(true).open(path)?;
                file.set_len(bytes)?;
                file.sync_all()
            }),
            None => fs::rename(path, &copy),
        };
        done.map_err(|error| files::failed("setting aside", path, error))?;
    }
    Ok(())
}

/// Takes the index for the truth where the journal has lost what it holds: a
/// snapshot of it replaces the journal.
fn adopt(dir: &Path, store: Uuid, index: &Index, survey: &mut Survey) -> Result<(), Error> {
    contained(|| snapshot::write(dir, store, index))?;
    let journal = journal::dir(dir);
    let listed = files::numbered(&journal, segment::EXTENSION);
    let segments = listed.map_err(|error| files::failed("listing", &journal, error))?;
    let from = segments.into_iter().map(|(_, path)| path).collect();
    set_aside(&Damage { path: journal, offset: 0, reason: String::new(), from })?;
    survey.end = index.position();
    survey.tail = None;
    warn!(commits = survey.end.sequence(), "journal was replaced by what the index holds");
    Ok(())
}

/// Opens the index again after a fault while the store runs, and brings it to
/// `end`; makes a new one where that fails.
pub fn reopen_index(dir: &Path, limits: Limits, end: Position) -> Result<Index, Error> {
    let reopened = Index::open(&index_dir(dir), limits).and_then(|mut index| {
        contained(|| replay(dir, &mut index, end))?;
        (index.position() == end).then_some(index).ok_or(Fault::Content("it ends elsewhere than the journal"))
    });
    match reopened {
        Err(fault) if !fault.is_disk_full() => {
            warn!(reason = fault.text(), "index cannot be used, rebuilding it");
            rebuild(dir, &list_snapshots(dir, None)?, end, limits)
        }
        reopened => Ok(reopened?),
    }
}
