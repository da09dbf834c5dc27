//! What the store does with the files it finds: served, repaired or refused,
//! and never fewer commits than were acknowledged without saying so.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mt_controlplane::store::sled::{OnDamage, Options, SledStore};
use mt_controlplane::store::{BlobHash, Error, LogId, Note, State, Store, Write};

const CONFIG: LogId = LogId::Config;

fn options() -> Options {
    Options::default()
}

/// Snapshots and segments after a few commits, so that there are several.
fn small() -> Options {
    Options { snapshot_commits: 10, segment_bytes: 1024, ..options() }
}

fn note(message: &str) -> Note {
    Note { author: "test".into(), message: message.into() }
}

async fn put(store: &SledStore, key: &str, value: &str) -> u64 {
    store.commit(CONFIG, None, vec![Write::put(key, value.to_owned())], note("put")).await.unwrap().revision
}

/// A closed store of `commits` commits in each log, and what it held.
async fn filled(dir: &Path, options: &Options, commits: u64) -> [Arc<State>; 2] {
    let store = SledStore::open(dir, options.clone()).unwrap();
    for at in 1..=commits {
        assert_eq!(put(&store, &format!("key{}", at % 7), &format!("value {at}")).await, at);
        let writes = vec![Write::put("tools", vec![at as u8; 100])];
        store.commit(LogId::Catalog, Some(at - 1), writes, note("catalog")).await.unwrap();
    }
    let states = [store.state(CONFIG, None).await.unwrap(), store.state(LogId::Catalog, None).await.unwrap()];
    store.close().await;
    states
}

/// Opens and compares with what must be there, in memory and in the history.
async fn assert_holds(dir: &Path, options: &Options, expected: &[Arc<State>; 2]) {
    let store = SledStore::open(dir, options.clone()).unwrap();
    assert_same(&store, expected).await;
    let next = put(&store, "after", "it goes on").await;
    assert_eq!(next, expected[0].revision + 1);
    store.close().await;
}

async fn assert_same(store: &SledStore, expected: &[Arc<State>; 2]) {
    for (log, expected) in LogId::ALL.into_iter().zip(expected) {
        assert_eq!(store.state(log, None).await.unwrap(), *expected);
        let history = store.history(log, None, 1000).await.unwrap();
        let revisions: Vec<u64> = history.iter().map(|commit| commit.revision).collect();
        let oldest = revisions.last().copied().unwrap_or(1);
        assert_eq!(revisions, (oldest..=expected.revision).rev().collect::<Vec<_>>());
        if expected.revision > 1 {
            let before = store.state(log, Some(expected.revision - 1)).await.unwrap();
            assert_eq!(before.revision, expected.revision - 1);
        }
    }
}

