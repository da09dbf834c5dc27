//! The copy of the last good generation on the node's disk, from which a node
//! starts while the control plane is away.
//!
//! It is a cache: delete it and nothing is lost. Two files are written in turn,
//! each whole, checksummed, synced and renamed into place, so that at every
//! moment at least one of them can be read. A file that cannot is skipped, never
//! repaired, and never a reason to stop. The key ring has a file of its own.
//!
//! ```text
//! "MTCACHE\n" | format u32 | sequence u64 | length u64 | CRC32C u32 | payload      (little endian)
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use metrics::counter;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use mt_proto::pb::{ads::DeltaDiscoveryResponse, discovery::KeyRing};

use crate::discovery::View;

/// A larger file is not read.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"MTCACHE\n";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 32;
const GENERATIONS: [&str; 2] = ["generation-a", "generation-b"];
const KEYS: &str = "key-ring";
const LOCK: &str = "lock";

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cache directory {dir} cannot be made or opened", dir = .dir.display())]
    Open { dir: PathBuf, source: io::Error },
    #[error("the cache directory {dir} belongs to another running node", dir = .dir.display())]
    InUse { dir: PathBuf },
}

/// Why a file is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is not a file of this cache")]
    Magic,
    #[error("its format is {0}, this version reads {FORMAT}")]
    Format(u32),
    #[error("it is cut off or too large")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its content does not decode")]
    Decode(#[from] prost::DecodeError),
    #[error("its content does not add up")]
    View(#[from] crate::discovery::machine::Broken),
}

/// The directory, held by one process.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    /// Which of the two files the next view goes into.
    next: usize,
    sequence: u64,
    _lock: File,
}

/// A view from disk.
#[derive(Debug)]
pub struct Cached {
    pub view: View,
    /// When it was written.
    pub written: SystemTime,
    /// Which of the two files it is in.
    pub slot: usize,
}

