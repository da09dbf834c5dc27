//! The line in front of a server that bears one call at a time.
//!
//! First come, first served, whoever it is: clients, the node that lists, and
//! probes. A line that is full refuses at once; a place in it that comes to
//! nothing is given up after a while. In both cases the server has seen nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use mt_proto::resource::{ResourceName, SingleSession};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::gateway::call::CallError;

pub struct Queue {
    backend: ResourceName,
    terms: SingleSession,
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    depth: Gauge,
    waited: Histogram,
    full: Counter,
    late: Counter,
}

/// The server is one's own until this is dropped.
pub struct Turn {
    _turn: OwnedSemaphorePermit,
}

impl Queue {
    pub fn new(backend: &ResourceName, terms: SingleSession) -> Self {
        let refused = |reason: &'static str| counter!("mt_upstream_queue_refused_total", "backend" => backend.to_string(), "reason" => reason);
        Self {
            backend: backend.clone(),
            terms,
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            depth: gauge!("mt_upstream_queue_depth", "backend" => backend.to_string()),
            waited: histogram!("mt_upstream_queue_wait_seconds", "backend" => backend.to_string()),
            full: refused("full"),
            late: refused("late"),
        }
    }

    /// Waits for a turn, until the deadline at the latest. Dropping it leaves
    /// the line.
    ///
    /// # Errors
    /// [`CallError::QueueFull`] at once, [`CallError::QueueTimeout`] after the wait.
    pub async fn enter(&self, deadline: Instant) -> Result<Turn, CallError> {
        if let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() {
            self.waited.record(0.0);
            return Ok(Turn { _turn: turn });
        }
        let _place = self.place()?;
        let began = Instant::now();
        let until = deadline.min(began + self.terms.wait_max);
        let turn = timeout_at(until, Arc::clone(&self.turn).acquire_owned()).await;
        self.waited.record(began.elapsed().as_secs_f64());
        match turn {
            Ok(Ok(turn)) => Ok(Turn { _turn: turn }),
            // It is never closed.
            Ok(Err(_)) | Err(_) => {
                self.late.increment(1);
                let waited = Duration::from_millis(began.elapsed().as_millis() as u64);
                Err(CallError::QueueTimeout { backend: self.backend.clone(), waited })
            }
        }
    }

    fn place(&self) -> Result<Place<'_>, CallError> {
        let more = |waiting| (waiting < self.terms.queue_max).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.full.increment(1);
            let limit = self.terms.queue_max;
            return Err(CallError::QueueFull { backend: self.backend.clone(), limit });
        }
        self.depth.increment(1.0);
        Ok(Place { queue: self })
    }
}

/// One who waits.
struct Place<'a> {
    queue: &'a Queue,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::Relaxed);
        self.queue.depth.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, poll};

    use super::*;

    fn queue(queue_max: usize) -> Queue {
        let terms = SingleSession { queue_max, wait_max: Duration::from_secs(30) };
        Queue::new(&"peer".parse().unwrap(), terms)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_the_order_of_the_line() {
        let queue = queue(2);
        let first = queue.enter(later()).await.unwrap();
        let mut second = Box::pin(queue.enter(later()));
        let mut third = Box::pin(queue.enter(later()));
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut third).is_pending());
        let refused = queue.enter(later()).now_or_never().expect("a full line refuses at once");
        assert!(matches!(refused, Err(CallError::QueueFull { limit: 2, .. })));
        drop(first);
        let second = second.await.unwrap();
        assert!(poll!(&mut third).is_pending());
        drop(second);
        drop(third.await.unwrap());
        assert!(queue.enter(later()).now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_the_line_s_patience_or_the_call_s() {
        let queue = queue(2);
        let _held = queue.enter(later()).await.unwrap();
        let began = Instant::now();
        assert!(matches!(queue.enter(later()).await, Err(CallError::QueueTimeout { .. })));
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        let soon = Instant::now() + Duration::from_secs(2);
        assert!(matches!(queue.enter(soon).await, Err(CallError::QueueTimeout { .. })));
        assert_eq!(began.elapsed(), Duration::from_secs(32));
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0, "who gives up leaves the line");
    }
}
