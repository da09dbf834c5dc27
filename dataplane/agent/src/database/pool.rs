//! Connections to one database, lent one call at a time.
//!
//! One that is not given back is closed on the spot. It may be in the middle of
//! a statement, and closing it is what makes the database stop; so there is
//! nothing to be said for waiting until it is free again.

use std::{ops::Deref, ops::DerefMut, sync::Arc, time::Duration};

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::failure;
use crate::{Failure, Reason};

/// How long a call waits for a connection when all are in use.
const WAIT_MAX: Duration = Duration::from_secs(5);
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A connection to a database.
pub trait Link: Sized + Send {
    /// What is needed to open one.
    type Options: Send + Sync;

    fn open(options: &Self::Options) -> impl Future<Output = Result<Self, sqlx::Error>> + Send;
}

/// Connections to one database.
pub struct Connections<L: Link> {
    options: L::Options,
    permits: Arc<Semaphore>,
    /// The one that was used last is at the end.
    idle: Mutex<Vec<(L, Instant)>>,
    idle_max: Duration,
    in_use: Gauge,
}

/// A connection for one call. Dropped, it is closed.
pub struct Lease<L: Link> {
    /// None once it was given back.
    link: Option<L>,
    connections: Arc<Connections<L>>,
    /// It has served another call before.
    pub is_used: bool,
    _permit: OwnedSemaphorePermit,
}

impl<L: Link> Connections<L> {
    /// At most so many at once.
    pub fn new(options: L::Options, max: u32, idle_max: Duration, in_use: Gauge) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(max as usize));
        Arc::new(Self { options, permits, idle: Mutex::default(), idle_max, in_use })
    }

    /// A connection: one that is idle, unless `fresh` is wanted, or a new one.
    ///
    /// # Errors
    /// If all are in use for too long, or the database cannot be reached.
    pub async fn take(self: &Arc<Self>, fresh: bool) -> Result<Lease<L>, Failure> {
        let permit = timeout(WAIT_MAX, self.permits.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let message = "all connections to the database are in use";
            return Err(Failure::new(Reason::Overloaded, message));
        };
        let idle = if fresh { None } else { self.idle.lock().pop() };
        let is_used = idle.is_some();
        let link = match idle {
            Some((link, _)) => link,
            None => match timeout(CONNECT_MAX, Box::pin(L::open(&self.options))).await {
                Ok(opened) => opened.map_err(|error| failure::connecting(&error))?,
                Err(_) => return Err(failure::unreachable().detail("no answer in time")),
            },
        };
        self.in_use.increment(1.0);
        Ok(Lease { link: Some(link), connections: self.clone(), is_used, _permit: permit })
    }

    /// Closes what nobody has used for too long.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < self.idle_max);
    }
}

impl<L: Link> Lease<L> {
    /// It can serve another call: nothing is under way on it.
    pub fn give_back(mut self) {
        if let Some(link) = self.link.take() {
            self.connections.idle.lock().push((link, Instant::now()));
        }
    }
}

impl<L: Link> Drop for Lease<L> {
    fn drop(&mut self) {
        self.connections.in_use.decrement(1.0);
    }
}

impl<L: Link> Deref for Lease<L> {
    type Target = L;

    fn deref(&self) -> &L {
        self.link.as_ref().expect("it is there until it is given back")
    }
}

impl<L: Link> DerefMut for Lease<L> {
    fn deref_mut(&mut self) -> &mut L {
        self.link.as_mut().expect("it is there until it is given back")
    }
}