fn files(dir: &Path, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn corrupt_indexes(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("store.corrupt-")).count()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

fn damaged(dir: &Path, options: Options) -> (PathBuf, u64, String) {
    match SledStore::open(dir, options).map(|_| ()) {
        Err(Error::Damaged { path, offset, reason, remedy }) => {
            assert!(remedy.contains("backup"), "{remedy}");
            (path, offset, reason)
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_commit_is_all_of_its_writes_and_moves_the_head_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), options()).unwrap();
    let mut watch = store.watch(CONFIG);
    assert_eq!((store.head(CONFIG), *watch.borrow_and_update()), (0, 0));
    assert!(store.state(CONFIG, None).await.unwrap().entries.is_empty());

    let writes = vec![Write::put("a", "1"), Write::put("b", "2")];
    let first = store.commit(CONFIG, Some(0), writes, note("first")).await.unwrap();
    assert_eq!((first.revision, first.author.as_str(), first.message.as_str()), (1, "test", "first"));
    watch.changed().await.unwrap();
    assert_eq!((*watch.borrow_and_update(), store.head(CONFIG), store.head(LogId::Catalog)), (1, 1, 0));

    let writes = vec![Write::delete("a"), Write::put("b", "3")];
    let second = store.commit(CONFIG, Some(1), writes, note("second")).await.unwrap();
    let hash = |value: &str| Some(BlobHash::of(value.as_bytes()));
    let changes: Vec<_> = second.changes.iter().map(|c| (c.key.as_str(), c.before, c.after)).collect();
    assert_eq!(changes, [("a", hash("1"), None), ("b", hash("2"), hash("3"))]);

    let moved = store.commit(CONFIG, Some(1), vec![Write::put("a", "9")], note("late")).await;
    assert!(matches!(moved, Err(Error::HeadMoved { expected: 1, head: 2 })));
    let now = store.state(CONFIG, None).await.unwrap();
    assert_eq!((now.revision, now.entries.len(), &now.entries["b"].value[..]), (2, 1, &b"3"[..]));

    let then = store.state(CONFIG, Some(1)).await.unwrap();
    assert_eq!(then.entries.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((&then.entries["b"].value[..], then.entries["b"].revision), (&b"2"[..], 1));
    assert!(store.state(CONFIG, Some(0)).await.unwrap().entries.is_empty());
    let missing = store.state(CONFIG, Some(3)).await;
    assert!(matches!(missing, Err(Error::NotFound { revision: 3, head: 2, .. })));

    let history = store.history(CONFIG, None, 10).await.unwrap();
    assert_eq!(history, [second, first.clone()]);
    assert_eq!(store.history(CONFIG, Some(2), 10).await.unwrap(), [first]);
    assert!(store.history(LogId::Catalog, None, 10).await.unwrap().is_empty());
    store.close().await;
    let closed = store.commit(CONFIG, None, vec![], note("")).await;
    assert!(matches!(closed, Err(Error::Closed)));
}

#[tokio::test]
async fn many_writers_get_every_revision_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(dir.path(), small()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            for at in 0..10 {
                revisions.push(put(&store, &format!("{task}/{at}"), "x").await);
            }
            revisions
        });
    }
    let mut revisions: Vec<u64> = tasks.join_all().await.concat();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=160).collect::<Vec<_>>());
    assert_eq!(store.state(CONFIG, None).await.unwrap().entries.len(), 160);
}

#[tokio::test]
async fn a_large_value_and_a_large_commit_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let value: Vec<u8> = (0..3_000_000u32).map(|at| (at * 31 / 7) as u8).collect();
    let many: Vec<_> = (0..2_000).map(|at| Write::put(format!("many/{at:05}"), format!("{at}"))).collect();
    {
        let store = SledStore::open(dir.path(), options()).unwrap();
        store.commit(CONFIG, None, vec![Write::put("large", value.clone())], note("")).await.unwrap();
        store.commit(CONFIG, None, many, note("")).await.unwrap();
        store.commit(CONFIG, None, vec![Write::delete("large")], note("")).await.unwrap();
    }
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let store = SledStore::open(dir.path(), options()).unwrap();
    assert_eq!(store.state(CONFIG, Some(1)).await.unwrap().entries["large"].value, value);
    assert_eq!(store.history(CONFIG, None, 2).await.unwrap()[1].changes.len(), 2_000);
    assert_eq!(store.state(CONFIG, None).await.unwrap().entries.len(), 2_000);
    let blobs = dir.path().join("sled/blobs");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0, "sled never syncs these");
}

#[tokio::test]
async fn ten_thousand_keys_are_back_in_seconds_even_without_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), options()).unwrap();
    for batch in 0..10 {
        let key = |at| format!("backend/{:05}", batch * 1_000 + at);
        let writes = (0..1_000).map(|at| Write::put(key(at), format!("{batch} {at} {}", "x".repeat(300))));
        store.commit(CONFIG, None, writes.collect(), note("many")).await.unwrap();
    }
    let expected = store.state(CONFIG, None).await.unwrap();
    store.close().await;
    for without_index in [false, true] {
        if without_index {
            fs::remove_dir_all(dir.path().join("sled")).unwrap();
        }
        let started = tokio::time::Instant::now();
        let store = SledStore::open(dir.path(), options()).unwrap();
        let took = started.elapsed();
        println!("open took {took:?}, without an index: {without_index}");
        assert_eq!(store.state(CONFIG, None).await.unwrap(), expected);
        assert!(took < std::time::Duration::from_secs(15), "{took:?}");
    }
}

