//! Nothing that a node has started outlives it, however the node ends.
//!
//! Between the node and each server of a pipe stands a guard: this executable
//! once more, under a hidden name, as the server's parent and the one to whom
//! the kernel hands whatever the server leaves behind. A socket ties it to the
//! node. When the socket closes, because the node wants it or because the node
//! is dead, the guard kills every descendant and ends. Messages do not pass
//! through it: the server has its pipes directly. See `docs/adr/0007-*.md`.
//!
//! ```text
//!  node ──socket──► guard ──► server ──► whatever it starts
//!    └────────── pipes ─────────┘
//! ```

#[cfg(target_os = "linux")]
mod keeper;
mod wire;

use std::{
    ffi::OsStr,
    io,
    os::unix::{net::UnixStream as BlockingStream, process::ExitStatusExt as _},
    process::{ExitCode, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};

use self::wire::{Frame, Pipes};

/// The first argument of a guard; the rest is the limit on memory, the program,
/// and its arguments.
const SUBCOMMAND: &str = "__guard";
/// How long a guard may take to start its server.
const START_MAX: Duration = Duration::from_secs(10);
/// How long it may take to end when it has nothing left to guard.
const END_MAX: Duration = Duration::from_secs(2);

static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Servers are guarded from now on. For executables that call
/// [`run_if_asked`] first of all; elsewhere servers are started without.
pub fn install() {
    INSTALLED.store(cfg!(target_os = "linux"), Ordering::Relaxed);
}

pub fn is_installed() -> bool {
    INSTALLED.load(Ordering::Relaxed)
}

/// If this process has been started as a guard, it is one until its end: with
/// this code.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    args.next().filter(|first| first == SUBCOMMAND)?;
    #[cfg(target_os = "linux")]
    return Some(keeper::run(args));
    #[cfg(not(target_os = "linux"))]
    return Some(ExitCode::FAILURE);
}

/// Limits what a process, and what it starts, may map.
///
/// # Errors
/// If the process is gone, or the system knows no such limit.
pub fn limit_memory(pid: Pid, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, prlimit};
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        prlimit(Some(pid), Resource::As, limit)?;
        Ok(())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (pid, bytes);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A server behind its guard. Dropped, it is killed with all that it started.
pub struct Guarded {
    control: UnixStream,
    guard: Child,
    /// None until it has been started.
    server: Option<Pid>,
    frame: Frame,
    ended: Option<ExitStatus>,
}

impl Guarded {
    /// Starts `program` with what `prepare` sets: variables, directory. It has
    /// a process group of its own. Dropping this kills what has been started.
    pub async fn start(
        program: &OsStr,
        args: &[String],
        memory_bytes_max: Option<u64>,
        prepare: impl FnOnce(&mut Command),
    ) -> io::Result<(Self, Pipes)> {
        let (ours, theirs) = BlockingStream::pair()?;
        // Not the path: the file may have been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("magictunnel-guard").arg(SUBCOMMAND).arg(memory_bytes_max.unwrap_or(0).to_string());
        command.arg(program).args(args).process_group(0);
        prepare(&mut command);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let guard = command.spawn()?;
        // It holds the other end of the socket.
        drop(command);
        let pipes = wire::send_pipes(&ours)?;
        ours.set_nonblocking(true)?;
        let control = UnixStream::from_std(ours)?;
        let mut guarded = Self { control, guard, server: None, frame: Frame::default(), ended: None };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "its guard does not answer");
        match timeout(START_MAX, guarded.frame.read(&guarded.control)).await.map_err(|_| late())?? {
            (wire::STARTED, pid) => guarded.server = Pid::from_raw(pid),
            (wire::FAILED, code) => return Err(io::Error::from_raw_os_error(code)),
            _ => return Err(wire::nonsense()),
        }
        Ok((guarded, pipes))
    }

    /// Until the server ends by itself. Cancel safe.
    ///
    /// # Errors
    /// If its guard died: then how it ended is not known, only that it has.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        match self.frame.read(&self.control).await {
            Ok((wire::ENDED, status)) => {
                let status = ExitStatus::from_raw(status);
                self.ended = Some(status);
                Ok(status)
            }
            Ok(_) => Err(wire::nonsense()),
            Err(_) => {
                // What it was to kill is ours to kill now, as far as we know it.
                self.kill_group();
                Err(io::Error::other("its guard died"))
            }
        }
    }

    /// Asks the server, and what is in its process group, to end.
    pub fn terminate(&self) {
        self.tell(wire::TERMINATE);
    }

    /// Kills the server and all that it has started, and waits for that.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.tell(wire::KILL);
        let status = timeout(END_MAX, self.ended()).await.unwrap_or_else(|_| {
            self.kill_group();
            Err(io::Error::new(io::ErrorKind::TimedOut, "its guard does not answer"))
        });
        self.gone().await;
        status
    }

    /// When the server has ended: until all that it has started is gone too.
    pub async fn gone(&mut self) {
        if timeout(END_MAX, self.guard.wait()).await.is_err() {
            let server = self.server.map(|pid| pid.as_raw_nonzero().get());
            tracing::warn!(server, "what a server has started cannot be killed");
        }
    }

    fn kill_group(&self) {
        if let Some(server) = self.server {
            _ = kill_process_group(server, Signal::KILL);
        }
    }

    fn tell(&self, what: u8) {
        // Nothing is ever in the way of so little; if the guard is gone, there
        // is nobody to tell.
        _ = self.control.try_write(&[what]);
    }
}
