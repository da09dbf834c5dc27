//! The keys that seal what travels through clients: made once for a fleet, kept
//! in their own file, pushed to nodes.
//!
//! The one secret of the control plane. It is in no log, no dump and no store
//! of configurations; a file that is damaged, or that others may read, stops
//! the start rather than be replaced, because new keys end every session.
//!
//! A rotation takes three steps, each of them written before it is pushed: a
//! new key opens, at the end of the ring; when the nodes have it, it comes first
//! and seals; what it has replaced goes when nothing can be sealed with it any
//! more. So at no time does a node meet a text whose key it has not yet.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use mt_proto::{
    discovery::{KEY_RING, NODES},
    pb::discovery::{FleetFact, KeyRing, NodeDirectory, SealingKey, fleet_fact},
};
use prost::Message;
use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    blocking,
    discovery::{View, ViewItem},
};

/// The name of the file in the data directory.
pub const FILE: &str = "key-ring";
const MAGIC: &[u8; 8] = b"MTKEYS1\n";
const KEY_BYTES: usize = 32;
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Keys that open at a time; nodes take no more.
pub const KEYS_MAX: usize = 8;
/// How long nodes have to take a new key before it seals.
pub const SETTLE: Duration = Duration::from_secs(10);
/// For how long a text may be good that was sealed with a key that no longer
/// seals: a session's day, and an hour for clocks that differ.
pub const SEALED_AGE_MAX: Duration = Duration::from_secs(25 * 3600);
/// How often it is looked whether a key is to go.
const TICK: Duration = Duration::from_secs(60);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed while {doing} {}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged: {reason}; restore it, or remove it to make new keys, which ends all sessions",
        .path.display()
    )]
    Damaged { path: PathBuf, reason: &'static str },
    #[error("{} may be read by others (mode {mode:o}): it must be 0600", .path.display())]
    Readable { path: PathBuf, mode: u32 },
    #[error("the system has no random numbers")]
    Random,
    #[error("a rotation is under way: its key seals in a few seconds")]
    UnderWay,
    #[error("there are {KEYS_MAX} keys already, the oldest goes {} hours after it was replaced", SEALED_AGE_MAX.as_secs() / 3600)]
    TooMany,
}

/// The fleet's keys, and who changes them. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    data_dir: Arc<PathBuf>,
    current: Arc<watch::Sender<KeyRing>>,
    /// Only one change at a time; holds when the key that waits is to seal.
    due: Arc<Mutex<Option<Instant>>>,
    stirred: Arc<Notify>,
}

impl Keys {
    /// Of keys that were read from this directory.
    pub fn new(data_dir: PathBuf, keys: KeyRing) -> Self {
        Self {
            data_dir: Arc::new(data_dir),
            current: Arc::new(watch::Sender::new(keys)),
            due: Arc::default(),
            stirred: Arc::default(),
        }
    }

    /// The ring, as it changes.
    pub fn watch(&self) -> watch::Receiver<KeyRing> {
        self.current.subscribe()
    }

    /// Makes a key that opens now and seals after `settle`: its id, and how many
    /// keys there are.
    ///
    /// # Errors
    /// If a key waits already, there are too many, or it cannot be written.
    pub async fn rotate(&self, settle: Duration) -> Result<(u32, usize), Error> {
        let mut due = self.due.lock().await;
        let mut ring = self.current.borrow().clone();
        let id = add(&mut ring, fresh_key()?)?;
        self.keep(ring.clone()).await?;
        *due = Some(Instant::now() + settle);
        self.stirred.notify_one();
        info!(key.id = id, keys = ring.keys.len(), "a new key is pushed");
        Ok((id, ring.keys.len()))
    }

    /// Lets keys that wait seal, and old ones go, until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        // A key that waited when the control plane stopped has its time again.
        self.due.lock().await.get_or_insert(Instant::now() + SETTLE);
        loop {
            let next = self.due.lock().await.unwrap_or_else(|| Instant::now() + TICK);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.stirred.notified() => continue,
                () = tokio::time::sleep_until(next) => {}
            }
            let mut due = self.due.lock().await;
            let mut ring = self.current.borrow().clone();
            let seals =
                due.take_if(|due| *due <= Instant::now()).is_some() && promote(&mut ring, now_seconds());
            let gone = retire(&mut ring, now_seconds());
            if !seals && gone == 0 {
                continue;
            }
            match self.keep(ring.clone()).await {
                Ok(()) => {
                    info!(key.id = ring.keys[0].id, keys = ring.keys.len(), gone, "the keys have changed")
                }
                Err(failed) => {
                    error!(error = %failed, "the keys cannot be written, trying again");
                    *due = seals.then(|| Instant::now() + SETTLE);
                }
            }
        }
    }

    /// On disk first, then to the nodes.
    async fn keep(&self, ring: KeyRing) -> Result<(), Error> {
        let (dir, copy) = (self.data_dir.clone(), ring.clone());
        blocking(move || write(&dir, &dir.join(FILE), &copy)).await?;
        self.current.send_replace(ring);
        Ok(())
    }
}

