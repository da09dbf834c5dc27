//! One server, and the connections to it that nobody uses right now.
//!
//! Each thread has a shelf, so that threads do not wait for each other, and looks
//! at those of the others before a connection is opened. The last one used is
//! the first to be used again, which lets the others grow old and go.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    thread::available_parallelism,
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Error, Incoming, Inner,
    connection::{Begun, Connection},
    dial::Dial,
};
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

/// A request on its way; nothing of it is written before this is polled. It is
/// a part of every call's future, so it takes no more room than it must.
pub struct Sending<'a> {
    origin: &'a Arc<Origin>,
    stage: Stage<'a>,
}

enum Stage<'a> {
    OnKept {
        /// Dropped before the connection, which then knows that nobody wants what
        /// it has not written yet.
        answer: Pin<Box<dyn Future<Output = Begun> + Send>>,
        /// Until the head of the answer is there.
        connection: Option<Box<Connection>>,
    },
    Apart(BoxFuture<'a, Result<Response<Incoming>, Error>>),
}

impl Future for Sending<'_> {
    type Output = Result<Response<Incoming>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Not by calling itself: after a restart of the server all that are kept
        // are closed, and each is found out here, one after the other.
        loop {
            let outcome = match &mut this.stage {
                Stage::Apart(sending) => return sending.as_mut().poll(cx),
                Stage::OnKept { answer, connection } => {
                    let driven = connection.as_mut().expect("it is not polled after its end");
                    let outcome = ready!(driven.poll_answer(answer.as_mut(), cx));
                    outcome.map(|answer| (answer, connection.take().expect("it was driven just now")))
                }
            };
            let meters = &this.origin.pool.meters;
            match outcome {
                Ok((answer, connection)) => {
                    meters.reused.increment(1);
                    return Poll::Ready(Ok(this.origin.answered(answer, connection)));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        meters.stale.increment(1);
                        this.stage = this.origin.send(unsent).stage;
                    }
                    None => return Poll::Ready(Err(Error::Exchange(error.into_error()))),
                },
            }
        }
    }
}

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
        let stage = match self.take() {
            Some(mut connection) => {
                let answer = Box::pin(connection.begin(request));
                Stage::OnKept { answer, connection: Some(connection) }
            }
            None => Stage::Apart(Box::pin(self.send_on_new(request))),
        };
        Sending { origin: self, stage }
    }

    async fn send_on_new(self: &Arc<Self>, request: Request<Outgoing>) -> Result<Response<Incoming>, Error> {
        let mut connection = self.open().await?;
        let mut answer = pin!(connection.begin(request));
        let answer = poll_fn(|cx| connection.poll_answer(answer.as_mut(), cx)).await;
        let answer = answer.map_err(|error| Error::Exchange(error.into_error()))?;
        Ok(self.answered(answer, connection))
    }

    fn answered(
        self: &Arc<Self>,
        answer: Response<hyper::body::Incoming>,
        connection: Box<Connection>,
    ) -> Response<Incoming> {
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        answer.map(|body| Incoming::new(body, connection, switched, self))
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
