//! Kills and power losses: nothing that was acknowledged may be missing, and
//! nothing may be there by half.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mt_controlplane::store::sled::SledStore;
use mt_controlplane::store::{Error, LogId, Store};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crash::disk::{self, Disk, Op, Survives};
use crash::{Ack, Model, acks, commit, options, say};

mod crash;

const KILLS: usize = 200;
/// Then a new store, so that kills also hit the making of one.
const KILLS_PER_STORE: usize = 20;
const STATES_PER_MODEL: usize = 60;

fn random() -> (u64, SmallRng) {
    let seed = std::env::var("MT_CRASH_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("MT_CRASH_SEED={seed}");
    (seed, SmallRng::seed_from_u64(seed))
}

/// What the other tests run in a process of its own; without a role there is
/// nothing to do.
#[test]
fn child() {
    let Ok(role) = std::env::var("MT_CRASH_ROLE") else { return };
    let dir = PathBuf::from(std::env::var("MT_CRASH_DIR").unwrap());
    say(""); // The harness has begun a line.
    match role.as_str() {
        "writer" => {
            let store = Arc::new(SledStore::open(&dir, options()).unwrap());
            say("ready");
            crash::work(&store, &std::process::id().to_string(), 4, usize::MAX);
        }
        "sessions" => sessions(&dir),
        "faults" => faults(&dir),
        other => panic!("no role {other}"),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the moment of the kill is what is tested")]
fn a_killed_writer_loses_nothing_acknowledged() {
    let (_, mut random) = random();
    let work = tempfile::tempdir().unwrap();
    let (mut model, mut acknowledged) = (Model::default(), 0);
    for kill in 0..KILLS {
        let dir = work.path().join((kill / KILLS_PER_STORE).to_string());
        if kill % KILLS_PER_STORE == 0 {
            model = Model::default();
        }
        let mut process = crash::child("writer", &dir).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut text = String::new();
        // Most kills hit a writer at work, some hit one that is still opening.
        while kill % 5 != 0 && !text.ends_with("ready\n") {
            assert_ne!(output.read_line(&mut text).unwrap(), 0, "the writer ended by itself: {text}");
        }
        std::thread::sleep(Duration::from_micros(random.random_range(1_000..60_000)));
        process.kill().unwrap();
        process.wait().unwrap();
        output.read_to_string(&mut text).unwrap();
        let acks = acks(&text);
        acknowledged += acks.len();
        model.check(&dir, &acks).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
    }
    println!("{KILLS} kills, {acknowledged} acknowledged commits");
    assert!(acknowledged > KILLS, "the writers hardly wrote");
}

/// Opens, commits and closes a few times, once with an index that must be
/// rebuilt.
fn sessions(dir: &Path) {
    for session in 0..4 {
        if session == 2 {
            fs::write(dir.join("sled.opening"), b"").unwrap();
        }
        let store = Arc::new(SledStore::open(dir, options()).unwrap());
        crash::work(&store, &session.to_string(), 3, 30);
    }
}

/// The record of [`sessions`], and where the store was.
fn recorded() -> (Vec<Op>, PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("root/store");
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let mut command = crash::child("sessions", &dir);
    let trace = crash::with_shim(&mut command, work.path(), dir.parent().unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ops = disk::parse(&fs::read(trace).unwrap());
    let said: String = printed(&ops);
    assert_eq!(acks(&said).len(), 4 * 3 * 30);
    (ops, dir.parent().unwrap().to_owned())
}

fn printed(ops: &[Op]) -> String {
    ops.iter().filter_map(|op| if let Op::Print { text } = op { Some(text.as_str()) } else { None }).collect()
}

/// Cuts the record at random points and checks what each power loss leaves.
fn power_losses(survives: Survives, states: usize, syncs_that_lie: Option<&'static str>) -> Vec<String> {
    let (seed, mut random) = random();
    let (ops, root) = recorded();
    let mut cuts: Vec<usize> = (0..states).map(|_| random.random_range(0..=ops.len())).collect();
    cuts.sort_unstable();
    let mut model = Disk::new(&root);
    model.syncs_that_lie = syncs_that_lie;
    let (mut at, mut said, mut failures) = (0, String::new(), Vec::new());
    for cut in cuts {
        for op in &ops[at..cut] {
            model.apply(op);
        }
        said.push_str(&printed(&ops[at..cut]));
        at = cut;
        let target = tempfile::tempdir().unwrap();
        model.crash(survives, &mut random, target.path());
        let acks: Vec<Ack> = acks(&said);
        if let Err(error) = Model::default().check(&target.path().join("store"), &acks) {
            failures.push(format!(
                "seed {seed}, cut at {cut} of {}, {} acknowledged: {error}",
                ops.len(),
                acks.len()
            ));
        }
    }
    failures
}

#[test]
fn a_power_loss_that_leaves_only_what_was_synced_loses_nothing_acknowledged() {
    assert_eq!(power_losses(Survives::Nothing, STATES_PER_MODEL, None), [""; 0]);
}

#[test]
fn a_power_loss_that_leaves_a_prefix_loses_nothing_acknowledged() {
    assert_eq!(power_losses(Survives::Prefix, STATES_PER_MODEL, None), [""; 0]);
}

#[test]
fn a_power_loss_that_tears_at_random_loses_nothing_acknowledged() {
    assert_eq!(power_losses(Survives::Subset, STATES_PER_MODEL, None), [""; 0]);
}

#[test]
fn a_sync_that_does_not_sync_would_be_noticed() {
    for (lies, at_least) in [("/", 5), ("/journal/", 5), ("/snapshots/", 1)] {
        let failures = power_losses(Survives::Nothing, 10, Some(lies));
        assert!(failures.len() >= at_least, "{lies}: only {} of 10 states show a loss", failures.len());
    }
}

/// A disk that is full, then not; then one whose syncs fail.
#[expect(clippy::disallowed_methods, reason = "the store writes sled out when it is idle")]
fn faults(dir: &Path) {
    let fault = PathBuf::from(std::env::var("MT_SHIM_FAULT").unwrap());
    let set = |what: &str| fs::write(&fault, what).unwrap();
    let clear = || fs::remove_file(&fault).unwrap();
    let runtime = crash::runtime();
    let store = SledStore::open(dir, options()).unwrap();
    let put = |token: &str, at| commit(&runtime, &store, token, 0, at);
    let sum = || LogId::ALL.map(|log| store.head(log)).iter().sum::<u64>();
    put("before", 0).unwrap();

    for at in 0..20 {
        set("full");
        let full = put(&format!("full-{at}"), at).unwrap_err();
        assert!(matches!(full, Error::DiskFull { .. }), "{full:?}");
        assert_eq!(sum(), 1 + at as u64);
        assert_eq!(
            runtime.block_on(store.state(LogId::Config, None)).unwrap().revision,
            store.head(LogId::Config)
        );
        clear();
        put(&format!("space-{at}"), at).unwrap();
    }

    set("sync:journal");
    let failed = put("sync", 1).unwrap_err();
    assert!(matches!(failed, Error::Io { doing: "syncing", .. }), "{failed:?}");
    put("sync", 1).unwrap_err();
    clear();
    put("synced", 1).unwrap();

    // HEAD fails after the journal has the commit: it stands, and the next waits.
    set("sync:HEAD");
    put("headless", 1).unwrap();
    put("refused", 1).unwrap_err();
    clear();
    put("headed", 1).unwrap();

    // Only the index is full: commits go on until sled writes, then are refused.
    set("full:/sled/");
    let mut at = 0;
    crash::eventually("a full index", || {
        at += 1;
        std::thread::sleep(Duration::from_millis(1_100)); // Idle, so that sled writes.
        matches!(put(&format!("index-{at}"), at), Err(Error::DiskFull { .. }))
    });
    let unread = runtime.block_on(store.history(LogId::Config, None, 5));
    assert!(matches!(unread, Err(Error::Index { .. })), "{unread:?}");
    assert_eq!(
        runtime.block_on(store.state(LogId::Config, None)).unwrap().revision,
        store.head(LogId::Config)
    );
    clear();
    put("index-has-space", 1).unwrap();
    assert!(!runtime.block_on(store.history(LogId::Config, None, 5)).unwrap().is_empty());
    say("done");
}

#[test]
fn a_full_or_failing_disk_refuses_commits_and_recovers_by_itself() {
    let work = tempfile::tempdir().unwrap();
    let dir = work.path().join("root/store");
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let mut command = crash::child("faults", &dir);
    crash::with_shim(&mut command, work.path(), dir.parent().unwrap());
    let output = command.env("MT_SHIM_FAULT", work.path().join("fault")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("done\n"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Model::default().check(&dir, &acks(&text)).unwrap();
}
