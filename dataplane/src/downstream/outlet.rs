//! Where messages to one client wait until its socket takes them.
//!
//! The queue is bounded in messages and bytes. While it is full, whoever has
//! something to say waits, and so does the backend behind it; a client that
//! takes nothing for too long is given up, for it would hold others back.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::stream::EventStream;

/// Messages that wait for one client.
pub const QUEUE_MESSAGES_MAX: usize = 256;
/// Bytes of them; one message alone may be longer.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;
/// A client whose queue is full and that takes nothing for so long is given up.
pub const STALL_MAX: Duration = Duration::from_secs(10);

/// Where a call's messages go.
#[derive(Clone, Debug)]
pub enum Outlet {
    /// A stream that the client can come back to.
    Events(Arc<EventStream>),
    /// A stream of this call that it cannot come back to.
    Lines(Arc<Queue>),
    /// The connection, which other calls use too.
    Messages(Arc<Queue>),
}

impl Outlet {
    /// Waits for room. What comes for a client that is gone is dropped.
    pub async fn push(&self, message: &Bytes) {
        match self {
            Outlet::Events(stream) => stream.push(message).await,
            Outlet::Lines(queue) | Outlet::Messages(queue) => _ = queue.push(message.clone()).await,
        }
    }

    /// As [`push`](Self::push) but never waits; false if there is no room.
    pub fn try_push(&self, message: &Bytes) -> bool {
        match self {
            Outlet::Events(stream) => stream.try_push(message),
            Outlet::Lines(queue) | Outlet::Messages(queue) => queue.try_push(message.clone()),
        }
    }

    /// Lets a client that can come back do so.
    pub fn pause(&self, retry: Option<Duration>) {
        if let Outlet::Events(stream) = self {
            if let Some(retry) = retry {
                stream.prime(retry);
            }
            stream.pause();
        }
    }

    /// Nothing of this call follows.
    pub fn finish(&self) {
        match self {
            Outlet::Events(stream) => stream.finish(),
            Outlet::Lines(queue) => queue.finish(),
            Outlet::Messages(_) => {}
        }
    }
}

/// Messages on their way to one connection: many write, one reads.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// How long a full queue is put up with; none: as long as it takes.
    patience: Option<Duration>,
    readable: Notify,
    writable: Notify,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Bytes>,
    bytes: usize,
    taken: u64,
    end: Option<End>,
}

/// Why a queue takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing follows; what is there may still be read.
    Finished,
    /// Its reader was given up.
    Stalled,
}

impl State {
    fn has_room(&self, message: &Bytes) -> bool {
        self.messages.is_empty()
            || self.messages.len() < QUEUE_MESSAGES_MAX && self.bytes + message.len() <= QUEUE_BYTES_MAX
    }
}

impl Queue {
    pub fn new(patience: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            patience,
            readable: Notify::new(),
            writable: Notify::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Waits for room; false if there will be none. Safe to drop.
    pub async fn push(&self, message: Bytes) -> bool {
        let mut since = Instant::now();
        let mut taken = None;
        loop {
            let waiting = self.writable.notified();
            {
                let mut state = self.state.lock();
                if state.end.is_some() {
                    return false;
                }
                if state.has_room(&message) {
                    self.append(&mut state, message);
                    return true;
                }
                // Somebody else may have been faster; the reader is not to blame.
                if taken.replace(state.taken) != Some(state.taken) {
                    since = Instant::now();
                }
            }
            match self.patience {
                None => waiting.await,
                Some(patience) => {
                    if timeout_at(since + patience, waiting).await.is_err() {
                        self.give_up(taken);
                    }
                }
            }
        }
    }

    /// Ends the queue, unless it was read meanwhile.
    fn give_up(&self, taken: Option<u64>) {
        let mut state = self.state.lock();
        if state.end.is_none() && taken == Some(state.taken) {
            *state = State { end: Some(End::Stalled), ..State::default() };
            drop(state);
            self.wake();
        }
    }

    /// As [`push`](Self::push) but never waits; false if there is no room.
    pub fn try_push(&self, message: Bytes) -> bool {
        let mut state = self.state.lock();
        let room = state.end.is_none() && state.has_room(&message);
        if room {
            self.append(&mut state, message);
        }
        room
    }

    fn append(&self, state: &mut State, message: Bytes) {
        state.bytes += message.len();
        state.messages.push_back(message);
        self.readable.notify_one();
    }

    /// The next message; none after the end. Safe to drop.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            let waiting = self.readable.notified();
            if let Some(message) = self.ready() {
                return Some(message);
            }
            if self.end().is_some() {
                // What was said before the end is read before it.
                return self.ready();
            }
            waiting.await;
        }
    }

    /// The next message, if it is there already.
    pub fn ready(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        let message = state.messages.pop_front()?;
        state.bytes -= message.len();
        state.taken += 1;
        drop(state);
        self.writable.notify_waiters();
        Some(message)
    }

    /// Nothing follows.
    pub fn finish(&self) {
        self.state.lock().end.get_or_insert(End::Finished);
        self.wake();
    }

    /// Why it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.state.lock().end
    }

    /// When it has.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn wake(&self) {
        self.ended.cancel();
        self.readable.notify_one();
        self.writable.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_pushed_is_read_in_order_and_to_the_end() {
        let queue = Queue::new(Some(STALL_MAX));
        for text in ["1", "2"] {
            assert!(queue.push(Bytes::from(text)).await);
        }
        queue.finish();
        assert!(!queue.try_push(message(1)), "nothing follows the end");
        assert_eq!(queue.next().await.unwrap(), "1");
        assert_eq!(queue.next().await.unwrap(), "2");
        assert_eq!(queue.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn both_bounds_hold_and_a_long_message_passes_alone() {
        let queue = Queue::new(Some(STALL_MAX));
        assert!(queue.try_push(message(QUEUE_BYTES_MAX + 1)));
        assert!(!queue.try_push(message(1)));
        queue.next().await.unwrap();
        for _ in 0..QUEUE_MESSAGES_MAX {
            assert!(queue.try_push(message(1)));
        }
        assert!(!queue.try_push(message(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_given_up_and_writers_go_on() {
        let queue = Queue::new(Some(STALL_MAX));
        queue.push(message(QUEUE_BYTES_MAX)).await;
        let began = Instant::now();
        assert!(!queue.push(message(1)).await);
        assert_eq!(began.elapsed().as_secs(), STALL_MAX.as_secs());
        assert_eq!((queue.end(), queue.next().await), (Some(End::Stalled), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_but_reads_is_waited_for() {
        let queue = Queue::new(Some(STALL_MAX));
        queue.push(message(QUEUE_BYTES_MAX)).await;
        let reading = async {
            for _ in 0..5 {
                tokio::time::sleep(STALL_MAX * 3 / 4).await;
                queue.next().await.unwrap();
            }
        };
        let writing = async {
            for _ in 0..5 {
                assert!(queue.push(message(QUEUE_BYTES_MAX)).await);
            }
        };
        tokio::join!(reading, writing);
        assert_eq!(queue.end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_a_writer_waits_as_long_as_it_takes() {
        let queue = Queue::new(None);
        queue.push(message(QUEUE_BYTES_MAX)).await;
        let writing = tokio::time::timeout(STALL_MAX * 100, queue.push(message(1)));
        assert!(writing.await.is_err());
        assert_eq!(queue.end(), None);
    }
}
