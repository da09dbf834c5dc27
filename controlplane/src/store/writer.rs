//! The one thread that changes the store: it takes waiting commits as a group,
//! journals them with one sync, and only then lets anyone see them.
//!
//! The order is the promise: journal, `HEAD`, index, memory, acknowledgement.
//! What fails in the journal is refused, the whole group. After it the group
//! stands, and what has failed is put right before the next one is taken.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::group::{Drafted, Group};
use super::index::{Index, contained};
use super::journal::Journal;
use super::options::Options;
use super::record::{Position, Record};
use super::recovery::{self, Opened};
use super::shared::Shared;
use super::sidecar::Sidecar;
use super::{Commit, Error, LogId, Note, Write, files, snapshot};

/// Most commits that share one sync.
const GROUP_COMMITS_MAX: usize = 256;
/// A group takes no further commit beyond this.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Without a commit for so long, sled's buffers are written out.
const IDLE: Duration = Duration::from_secs(1);
/// After a failed snapshot so many commits pass before the next attempt.
const SNAPSHOT_RETRY_COMMITS: u64 = 500;

/// A commit that waits for its turn.
pub struct Request {
    pub log: LogId,
    pub expected_head: Option<u64>,
    pub writes: Vec<Write>,
    pub note: Note,
    pub queued: Instant,
    pub reply: oneshot::Sender<Result<Arc<Commit>, Error>>,
}

impl Request {
    fn bytes(&self) -> usize {
        self.writes
            .iter()
            .map(|write| write.key.len() + write.value.as_ref().map_or(0, |value| value.len()))
            .sum()
    }
}

pub struct Writer {
    dir: PathBuf,
    options: Options,
    store: Uuid,
    shared: Arc<Shared>,
    /// `None` after a fault, until it is opened again.
    index: Option<Index>,
    journal: Journal,
    sidecar: Sidecar,
    /// Where `HEAD` is.
    acknowledged: Position,
    unflushed: bool,
    journal_bytes: u64,
    /// The sequence of the newest snapshot.
    snapshot: u64,
    /// After a failed snapshot: none is tried before this sequence.
    snapshot_not_before: u64,
    /// Last, so that everything is closed before another process may open it.
    _lock: File,
}

