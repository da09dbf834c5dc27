//! What a child process of a backend says beside the protocol, and what is told
//! of its end. Starting and ending one: `mt_process`.

use std::{collections::VecDeque, io, process::ExitStatus, sync::Arc, time::Duration};

use bytes::BytesMut;
use metrics::Gauge;
use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::Instant,
};

#[cfg(test)]
pub use mt_process::start;
pub use mt_process::{Process, Program, Started, describe};

use super::{
    excerpt::{excerpt, shorten},
    meters::Meters,
};

/// What is kept of its stderr.
const STDERR_BYTES_MAX: usize = 64 * 1024;
/// How much of that is in an error.
const LAST_WORDS_BYTES_MAX: usize = 1024;
/// Lines of stderr that go to the log in a second.
const STDERR_LINES_PER_SECOND: u32 = 100;
/// The longest line of stderr in the log.
const STDERR_LINE_BYTES_MAX: usize = 2 * 1024;
/// Shorter secrets cannot be hidden without hiding everything else.
const SECRET_BYTES_MIN: usize = 6;

/// A process that runs, as long as this lives.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Starts a process of a backend. It may map so much memory. Dropping this
/// kills what has been started.
///
/// # Errors
/// As the system says them.
pub async fn launch(
    program: Program<'_>,
    memory_bytes_max: Option<u64>,
    meters: &Meters,
) -> io::Result<Started> {
    let mut started = mt_process::launch(program, memory_bytes_max).await?;
    meters.started.increment(1);
    meters.processes.increment(1.0);
    started.process = started.process.holding(Counted(meters.processes.clone()));
    Ok(started)
}

/// Whether a process that may map only so much has probably ended for that.
/// Nobody says so for certain: an allocation fails, and what follows from that
/// is up to the program.
fn is_short_of_memory(ended: &io::Result<ExitStatus>, words: &str) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    const SAID: [&str; 7] = [
        "MemoryError",
        "memory allocation of",
        "Cannot allocate memory",
        "annot map",
        "bad_alloc",
        "out of memory",
        "Out of memory",
    ];
    match ended {
        Ok(status) if status.success() => false,
        Ok(status) => {
            let signal = status.signal().and_then(Signal::from_named_raw);
            let died = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::TRAP, Signal::ILL];
            signal.is_some_and(|signal| died.contains(&signal))
                || SAID.iter().any(|said| words.contains(said))
        }
        Err(_) => false,
    }
}

/// The end of what a process has said on stderr.
#[derive(Debug, Default)]
pub struct LastWords {
    ring: Mutex<VecDeque<u8>>,
    secrets: Vec<String>,
    memory_bytes_max: Option<u64>,
}

/// What is told of the end of a process.
pub struct Obituary {
    pub text: String,
    /// It has probably ended because it may map only so much.
    pub short_of_memory: bool,
}

impl LastWords {
    /// Of a process that may map so much. Hides these values in what it gives out.
    pub fn new(secrets: Vec<String>, memory_bytes_max: Option<u64>) -> Arc<Self> {
        let secrets = secrets.into_iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN).collect();
        Arc::new(Self { ring: Mutex::default(), secrets, memory_bytes_max })
    }

    /// How a process has ended, with the words.
    pub fn obituary(&self, ended: &io::Result<ExitStatus>) -> Obituary {
        let (mut text, words) = (describe(ended), self.text());
        let short_of_memory = self.memory_bytes_max.is_some() && is_short_of_memory(ended, &words);
        if let (true, Some(bytes)) = (short_of_memory, self.memory_bytes_max) {
            let mib = bytes >> 20;
            text = format!("{text}, probably for want of memory: memoryBytesMax lets it map {mib} MiB");
        }
        if !words.is_empty() {
            text = format!("{text}; its last words: {words}");
        }
        Obituary { text, short_of_memory }
    }

    fn push(&self, bytes: &[u8]) {
        let mut ring = self.ring.lock();
        let bytes = &bytes[bytes.len().saturating_sub(STDERR_BYTES_MAX)..];
        let excess = (ring.len() + bytes.len()).saturating_sub(STDERR_BYTES_MAX);
        ring.drain(..excess);
        ring.extend(bytes);
    }

    /// The last lines, on one line and short.
    pub fn text(&self) -> String {
        let said: Vec<u8> = self.ring.lock().iter().copied().collect();
        // Before anything is cut off: half of a secret is not found any more.
        let text = self.redact(String::from_utf8_lossy(&said).into_owned());
        let from = text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS_BYTES_MAX));
        shorten(&text.as_bytes()[from..], LAST_WORDS_BYTES_MAX)
    }

    fn redact(&self, mut text: String) -> String {
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        text
    }
}

