//! The guard itself: a process with two threads and no runtime.
//!
//! One thread reaps whatever ends below it, the other listens to the node. It
//! trusts nobody to end by being asked: descendants are found by their parents,
//! which a process cannot forge, and killed until none is left.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
};

use super::wire;

/// Between two looks for descendants that are still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// So often it is looked: what cannot be killed in that time cannot be killed.
const LOOKS_MAX: u32 = 1_000;

/// Guards one server. The arguments are those after the hidden name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match guard(args) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever has started it by hand sees the code.
        Err(_) => ExitCode::FAILURE,
    }
}

fn guard(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let node = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    _ = rustix::thread::set_name(c"mt-guard");
    let memory: u64 = args.next().and_then(|max| max.to_str()?.parse().ok()).ok_or_else(wire::nonsense)?;
    let program = args.next().ok_or_else(wire::nonsense)?;
    let pipes = wire::receive_pipes(&node)?;
    // Before there is anything that could be lost.
    set_child_subreaper(Some(getpid()))?;
    let server = match start(&program, args, pipes, memory) {
        Ok(server) => server,
        Err(error) => {
            let code = error.raw_os_error().unwrap_or(0);
            return (&node).write_all(&wire::frame(wire::FAILED, code));
        }
    };
    if (&node).write_all(&wire::frame(wire::STARTED, server.as_raw_nonzero().get())).is_err() {
        kill_all();
        return Ok(());
    }
    let orders = node.try_clone()?;
    thread::Builder::new().spawn(move || obey(orders, server)).inspect_err(|_| kill_all())?;
    while let Ok(Some((pid, status))) = wait(WaitOptions::empty()) {
        if pid == server {
            // First the news: calls wait for it.
            _ = (&node).write_all(&wire::frame(wire::ENDED, status.as_raw()));
            kill_all();
            return Ok(());
        }
    }
    Ok(())
}

fn start(
    program: &OsString,
    args: impl Iterator<Item = OsString>,
    [stdin, stdout, stderr]: [OwnedFd; 3],
    memory: u64,
) -> io::Result<Pid> {
    let mut command = Command::new(program);
    command.args(args).process_group(0);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let child = command.spawn()?;
    let server = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(wire::nonsense)?;
    if memory > 0 {
        super::limit_memory(server, memory).inspect_err(|_| kill_all())?;
    }
    Ok(server)
}

/// Does what the node says until it says to kill, or nothing any more.
fn obey(mut node: UnixStream, server: Pid) {
    let mut order = [0];
    while let Ok(1) = node.read(&mut order) {
        match order[0] {
            // It may just have ended.
            wire::TERMINATE => _ = kill_process_group(server, Signal::TERM),
            _ => break,
        }
    }
    // The other thread reaps them, and ends when it has reaped the server.
    for _ in 0..LOOKS_MAX {
        if !kill_descendants() {
            return;
        }
        thread::park_timeout(LOOK_INTERVAL);
    }
}

/// Kills and reaps until there is nothing below this process.
fn kill_all() {
    for _ in 0..LOOKS_MAX {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // No children: no descendants either.
                Err(_) => return,
            }
        }
        kill_descendants();
        thread::park_timeout(LOOK_INTERVAL);
    }
}

/// Whether there were any.
fn kill_descendants() -> bool {
    let descendants = descendants(getpid(), &parents());
    for pid in &descendants {
        // Those that cannot be killed are few: they changed their user.
        _ = kill_process(*pid, Signal::KILL);
    }
    !descendants.is_empty()
}

fn descendants(of: Pid, parents: &HashMap<Pid, Vec<Pid>>) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut look = vec![of];
    while let Some(pid) = look.pop() {
        let children = parents.get(&pid).map_or(&[][..], Vec::as_slice);
        found.extend_from_slice(children);
        look.extend_from_slice(children);
    }
    found
}

/// All processes that are not dead yet, by their parents.
fn parents() -> HashMap<Pid, Vec<Pid>> {
    let mut parents: HashMap<Pid, Vec<Pid>> = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return parents };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent(&stat) {
            parents.entry(parent).or_default().push(pid);
        }
    }
    parents
}

/// The parent in a line of `/proc/PID/stat`. A name may hold anything, also
/// parentheses and spaces.
fn parent(stat: &str) -> Option<Pid> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let _state = fields.next()?;
    fields.next()?.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).unwrap()
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (a) b) (c) S 7 12 12 0 -1"), Some(pid(7)));
        assert_eq!(parent("1 (init) S 0 1 1"), None);
        assert_eq!(parent(""), None);
    }

    #[test]
    fn all_generations_are_descendants_and_nobody_else() {
        let parents = HashMap::from([
            (pid(1), vec![pid(10), pid(20)]),
            (pid(10), vec![pid(11), pid(12)]),
            (pid(12), vec![pid(13)]),
            (pid(20), vec![pid(21)]),
        ]);
        let mut found = descendants(pid(10), &parents);
        found.sort_by_key(|pid| pid.as_raw_nonzero());
        assert_eq!(found, [pid(11), pid(12), pid(13)]);
    }

    #[test]
    fn this_process_is_found_where_it_is() {
        let here = getpid();
        let parent = rustix::process::getppid().unwrap();
        assert!(parents()[&parent].contains(&here));
    }
}