/// A key that waits: it opens, and has never sealed.
fn waits(at: usize, key: &SealingKey) -> bool {
    at > 0 && key.first_seconds == 0
}

/// Adds a key that only opens; its id.
fn add(ring: &mut KeyRing, key: SealingKey) -> Result<u32, Error> {
    if ring.keys.iter().enumerate().any(|(at, key)| waits(at, key)) {
        return Err(Error::UnderWay);
    }
    if ring.keys.len() >= KEYS_MAX {
        return Err(Error::TooMany);
    }
    // One of the time before keys were dated.
    ring.keys[0].first_seconds = ring.keys[0].first_seconds.max(1);
    let id = key.id;
    ring.keys.push(key);
    Ok(id)
}

/// Lets the key that waits seal. False: none does.
fn promote(ring: &mut KeyRing, now: u64) -> bool {
    let Some(at) = ring.keys.iter().enumerate().position(|(at, key)| waits(at, key)) else { return false };
    let mut key = ring.keys.remove(at);
    key.first_seconds = now.max(1);
    ring.keys.insert(0, key);
    true
}

/// Removes keys that nothing is sealed with any more; how many.
fn retire(ring: &mut KeyRing, now: u64) -> usize {
    let before = ring.keys.len();
    let mut replaced_since = None;
    let mut at = 0;
    ring.keys.retain(|key| {
        let gone =
            replaced_since.is_some_and(|since: u64| now.saturating_sub(since) > SEALED_AGE_MAX.as_secs());
        let gone = gone && !waits(at, key);
        if !waits(at, key) {
            replaced_since = Some(key.first_seconds);
        }
        at += 1;
        !gone
    });
    before - ring.keys.len()
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Reads the keys of the fleet, or makes them if there are none. Blocking.
///
/// # Errors
/// If the file cannot be trusted or written.
pub fn open(data_dir: &Path) -> Result<KeyRing, Error> {
    let path = data_dir.join(FILE);
    match File::open(&path) {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, &path),
        Err(source) => Err(Error::Io { doing: "opening", path, source }),
    }
}

/// The facts of the fleet. Nodes that are not known, as after a start, are not
/// said to be none.
pub fn facts(keys: KeyRing, nodes: NodeDirectory) -> View {
    let item = |fact| ViewItem::new(FleetFact { fact: Some(fact) }.encode_to_vec().into());
    let mut items = BTreeMap::from([(Arc::from(KEY_RING), item(fleet_fact::Fact::KeyRing(keys)))]);
    if !nodes.nodes.is_empty() {
        items.insert(Arc::from(NODES), item(fleet_fact::Fact::Nodes(nodes)));
    }
    View::plain(items)
}

fn read(file: File, path: &Path) -> Result<KeyRing, Error> {
    let io = |doing| move |source| Error::Io { doing, path: path.to_owned(), source };
    let damaged = |reason| Error::Damaged { path: path.to_owned(), reason };
    let mode = file.metadata().map_err(io("reading"))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Readable { path: path.to_owned(), mode });
    }
    let mut bytes = vec![];
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io("reading"))?;
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as a key ring"))?;
    let (body, sum) = rest.split_last_chunk::<4>().ok_or_else(|| damaged("it is cut off"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
        return Err(damaged("its checksum is wrong"));
    }
    let keys = KeyRing::decode(body).map_err(|_| damaged("it does not decode"))?;
    if keys.keys.is_empty() || keys.keys.iter().any(|key| key.key.len() != KEY_BYTES) {
        return Err(damaged("it does not hold keys"));
    }
    Ok(keys)
}

fn fresh_key() -> Result<SealingKey, Error> {
    let (mut id, mut key) = ([0; 4], vec![0; KEY_BYTES]);
    let random = SystemRandom::new();
    random.fill(&mut id).and_then(|()| random.fill(&mut key)).map_err(|_| Error::Random)?;
    // A random id stays unique even when the file is removed and made again.
    Ok(SealingKey { id: u32::from_le_bytes(id).max(1), key: key.into(), first_seconds: 0 })
}

