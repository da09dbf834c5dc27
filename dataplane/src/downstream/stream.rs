//! A stream of events to a legacy client that outlives its connection.
//!
//! The call writes, whatever happens to the socket; the HTTP response reads. A
//! client that comes back with `Last-Event-ID` reads on after that event, from a
//! bounded backlog. One reader at a time: a new one ends the one before.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::mcp::sse;

/// Events kept for a client that may come back, per stream.
pub const BACKLOG_EVENTS_MAX: usize = 256;
/// Bytes of them, per stream.
pub const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// A silent stream says this often that it is alive.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// What a client is told to wait before it comes back to a paused stream.
pub const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// A stream that is done is kept so long: what a response has taken may still be
/// lost on its way.
pub const RESUMABLE_FOR: Duration = Duration::from_secs(60);

/// Why a stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Something may follow, or is being read.
    Working,
    /// For a client that comes back.
    Bytes(usize),
    /// For nobody.
    Nothing,
}

/// One stream: a bounded backlog, a writer, at most one reader.
#[derive(Debug)]
pub struct EventStream {
    /// Before the sequence number in its events' ids.
    label: String,
    state: Mutex<State>,
    /// Something to read, or the reader must go.
    readable: Notify,
    /// The reader has caught up, or there is none.
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Encoded events by sequence number, consecutive.
    backlog: VecDeque<(u64, Bytes)>,
    backlog_bytes: usize,
    next_sequence: u64,
    /// The first event that the reader has not taken.
    read_to: u64,
    /// Counts readers; the newest one reads.
    reader: u64,
    attached: bool,
    /// The reader shall end after what is there; the stream goes on.
    paused: bool,
    /// Since when nothing follows.
    done: Option<Instant>,
    dropped: u64,
}

impl EventStream {
    /// A stream whose event ids are `{label}.{sequence}`.
    pub fn new(label: String) -> Arc<Self> {
        Arc::new(Self {
            label,
            state: Mutex::new(State { next_sequence: 1, read_to: 1, ..State::default() }),
            readable: Notify::new(),
            writable: Notify::new(),
        })
    }

    /// Appends a message. Waits while a reader is attached and behind by the
    /// whole backlog; without a reader the oldest events go.
    pub async fn push(&self, data: &[u8]) {
        loop {
            let waiting = self.writable.notified();
            if self.try_push(data) {
                return;
            }
            waiting.await;
        }
    }

    /// As [`push`](Self::push) but never waits; false if the reader is too far behind.
    pub fn try_push(&self, data: &[u8]) -> bool {
        let mut state = self.state.lock();
        let unread = state.next_sequence - state.read_to;
        if state.attached
            && unread > 0
            && (unread as usize >= BACKLOG_EVENTS_MAX || state.unread_bytes() >= BACKLOG_BYTES_MAX)
        {
            return false;
        }
        self.append(&mut state, data, None);
        drop(state);
        self.readable.notify_one();
        true
    }

    fn append(&self, state: &mut State, data: &[u8], retry: Option<Duration>) {
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let id = format!("{}.{sequence}", self.label);
        let mut event = Vec::with_capacity(data.len() + id.len() + 24);
        match retry {
            Some(retry) => {
                let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                sse::encode_priming(&id, Some(retry_ms), &mut event);
            }
            None => sse::encode(Some(&id), data, &mut event),
        }
        let event = Bytes::from(event);
        state.backlog_bytes += event.len();
        state.backlog.push_back((sequence, event));
        while state.backlog.len() > 1
            && (state.backlog.len() > BACKLOG_EVENTS_MAX || state.backlog_bytes > BACKLOG_BYTES_MAX)
        {
            if let Some((gone, event)) = state.backlog.pop_front() {
                state.backlog_bytes -= event.len();
                if gone >= state.read_to {
                    state.dropped += 1;
                    state.read_to = gone + 1;
                }
            }
        }
    }

    /// An event without data that gives the client an id to come back with.
    pub fn prime(&self, retry: Duration) {
        let mut state = self.state.lock();
        self.append(&mut state, b"", Some(retry));
        drop(state);
        self.readable.notify_one();
    }

    /// Ends the reader of now, once it has read what is there; the client may come back.
    pub fn pause(&self) {
        let mut state = self.state.lock();
        state.paused = state.attached;
        drop(state);
        self.readable.notify_one();
    }

    /// Nothing follows.
    pub fn finish(&self) {
        self.state.lock().done = Some(Instant::now());
        self.readable.notify_one();
    }

    /// Why it is kept, if it is.
    pub fn kept_bytes(&self, now: Instant) -> Kept {
        let state = self.state.lock();
        match state.done {
            // Read to its end, or left by its client: an answer waits for whoever comes back.
            Some(since) if !state.attached || state.read_to == state.next_sequence => {
                let fresh = now.saturating_duration_since(since) < RESUMABLE_FOR;
                if fresh { Kept::Bytes(state.backlog_bytes) } else { Kept::Nothing }
            }
            _ => Kept::Working,
        }
    }

