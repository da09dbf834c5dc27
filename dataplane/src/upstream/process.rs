//! A child process that speaks on its stdin and stdout: starting it, what it
//! says beside the protocol, and its end.
//!
//! It is the leader of a process group and dies with that group; where guards
//! are installed, with everything that it has ever started. Its environment is
//! an allow-list and what the configuration adds. It is asked to go before it
//! is killed: end of input, then SIGTERM, then SIGKILL.

use std::{
    collections::VecDeque, io, path::Path, process::ExitStatus, process::Stdio, sync::Arc, time::Duration,
};

use bytes::BytesMut;
use metrics::Gauge;
use parking_lot::Mutex;
use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::{
    excerpt::{excerpt, shorten},
    meters::Meters,
};
use crate::guard::{self, Guarded};

/// How long a process may take to end by itself once its input has ended.
const END_OF_INPUT_GRACE: Duration = Duration::from_secs(2);
/// How long it may take once it got SIGTERM.
const TERMINATE_GRACE: Duration = Duration::from_secs(3);
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

/// Variables that a process has from the node: where things are, who and where
/// the user is. Nothing that could be a credential.
const INHERITED: [&str; 19] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TMP",
    "TEMP",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// What to start.
pub struct Program<'a> {
    pub command: &'a str,
    pub args: &'a [String],
    pub env: Vec<(String, String)>,
    pub cwd: Option<&'a Path>,
}

/// A process that has just started.
pub struct Started {
    pub process: Process,
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

/// Its body; kills all of it when dropped.
pub struct Process {
    body: Body,
    _counted: Option<Counted>,
}

enum Body {
    /// A child of the node.
    Own { child: Box<dyn ChildWrapper>, group: Option<Group> },
    /// The child of a guard.
    Guarded(Box<Guarded>),
}

/// A process that runs, as long as this lives.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A process group that is killed with its owner.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // None is left, most of the time.
        _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Starts a process of a backend, behind a guard where guards are installed.
/// It may map so much memory. Dropping this kills what has been started.
pub async fn launch(
    program: Program<'_>,
    memory_bytes_max: Option<u64>,
    meters: &Meters,
) -> io::Result<Started> {
    let mut started = if guard::is_installed() {
        let dress = |command: &mut Command| dress(command, &program);
        let (guarded, pipes) =
            Guarded::start(program.command.as_ref(), program.args, memory_bytes_max, dress).await?;
        Started {
            stdin: ChildStdin::from_std(pipes.stdin.into())?,
            stdout: ChildStdout::from_std(pipes.stdout.into())?,
            stderr: ChildStderr::from_std(pipes.stderr.into())?,
            process: Process { body: Body::Guarded(Box::new(guarded)), _counted: None },
        }
    } else {
        let started = start(program)?;
        if let (Some(bytes), Body::Own { group: Some(Group(pid)), .. }) =
            (memory_bytes_max, &started.process.body)
        {
            guard::limit_memory(*pid, bytes)?;
        }
        started
    };
    meters.started.increment(1);
    meters.processes.increment(1.0);
    started.process._counted = Some(Counted(meters.processes.clone()));
    Ok(started)
}

/// What every process gets besides its pipes.
fn dress(command: &mut Command, program: &Program<'_>) {
    command.env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(program.env.iter().map(|(name, value)| (name, value)));
    if let Some(cwd) = program.cwd {
        command.current_dir(cwd);
    }
}

/// Starts a process as a child of this one.
pub fn start(program: Program<'_>) -> io::Result<Started> {
    let mut command = CommandWrap::with_new(program.command, |command| {
        dress(command, &program);
        command.args(program.args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    let mut child = command.wrap(ProcessGroup::leader()).wrap(KillOnDrop).spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).map(Group);
    let missing = || io::Error::other("the process has no pipes");
    Ok(Started {
        stdin: child.stdin().take().ok_or_else(missing)?,
        stdout: child.stdout().take().ok_or_else(missing)?,
        stderr: child.stderr().take().ok_or_else(missing)?,
        process: Process { body: Body::Own { child, group }, _counted: None },
    })
}

impl Process {
    /// Until it ends by itself. Cancel safe.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        match &mut self.body {
            Body::Own { child, .. } => child.wait().await,
            Body::Guarded(guarded) => guarded.ended().await,
        }
    }

    /// Makes it end. Its input has been closed before.
    pub async fn stop(&mut self) -> io::Result<ExitStatus> {
        for (grace, terminate) in [(END_OF_INPUT_GRACE, false), (TERMINATE_GRACE, true)] {
            if terminate {
                self.terminate();
            }
            if let Ok(ended) = timeout(grace, self.ended()).await {
                if let Body::Guarded(guarded) = &mut self.body {
                    guarded.gone().await;
                }
                return ended;
            }
        }
        self.kill().await
    }

    /// Makes it end now.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        match &mut self.body {
            Body::Own { child, group } => {
                if let Some(Group(group)) = group {
                    // It may just have ended.
                    _ = kill_process_group(*group, Signal::KILL);
                }
                child.wait().await
            }
            Body::Guarded(guarded) => guarded.kill().await,
        }
    }

    fn terminate(&self) {
        match &self.body {
            Body::Own { group: Some(Group(group)), .. } => _ = kill_process_group(*group, Signal::TERM),
            Body::Own { group: None, .. } => {}
            Body::Guarded(guarded) => guarded.terminate(),
        }
    }
}

