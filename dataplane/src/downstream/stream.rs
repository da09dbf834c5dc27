//! A stream of events to a legacy client that outlives its connection.
//!
//! The call writes, whatever happens to the socket; the HTTP response reads. A
//! client that comes back with `Last-Event-ID` reads on after that event, from a
//! bounded backlog. One reader at a time: a new one ends the one before.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::silence::Silence;
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

/// Events have consecutive numbers: those of `taken`, then those of `fresh`, and
/// the last one is before `next_sequence`.
#[derive(Debug, Default)]
struct State {
    /// Encoded events that have been taken once. They share the memory of the
    /// chunks that they were part of.
    taken: VecDeque<Bytes>,
    /// Lengths of the events after them.
    fresh: VecDeque<usize>,
    /// Those events, encoded one behind the other: a reader that has seen what
    /// is before gets all of them as they are.
    tape: BytesMut,
    backlog_bytes: usize,
    next_sequence: u64,
    /// The first event that the reader has not taken.
    read_to: u64,
    unread_bytes: usize,
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
        if self.try_push(data) {
            return;
        }
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
            && (unread as usize >= BACKLOG_EVENTS_MAX || state.unread_bytes >= BACKLOG_BYTES_MAX)
        {
            return false;
        }
        state.append(|sequence, tape| encode(&self.label, sequence, data, tape));
        drop(state);
        self.readable.notify_one();
        true
    }

    /// An event without data that gives the client an id to come back with.
    pub fn prime(&self, retry: Duration) {
        let retry_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
        let mut event = Vec::new();
        self.state.lock().append(|sequence, tape| {
            sse::encode_priming(&format!("{}.{sequence}", self.label), Some(retry_ms), &mut event);
            tape.extend_from_slice(&event);
        });
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
            // The number is the client's: any that exists may be in it.
            state.read_to = after.saturating_add(1).clamp(state.oldest(), state.next_sequence);
            state.settle();
            state.unread_bytes = state.unread().map(Bytes::len).sum();
        }
        let number = state.reader;
        drop(state);
        // The reader before must notice; both kinds of waiters look again.
        self.readable.notify_waiters();
        self.writable.notify_waiters();
        Reader { stream: self.clone(), number, silence: Silence::new(KEEP_ALIVE_EVERY) }
    }
}

/// Writes one event behind others.
fn encode(label: &str, sequence: u64, data: &[u8], tape: &mut BytesMut) {
    let mut digits = [0; SEQUENCE_DIGITS_MAX];
    let digits = decimal(sequence, &mut digits);
    if memchr::memchr2(b'\r', b'\n', data).is_some() {
        let mut event = Vec::new();
        sse::encode(Some(&format!("{label}.{sequence}")), data, &mut event);
        return tape.extend_from_slice(&event);
    }
    let parts = [b"id: ", label.as_bytes(), b".", digits, b"\ndata: ", data, b"\n\n"];
    tape.reserve(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| tape.extend_from_slice(part));
}

/// Of any number.
const SEQUENCE_DIGITS_MAX: usize = 20;

fn decimal(mut number: u64, digits: &mut [u8; SEQUENCE_DIGITS_MAX]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// The end of a stream that a response body reads.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<EventStream>,
    number: u64,
    silence: Silence,
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
                    self.silence.break_now();
                    return Some(chunk);
                }
                if state.done.is_some() || state.paused {
                    return None;
                }
            }
            if self.silence.around(waiting).await.is_none() {
                return Some(Bytes::from_static(sse::KEEP_ALIVE));
            }
        }
    }
}

impl State {
    fn oldest(&self) -> u64 {
        self.next_sequence - (self.taken.len() + self.fresh.len()) as u64
    }

