//! Child processes that leave nothing behind: starting one, and its end.
//!
//! A process is the leader of a process group and dies with that group; where
//! guards are installed (`guard.rs`), with everything that it has ever started,
//! also when the node is killed. Its environment is an allow-list and what it is
//! given. What is said on its pipes is the business of whoever started it.

pub mod guard;

use std::{any::Any, ffi::OsStr, io, path::Path, process::ExitStatus, process::Stdio, time::Duration};

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use self::guard::Guarded;

/// How long a process may take to end by itself once its input has ended.
const END_OF_INPUT_GRACE: Duration = Duration::from_secs(2);
/// How long it may take once it got SIGTERM.
const TERMINATE_GRACE: Duration = Duration::from_secs(3);

/// Variables that a process has from the node: where things are, who and where
/// the user is. Nothing that could be a credential.
pub const INHERITED: [&str; 19] = [
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
#[derive(Debug)]
pub struct Started {
    pub process: Process,
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

/// Its body; kills all of it when dropped.
pub struct Process {
    body: Body,
    held: Option<Box<dyn Any + Send + Sync>>,
}

enum Body {
    /// A child of the node.
    Own { child: Box<dyn ChildWrapper>, group: Option<Group> },
    /// The child of a guard.
    Guarded(Box<Guarded>),
}

/// A process group that is killed with its owner.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // None is left, most of the time.
        _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Starts a process, behind a guard where guards are installed. It may map so
/// much memory. Dropping this kills what has been started.
///
/// # Errors
/// As the system says them: there is no such program, or no such directory.
pub async fn launch(program: Program<'_>, memory_bytes_max: Option<u64>) -> io::Result<Started> {
    if guard::is_installed() {
        let dress = |command: &mut Command| dress(command, &program);
        let name = OsStr::new(program.command);
        let (guarded, pipes) = Guarded::start(name, program.args, memory_bytes_max, dress).await?;
        return Ok(Started {
            stdin: ChildStdin::from_std(pipes.stdin.into())?,
            stdout: ChildStdout::from_std(pipes.stdout.into())?,
            stderr: ChildStderr::from_std(pipes.stderr.into())?,
            process: Process { body: Body::Guarded(Box::new(guarded)), held: None },
        });
    }
    let started = start(program)?;
    if let (Some(bytes), Body::Own { group: Some(Group(pid)), .. }) =
        (memory_bytes_max, &started.process.body)
    {
        guard::limit_memory(*pid, bytes)?;
    }
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
///
/// # Errors
/// As the system says them.
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
        process: Process { body: Body::Own { child, group }, held: None },
    })
}

impl Process {
    /// Keeps this until the process is dropped: a count of those that run, for
    /// example.
    #[must_use]
    pub fn holding(mut self, held: impl Any + Send + Sync) -> Self {
        self.held = Some(Box::new(held));
        self
    }

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

    /// Asks it, and what is in its process group, to end.
    pub fn terminate(&self) {
        match &self.body {
            Body::Own { group: Some(Group(group)), .. } => _ = kill_process_group(*group, Signal::TERM),
            Body::Own { group: None, .. } => {}
            Body::Guarded(guarded) => guarded.terminate(),
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

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
}
