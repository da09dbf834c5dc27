//! The workload of the crash tests, and the check of what it left.
//!
//! Every commit names itself by a token that is also its value, so that an
//! acknowledgement on standard output is enough to find it again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mt_controlplane::store::sled::{Options, SledStore};
use mt_controlplane::store::{BlobHash, Commit, Error, LogId, Note, Store, Write};
use tokio::runtime::Runtime;
use tokio::time::Instant;

pub mod disk;

/// Small, so that segments and snapshots come and go all the time.
pub fn options() -> Options {
    Options {
        history_config: 100_000,
        history_catalog: 100_000,
        snapshot_commits: 60,
        segment_bytes: 8 << 10,
        ..Options::default()
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// A commit that its writer was told is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack {
    pub log: LogId,
    pub revision: u64,
    pub token: String,
}

/// The whole lines of an output that are acknowledgements.
pub fn acks(output: &str) -> Vec<Ack> {
    let whole = output.rfind('\n').map_or("", |end| &output[..end]);
    let parse = |line: &str| {
        let mut words = line.split(' ');
        (words.next()? == "ack").then_some(())?;
        let log = if words.next()? == "config" { LogId::Config } else { LogId::Catalog };
        Some(Ack { log, revision: words.next()?.parse().ok()?, token: words.next()?.to_owned() })
    };
    whole.lines().filter_map(parse).collect()
}

pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Commits `count` times from each of `threads` threads, and says each
/// acknowledgement.
pub fn work(store: &Arc<SledStore>, run: &str, threads: usize, count: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let runtime = runtime();
                for at in 0..count {
                    commit(&runtime, store, &format!("{run}-{thread}-{at}"), thread, at).unwrap();
                }
            });
        }
    });
}

pub fn commit(
    runtime: &Runtime,
    store: &SledStore,
    token: &str,
    thread: usize,
    at: usize,
) -> Result<Arc<Commit>, Error> {
    let log = LogId::ALL[usize::from(at % 3 == 2)];
    let pair = at % 5;
    let value = |padding: usize| format!("{token} {}", "x".repeat(padding));
    let mut writes = vec![
        Write::put(format!("pair/{pair}/a"), token.to_owned()),
        Write::put(format!("pair/{pair}/b"), token.to_owned()),
        // Now and then more than a page, so that a record can be torn.
        Write::put(format!("own/{thread}"), value(if at.is_multiple_of(7) { 9_000 } else { 40 })),
    ];
    if at.is_multiple_of(2) {
        writes.push(Write::delete(format!("gone/{thread}")));
    } else {
        writes.push(Write::put(format!("gone/{thread}"), value(0)));
    }
    let note = Note { author: "crash".into(), message: token.to_owned() };
    let commit = runtime.block_on(store.commit(log, None, writes, note))?;
    say(&format!("ack {log} {} {token}", commit.revision));
    Ok(commit)
}

/// What the logs held when they were last looked at.
#[derive(Default)]
pub struct Model {
    logs: BTreeMap<LogId, (u64, BTreeMap<String, BlobHash>)>,
}

impl Model {
    /// Opens the store in `dir` and compares it with all that is known: nothing
    /// acknowledged is missing, no revision is, nothing is half, and what was seen
    /// once is still there.
    pub fn check(&mut self, dir: &Path, acks: &[Ack]) -> Result<(), String> {
        let store = SledStore::open(dir, options()).map_err(|error| format!("does not open: {error}"))?;
        let runtime = runtime();
        LogId::ALL.into_iter().try_for_each(|log| self.check_log(&runtime, &store, log, acks))
    }

    fn check_log(
        &mut self,
        runtime: &Runtime,
        store: &SledStore,
        log: LogId,
        acks: &[Ack],
    ) -> Result<(), String> {
        let (seen, hashes) = self.logs.entry(log).or_default();
        let state = runtime.block_on(store.state(log, None)).unwrap();
        let acks: Vec<_> = acks.iter().filter(|ack| ack.log == log).collect();
        let newest = acks.iter().map(|ack| ack.revision).max().unwrap_or(0).max(*seen);
        if state.revision < newest {
            return Err(format!("{log} lost revisions: head {}, known {newest}", state.revision));
        }
        let mut commits = Vec::new();
        while commits.len() < (state.revision - *seen) as usize {
            let before = state.revision + 1 - commits.len() as u64;
            let left = (state.revision - *seen) as usize - commits.len();
            let page = runtime
                .block_on(store.history(log, Some(before), left))
                .map_err(|error| error.to_string())?;
            if page.is_empty() {
                return Err(format!("{log} has no commit {}", before - 1));
            }
            commits.extend(page);
        }
        commits.reverse();
        for (revision, commit) in (*seen + 1..).zip(&commits) {
            if commit.revision != revision {
                return Err(format!("{log} has commit {} in the place of {revision}", commit.revision));
            }
            for change in &commit.changes {
                if hashes.get(&change.key).copied() != change.before {
                    return Err(format!("{log} {revision} does not follow the commit before it"));
                }
                match change.after {
                    Some(hash) => _ = hashes.insert(change.key.clone(), hash),
                    None => _ = hashes.remove(&change.key),
                }
            }
        }
        for ack in acks.iter().filter(|ack| ack.revision > *seen) {
            let commit = &commits[(ack.revision - *seen - 1) as usize];
            let hash = Some(BlobHash::of(ack.token.as_bytes()));
            let whole = commit
                .changes
                .iter()
                .filter(|change| change.key.starts_with("pair/") && change.after == hash);
            if commit.message != ack.token || whole.count() != 2 {
                return Err(format!("{log} {} is not what was acknowledged", ack.revision));
            }
        }
        *seen = state.revision;
        let held: BTreeMap<_, _> =
            state.entries.iter().map(|(key, entry)| (key.clone(), entry.hash)).collect();
        if held != *hashes {
            return Err(format!("{log} {} is not the sum of its history", state.revision));
        }
        let pair =
            |at: usize, half: &str| state.entries.get(&format!("pair/{at}/{half}")).map(|entry| &entry.value);
        if (0..5).any(|at| pair(at, "a") != pair(at, "b")) {
            return Err(format!("{log} {} holds half a commit", state.revision));
        }
        Ok(())
    }
}

/// This test binary again, to run only the test `child` in the given role.
pub fn child(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env("MT_CRASH_ROLE", role).env("MT_CRASH_DIR", dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Compiles the shim and preloads it.
pub fn with_shim(command: &mut Command, work_dir: &Path, dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/shim.c");
    let library = work_dir.join("shim.so");
    let mut built = Command::new("cc");
    built.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
    let status =
        built.arg(&library).arg(&source).arg("-lpthread").status().expect("a C compiler is installed");
    assert!(status.success());
    let trace = work_dir.join("trace");
    command.env("LD_PRELOAD", &library).env("MT_SHIM_DIR", dir).env("MT_SHIM_TRACE", &trace);
    trace
}

/// Waits for a condition with a deadline.
#[expect(clippy::disallowed_methods, reason = "no runtime runs here")]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