    /// Whether somebody reads now.
    pub fn is_attached(&self) -> bool {
        self.state.lock().attached
    }

    /// Starts to read: after the given event, or from what nobody has read.
    pub fn attach(self: &Arc<Self>, after: Option<u64>) -> Reader {
        let mut state = self.state.lock();
        state.reader += 1;
        state.attached = true;
        state.paused = false;
        if let Some(after) = after {
            let oldest = state.backlog.front().map_or(state.next_sequence, |(sequence, _)| *sequence);
            // The number is the client's: any that exists may be in it.
            state.read_to = after.saturating_add(1).clamp(oldest, state.next_sequence);
        }
        let number = state.reader;
        drop(state);
        // The reader before must notice; both kinds of waiters look again.
        self.readable.notify_waiters();
        self.writable.notify_waiters();
        Reader { stream: self.clone(), number }
    }
}

impl State {
    fn unread_bytes(&self) -> usize {
        self.backlog.iter().rev().take_while(|(s, _)| *s >= self.read_to).map(|(_, e)| e.len()).sum()
    }
}

/// The end of a stream that a response body reads.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<EventStream>,
    number: u64,
}

impl Reader {
    /// Everything that has come since, as one chunk; a comment if nothing comes
    /// for long. None: the response ends here.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let waiting = self.stream.readable.notified();
            {
                let mut state = self.stream.state.lock();
                if state.reader != self.number {
                    return None;
                }
                if state.read_to < state.next_sequence {
                    let chunk = state.take_unread();
                    drop(state);
                    self.stream.writable.notify_waiters();
                    return Some(chunk);
                }
                if state.done.is_some() || state.paused {
                    return None;
                }
            }
            if tokio::time::timeout(KEEP_ALIVE_EVERY, waiting).await.is_err() {
                return Some(Bytes::from_static(sse::KEEP_ALIVE));
            }
        }
    }
}

impl State {
    fn take_unread(&mut self) -> Bytes {
        let unread: Vec<&Bytes> = self
            .backlog
            .iter()
            .filter(|(sequence, _)| *sequence >= self.read_to)
            .map(|(_, event)| event)
            .collect();
        let chunk = match unread.as_slice() {
            [only] => (*only).clone(),
            several => {
                let mut chunk = BytesMut::with_capacity(several.iter().map(|e| e.len()).sum());
                several.iter().for_each(|event| chunk.extend_from_slice(event));
                chunk.freeze()
            }
        };
        self.read_to = self.next_sequence;
        chunk
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.stream.state.lock();
        if state.reader == self.number {
            state.attached = false;
            state.paused = false;
        }
        drop(state);
        self.stream.writable.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chunk: Option<Bytes>) -> String {
        String::from_utf8(chunk.unwrap().to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_back_reads_on_after_its_last_event() {
        let stream = EventStream::new("s".into());
        let mut first = stream.attach(None);
        stream.push(b"1").await;
        stream.push(b"2").await;
        assert!(text(first.next().await).contains("data: 2"));
        drop(first);
        stream.push(b"3").await;
        stream.finish();
        let mut second = stream.attach(Some(1));
        let chunk = text(second.next().await);
        assert!(
            !chunk.contains("data: 1") && chunk.contains("data: 2") && chunk.contains("data: 3"),
            "{chunk}"
        );
        assert!(second.next().await.is_none());
        assert!(matches!(stream.kept_bytes(Instant::now()), Kept::Bytes(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_never_was_is_after_all_others() {
        let stream = EventStream::new("s".into());
        stream.push(b"1").await;
        stream.finish();
        assert!(stream.attach(Some(u64::MAX)).next().await.is_none());
        assert!(text(stream.attach(Some(0)).next().await).contains("data: 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_reader_the_oldest_events_go() {
        let stream = EventStream::new("s".into());
        for n in 0..BACKLOG_EVENTS_MAX + 10 {
            stream.push(n.to_string().as_bytes()).await;
        }
        let chunk = text(stream.attach(None).next().await);
        assert!(!chunk.contains("data: 9\n") && chunk.contains("data: 10\n"), "the first ten are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_holds_the_writer_back_until_it_reads_or_goes() {
        let stream = EventStream::new("s".into());
        let reader = stream.attach(None);
        while stream.try_push(b"x") {}
        let blocked = tokio::time::timeout(Duration::from_secs(60), stream.push(b"y"));
        assert!(blocked.await.is_err());
        drop(reader);
        stream.push(b"y").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_reader_ends_the_one_before_and_a_pause_ends_the_response() {
        let stream = EventStream::new("s".into());
        let mut old = stream.attach(None);
        let mut new = stream.attach(None);
        assert!(old.next().await.is_none());
        stream.prime(RETRY_DEFAULT);
        stream.pause();
        assert!(text(new.next().await).contains("retry: 1000"));
        assert!(new.next().await.is_none());
        assert_eq!(stream.kept_bytes(Instant::now()), Kept::Working);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_that_it_is_alive() {
        let stream = EventStream::new("s".into());
        assert_eq!(text(stream.attach(None).next().await).as_bytes(), sse::KEEP_ALIVE);
    }
}
