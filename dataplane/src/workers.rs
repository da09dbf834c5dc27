//! The threads that calls run on.
//!
//! Each has a runtime of its own. A connection is given to the thread with the
//! fewest and stays there, with everything that it starts: between a client's
//! bytes and its answer nothing moves from one core to another. The first of
//! them is the thread that runs the node. Why no runtime for all of them:
//! docs/adr/0011-a-runtime-for-each-thread.md.
//!
//! Nothing of what is carried is known here.

use std::{
    convert::Infallible,
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the threads may take to drop what is left on them.
const END_MAX: Duration = Duration::from_secs(5);

/// Threads that end with this.
pub struct Workers {
    places: Places,
    stop: DropGuard,
    /// Closed when all of them have ended.
    ended: mpsc::Receiver<Infallible>,
}

/// Where connections can be served.
#[derive(Clone)]
pub struct Places(Arc<[Worker]>);

struct Worker {
    /// None: the runtime that the node runs on.
    runtime: Option<Handle>,
    connections: AtomicUsize,
}

/// One connection's place; dropped with it.
pub struct Place {
    places: Places,
    at: usize,
}

impl Workers {
    /// `count` of them, the one that calls this included.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (alive, ended) = mpsc::channel(1);
        let mut workers = vec![Worker { runtime: None, connections: AtomicUsize::new(0) }];
        let stop_all = stop.clone().drop_guard();
        for number in 1..count.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stopped, alive) = (stop.clone().cancelled_owned(), alive.clone());
            thread::Builder::new().name(format!("mt-worker-{number}")).spawn(move || {
                runtime.block_on(stopped);
                // What blocks cannot be taken back, and must not be waited for.
                runtime.shutdown_background();
                drop(alive);
            })?;
            workers.push(Worker { runtime: Some(handle), connections: AtomicUsize::new(0) });
        }
        Ok(Self { places: Places(workers.into()), stop: stop_all, ended })
    }

    pub fn places(&self) -> Places {
        self.places.clone()
    }

    /// Drops what still runs on the threads, and waits for that.
    pub async fn end(self) {
        let Self { stop, mut ended, .. } = self;
        drop(stop);
        // Nothing is ever sent: the end is what is waited for.
        if timeout(END_MAX, ended.recv()).await.is_err() {
            tracing::warn!("a thread of calls did not end in time");
        }
    }
}

impl Default for Places {
    /// One: the runtime that the node runs on.
    fn default() -> Self {
        Self(Arc::new([Worker { runtime: None, connections: AtomicUsize::new(0) }]))
    }
}

impl Places {
    /// Where the fewest connections are. Only one task may ask, so that no two
    /// connections see the same count.
    pub fn take(&self) -> Place {
        let counts = self.0.iter().map(|worker| worker.connections.load(Ordering::Relaxed));
        let (at, _) = counts.enumerate().min_by_key(|(_, count)| *count).unwrap_or_default();
        self.0[at].connections.fetch_add(1, Ordering::Relaxed);
        Place { places: self.clone(), at }
    }
}

impl Place {
    /// None: the runtime that the node runs on.
    pub fn runtime(&self) -> Option<Handle> {
        self.places.0[self.at].runtime.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0[self.at].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_where_the_fewest_are() {
        let workers = Workers::start(NonZeroUsize::new(3).unwrap()).unwrap();
        let places = workers.places();
        let mut taken: Vec<Place> = (0..6).map(|_| places.take()).collect();
        assert_eq!(taken.iter().map(|place| place.at).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        taken.remove(1);
        assert_eq!(places.take().at, 1);
    }

    #[tokio::test]
    async fn what_a_thread_still_runs_is_dropped_before_the_end() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let places = workers.places();
        let (_first, second) = (places.take(), places.take());
        let (held, dropped) = oneshot::channel::<()>();
        let (named, name) = oneshot::channel();
        // The handle is not needed: the task ends with its runtime.
        _ = tokio_util::task::TaskTracker::new().spawn_on(
            async move {
                _ = named.send(thread::current().name().map(str::to_owned));
                std::future::pending::<()>().await;
                drop(held);
            },
            &second.runtime().unwrap(),
        );
        assert_eq!(name.await.unwrap().as_deref(), Some("mt-worker-1"));
        workers.end().await;
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn alone_it_is_the_runtime_of_the_node() {
        let workers = Workers::start(NonZeroUsize::MIN).unwrap();
        assert!(workers.places().take().runtime().is_none());
        workers.end().await;
    }
}
