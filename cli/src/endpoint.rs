//! Where things are on this machine: the data directory, and the record that a
//! running `mtctl up` leaves there for the other commands.
//!
//! Whether the record is true is decided by a lock and not by its text: the
//! kernel drops the lock with the process, while a process id may be reused.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    args::Global,
    output::{Exit, Failure},
};

/// The control plane that is asked when nothing says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7001";
const RECORD: &str = "up.json";
const LOCK: &str = "up.lock";
/// No record is longer than this; what is longer is not one.
const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// A command that only looks holds the lock for an instant.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// What a running `mtctl up` says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub pid: u32,
    pub version: String,
    /// As `http://127.0.0.1:3001`, and likewise below.
    pub mcp: String,
    pub control: String,
    pub http: String,
    pub admin: String,
}

/// How the address of the control plane was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Given,
    Recorded,
    Default,
}

/// The control plane to ask.
#[derive(Clone, Debug)]
pub struct Server {
    pub url: String,
    pub origin: Origin,
}

/// Held by the one `mtctl up` of a data directory; dropping it removes the record.
#[derive(Debug)]
pub struct Held {
    dir: PathBuf,
    _lock: File,
}

/// The data directory.
///
/// # Errors
/// When neither an option nor the environment says where it is.
pub fn data_dir(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(dir) = &global.data_dir {
        return Ok(dir.clone());
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(dir) = absolute("XDG_DATA_HOME") {
        return Ok(dir.join("magictunnel"));
    }
    if let Some(home) = absolute("HOME") {
        return Ok(home.join(".local/share/magictunnel"));
    }
    Err(Failure::new(Exit::Usage, "cannot tell where the data directory is")
        .cause("neither HOME nor XDG_DATA_HOME is set")
        .try_this("mtctl --data-dir DIR …"))
}

/// The control plane to ask: the option, else the running `mtctl up`, else the default.
pub fn server(global: &Global) -> Server {
    if let Some(url) = &global.server {
        let url = if url.contains("://") { url.clone() } else { format!("http://{url}") };
        return Server { url, origin: Origin::Given };
    }
    match data_dir(global).ok().and_then(|dir| running(&dir)) {
        Some(record) => Server { url: record.control, origin: Origin::Recorded },
        None => Server { url: DEFAULT_SERVER.to_owned(), origin: Origin::Default },
    }
}

/// The record of the `mtctl up` that runs on this data directory, if one does.
pub fn running(dir: &Path) -> Option<Record> {
    let lock = File::open(dir.join(LOCK)).ok()?;
    if !matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let mut text = String::new();
    let file = File::open(dir.join(RECORD)).ok()?;
    io::Read::read_to_string(&mut io::Read::take(file, RECORD_BYTES_MAX), &mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Takes the data directory for this process, making it if needed.
///
/// # Errors
/// When another process holds it or it cannot be written.
pub async fn hold(dir: &Path) -> Result<Held, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("cannot use the data directory {}", dir.display()))
            .cause(error)
            .try_this("mtctl up --data-dir DIR, with a directory that you may write")
    };
    // The store, the key ring and the recorded addresses are nobody else's business.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(dir.join(LOCK))
        .map_err(failed)?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(Held { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    let mut failure = Failure::new(Exit::Conflict, "mtctl up runs already on this data directory");
    if let Some(record) = running(dir) {
        failure = failure.cause(format!("process {} serves {}/mcp", record.pid, record.mcp));
    }
    Err(failure
        .try_this("mtctl status")
        .try_this("mtctl down")
        .try_this("mtctl up --data-dir DIR, for a second one"))
}

impl Held {
    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn record(&self, record: &Record) -> io::Result<()> {
        let temporary = self.dir.join("up.json.new");
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        fs::rename(&temporary, self.dir.join(RECORD))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A record that stays is harmless: without the lock nobody believes it.
        let _ = fs::remove_file(self.dir.join(RECORD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            pid: 1,
            version: "0".into(),
            mcp: "http://127.0.0.1:3".into(),
            control: "http://127.0.0.1:4".into(),
            http: String::new(),
            admin: String::new(),
        }
    }

    fn global(dir: &Path) -> Global {
        Global {
            server: None,
            output: crate::output::Format::Table,
            color: crate::output::ColorWhen::Never,
            no_input: true,
            data_dir: Some(dir.to_owned()),
        }
    }

    #[tokio::test]
    async fn the_record_counts_only_while_its_process_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(server(&global(dir.path())).url, DEFAULT_SERVER);
        let held = hold(dir.path()).await.unwrap();
        held.record(&record()).unwrap();
        assert_eq!(running(dir.path()), Some(record()));
        assert_eq!(server(&global(dir.path())).origin, Origin::Recorded);
        let text = fs::read(dir.path().join(RECORD)).unwrap();
        drop(held);
        fs::write(dir.path().join(RECORD), text).unwrap();
        assert_eq!(running(dir.path()), None, "a stale record is not believed");
    }

    #[tokio::test]
    async fn a_second_instance_is_told_about_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let held = hold(dir.path()).await.unwrap();
        held.record(&record()).unwrap();
        let failure = hold(dir.path()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(
            failure.render(crate::output::Format::Table).contains("process 1 serves http://127.0.0.1:3/mcp")
        );
    }

    #[test]
    fn a_server_without_a_scheme_is_http() {
        let mut global = global(Path::new("/nonexistent"));
        global.server = Some("h:7001".into());
        assert_eq!(server(&global).url, "http://h:7001");
    }
}
