//! Files that are read again when they change: what each of them gave, and what
//! of it has yet to be told to a control plane.
//!
//! After an edit only the edited file is read. A file with mistakes keeps what
//! it last gave without them; a file that is gone gives nothing. What is
//! pending stays pending until it is said to be in, so a change that was
//! refused goes with the next one. Nothing here waits for changes or tells
//! them to anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use mt_proto::{
    pb::resource::Resource,
    resource::{Key, Kind, Problem},
};
use rayon::prelude::*;

use crate::{Diagnostic, Document, LoadError, alone::check_alone, check, load, load::find::Wanted, parse};

/// A file that was written so shortly before it was looked at may be written
/// again without a change of its time.
const FRESH: Duration = Duration::from_secs(2);

/// What may have changed on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    Everything,
    /// These files or directories, by absolute paths.
    Paths(BTreeSet<PathBuf>),
}

/// What is to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pending {
    /// New, or not as it was.
    pub changed: Vec<Resource>,
    pub removed: Vec<Key>,
}

/// Files with their resources.
#[derive(Debug)]
pub struct Library {
    wanted: Wanted,
    files: BTreeMap<PathBuf, Held>,
    /// Who gives a resource; more than one is a mistake.
    givers: BTreeMap<Key, BTreeSet<PathBuf>>,
    /// What may be other than what was last told.
    pending: BTreeSet<Key>,
}

#[derive(Debug, Default)]
struct Held {
    /// None: look into the file, whatever its time says.
    stamp: Option<Stamp>,
    /// Of the text that was read last.
    hash: Option<[u8; 32]>,
    /// As it last was without mistakes.
    good: Option<Document>,
    /// What is wrong with it now.
    mistakes: Vec<Diagnostic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
}

/// What became of a file.
enum Look {
    Same,
    /// The time changed, the text did not.
    SameText(Option<Stamp>),
    New(Option<Stamp>, [u8; 32], Document),
    Unreadable(Diagnostic),
    Gone,
}

impl Library {
    /// Reads everything that the arguments name. Blocks.
    ///
    /// # Errors
    /// If there is something that cannot be read. Mistakes in files are
    /// [`mistakes`](Self::mistakes).
    pub fn open(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut library = Self {
            wanted: Wanted::new(paths)?,
            files: BTreeMap::new(),
            givers: BTreeMap::new(),
            pending: BTreeSet::new(),
        };
        library.refresh(&Touched::Everything)?;
        Ok(library)
    }

    /// What it reads.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Looks at what may have changed, and reads what has; how many files that
    /// were. Blocks. The cost is that of the files that were touched, or a look
    /// at the time of each.
    ///
    /// # Errors
    /// If a directory cannot be read; then nothing has changed.
    pub fn refresh(&mut self, touched: &Touched) -> Result<usize, LoadError> {
        let (files, sure) = match self.touched_files(touched) {
            Some(files) => (files, true),
            None => {
                let mut files: BTreeSet<PathBuf> = self.wanted.find()?.into_iter().collect();
                files.extend(self.files.keys().cloned());
                (files, false)
            }
        };
        let files: Vec<PathBuf> = files.into_iter().collect();
        let looks: Vec<Look> = files.par_iter().map(|file| look(file, self.files.get(file), sure)).collect();
        let mut read = 0;
        for (file, look) in files.into_iter().zip(looks) {
            read += usize::from(!matches!(look, Look::Same | Look::SameText(_)));
            self.take(file, look);
        }
        Ok(read)
    }

    /// None if it takes a look at everything to know.
    fn touched_files(&self, touched: &Touched) -> Option<BTreeSet<PathBuf>> {
        let Touched::Paths(paths) = touched else { return None };
        let mut files = BTreeSet::new();
        for path in paths {
            let Some(known) = self.wanted.known_as(path) else { continue };
            let beneath = self.files.range(known.clone()..).take_while(|(file, _)| file.starts_with(&known));
            if path.is_dir() || beneath.into_iter().any(|(file, _)| *file != known) {
                return None; // A directory that came, went or was renamed.
            }
            if self.wanted.takes(&known) || self.files.contains_key(&known) {
                files.insert(known);
            }
        }
        Some(files)
    }

    fn take(&mut self, file: PathBuf, look: Look) {
        let held = self.files.entry(file.clone()).or_default();
        match look {
            Look::Same => {}
            Look::SameText(stamp) => held.stamp = stamp,
            Look::Unreadable(diagnostic) => {
                (held.stamp, held.hash, held.mistakes) = (None, None, vec![diagnostic]);
            }
            Look::New(stamp, hash, document) => {
                (held.stamp, held.hash) = (stamp, Some(hash));
                held.mistakes = check_alone(std::slice::from_ref(&document));
                if held.mistakes.is_empty() {
                    let before = held.good.replace(document);
                    self.regive(&file, before);
                }
            }
            Look::Gone => {
                let before = self.files.remove(&file).and_then(|held| held.good);
                self.regive(&file, before);
            }
        }
    }