impl Cache {
    /// Opens the directory, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// If that fails, or another process has it open.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let open = |source| Error::Open { dir: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(open)?;
        let lock = private().open(dir.join(LOCK)).map_err(open)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), next: 0, sequence: 0, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(open(source)),
        }
    }

    /// What is there, newest first.
    pub fn load(&mut self) -> Vec<Cached> {
        let mut found = vec![];
        for (slot, name) in GENERATIONS.into_iter().enumerate() {
            let read = || -> Result<_, Unreadable> {
                match self.read(name)? {
                    Some((sequence, payload, written)) => {
                        Ok(Some((sequence, Cached { view: decode_view(&payload)?, written, slot })))
                    }
                    None => Ok(None),
                }
            };
            match read() {
                Ok(Some(cached)) => found.push(cached),
                Ok(None) => {}
                Err(error) => {
                    warn!(file = name, error = %crate::chain(&error), "cached generation is unreadable, skipped");
                }
            }
        }
        found.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
        if let Some((sequence, newest)) = found.first() {
            self.sequence = *sequence;
            self.next = 1 - newest.slot;
        }
        found.into_iter().map(|(_, cached)| cached).collect()
    }

    /// This one is in service: the other one is written over first.
    pub fn protect(&mut self, slot: usize) {
        self.next = 1 - slot;
    }

    /// Writes a view, in the place of the older of the two.
    ///
    /// # Errors
    /// If a file cannot be written; the other one is as it was.
    pub fn store(&mut self, view: &View) -> io::Result<()> {
        let payload = view.to_push().encode_to_vec();
        self.write(GENERATIONS[self.next], self.sequence + 1, &payload)?;
        self.sequence += 1;
        self.next = 1 - self.next;
        Ok(())
    }

    /// The key ring, if there is one.
    pub fn load_keys(&self) -> Option<KeyRing> {
        let read =
            || Ok(self.read(KEYS)?.map(|(_, payload, _)| KeyRing::decode(&payload[..])).transpose()?);
        read().unwrap_or_else(|error: Unreadable| {
            warn!(file = KEYS, error = %crate::chain(&error), "cached key ring is unreadable, skipped");
            None
        })
    }

    /// Writes the key ring, in the place of the one before.
    ///
    /// # Errors
    /// If the file cannot be written; the one before is as it was.
    pub fn store_keys(&self, keys: &KeyRing) -> io::Result<()> {
        self.write(KEYS, 0, &keys.encode_to_vec())
    }

    /// None: there is no such file.
    fn read(&self, name: &str) -> Result<Option<(u64, Vec<u8>, SystemTime)>, Unreadable> {
        let mut file = match File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(Unreadable::Length);
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.read_to_end(&mut bytes)?;
        let (sequence, payload) = unframe(bytes)?;
        Ok(Some((sequence, payload, metadata.modified()?)))
    }

    fn write(&self, name: &str, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let (path, temporary) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        // Made anew, so that its mode is ours whatever lay there.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().open(&temporary)?;
        file.write_all(&header(sequence, payload))?;
        file.write_all(payload)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Where the parts of a node leave what shall be kept. The latest wins: a slow
/// disk skips views, and never holds anybody up.
#[derive(Clone, Debug)]
pub struct Keep {
    view: watch::Sender<Option<Arc<View>>>,
    keys: watch::Sender<Option<KeyRing>>,
}

impl Keep {
    /// The two ends; without a cache nobody may read the other one.
    pub fn channel() -> (Self, Kept) {
        let ((view, views), (keys, rings)) = (watch::channel(None), watch::channel(None));
        (Self { view, keys }, Kept { views, rings })
    }

    /// Keeps a view that is in service.
    pub fn view(&self, view: Arc<View>) {
        self.view.send_replace(Some(view));
    }

    /// Keeps the key ring.
    pub fn keys(&self, keys: KeyRing) {
        self.keys.send_replace(Some(keys));
    }
}

/// What waits to be written.
#[derive(Debug)]
pub struct Kept {
    views: watch::Receiver<Option<Arc<View>>>,
    rings: watch::Receiver<Option<KeyRing>>,
}

impl Kept {
    /// Writes what comes until `shutdown`, and what is left then. A disk that
    /// refuses is reported and tried again with the next view.
    pub async fn run(mut self, mut cache: Cache, shutdown: CancellationToken) {
        let (mut view, mut keys): (Option<Arc<View>>, Option<KeyRing>) = (None, None);
        loop {
            let last = tokio::select! {
                () = shutdown.cancelled() => true,
                changed = self.views.changed() => changed.is_err(),
                changed = self.rings.changed() => changed.is_err(),
            };
            let new_view = newer(&mut self.views, &mut view, Arc::ptr_eq);
            let new_keys = newer(&mut self.rings, &mut keys, |a, b| a == b);
            let work = tokio::task::spawn_blocking(move || {
                write_out(&mut cache, new_view.as_deref(), new_keys.as_ref());
                cache
            });
            match work.await {
                Ok(back) if !last => cache = back,
                _ => return,
            }
        }
    }
}

/// What the channel holds, if it is not what it held the last time.
fn newer<T: Clone>(
    channel: &mut watch::Receiver<Option<T>>,
    last: &mut Option<T>,
    same: fn(&T, &T) -> bool,
) -> Option<T> {
    let latest = channel.borrow_and_update().clone()?;
    if last.as_ref().is_some_and(|last| same(last, &latest)) {
        return None;
    }
    *last = Some(latest.clone());
    Some(latest)
}

fn write_out(cache: &mut Cache, view: Option<&View>, keys: Option<&KeyRing>) {
    // Keys first: sessions of the generation that follows are sealed with them.
    for (what, result) in [
        ("key ring", keys.map(|keys| cache.store_keys(keys))),
        ("generation", view.map(|view| cache.store(view))),
    ] {
        match result {
            None => {}
            Some(Ok(())) => debug!(what, "kept on disk"),
            Some(Err(error)) => {
                counter!("mt_cache_write_failures_total").increment(1);
                warn!(what, %error, "cannot keep a copy on disk");
            }
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
}

fn header(sequence: u64, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..20].copy_from_slice(&sequence.to_le_bytes());
    header[20..28].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let checksum = checksum(&header, payload);
    header[28..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Over everything but itself.
fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..28]), payload)
}

