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
    process::{LastWords, Process},
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
    let obituary = words.obituary(&ended);
    if obituary.short_of_memory && !wanted {
        pipe.meters.out_of_memory.increment(1);
    }
    let how = pipe.given_up().map_or(obituary.text, str::to_owned);
    pipe.set_ended(Ended { how: how.into(), wanted: wanted && pipe.given_up().is_none() });
}

/// Until nobody has called for so long. From then on the pipe takes no calls.
pub async fn idle(pipe: &Pipe, idle_max: Duration) {
    loop {
        sleep(idle_max / 4).await;
        if pipe.close_if_idle(idle_max) {
            return;
        }
    }
}

/// Counts garbage in a window of time.
#[derive(Default)]
pub struct Garbage {
    since: Option<Instant>,
    lines: u32,
}

impl Garbage {
    /// Whether one more is still bearable.
    pub fn one_more(&mut self, now: Instant) -> bool {
        match self.since {
            Some(since) if now.duration_since(since) < GARBAGE_WINDOW => self.lines += 1,
            _ => (self.since, self.lines) = (Some(now), 1),
        }
        self.lines < GARBAGE_LINES_MAX
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        mcp::version::Era,
        upstream::{
            Shared,
            hints::Hints,
            meters::Meters,
            pending::Names,
            pipe::{PROCESS, Terms},
            process::{Program, Started, drain_stderr, start},
            sharing::Clients,
        },
    };

    /// A process that reads and says nothing, let go after `idle_max`.
    fn silent(idle_max: Duration) -> Arc<Pipe> {
        let shared = Shared::new(TaskTracker::new(), CancellationToken::new());
        let (pipe, queue) = Pipe::new(Terms {
            backend: "silent".parse().unwrap(),
            noun: PROCESS,
            era: Era::Modern,
            clients: Clients { sole: false, asks: false, events: None },
            backoff: Arc::default(),
            followers: Arc::default(),
            hints: Arc::new(Hints::default()),
            meters: Arc::new(Meters::new("silent")),
            shared: shared.clone(),
        });
        let program =
            Program { command: "cat", args: &["/dev/stdin".to_owned()], env: Vec::new(), cwd: None };
        let Started { process, stdin, stdout, stderr } = start(program).unwrap();
        let words = LastWords::new(Vec::new(), None);
        let pumps = Pumps {
            wrote: shared.tasks.spawn(write(pipe.clone(), queue, stdin)),
            read: shared.tasks.spawn(read(pipe.clone(), stdout, 1024)),
            drained: shared.tasks.spawn(drain_stderr(stderr, words.clone(), "silent".to_owned())),
        };
        shared.tasks.spawn(supervise(pipe.clone(), process, pumps, words, idle_max));
        pipe
    }

    #[tokio::test]
    async fn a_process_is_let_go_when_nobody_calls_and_only_then() {
        let pipe = silent(Duration::from_millis(40));
        let call = pipe.pending.register(Names::default()).unwrap();
        assert!(timeout(Duration::from_millis(300), pipe.ended()).await.is_err(), "a call is under way");
        drop(call);
        let ended = timeout(Duration::from_secs(10), pipe.ended()).await.expect("nobody calls");
        assert!(ended.wanted);
        assert_eq!(&*ended.how, "exit code 0");
        assert!(pipe.pending.register(Names::default()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn some_garbage_is_borne_and_much_is_not() {
        let mut garbage = Garbage::default();
        for _ in 0..5 {
            for _ in 0..GARBAGE_LINES_MAX - 1 {
                assert!(garbage.one_more(Instant::now()));
            }
            tokio::time::advance(GARBAGE_WINDOW).await;
        }
        let borne = (0..).take_while(|_| garbage.one_more(Instant::now())).count();
        assert_eq!(borne, GARBAGE_LINES_MAX as usize - 1);
    }
}