#[tokio::test]
async fn history_beyond_its_limit_is_compacted_with_its_values() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history_config: 5, ..small() };
    let expected = filled(dir.path(), &options, 30).await;
    let store = SledStore::open(dir.path(), options.clone()).unwrap();
    let history = store.history(CONFIG, None, 100).await.unwrap();
    assert_eq!(history.iter().map(|commit| commit.revision).collect::<Vec<_>>(), [30, 29, 28, 27, 26]);
    assert_eq!(store.state(CONFIG, Some(25)).await.unwrap().entries.len(), 7);
    let gone = store.state(CONFIG, Some(24)).await;
    assert!(matches!(gone, Err(Error::Compacted { revision: 24, oldest: 25, .. })), "{gone:?}");
    drop(store);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    assert_holds(dir.path(), &options, &expected).await;
}

#[tokio::test]
async fn a_second_holder_is_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(dir.path(), options()).unwrap();
    let second = SledStore::open(dir.path(), options()).map(|_| ()).unwrap_err();
    assert!(matches!(second, Error::Held { holder: Some(pid), .. } if pid == std::process::id()));
    assert!(second.to_string().starts_with("store is held by another process (pid "), "{second}");
    drop(store);
    SledStore::open(dir.path(), options()).unwrap();
}

#[tokio::test]
async fn a_restart_finds_everything_and_rebuilds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path(), &small(), 40).await;
    assert_holds(dir.path(), &small(), &expected).await;
    assert_eq!(corrupt_indexes(dir.path()), 0);
    assert!(files(dir.path(), "snapshots").len() <= 2);
}

#[tokio::test]
async fn the_journal_and_the_snapshots_stay_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history_config: 5, history_catalog: 5, ..small() };
    filled(dir.path(), &options, 60).await;
    let early: u64 = files(dir.path(), "journal").iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(files(dir.path(), "snapshots").len(), 2);
    let store = SledStore::open(dir.path(), options).unwrap();
    for at in 0..200 {
        put(&store, &format!("key{}", at % 7), &format!("value {at}")).await;
    }
    let late: u64 = files(dir.path(), "journal").iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(late < early * 3, "{early} bytes became {late}");
}

#[tokio::test]
async fn a_damaged_index_is_rebuilt_whatever_the_damage() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 8] = [
        ("flipped in the middle", |sled| flip(&sled.join("db"), 3_000)),
        ("flipped at the start", |sled| flip(&sled.join("db"), 20)),
        ("cut to a third", |sled| {
            let length = sled.join("db").metadata().unwrap().len();
            fs::File::options().write(true).open(sled.join("db")).unwrap().set_len(length / 3).unwrap();
        }),
        ("cut to nothing", |sled| fs::write(sled.join("db"), b"").unwrap()),
        ("db deleted", |sled| fs::remove_file(sled.join("db")).unwrap()),
        ("conf is garbage", |sled| fs::write(sled.join("conf"), b"garbage").unwrap()),
        ("deleted", |sled| fs::remove_dir_all(sled).unwrap()),
        ("opening never finished", |sled| fs::write(sled.with_extension("opening"), b"").unwrap()),
    ];
    for options in [options(), small()] {
        for (what, harm) in harms {
            let dir = tempfile::tempdir().unwrap();
            let expected = filled(dir.path(), &options, 25).await;
            harm(&dir.path().join("sled"));
            println!("index: {what}");
            assert_holds(dir.path(), &options, &expected).await;
        }
    }
}

