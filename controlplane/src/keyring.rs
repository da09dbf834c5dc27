//! The keys that seal what travels through clients: made once for a fleet, kept
//! in their own file, pushed to nodes.
//!
//! The one secret of the control plane. It is in no log, no dump and no store
//! of configurations; a file that is damaged, or that others may read, stops
//! the start rather than be replaced, because new keys end every session.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use mt_proto::{
    discovery::KEY_RING,
    pb::discovery::{FleetFact, KeyRing, SealingKey, fleet_fact},
};
use prost::Message;

use crate::discovery::{View, ViewItem};

/// The name of the file in the data directory.
pub const FILE: &str = "key-ring";
const MAGIC: &[u8; 8] = b"MTKEYS1\n";
const KEY_BYTES: usize = 32;
const FILE_BYTES_MAX: u64 = 64 << 10;

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

/// The keys as a fact of the fleet.
pub fn facts(keys: KeyRing) -> View {
    let fact = FleetFact { fact: Some(fleet_fact::Fact::KeyRing(keys)) };
    let item = ViewItem::new(fact.encode_to_vec().into());
    View::plain(BTreeMap::from([(Arc::from(KEY_RING), item)]))
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

fn create(data_dir: &Path, path: &Path) -> Result<KeyRing, Error> {
    let (mut id, mut key) = ([0; 4], vec![0; KEY_BYTES]);
    let random = SystemRandom::new();
    random.fill(&mut id).and_then(|()| random.fill(&mut key)).map_err(|_| Error::Random)?;
    // A random id stays unique even when the file is removed and made again.
    let key = SealingKey { id: u32::from_le_bytes(id).max(1), key: key.into() };
    let keys = KeyRing { keys: vec![key] };

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
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(io("syncing the directory of"))?;
    Ok(keys)
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
        let key = SealingKey { id: 7, key: vec![0xab; KEY_BYTES].into() };
        let view = format!("{:?}", facts(KeyRing { keys: vec![key] }));
        for form in ["171, 171", "abab", "\\xab"] {
            assert!(!view.contains(form), "{view}");
        }
    }
}
