//! The tasks that serve a running process: one writes, one reads, and one sees
//! to its end.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    pipe::{Ended, Pipe, Queued},
    process::{LastWords, Process, describe},
};
use crate::mcp::lines::{Framer, Line};

/// Garbage lines in [`GARBAGE_WINDOW`] after which a process is given up.
const GARBAGE_LINES_MAX: u32 = 100;
const GARBAGE_WINDOW: Duration = Duration::from_secs(10);
/// How long what a process has written is still read when it has ended, and
/// how long it may take to end when it has closed its output.
const LAST_READ: Duration = Duration::from_millis(300);
const READ_BYTES: usize = 64 * 1024;

/// The tasks of one process, besides its supervisor.
pub struct Pumps {
    pub wrote: JoinHandle<()>,
    pub read: JoinHandle<()>,
    pub drained: JoinHandle<()>,
}

/// Writes the queue to the process until the pipe is stopped, then closes its
/// input.
pub async fn write(pipe: Arc<Pipe>, mut queue: mpsc::Receiver<Queued>, mut stdin: impl AsyncWrite + Unpin) {
    let write = async {
        while let Some(queued) = queue.recv().await {
            if stdin.write_all(&queued.line).await.is_err() || stdin.flush().await.is_err() {
                return;
            }
        }
    };
    _ = pipe.stop.run_until_cancelled(write).await;
}

/// Reads the process's messages until its output ends.
pub async fn read(pipe: Arc<Pipe>, mut stdout: impl AsyncRead + Unpin, line_bytes_max: usize) {
    let mut framer = Framer::new(line_bytes_max);
    let mut garbage = Garbage::default();
    let mut chunk = BytesMut::new();
    loop {
        chunk.reserve(READ_BYTES);
        match stdout.read_buf(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(_) => framer.push(chunk.split().freeze()),
        }
        while let Some(line) = framer.next_line() {
            let Line::Whole(line) = line else {
                return pipe.give_up("the process wrote a line that is too long");
            };
            if !pipe.take(line) && !garbage.one_more(Instant::now()) {
                return pipe.give_up("the process writes too much to stdout that is no message");
            }
        }
        if framer.is_dropping() {
            return pipe.give_up("the process wrote a line that is too long");
        }
    }
    if framer.finish().is_some() {
        pipe.meters.garbage.increment(1);
    }
}

/// Sees a process to its end: its own, or ours when it is no longer needed.
pub async fn supervise(
    pipe: Arc<Pipe>,
    mut process: Process,
    pumps: Pumps,
    words: Arc<LastWords>,
    idle_max: Duration,
) {
    let Pumps { wrote, mut read, mut drained } = pumps;
    let (ended, wanted) = tokio::select! {
        ended = process.ended() => {
            // What it has said before its end still counts.
            _ = timeout(LAST_READ, &mut read).await;
            (ended, pipe.stop.is_cancelled())
        }
        _ = &mut read => match timeout(LAST_READ, process.ended()).await {
            Ok(ended) => (ended, false),
            Err(_) => (process.kill().await, false),
        },
        () = pipe.stop.cancelled() => {
            pipe.pending.close();
            _ = wrote.await;
            (if pipe.given_up().is_some() { process.kill().await } else { process.stop().await }, true)
        }
        () = idle(&pipe, idle_max) => {
            pipe.stop.cancel();
            _ = wrote.await;
            (process.stop().await, true)
        }
    };
    // What it has started dies with it, and its pipes close.
    drop(process);
    _ = timeout(LAST_READ, &mut drained).await;
    read.abort();
    drained.abort();
    let how = match (pipe.given_up(), words.text()) {
        (Some(why), _) => why.to_owned(),
        (None, words) if words.is_empty() => describe(&ended),
        (None, words) => format!("{}; its last words: {words}", describe(&ended)),
    };
    pipe.set_ended(Ended { how: how.into(), wanted: wanted && pipe.given_up().is_none() });
}

/// Until nobody has called for so long. From then on the pipe takes no calls.
async fn idle(pipe: &Pipe, idle_max: Duration) {
    loop {
        sleep(idle_max / 4).await;
        if pipe.idle_for().is_some_and(|idle| idle >= idle_max) && pipe.pending.close_if_empty() {
            return;
        }
    }
}

/// Counts garbage in a window of time.
#[derive(Default)]
struct Garbage {
    since: Option<Instant>,
    lines: u32,
}

impl Garbage {
    /// Whether one more is still bearable.
    fn one_more(&mut self, now: Instant) -> bool {
        match self.since {
            Some(since) if now.duration_since(since) < GARBAGE_WINDOW => self.lines += 1,
            _ => (self.since, self.lines) = (Some(now), 1),
        }
        self.lines < GARBAGE_LINES_MAX
    }
}