#[tokio::test]
async fn an_index_damaged_at_random_is_never_served_as_it_is() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = <rand::rngs::SmallRng as rand::SeedableRng>::seed_from_u64(seed);
    let origin = tempfile::tempdir().unwrap();
    let expected = filled(origin.path(), &small(), 25).await;
    let length = origin.path().join("sled/db").metadata().unwrap().len() as usize;
    for round in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        copy(origin.path(), dir.path());
        let db = dir.path().join("sled/db");
        // Most of the file is padding: aim at the part that is used.
        let at = rand::RngExt::random_range(&mut random, 0..length.min(40_000));
        match round % 3 {
            0 => flip(&db, at),
            1 => {
                let mut bytes = fs::read(&db).unwrap();
                let end = (at + 4096).min(bytes.len());
                bytes[at..end].fill(0);
                fs::write(&db, bytes).unwrap();
            }
            _ => fs::File::options().write(true).open(&db).unwrap().set_len(at as u64).unwrap(),
        }
        assert_holds(dir.path(), &small(), &expected).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => _ = fs::copy(entry.path(), to.join(entry.file_name())).unwrap(),
        }
    }
}

#[tokio::test]
async fn an_index_of_another_history_is_not_served() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = filled(mine.path(), &options(), 10).await;
    filled(other.path(), &options(), 9).await;
    fs::remove_dir_all(mine.path().join("sled")).unwrap();
    copy(&other.path().join("sled"), &mine.path().join("sled"));
    assert_holds(mine.path(), &options(), &expected).await;
    assert_eq!(corrupt_indexes(mine.path()), 1);
}

#[tokio::test]
async fn what_was_moved_aside_does_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        let store = SledStore::open(dir.path(), options()).unwrap();
        put(&store, "k", &rand::random::<u64>().to_string()).await;
        store.close().await;
        fs::write(dir.path().join("sled.opening"), b"").unwrap();
    }
    SledStore::open(dir.path(), options()).unwrap();
    assert_eq!(corrupt_indexes(dir.path()), 2);
}

#[tokio::test]
async fn a_torn_end_of_the_journal_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path(), &options(), 5).await;
    let segment = files(dir.path(), "journal").pop().unwrap();
    let sound = fs::read(&segment).unwrap();
    let record = &sound[sound.len() - 200..];
    for torn in [&record[..1], &record[..100], &[0; 5000][..], &[0xff; 50][..]] {
        fs::write(&segment, [&sound[..], torn].concat()).unwrap();
        let store = SledStore::open(dir.path(), options()).unwrap();
        assert_same(&store, &expected).await;
        drop(store);
        assert_eq!(fs::read(&segment).unwrap(), sound);
    }
}

#[tokio::test]
async fn damage_in_the_middle_of_the_journal_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &options(), 5).await;
    let segment = files(dir.path(), "journal").pop().unwrap();
    flip(&segment, 400);
    let (path, offset, reason) = damaged(dir.path(), options());
    assert_eq!(path, segment);
    assert!(offset > 70 && offset <= 400, "{offset}");
    assert_eq!(reason, "a record is torn or damaged, and acknowledged commits are behind it");

    fs::remove_file(dir.path().join("HEAD")).unwrap();
    let (_, _, reason) = damaged(dir.path(), options());
    assert_eq!(reason, "a record is torn or damaged, and sound records are behind it");
}

#[tokio::test]
async fn an_acknowledged_end_that_is_missing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &options(), 5).await;
    let segment = files(dir.path(), "journal").pop().unwrap();
    let sound = fs::read(&segment).unwrap();
    fs::write(&segment, &sound[..sound.len() - 3]).unwrap();
    let (path, _, reason) = damaged(dir.path(), options());
    assert_eq!(
        (path, reason.as_str()),
        (segment.clone(), "a record is torn or damaged, and acknowledged commits are behind it")
    );

    // The index knows better, even where HEAD is gone as well.
    fs::remove_file(dir.path().join("HEAD")).unwrap();
    let (_, _, reason) = damaged(dir.path(), options());
    assert_eq!(reason, "the journal ends at commit 9, but the index holds 10");
}

#[tokio::test]
async fn an_empty_store_is_not_served_where_there_was_one() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &options(), 5).await;
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let (_, _, reason) = damaged(dir.path(), options());
    assert_eq!(reason, "the journal ends at commit 0, but HEAD says 10 were acknowledged");
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    damaged(dir.path(), options());
    fs::remove_file(dir.path().join("HEAD")).unwrap();
    let store = SledStore::open(dir.path(), options()).unwrap();
    assert_eq!(store.head(CONFIG), 0, "nothing says that there was anything");
}