    /// Brings what a file gives up to date, where it gave `before`.
    fn regive(&mut self, file: &Path, before: Option<Document>) {
        let by_key = |document: &Document| -> BTreeMap<Key, Resource> {
            let all = document.resources.iter().map(|located| located.resource.clone());
            all.filter_map(|resource| Some((Key::of(&resource)?, resource))).collect()
        };
        let before = before.as_ref().map(by_key).unwrap_or_default();
        let now = self.files.get(file).and_then(|held| held.good.as_ref()).map(by_key).unwrap_or_default();
        for key in before.keys().filter(|key| !now.contains_key(key)) {
            if let Some(givers) = self.givers.get_mut(key) {
                givers.remove(file);
                if givers.is_empty() {
                    self.givers.remove(key);
                }
            }
            self.pending.insert(key.clone());
        }
        for (key, resource) in now {
            if before.get(&key) != Some(&resource) {
                self.pending.insert(key.clone());
            }
            self.givers.entry(key).or_default().insert(file.to_owned());
        }
    }

    /// What is wrong with single files now; of those, what they last gave
    /// without mistakes still counts.
    pub fn mistakes(&self) -> Vec<Diagnostic> {
        self.files.values().flat_map(|held| held.mistakes.clone()).collect()
    }

    /// Whether a file with mistakes has something that still counts.
    pub fn keeps(&self, file: &str) -> bool {
        self.files.get(Path::new(file)).is_some_and(|held| held.good.is_some())
    }

    /// What is to be told.
    ///
    /// # Errors
    /// If several files give the same resource. Then none of it is to be told.
    pub fn pending(&self) -> Result<Pending, Vec<Diagnostic>> {
        let twice: Vec<_> = self.givers.values().filter(|givers| givers.len() > 1).flatten().collect();
        if !twice.is_empty() {
            return Err(check::doubles(&self.documents_of(twice)));
        }
        let mut pending = Pending::default();
        for key in &self.pending {
            match self.resource(key) {
                Some(resource) => pending.changed.push(resource.clone()),
                None => pending.removed.push(key.clone()),
            }
        }
        Ok(pending)
    }

    /// What was pending is in now.
    pub fn told(&mut self) {
        self.pending.clear();
    }

    /// Whether no file gives anything.
    pub fn is_empty(&self) -> bool {
        self.givers.is_empty()
    }

    /// Whether any file gives a resource of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.givers.keys().any(|key| key.kind == kind)
    }

    /// Everything, in the order of kind and name.
    pub fn resources(&self) -> Vec<Resource> {
        self.givers.keys().filter_map(|key| self.resource(key)).cloned().collect()
    }

    /// The places of problems that a control plane has found.
    pub fn place(&self, problems: &[Problem]) -> Vec<Diagnostic> {
        let keys = problems.iter().filter_map(|p| Some(Key::new(p.kind?, p.name.parse().ok()?)));
        let givers: BTreeSet<&PathBuf> = keys.filter_map(|key| self.givers.get(&key)).flatten().collect();
        check::place(&self.documents_of(givers), problems)
    }

    fn resource(&self, key: &Key) -> Option<&Resource> {
        let file = self.givers.get(key)?.first()?;
        let located = self.files.get(file)?.good.as_ref()?.resources.iter();
        located.map(|located| &located.resource).find(|resource| Key::of(resource).as_ref() == Some(key))
    }

    fn documents_of<'a>(&self, files: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Document> {
        let files: BTreeSet<&PathBuf> = files.into_iter().collect();
        files.into_iter().filter_map(|file| self.files.get(file)?.good.clone()).collect()
    }
}

/// Looks at a file; `sure` if something is known to have happened to it.
fn look(file: &Path, held: Option<&Held>, sure: bool) -> Look {
    let unreadable = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        Look::Unreadable(Diagnostic::without_place(&file.to_string_lossy(), "", message, None))
    };
    let stamp = match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => stamp(&metadata),
        Ok(_) => return Look::Gone,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Gone,
        Err(error) => return unreadable(&error),
    };
    let known = held.and_then(|held| held.stamp);
    if !sure && known.is_some() && known == stamp {
        return Look::Same;
    }
    let text = match load::read_text(file) {
        Ok(text) => text,
        Err(LoadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Look::Gone,
        Err(error) => return unreadable(&error),
    };
    let hash = *blake3::hash(text.as_bytes()).as_bytes();
    if held.and_then(|held| held.hash) == Some(hash) {
        return Look::SameText(stamp);
    }
    Look::New(stamp, hash, parse(&file.to_string_lossy(), &text))
}

/// None while the file is so fresh that its time may not tell of a change.
fn stamp(metadata: &fs::Metadata) -> Option<Stamp> {
    let modified = metadata.modified().ok()?;
    let is_old = modified.elapsed().is_ok_and(|age| age > FRESH);
    is_old.then_some(Stamp { modified, bytes: metadata.len() })
}

#[cfg(test)]
mod tests;