/// Reads stderr to its end: into the last words, and into the log as long as
/// it is not too much.
pub async fn drain_stderr(mut stderr: impl AsyncRead + Unpin, words: Arc<LastWords>, backend: String) {
    let mut chunk = BytesMut::with_capacity(8 * 1024);
    let mut line = Vec::new();
    let (mut second, mut lines, mut dropped) = (Instant::now(), 0, 0u64);
    while let Ok(1..) = stderr.read_buf(&mut chunk).await {
        words.push(&chunk);
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = STDERR_LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if !part.ends_with(b"\n") {
                continue;
            }
            if second.elapsed() >= Duration::from_secs(1) {
                if dropped > 0 {
                    tracing::debug!(
                        backend,
                        lines = dropped,
                        "stderr of the process was too much for the log"
                    );
                }
                (second, lines, dropped) = (Instant::now(), 0, 0);
            }
            lines += 1;
            if lines > STDERR_LINES_PER_SECOND {
                dropped += 1;
            } else if tracing::enabled!(tracing::Level::DEBUG) {
                let line = words.redact(String::from_utf8_lossy(&line).into_owned());
                tracing::debug!(backend, stderr = excerpt(line.as_bytes()), "process says");
            }
            line.clear();
        }
        chunk.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Started {
        let args = ["-c".to_owned(), script.to_owned()];
        start(Program { command: "sh", args: &args, env: Vec::new(), cwd: None }).unwrap()
    }

    #[test]
    fn a_secret_at_the_edge_of_the_last_words_is_hidden() {
        let words = LastWords::new(vec!["hunter2-secret".to_owned()], None);
        words.push(b"hunter2-secret");
        words.push(&vec![b'x'; LAST_WORDS_BYTES_MAX - 3]);
        assert!(!words.text().contains("ret"), "{}", words.text());
    }

    #[tokio::test]
    async fn a_process_that_gets_no_memory_is_told_apart() {
        let limit = Some(64 << 20);
        let of = async |script: &str, limit| {
            let words = LastWords::new(Vec::new(), limit);
            let mut started = shell(script);
            drain_stderr(started.stderr, words.clone(), "hog".to_owned()).await;
            words.obituary(&started.process.ended().await)
        };
        let died = of("kill -ABRT $$", limit).await;
        assert!(died.short_of_memory);
        assert_eq!(died.text, "signal 6, probably for want of memory: memoryBytesMax lets it map 64 MiB");
        let said = of("echo MemoryError >&2; exit 1", limit).await;
        assert!(said.text.ends_with("64 MiB; its last words: MemoryError"), "{}", said.text);
        for (script, limit) in [("kill -ABRT $$", None), ("exit 1", limit), ("kill -TERM $$", limit)] {
            let other = of(script, limit).await;
            assert!(!other.short_of_memory, "{script}: {}", other.text);
        }
    }

    #[tokio::test]
    async fn a_flood_on_stderr_neither_blocks_nor_grows() {
        let words = LastWords::new(vec!["hunter2-secret".to_owned()], None);
        let started =
            shell("head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo the key is hunter2-secret >&2");
        drain_stderr(started.stderr, words.clone(), "flood".to_owned()).await;
        assert_eq!(words.ring.lock().len(), STDERR_BYTES_MAX);
        let text = words.text();
        assert!(text.ends_with("the key is ***"), "{text}");
        assert!(text.len() <= LAST_WORDS_BYTES_MAX);
    }
}