#[tokio::test]
async fn a_missing_head_file_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path(), &small(), 15).await;
    let head = fs::read(dir.path().join("HEAD")).unwrap();
    fs::remove_file(dir.path().join("HEAD")).unwrap();
    let store = SledStore::open(dir.path(), small()).unwrap();
    assert_same(&store, &expected).await;
    drop(store);
    assert_eq!(fs::read(dir.path().join("HEAD")).unwrap().len(), head.len());
    fs::write(dir.path().join("HEAD"), b"garbage").unwrap();
    assert_holds(dir.path(), &small(), &expected).await;
}

#[tokio::test]
async fn files_of_another_store_are_refused() {
    let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    filled(mine.path(), &options(), 5).await;
    filled(other.path(), &options(), 7).await;
    fs::remove_dir_all(mine.path().join("journal")).unwrap();
    copy(&other.path().join("journal"), &mine.path().join("journal"));
    assert_eq!(damaged(mine.path(), options()).2, "it belongs to another store");
}

#[tokio::test]
async fn a_damaged_snapshot_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path(), &small(), 34).await;
    let snapshots = files(dir.path(), "snapshots");
    assert_eq!(snapshots.len(), 2);
    for (what, at) in [("body", 500), ("header", 30)] {
        let copy_dir = tempfile::tempdir().unwrap();
        copy(dir.path(), copy_dir.path());
        flip(&copy_dir.path().join("snapshots").join(snapshots[1].file_name().unwrap()), at);
        fs::remove_dir_all(copy_dir.path().join("sled")).unwrap();
        println!("{what}");
        assert_holds(copy_dir.path(), &small(), &expected).await;
    }
    for snapshot in &snapshots {
        flip(snapshot, 500);
    }
    let served = SledStore::open(dir.path(), small()).unwrap();
    assert_same(&served, &expected).await;
    drop(served);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let (_, _, reason) = damaged(dir.path(), small());
    assert!(reason.starts_with("the index cannot be rebuilt"), "{reason}");
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 1024, ..options() };
    filled(dir.path(), &options, 20).await;
    let segments = files(dir.path(), "journal");
    assert!(segments.len() > 3);
    fs::remove_file(&segments[1]).unwrap();
    assert_eq!(damaged(dir.path(), options.clone()).2, "it does not continue what is before it");
    fs::remove_file(&segments[0]).unwrap();
    let (_, _, reason) = damaged(dir.path(), options);
    assert!(reason.starts_with("commits 1 to "), "{reason}");
}

#[tokio::test]
async fn salvage_keeps_all_that_the_index_can_prove() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path(), &options(), 5).await;
    let segment = files(dir.path(), "journal").pop().unwrap();
    flip(&segment, 400);
    damaged(dir.path(), options());
    let salvage = Options { on_damage: OnDamage::Salvage, ..options() };
    let store = SledStore::open(dir.path(), salvage).unwrap();
    assert_same(&store, &expected).await;
    drop(store);
    assert_holds(dir.path(), &options(), &expected).await;
}

#[tokio::test]
async fn salvage_without_an_index_keeps_what_is_before_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &options(), 5).await;
    let segment = files(dir.path(), "journal").pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    flip(&segment, whole.len() - 10);
    let harmed = fs::read(&segment).unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    damaged(dir.path(), options());
    let salvage = Options { on_damage: OnDamage::Salvage, ..options() };
    let store = SledStore::open(dir.path(), salvage).unwrap();
    assert_eq!((store.head(CONFIG), store.head(LogId::Catalog)), (5, 4));
    drop(store);
    let aside =
        files(dir.path(), "journal").into_iter().find(|path| path.to_str().unwrap().contains("damaged"));
    assert_eq!(fs::read(aside.unwrap()).unwrap(), harmed);
    let store = SledStore::open(dir.path(), options()).unwrap();
    assert_eq!(put(&store, "k", "goes on").await, 6);
}
