//! Processes that end with the measurement, and how they say where they listen.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// How long a process may take to serve its first request, or to end.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ends when dropped.
pub struct Guard(Child);

impl Guard {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Lets it end by itself, as a service manager would.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("process {} does not end", self.0.id());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// # Errors
    /// That it has ended, with its code.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("it ended with {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left to do.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The program beside this one.
///
/// # Errors
/// If it was not built.
pub fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!(
            "{} is missing: build all programs first, `cargo build --release --workspace --bins`",
            path.display()
        );
    }
    Ok(path)
}

/// Starts a program whose output goes to a file, or nowhere.
///
/// # Errors
/// If it cannot be started.
pub fn spawn(command: &mut Command, log: Option<&Path>) -> anyhow::Result<Guard> {
    let (out, err) = match log {
        Some(path) => {
            let file = std::fs::File::create(path)?;
            (Stdio::from(file.try_clone()?), Stdio::from(file))
        }
        None => (Stdio::null(), Stdio::null()),
    };
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
    Ok(Guard(child.with_context(|| format!("starting {command:?}"))?))
}

/// Starts a program that prints its address first.
///
/// # Errors
/// If it cannot be started, or prints something else.
pub fn listening(command: &mut Command) -> anyhow::Result<(Guard, SocketAddr)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let guard = Guard(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((guard, line.trim().parse().with_context(|| format!("{command:?} printed {line:?}"))?))
}

/// The address that a program writes when it listens.
///
/// # Errors
/// If it has ended, or writes nothing in time.
pub async fn ready(guard: &mut Guard, file: &Path, key: &str) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        guard.still_runs().with_context(|| format!("it has not written {}", file.display()))?;
        if let Ok(text) = std::fs::read_to_string(file)
            && let Ok(bound) = serde_json::from_str::<serde_json::Value>(&text)
            && let Some(address) = bound.get(key).and_then(|address| address.as_str())
        {
            return Ok(address.parse()?);
        }
        sleep(Duration::from_millis(1)).await;
    }
    bail!("{} did not appear within {PATIENCE:?}", file.display())
}

/// An address that nobody listens on, for programs that cannot choose one.
///
/// # Errors
/// If there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.local_addr()?)
}