/// How a process ended, in words.
pub fn describe(ended: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown end".to_owned(),
        },
        Err(error) => format!("an unknown end ({error})"),
    }
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

    fn is_alive(pid: i32) -> bool {
        // A zombie is not alive; its parent may be long in noticing.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
    }

    async fn until_dead(pid: i32) {
        timeout(Duration::from_secs(5), async {
            while is_alive(pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the process is still alive");
    }

    async fn first_line(stdout: &mut ChildStdout) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(stdout.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn a_process_that_reads_to_its_end_is_not_killed() {
        let Started { mut process, stdin, .. } = shell("cat >/dev/null; exit 7");
        drop(stdin);
        assert_eq!(describe(&process.stop().await), "exit code 7");
    }

    #[tokio::test]
    async fn the_children_of_a_process_die_with_it() {
        let Started { process, mut stdout, stdin: _stdin, .. } = shell("sleep 1000 & echo $!; wait");
        let child: i32 = first_line(&mut stdout).await.parse().unwrap();
        assert!(is_alive(child));
        drop(process);
        until_dead(child).await;
    }

    #[tokio::test]
    async fn what_a_crashed_process_leaves_behind_dies() {
        let Started { mut process, mut stdout, stdin: _stdin, .. } = shell("sleep 1000 & echo $!; exit 3");
        let child: i32 = first_line(&mut stdout).await.parse().unwrap();
        assert_eq!(describe(&process.ended().await), "exit code 3");
        drop(process);
        until_dead(child).await;
    }

    #[tokio::test]
    async fn a_process_that_ignores_everything_is_killed() {
        let Started { mut process, mut stdout, stdin, .. } =
            shell("trap '' TERM; echo ready; while :; do sleep 0.1; done");
        assert_eq!(first_line(&mut stdout).await, "ready");
        drop(stdin);
        assert_eq!(describe(&process.stop().await), "signal 9");
    }

    #[tokio::test]
    async fn a_process_gets_no_variables_that_nobody_gave_it() {
        let args = ["-c".to_owned(), "env".to_owned()];
        let env = vec![("OWN".to_owned(), "yes".to_owned())];
        let mut started = start(Program { command: "sh", args: &args, env, cwd: None }).unwrap();
        let mut text = String::new();
        started.stdout.read_to_string(&mut text).await.unwrap();
        let names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(names.contains(&"OWN") && names.contains(&"PATH"));
        // The shell sets these itself.
        let foreign: Vec<_> = names
            .iter()
            .filter(|name| {
                !INHERITED.contains(name) && !["OWN", "PWD", "SHLVL", "_", "OLDPWD"].contains(name)
            })
            .collect();
        assert!(foreign.is_empty(), "{foreign:?}");
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
