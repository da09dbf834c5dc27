//! The embedded engine: a journal, and sled as the index over it
//! (docs/adr/0002-journal-before-sled.md).
//!
//! Callers see the trait. Files and sled are touched on the writer's thread or
//! on blocking threads, never on an async worker.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use super::options::Options;
pub use super::recovery::OnDamage;
use super::shared::Shared;
use super::writer::{Request, Writer};
use super::{Commit, Error, HISTORY_PAGE_MAX, LogId, Note, State, Store, Write, files, recovery};

/// A store in a directory of this machine, held by this process alone.
pub struct SledStore {
    shared: Arc<Shared>,
    waiting_commits: usize,
    /// `None` once closed.
    inbox: Mutex<Option<SyncSender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SledStore {
    /// Opens or creates the store in `dir`. Blocks while it reads and compares all
    /// that is there: call it on a blocking thread.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let started = Instant::now();
        files::create_dir(dir).map_err(|error| files::failed("creating", dir, error))?;
        let lock = files::lock(dir)?;
        let opened = recovery::open(dir, options.limits(), options.on_damage, options.segment_bytes)?;
        let position = opened.journal.position();
        let waiting_commits = options.waiting_commits.max(1);
        let (sender, receiver) = sync_channel(waiting_commits);
        let (writer, shared) = Writer::new(dir.to_owned(), options, opened, lock);
        let spawned = thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(receiver));
        let thread = spawned.map_err(|error| files::failed("starting the writer of", dir, error))?;
        metrics::histogram!("mt_store_open_seconds").record(started.elapsed().as_secs_f64());
        tracing::info!(
            dir = %dir.display(),
            config = position.head(LogId::Config),
            catalog = position.head(LogId::Catalog),
            "store is open"
        );
        let (inbox, writer) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self { shared, waiting_commits, inbox, writer })
    }

    /// Takes no more commits, finishes those that wait, and gives the directory
    /// back. Reading the head states still works. Dropping the future leaves the
    /// closing to a blocking thread.
    pub async fn close(&self) {
        self.inbox.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    fn send(&self, request: Request) -> Result<(), Error> {
        let inbox = self.inbox.lock();
        match inbox.as_ref().ok_or(Error::Closed)?.try_send(request) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(request)) => {
                let log = request.log.as_str();
                metrics::counter!("mt_store_refused_total", "log" => log, "reason" => "overloaded")
                    .increment(1);
                Err(Error::Overloaded { limit: self.waiting_commits })
            }
            Err(TrySendError::Disconnected(_)) => Err(Error::Closed),
        }
    }
}

/// Waits for the writer, so that the directory is free when the store is gone.
/// Async code calls [`SledStore::close`] first; then there is nothing to wait for.
impl Drop for SledStore {
    fn drop(&mut self) {
        self.inbox.get_mut().take();
        if let Some(writer) = self.writer.get_mut().take() {
            let _ = writer.join();
        }
    }
}

impl Store for SledStore {
    fn head(&self, log: LogId) -> u64 {
        self.shared.head(log)
    }

    fn commit(
        &self,
        log: LogId,
        expected_head: Option<u64>,
        writes: Vec<Write>,
        note: Note,
    ) -> BoxFuture<'_, Result<Arc<Commit>, Error>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.send(Request { log, expected_head, writes, note, queued: Instant::now(), reply })?;
            answer.await.unwrap_or(Err(Error::Closed))
        })
    }

    fn state(&self, log: LogId, revision: Option<u64>) -> BoxFuture<'_, Result<Arc<State>, Error>> {
        Box::pin(async move {
            let Some(revision) = revision else { return Ok(self.shared.state(log)) };
            let shared = self.shared.clone();
            blocking(move || shared.state_at(log, revision)).await
        })
    }

    fn history(
        &self,
        log: LogId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Arc<Commit>>, Error>> {
        Box::pin(async move {
            let shared = self.shared.clone();
            blocking(move || shared.history(log, before, limit.min(HISTORY_PAGE_MAX))).await
        })
    }

    fn watch(&self, log: LogId) -> watch::Receiver<u64> {
        self.shared.watch(log)
    }
}

/// An error of the runtime means that it is shutting down.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Closed))
}
