//! The files that `mtctl up` and `mtctl apply --watch` follow.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mt_capabilities::{Library, Touched, Wanted};
use notify_debouncer_full::{
    DebounceEventResult, Debouncer, RecommendedCache, new_debouncer,
    notify::{RecommendedWatcher, RecursiveMode},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    manifests,
    output::{Exit, Failure},
};

/// Editors write a file in several steps; they are one change.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// How long until a directory that cannot be followed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// So many touched files are told one by one.
const TOUCHED_MAX: usize = 1_000;

/// What is to be followed, as the arguments say it.
#[derive(Clone, Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
    wanted: Wanted,
}

impl Source {
    /// None if there are no paths.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn new(paths: &[PathBuf]) -> Result<Option<Self>, Failure> {
        let wanted = Wanted::new(paths).map_err(|error| {
            manifests::unreadable(&error).try_this("mtctl up DIR, with a directory of capability files")
        })?;
        Ok((!paths.is_empty()).then(|| Self { paths: paths.to_vec(), wanted }))
    }

    /// The paths as they were given.
    pub fn name(&self) -> String {
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }

    /// Reads everything. Blocks.
    ///
    /// # Errors
    /// With all mistakes, if there is one.
    pub fn read(&self) -> Result<Library, Failure> {
        let library = Library::open(&self.paths).map_err(|error| manifests::unreadable(&error))?;
        let mut mistakes = library.mistakes();
        mistakes.extend(library.pending().err().unwrap_or_default());
        if !mistakes.is_empty() {
            return Err(manifests::report(&mistakes, "the files are not valid"));
        }
        if library.resources().is_empty() {
            return Err(Failure::new(Exit::Usage, format!("no resources in {}", self.name())));
        }
        Ok(library)
    }

    /// Follows changes from now on.
    ///
    /// # Errors
    /// When the system cannot follow them.
    pub fn watch(&self) -> Result<Changes, Failure> {
        // One that waits is enough: what was touched is gathered beside it.
        let (sender, receiver) = mpsc::channel(1);
        let touched = Arc::new(Mutex::new(BTreeSet::new()));
        let gathered = touched.clone();
        let handler = move |result: DebounceEventResult| {
            let mut touched = gathered.lock();
            match result {
                // Reading is also an event, and would feed on itself.
                Ok(events) => {
                    let told = events.iter().filter(|event| !event.kind.is_access());
                    for event in told {
                        // Of an event without a path, nobody knows what it is about.
                        if event.need_rescan() || event.paths.is_empty() {
                            touched.insert(PathBuf::new());
                        }
                        touched.extend(event.paths.iter().cloned());
                    }
                }
                Err(_) => _ = touched.insert(PathBuf::new()),
            }
            if touched.len() > TOUCHED_MAX {
                *touched = [PathBuf::new()].into();
            }
            if !touched.is_empty() {
                _ = sender.try_send(());
            }
        };
        let failed = |error| {
            Failure::new(Exit::Failed, format!("cannot follow changes of {}", self.name()))
                .cause(error)
                .note("on Linux, fs.inotify.max_user_watches may be too low")
        };
        let mut watcher = new_debouncer(DEBOUNCE, None, handler).map_err(failed)?;
        let places = self.places();
        for place in &places {
            watcher.watch(&place.path, place.mode).map_err(failed)?;
        }
        Ok(Changes { source: self.clone(), places, _watcher: watcher, touched, receiver })
    }

    /// A file is followed through its directory: editors put a new one in its
    /// place. So is what is not there at the moment.
    fn places(&self) -> BTreeSet<Place> {
        let watch = |path: &Path| {
            if path.is_dir() {
                return Place::new(path, RecursiveMode::Recursive);
            }
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Place::new(parent.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)
        };
        self.wanted.bases().map(watch).collect()
    }
}

/// A directory that is followed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    path: PathBuf,
    mode: RecursiveMode,
    /// Tells it from another that takes its path. The time of birth is a part
    /// of it, as the number of a deleted directory is given to the next one.
    identity: Option<(u64, u64, Option<SystemTime>)>,
}

impl Place {
    fn new(path: &Path, mode: RecursiveMode) -> Self {
        let metadata = std::fs::metadata(path).ok();
        let identity = metadata.map(|found| (found.dev(), found.ino(), found.created().ok()));
        Self { path: path.to_owned(), mode, identity }
    }
}

/// Changes of files, as they happen.
pub struct Changes {
    source: Source,
    places: BTreeSet<Place>,
    _watcher: Debouncer<RecommendedWatcher, RecommendedCache>,
    /// Since it was asked last; an empty path is whatever there is.
    touched: Arc<Mutex<BTreeSet<PathBuf>>>,
    receiver: mpsc::Receiver<()>,
}

impl Changes {
    /// Waits for a change, and says what it may be. Cancel safe.
    pub async fn next(&mut self) -> Touched {
        while self.source.places() != self.places {
            // A directory was deleted, or another is in its place, and the
            // system follows the old one. What was missed is not known.
            if let Ok(changes) = self.source.watch() {
                *self = changes;
                return Touched::Everything;
            }
            tokio::time::sleep(RETRY).await;
        }
        if self.receiver.recv().await.is_none() {
            // The watcher is gone; nothing will change any more.
            std::future::pending().await
        }
        let touched = std::mem::take(&mut *self.touched.lock());
        if touched.contains(Path::new("")) { Touched::Everything } else { Touched::Paths(touched) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_refused() {
        assert_eq!(Source::new(&["/nonexistent".into()]).unwrap_err().exit, Exit::NotFound);
        assert!(Source::new(&[]).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_change_is_seen_and_reading_is_not_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let source = Source::new(&[dir.path().to_owned()]).unwrap().unwrap();
        let mut changes = source.watch().unwrap();
        std::fs::read(&file).unwrap();
        let quiet = tokio::time::timeout(DEBOUNCE * 3, changes.next()).await;
        assert!(quiet.is_err(), "reading is not a change");
        std::fs::write(&file, "b").unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await.expect("a change");
    }

    #[tokio::test]
    async fn a_directory_that_is_deleted_and_made_again_is_still_followed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("files");
        std::fs::create_dir(&dir).unwrap();
        let source = Source::new(std::slice::from_ref(&dir)).unwrap().unwrap();
        let mut changes = source.watch().unwrap();
        std::fs::remove_dir(&dir).unwrap();
        changes.next().await;
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        // Told at least once, and then no more until something changes again.
        changes.next().await;
        while tokio::time::timeout(DEBOUNCE * 4, changes.next()).await.is_ok() {}
        std::fs::write(&file, "b").unwrap();
        tokio::time::timeout(Duration::from_secs(10), changes.next()).await.unwrap();
    }
}