fn create(data_dir: &Path, path: &Path) -> Result<KeyRing, Error> {
    let keys = KeyRing { keys: vec![SealingKey { first_seconds: now_seconds().max(1), ..fresh_key()? }] };
    write(data_dir, path, &keys)?;
    Ok(keys)
}

/// In the place of what is there, whole or not at all.
fn write(data_dir: &Path, path: &Path, keys: &KeyRing) -> Result<(), Error> {
    let body = keys.encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    let fresh = path.with_extension("new");
    let io = |doing| move |source| Error::Io { doing, path: path.to_owned(), source };
    // What an interrupted start may have left.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("replacing")(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(io("creating"))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io("writing"))?;
    fs::rename(&fresh, path).map_err(io("naming"))?;
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(io("syncing the directory of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_made_once_and_only_the_owner_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path()).unwrap();
        assert_eq!(keys.keys.len(), 1);
        assert_eq!(keys, open(dir.path()).unwrap());
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(keys, open(tempfile::tempdir().unwrap().path()).unwrap());
    }

    #[test]
    fn a_file_that_others_may_read_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(open(dir.path()), Err(Error::Readable { mode: 0o640, .. })));
    }

    #[test]
    fn a_damaged_file_stops_the_start_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for (at, cut) in [(0, good.len()), (good.len() / 2, good.len()), (good.len() - 1, good.len()), (0, 3)]
        {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad.truncate(cut);
            fs::write(&path, &bad).unwrap();
            assert!(matches!(open(dir.path()), Err(Error::Damaged { .. })), "byte {at}, cut at {cut}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }

    #[test]
    fn keys_are_not_in_what_is_logged_of_a_view() {
        let key = SealingKey { id: 7, key: vec![0xab; KEY_BYTES].into(), first_seconds: 1 };
        let view = format!("{:?}", facts(KeyRing { keys: vec![key] }, NodeDirectory::default()));
        for form in ["171, 171", "abab", "\\xab"] {
            assert!(!view.contains(form), "{view}");
        }
    }

    fn key(id: u32, first_seconds: u64) -> SealingKey {
        SealingKey { id, key: vec![id as u8; KEY_BYTES].into(), first_seconds }
    }

    fn ids(ring: &KeyRing) -> Vec<u32> {
        ring.keys.iter().map(|key| key.id).collect()
    }

    #[test]
    fn a_new_key_opens_before_it_seals_and_an_old_one_goes_when_nothing_is_left_of_it() {
        let day = SEALED_AGE_MAX.as_secs();
        let mut ring = KeyRing { keys: vec![key(1, 0)] };
        assert_eq!(add(&mut ring, key(2, 0)).unwrap(), 2);
        assert_eq!(ids(&ring), [1, 2]);
        assert!(matches!(add(&mut ring, key(3, 0)), Err(Error::UnderWay)));
        assert_eq!(retire(&mut ring, 10 * day), 0, "the one waits, the other seals");
        assert!(promote(&mut ring, 1000) && !promote(&mut ring, 1000));
        assert_eq!(ids(&ring), [2, 1]);
        assert_eq!(retire(&mut ring, 1000 + day), 0);
        add(&mut ring, key(3, 0)).unwrap();
        assert_eq!((retire(&mut ring, 1001 + day), ids(&ring)), (1, vec![2, 3]));
        assert!(promote(&mut ring, 2000 + day));
        assert_eq!((retire(&mut ring, 2001 + day), ids(&ring)), (0, vec![3, 2]));
    }

    #[test]
    fn a_ring_never_outgrows_what_nodes_take() {
        let mut ring = KeyRing { keys: vec![key(1, 1)] };
        for id in 2..=KEYS_MAX as u32 {
            add(&mut ring, key(id, 0)).unwrap();
            promote(&mut ring, u64::from(id));
        }
        assert!(matches!(add(&mut ring, key(99, 0)), Err(Error::TooMany)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotation_is_on_disk_before_anybody_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(dir.path().to_owned(), open(dir.path()).unwrap());
        let (mut rings, stop) = (keys.watch(), CancellationToken::new());
        let work = async {
            let (id, count) = keys.rotate(Duration::from_millis(5)).await.unwrap();
            assert_eq!((count, rings.borrow_and_update().keys[1].id), (2, id));
            assert_eq!(open(dir.path()).unwrap().keys[1].id, id);
            rings.changed().await.unwrap();
            assert_eq!(rings.borrow().keys[0].id, id);
            assert_eq!(open(dir.path()).unwrap().keys[0].id, id);
        };
        tokio::select! {
            () = keys.clone().run(stop) => unreachable!("nobody stops it"),
            () = work => {}
        }
    }
}
