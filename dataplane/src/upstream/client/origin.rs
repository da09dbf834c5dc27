//! One server, and the connections to it that nobody uses right now.
//!
//! Each thread has a shelf, so that threads do not wait for each other, and looks
//! at those of the others before a connection is opened. The last one used is
//! the first to be used again, which lets the others grow old and go.

use std::{
    cell::Cell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Error, Incoming, Inner, connection::Connection, dial::Dial};
use crate::upstream::message::Outgoing;

/// Idle connections that a thread keeps for one server.
pub(super) const IDLE_CONNECTIONS_MAX: usize = 256;
/// Open connections of a node from which on none is kept when it falls idle.
pub(super) const OPEN_CONNECTIONS_MAX: usize = 16 * 1024;
/// How long an idle connection without TLS is kept: less than the 5 s after
/// which Node's and Python's servers close it, for a request that crosses with
/// the close is lost.
pub(super) const IDLE_PLAIN: Duration = Duration::from_secs(4);
/// The same with TLS, where opening one is dear and a front proxy keeps it longer.
pub(super) const IDLE_TLS: Duration = Duration::from_secs(50);
/// Threads that have a shelf of their own; what others open is spread over them.
const SHELVES_MAX: usize = 32;
/// Idle connections of one shelf that are looked at in one sweep, the longest
/// idle first; the rest is known to be young.
const LOOKED_AT_MAX: usize = 64;

pub struct Origin {
    dial: Dial,
    idle_max: Duration,
    shelves: Box<[Shelf]>,
    pool: Arc<Inner>,
}

/// A request on its way; it is sent when it is polled first.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Incoming>, Error>> + Send + 'a>>;

/// The idle connections of one thread, the longest idle first. Apart from the
/// other threads' in memory as well.
#[derive(Default)]
#[repr(align(64))]
struct Shelf {
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Origin {
    pub(super) fn new(dial: Dial, is_tls: bool, pool: Arc<Inner>) -> Self {
        // One more than work, for the control side.
        let shelves = available_parallelism().map_or(1, usize::from).saturating_add(1).min(SHELVES_MAX);
        Self {
            dial,
            idle_max: if is_tls { IDLE_TLS } else { IDLE_PLAIN },
            shelves: (0..shelves).map(|_| Shelf::default()).collect(),
            pool,
        }
    }

    /// Sends a request, in origin form and with its `Host`, and waits for the
    /// head of the answer. A request that finds its connection closed before
    /// anything was written is sent on another one. Dropping it closes the
    /// connection.
    ///
    /// # Errors
    /// Whether anything can have reached the server is in the error.
    pub fn send(self: &Arc<Self>, request: Request<Outgoing>) -> Sending<'_> {
        // On the heap, once: in the futures of everybody who waits for it, it
        // would be copied as often as one of them is moved.
        Box::pin(self.exchange(request))
    }

    async fn exchange(self: &Arc<Self>, mut request: Request<Outgoing>) -> Result<Response<Incoming>, Error> {
        loop {
            let (mut connection, reused) = match self.take() {
                Some(connection) => (connection, true),
                None => (Box::pin(self.open()).await?, false),
            };
            match connection.exchange(request).await {
                Ok(answer) => {
                    if reused {
                        self.pool.meters.reused.increment(1);
                    }
                    let (head, body) = answer.into_parts();
                    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
                    return Ok(Response::from_parts(head, Incoming::new(body, connection, switched, self)));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => {
                        self.pool.meters.stale.increment(1);
                        request = unsent;
                    }
                    _ => return Err(Error::Exchange(error.into_error())),
                },
            }
        }
    }

    async fn open(&self) -> Result<Box<Connection>, Error> {
        let connection = self.dial.open(Arc::clone(&self.pool.meters)).await?;
        self.pool.sweep();
        Ok(connection)
    }

    /// A connection that was idle: of this thread's the last one used, else one of
    /// another thread's.
    fn take(&self) -> Option<Box<Connection>> {
        let own = self.own_shelf();
        let (others, from_own) = self.shelves.split_at(own);
        from_own.iter().chain(others).find_map(|shelf| self.take_from(shelf))
    }

    fn take_from(&self, shelf: &Shelf) -> Option<Box<Connection>> {
        let mut idle = shelf.idle.lock();
        let last = idle.pop()?;
        if last.since.elapsed() < self.idle_max {
            return Some(last.connection);
        }
        // Then all of them are too old.
        let old = std::mem::take(&mut *idle);
        drop(idle);
        drop(old);
        None
    }

    /// Keeps a connection that is idle.
    pub(super) fn keep(&self, connection: Box<Connection>) {
        if self.pool.meters.open() <= OPEN_CONNECTIONS_MAX {
            let mut idle = self.shelves[self.own_shelf()].idle.lock();
            if idle.len() < IDLE_CONNECTIONS_MAX {
                idle.push(Idle { connection, since: Instant::now() });
                return;
            }
        }
        self.pool.meters.surplus.increment(1);
    }

    /// Closes what is too old or was closed by the other side.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        for shelf in &self.shelves {
            let mut gone = Vec::new();
            let mut idle = shelf.idle.lock();
            let young = idle.partition_point(|idle| now.duration_since(idle.since) >= self.idle_max);
            gone.extend(idle.drain(..young));
            let looked_at = idle.len().min(LOOKED_AT_MAX);
            gone.extend(idle.extract_if(..looked_at, |idle| {
                idle.connection.poke();
                !idle.connection.is_idle()
            }));
            drop(idle);
            drop(gone);
        }
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.idle.lock().len()).sum()
    }

    fn own_shelf(&self) -> usize {
        thread_number() % self.shelves.len()
    }
}

/// A small number that is this thread's own.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| match own.get() {
        Some(number) => number,
        None => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            own.set(Some(number));
            number
        }
    })
}