fn unframe(mut bytes: Vec<u8>) -> Result<(u64, Vec<u8>), Unreadable> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Unreadable::Length);
    };
    if &header[..8] != MAGIC {
        return Err(Unreadable::Magic);
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    if word(8) != FORMAT {
        return Err(Unreadable::Format(word(8)));
    }
    if long(20) != payload.len() as u64 {
        return Err(Unreadable::Length);
    }
    if word(28) != checksum(header, payload) {
        return Err(Unreadable::Checksum);
    }
    let sequence = long(12);
    Ok((sequence, bytes.split_off(HEADER_BYTES)))
}

fn decode_view(payload: &[u8]) -> Result<View, Unreadable> {
    Ok(View::from_push(DeltaDiscoveryResponse::decode(payload)?)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use mt_proto::{
        discovery::version_of,
        pb::discovery::{Catalog, Item, SealingKey, item},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::discovery::Entry;

    fn view(generation: u64) -> View {
        let catalog = Catalog { backend: "time".into(), parts: 1, ..Default::default() };
        let content = Item { item: Some(item::Item::Catalog(catalog)) }.encode_to_vec();
        let entry = Entry { version: version_of(&content), content: content.into() };
        View {
            generation,
            catalog_revision: 1,
            entries: [("catalog/time/0".to_owned(), Arc::new(entry))].into(),
        }
    }

    fn offered(cache: &mut Cache) -> Vec<u64> {
        cache.load().into_iter().map(|cached| cached.view.generation).collect()
    }

    #[test]
    fn the_last_two_generations_are_kept_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        assert!(offered(&mut cache).is_empty());
        for generation in 1..=3 {
            cache.store(&view(generation)).unwrap();
        }
        drop(cache);
        let mut cache = Cache::open(dir.path()).unwrap();
        assert_eq!(cache.load()[0].view, view(3));
        assert_eq!(offered(&mut cache), [3, 2]);
    }

    #[test]
    fn a_refused_generation_is_written_over_before_the_accepted_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        cache.store(&view(1)).unwrap();
        cache.store(&view(2)).unwrap();
        let loaded = cache.load();
        cache.protect(loaded[1].slot);
        cache.store(&view(3)).unwrap();
        assert_eq!(offered(&mut cache), [3, 1]);
    }

    #[test]
    fn a_directory_belongs_to_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Cache::open(dir.path()).unwrap();
        assert!(matches!(Cache::open(dir.path()), Err(Error::InUse { .. })));
    }

    #[test]
    fn a_file_of_a_later_format_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(dir.path()).unwrap();
        cache.store(&view(1)).unwrap();
        cache.store(&view(2)).unwrap();
        let path = dir.path().join("generation-b");
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 2;
        fs::write(&path, bytes).unwrap();
        assert_eq!(offered(&mut cache), [1]);
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("new")).unwrap();
        let keys =
            KeyRing { keys: vec![SealingKey { id: 1, key: vec![7; 32].into(), ..Default::default() }] };
        assert_eq!(cache.load_keys(), None);
        cache.store_keys(&keys).unwrap();
        assert_eq!(cache.load_keys(), Some(keys));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("new/key-ring")), 0o600);
        assert_eq!(mode(&dir.path().join("new")), 0o700);
    }

    #[tokio::test]
    async fn what_is_kept_last_is_on_disk_after_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        let (keep, kept) = Keep::channel();
        let shutdown = CancellationToken::new();
        keep.view(Arc::new(view(1)));
        keep.view(Arc::new(view(2)));
        shutdown.cancel();
        kept.run(Cache::open(dir.path()).unwrap(), shutdown).await;
        assert_eq!(offered(&mut Cache::open(dir.path()).unwrap()), [2]);
    }

    proptest! {
        #[test]
        fn a_damaged_file_never_hides_the_other_one(cut in any::<Option<u16>>(), flip in any::<u16>(), bit in 0u8..8) {
            let dir = tempfile::tempdir().unwrap();
            let mut cache = Cache::open(dir.path()).unwrap();
            cache.store(&view(1)).unwrap();
            cache.store(&view(2)).unwrap();
            let path = dir.path().join("generation-b");
            let mut bytes = fs::read(&path).unwrap();
            match cut {
                Some(cut) => bytes.truncate(cut as usize % bytes.len()),
                None => {
                    let at = flip as usize % bytes.len();
                    bytes[at] ^= 1 << bit;
                }
            }
            fs::write(&path, bytes).unwrap();
            prop_assert_eq!(offered(&mut cache), [1]);
        }
    }
}
