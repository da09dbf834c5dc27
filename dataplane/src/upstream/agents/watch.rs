//! Directories that somebody follows, each watched once for all who do.
//!
//! It tells that something in a directory may have changed, not what: who
//! follows looks at its own files. A directory and not a file is watched,
//! because editors and deployments put a new file in the place of the old one.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use metrics::{counter, gauge};
use notify_debouncer_full::{
    DebounceEventResult, Debouncer, NoCache, new_debouncer_opt,
    notify::{self, RecommendedWatcher, RecursiveMode},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Directories of one node.
const DIRECTORIES_MAX: usize = 1_024;
/// A file is written in several steps; they are one change.
const DEBOUNCE: Duration = Duration::from_millis(100);

const WATCHED: &str = "mt_files_watched_directories";
const REFUSED: &str = "mt_files_watch_refused_total";

/// All directories that are watched on a node.
#[derive(Default)]
pub struct Watch {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Locked before `directories`, which the watcher's own thread locks too.
    watcher: Mutex<Option<Debouncer<RecommendedWatcher, NoCache>>>,
    directories: Mutex<HashMap<PathBuf, Directory>>,
}

struct Directory {
    /// Never empty.
    followers: Vec<Arc<Notify>>,
    /// What the system watches; none: it could not.
    watched: Option<Identity>,
}

/// Tells a directory from another that has taken its path.
type Identity = (u64, u64);

/// Why a directory is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfollowed {
    #[error("the node watches {DIRECTORIES_MAX} directories, which is its limit")]
    Full,
    #[error("the directory is outside of the node's directory of files")]
    Outside,
}

impl Watch {
    /// Follows a directory, also one that is not there yet. `changes` is told
    /// when something in it may have changed. Blocks for a moment.
    ///
    /// # Errors
    /// If too many are followed.
    pub fn follow(&self, directory: &Path, changes: &Arc<Notify>) -> Result<Followed, Unfollowed> {
        let mut watcher = self.shared.watcher.lock();
        let mut directories = self.shared.directories.lock();
        if directories.len() >= DIRECTORIES_MAX && !directories.contains_key(directory) {
            counter!(REFUSED).increment(1);
            return Err(Unfollowed::Full);
        }
        let entry = directories.entry(directory.to_owned()).or_insert_with(|| {
            gauge!(WATCHED).increment(1.0);
            Directory { followers: Vec::new(), watched: None }
        });
        entry.followers.push(Arc::clone(changes));
        drop(directories);
        self.shared.renew(&mut watcher, directory);
        Ok(Followed {
            shared: Arc::clone(&self.shared),
            directory: directory.to_owned(),
            changes: Arc::clone(changes),
        })
    }
}

/// A directory that is followed, as long as this lives.
pub struct Followed {
    shared: Arc<Shared>,
    directory: PathBuf,
    changes: Arc<Notify>,
}

impl Followed {
    /// Follows the directory that is there now, if it is another one or has come
    /// since. Blocks for a moment.
    pub fn renew(&self) {
        self.shared.renew(&mut self.shared.watcher.lock(), &self.directory);
    }
}

impl Directory {
    fn tell(&self) {
        self.followers.iter().for_each(|follower| follower.notify_one());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut watcher = self.shared.watcher.lock();
        let mut directories = self.shared.directories.lock();
        let Some(entry) = directories.get_mut(&self.directory) else { return };
        if let Some(at) = entry.followers.iter().position(|other| Arc::ptr_eq(other, &self.changes)) {
            entry.followers.swap_remove(at);
        }
        if !entry.followers.is_empty() {
            return;
        }
        let was_watched = entry.watched.is_some();
        directories.remove(&self.directory);
        gauge!(WATCHED).decrement(1.0);
        drop(directories);
        if let Some(watcher) = watcher.as_mut().filter(|_| was_watched) {
            // It may be gone, and its watch with it.
            _ = watcher.unwatch(&self.directory);
        }
    }
}

impl Shared {
    fn renew(
        self: &Arc<Self>,
        watcher: &mut Option<Debouncer<RecommendedWatcher, NoCache>>,
        directory: &Path,
    ) {
        let now = std::fs::metadata(directory).ok().map(|found| (found.dev(), found.ino()));
        let before = self.directories.lock().get(directory).and_then(|entry| entry.watched);
        if now == before {
            return;
        }
        let outcome = self.watch_now(watcher, directory, before.is_some(), now.is_some());
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a directory of resources cannot be watched, it is looked at from time to time");
        }
        if let Some(entry) = self.directories.lock().get_mut(directory) {
            entry.watched = now.filter(|_| outcome.is_ok());
            entry.tell();
        }
    }

    fn watch_now(
        self: &Arc<Self>,
        watcher: &mut Option<Debouncer<RecommendedWatcher, NoCache>>,
        directory: &Path,
        was: bool,
        is: bool,
    ) -> notify::Result<()> {
        let watcher = match watcher {
            Some(watcher) => watcher,
            None => {
                let shared = Arc::downgrade(self);
                let handler = move |events: DebounceEventResult| tell(&shared, events);
                let config = notify::Config::default();
                watcher.insert(new_debouncer_opt(DEBOUNCE, None, handler, NoCache, config)?)
            }
        };
        if was {
            _ = watcher.unwatch(directory);
        }
        if is { watcher.watch(directory, RecursiveMode::NonRecursive) } else { Ok(()) }
    }
}

/// On the watcher's thread.
fn tell(shared: &Weak<Shared>, events: DebounceEventResult) {
    let Some(shared) = shared.upgrade() else { return };
    let directories = shared.directories.lock();
    // Reading is an event too, and no change.
    let changes = |events: &[notify_debouncer_full::DebouncedEvent]| -> Vec<PathBuf> {
        let changes = events.iter().filter(|event| !event.kind.is_access());
        changes.flat_map(|event| event.paths.clone()).collect()
    };
    match events {
        Ok(events) if !events.iter().any(|event| event.need_rescan()) => {
            for path in changes(&events) {
                for place in [Some(path.as_path()), path.parent()].into_iter().flatten() {
                    if let Some(entry) = directories.get(place) {
                        entry.tell();
                    }
                }
            }
        }
        // Some were lost: anything may have changed.
        _ => directories.values().for_each(Directory::tell),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn told(changes: &Notify) {
        timeout(PATIENCE, changes.notified()).await.expect("it is told of in time");
    }

    #[tokio::test]
    async fn all_who_follow_a_directory_hear_of_its_changes() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::default();
        let signals = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let [one, two] = signals.each_ref().map(|signal| watch.follow(directory.path(), signal).unwrap());
        assert_eq!(watch.shared.directories.lock().len(), 1);
        told(&signals[0]).await;
        std::fs::write(directory.path().join("a"), "a").unwrap();
        told(&signals[0]).await;
        told(&signals[1]).await;
        drop(one);
        std::fs::rename(directory.path().join("a"), directory.path().join("b")).unwrap();
        told(&signals[1]).await;
        drop(two);
        assert!(watch.shared.directories.lock().is_empty());
    }

    #[tokio::test]
    async fn a_directory_that_comes_or_is_replaced_is_followed_again() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("later");
        let (watch, changes) = (Watch::default(), Arc::new(Notify::new()));
        let followed = watch.follow(&directory, &changes).unwrap();
        for _ in 0..2 {
            std::fs::create_dir(&directory).unwrap();
            followed.renew();
            told(&changes).await;
            std::fs::write(directory.join("a"), "a").unwrap();
            told(&changes).await;
            std::fs::remove_dir_all(&directory).unwrap();
            followed.renew();
            told(&changes).await;
        }
    }
}