    fn append(&mut self, encode: impl FnOnce(u64, &mut BytesMut)) {
        let before = self.tape.len();
        encode(self.next_sequence, &mut self.tape);
        let length = self.tape.len() - before;
        self.fresh.push_back(length);
        self.next_sequence += 1;
        self.backlog_bytes += length;
        self.unread_bytes += length;
        while self.taken.len() + self.fresh.len() > 1
            && (self.taken.len() + self.fresh.len() > BACKLOG_EVENTS_MAX
                || self.backlog_bytes > BACKLOG_BYTES_MAX)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let gone = self.oldest();
        let length = match self.taken.pop_front() {
            Some(event) => event.len(),
            None => {
                let length = self.fresh.pop_front().unwrap_or_default();
                self.tape.advance(length);
                length
            }
        };
        self.backlog_bytes -= length;
        if gone >= self.read_to {
            self.dropped += 1;
            self.read_to = gone + 1;
            self.unread_bytes -= length;
        }
    }

    /// Makes the fresh events taken ones; what they were together.
    fn settle(&mut self) -> Bytes {
        let chunk = self.tape.split().freeze();
        let mut rest = chunk.clone();
        self.taken.extend(self.fresh.drain(..).map(|length| rest.split_to(length)));
        chunk
    }

    /// What a reader that has settled has not taken.
    fn unread(&self) -> impl Iterator<Item = &Bytes> {
        let skip = self.read_to - (self.next_sequence - self.taken.len() as u64);
        self.taken.iter().skip(skip as usize)
    }

    fn take_unread(&mut self) -> Bytes {
        let all_fresh = self.read_to == self.next_sequence - self.fresh.len() as u64;
        let mut chunk = self.settle();
        if !all_fresh {
            let mut joined = BytesMut::with_capacity(self.unread_bytes);
            self.unread().for_each(|event| joined.extend_from_slice(event));
            chunk = joined.freeze();
        }
        self.read_to = self.next_sequence;
        self.unread_bytes = 0;
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
    async fn whatever_a_reader_has_seen_it_reads_each_event_once_and_in_order() {
        let stream = EventStream::new("s".into());
        let mut said = 0;
        let mut say = |count: u64| {
            for _ in 0..count {
                said += 1;
                assert!(stream.try_push(said.to_string().as_bytes()));
            }
        };
        let numbers = |chunk: &str| -> Vec<u64> {
            chunk.lines().filter_map(|line| line.strip_prefix("data: ")?.parse().ok()).collect()
        };
        let mut reader = stream.attach(None);
        say(3);
        assert_eq!(numbers(&text(reader.next().await)), [1, 2, 3]);
        say(2);
        // Some of what it asks for was taken before, and some is fresh.
        for (after, expected) in [(Some(2), vec![3, 4, 5]), (Some(4), vec![5]), (None, vec![6])] {
            drop(std::mem::replace(&mut reader, stream.attach(after)));
            if after.is_none() {
                say(1);
            }
            assert_eq!(numbers(&text(reader.next().await)), expected);
        }
        drop(reader);
        say(BACKLOG_EVENTS_MAX as u64 + 2);
        let last = 6 + BACKLOG_EVENTS_MAX as u64 + 2;
        let kept: Vec<u64> = (last + 1 - BACKLOG_EVENTS_MAX as u64..=last).collect();
        assert_eq!(numbers(&text(stream.attach(Some(1)).next().await)), kept);
        let state = stream.state.lock();
        assert_eq!((state.unread_bytes, state.taken.len()), (0, BACKLOG_EVENTS_MAX));
        assert_eq!(state.backlog_bytes, state.taken.iter().map(Bytes::len).sum::<usize>());
    }

    #[test]
    fn events_are_written_as_everywhere() {
        for (sequence, data) in [(1, "{}"), (u64::MAX, "{\n}"), (10, "")] {
            let (mut tape, mut event) = (BytesMut::new(), Vec::new());
            encode("a.b", sequence, data.as_bytes(), &mut tape);
            sse::encode(Some(&format!("a.b.{sequence}")), data.as_bytes(), &mut event);
            assert_eq!(tape, event);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_says_that_it_is_alive() {
        let stream = EventStream::new("s".into());
        assert_eq!(text(stream.attach(None).next().await).as_bytes(), sse::KEEP_ALIVE);
    }
}