impl Writer {
    pub fn new(dir: PathBuf, options: Options, opened: Opened, lock: File) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared::new(opened.states, opened.index.reader()));
        let writer = Self {
            dir,
            store: opened.store,
            shared: shared.clone(),
            index: Some(opened.index),
            acknowledged: opened.journal.position(),
            journal: opened.journal,
            sidecar: opened.sidecar,
            unflushed: true,
            journal_bytes: opened.journal_bytes,
            snapshot: opened.snapshot.sequence(),
            snapshot_not_before: 0,
            options,
            _lock: lock,
        };
        (writer, shared)
    }

    /// Runs until every sender is gone, and commits what is still waiting.
    pub fn run(mut self, inbox: Receiver<Request>) {
        loop {
            match inbox.recv_timeout(IDLE) {
                Ok(first) => {
                    let (mut bytes, mut requests) = (first.bytes(), vec![first]);
                    while bytes < GROUP_BYTES_MAX && requests.len() < GROUP_COMMITS_MAX {
                        let Ok(request) = inbox.try_recv() else { break };
                        bytes += request.bytes();
                        requests.push(request);
                    }
                    self.commit(requests);
                    self.snapshot_if_due();
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush();
        self.drop_index();
    }

    fn commit(&mut self, requests: Vec<Request>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let time_ms = u64::try_from(now).unwrap_or(u64::MAX);
        let mut group = Group::new(LogId::ALL.map(|log| self.shared.state(log)), self.journal.position());
        let mut answers = Vec::with_capacity(requests.len());
        for Request { log, expected_head, writes, note, queued, reply } in requests {
            let outcome = group.add(log, expected_head, writes, note, time_ms);
            answers.push((log, expected_head, queued, reply, outcome));
        }
        let Drafted { position, records, frames } = group.finish();
        let failed = match records.is_empty() {
            true => None,
            false => self.write(&frames, position).err(),
        };
        if failed.is_none() {
            self.index(&records);
            self.shared.publish(records);
        }
        for (log, expected, queued, reply, outcome) in answers {
            let outcome = match &failed {
                Some(error) => Err(self.refusal(log, expected, error)),
                None => outcome,
            };
            count(log, queued, &outcome);
            // Whoever asked may have gone; the commit stands.
            let _ = reply.send(outcome);
        }
    }

    /// Makes the group durable, or leaves nothing of it.
    fn write(&mut self, frames: &[u8], position: Position) -> Result<(), Error> {
        self.repair()?;
        let started = Instant::now();
        self.journal.append(frames, position)?;
        if let Err(error) = self.sidecar.acknowledge(position) {
            // It is in the journal, so it is committed. HEAD is written again
            // before the next group is taken.
            error!(%error, "HEAD cannot be written");
        } else {
            self.acknowledged = position;
        }
        metrics::histogram!("mt_store_sync_seconds").record(started.elapsed().as_secs_f64());
        self.journal_bytes += frames.len() as u64;
        metrics::gauge!("mt_store_journal_bytes").set(self.journal_bytes as f64);
        Ok(())
    }

    /// Puts right what an earlier failure left behind.
    fn repair(&mut self) -> Result<(), Error> {
        self.journal.repair()?;
        let position = self.journal.position();
        if self.acknowledged != position {
            let path = self.dir.join("HEAD");
            self.sidecar.acknowledge(position).map_err(|error| files::failed("writing", &path, error))?;
            self.acknowledged = position;
        }
        if self.index.is_none() {
            let index = recovery::reopen_index(&self.dir, self.options.limits(), position)?;
            self.shared.set_reader(Some(index.reader()));
            self.index = Some(index);
            info!("index is in service again");
        }
        Ok(())
    }

    /// What one request of a failed group is told: those before it did not happen
    /// either, so only the real head counts.
    fn refusal(&self, log: LogId, expected: Option<u64>, error: &Error) -> Error {
        let head = self.shared.head(log);
        match expected {
            Some(expected) if expected != head => Error::HeadMoved { expected, head },
            _ => error.clone(),
        }
    }

    fn index(&mut self, records: &[(Position, Record)]) {
        let Some(index) = &mut self.index else { return };
        if records.is_empty() {
            return;
        }
        self.unflushed = true;
        if let Err(fault) = contained(|| index.apply(records)) {
            error!(error = fault.text(), "index failed, opening it again before the next commit");
            metrics::counter!("mt_store_index_faults_total").increment(1);
            self.drop_index();
        }
    }

    fn drop_index(&mut self) {
        self.shared.set_reader(None);
        let index = self.index.take();
        // sled flushes when it is dropped, and may panic if it is damaged.
        let _ = contained(move || {
            drop(index);
            Ok(())
        });
    }

    fn flush(&mut self) {
        let Some(index) = self.index.as_ref().filter(|_| self.unflushed) else { return };
        self.unflushed = false;
        if let Err(fault) = contained(|| index.flush()) {
            error!(error = fault.text(), "index failed, opening it again before the next commit");
            metrics::counter!("mt_store_index_faults_total").increment(1);
            self.drop_index();
        }
    }

    fn snapshot_if_due(&mut self) {
        let sequence = self.journal.position().sequence();
        let due = sequence >= self.snapshot + self.options.snapshot_commits
            || self.journal_bytes >= self.options.snapshot_bytes;
        if !due || sequence < self.snapshot_not_before {
            return;
        }
        match self.write_snapshot() {
            Ok(()) => {
                self.snapshot = sequence;
                self.journal_bytes = 0;
                self.flush();
            }
            Err(error) => {
                warn!(error = chain(&error), "snapshot failed, the journal grows until the next one");
                metrics::counter!("mt_store_snapshot_failures_total").increment(1);
                self.snapshot_not_before = sequence + SNAPSHOT_RETRY_COMMITS;
                if matches!(error, Error::Index { .. }) {
                    self.drop_index();
                }
            }
        }
    }

    fn write_snapshot(&mut self) -> Result<(), Error> {
        let Some(index) = &self.index else {
            return Err(Error::Index { reason: "it is being repaired".to_owned() });
        };
        let started = Instant::now();
        contained(|| snapshot::write(&self.dir, self.store, index))?;
        metrics::gauge!("mt_store_index_bytes").set(index.size_on_disk() as f64);
        self.journal.rotate()?;
        let failed = |error| files::failed("pruning", &self.dir, error);
        let needed_from = snapshot::prune(&self.dir).map_err(failed)?;
        let left_bytes = self.journal.prune(needed_from).map_err(failed)?;
        metrics::gauge!("mt_store_segments_bytes").set(left_bytes as f64);
        metrics::counter!("mt_store_snapshots_total").increment(1);
        metrics::histogram!("mt_store_snapshot_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// The error with its causes, for a log line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn count(log: LogId, queued: Instant, outcome: &Result<Arc<Commit>, Error>) {
    match outcome {
        Ok(_) => {
            metrics::counter!("mt_store_commits_total", "log" => log.as_str()).increment(1);
            metrics::histogram!("mt_store_commit_seconds", "log" => log.as_str())
                .record(queued.elapsed().as_secs_f64());
        }
        Err(error) => {
            let reason = match error {
                Error::HeadMoved { .. } => "head_moved",
                Error::Invalid { .. } => "invalid",
                Error::DiskFull { .. } => "disk_full",
                _ => "failed",
            };
            metrics::counter!("mt_store_refused_total", "log" => log.as_str(), "reason" => reason)
                .increment(1);
        }
    }
}
