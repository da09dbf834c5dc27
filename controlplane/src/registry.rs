//! The configuration, as callers read and change it: every change is one
//! generation, and no generation is committed that does not compile whole.
//!
//! What a change comes to is decided by pure functions in `plan`; here it is
//! read, committed, and tried again when somebody else was faster.

pub mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mt_proto::{
    pb::resource::Resource,
    resource::{Compiled, Key, Problem, ResourceSet},
};
use parking_lot::Mutex;
use prost::Message;
use tracing::info;

pub use self::plan::{Edit, Selection};
use crate::{
    blocking,
    store::{self, Commit, LogId, Note, State, Store, Write},
};

/// Resources in one change.
pub const CHANGES_MAX: usize = 10_000;
/// One resource, encoded.
pub const RESOURCE_BYTES_MAX: usize = 1 << 20;
/// Resources of a whole configuration.
pub const RESOURCES_MAX: usize = 50_000;
/// Who did it.
pub const AUTHOR_BYTES_MAX: usize = 256;
/// Why.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// How often a change is planned anew because the head has moved.
const ATTEMPTS_MAX: usize = 5;
/// Generations that are kept decoded: the head, and what is being read or undone.
const LOADED_MAX: usize = 4;

/// What callers tell apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration has {} problem{}", .0.len(), if .0.len() == 1 { "" } else { "s" })]
    Problems(Vec<Problem>),
    #[error("{field}: {reason}")]
    Argument { field: &'static str, reason: String },
    #[error("{} not found", join(.0))]
    NotFound(Vec<Key>),
    #[error("the configuration is at generation {head}, not {expected}")]
    Moved { expected: u64, head: u64 },
    #[error("{} changed again after generation {generation}", join(.keys))]
    TouchedLater { generation: u64, keys: Vec<Key> },
    #[error("there is no generation {generation}, the head is {head}")]
    NoGeneration { generation: u64, head: u64 },
    #[error("generation {generation} is no longer kept, the oldest is {oldest}")]
    Compacted { generation: u64, oldest: u64 },
    #[error("entry {key:?} of the store is no resource")]
    Foreign { key: String },
    #[error("the store failed")]
    Store(#[source] store::Error),
}

/// As many names as people read.
fn join(keys: &[Key]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = keys.iter().take(SHOWN).map(Key::to_string).collect();
    match keys.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::HeadMoved { expected, head } => Self::Moved { expected, head },
            store::Error::NotFound { revision, head, .. } => {
                Self::NoGeneration { generation: revision, head }
            }
            store::Error::Compacted { revision, oldest, .. } => {
                Self::Compacted { generation: revision, oldest }
            }
            other => Self::Store(other),
        }
    }
}

/// One generation, decoded.
#[derive(Debug, Default)]
pub struct Loaded {
    pub generation: u64,
    pub set: ResourceSet,
    /// As stored: the hash, and the generation that last changed it.
    state: Arc<State>,
}

impl Loaded {
    /// Decodes only what is not the same in `before`.
    fn new(state: Arc<State>, before: &Loaded) -> Result<Self, Error> {
        let mut set = ResourceSet::default();
        for (text, entry) in &state.entries {
            let foreign = || Error::Foreign { key: text.clone() };
            let key = Key::parse(text).ok_or_else(foreign)?;
            let known = before.state.entries.get(text).filter(|known| known.hash == entry.hash);
            let resource = match known.and_then(|_| before.set.get(&key)) {
                Some(resource) => resource.clone(),
                None => Arc::new(Resource::decode(entry.value.clone()).map_err(|_| foreign())?),
            };
            set.insert(key, resource);
        }
        Ok(Self { generation: state.revision, set, state })
    }

    /// A resource with the generation that last changed it and its etag.
    pub fn stored(&self, key: &Key) -> Option<(Arc<Resource>, u64, String)> {
        let entry = self.state.entries.get(&key.to_string())?;
        Some((self.set.get(key)?.clone(), entry.revision, entry.hash.to_string()))
    }
}

/// How a change is to be made.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The head that the caller has seen; 0 is any.
    pub expected_generation: u64,
    pub dry_run: bool,
    pub author: String,
    pub message: String,
}

/// What came of a change, or would have.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The head now.
    pub generation: u64,
    pub edits: Vec<Edit>,
}

/// The configuration log. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
    /// One change at a time: planning on a head that is about to move is wasted.
    writing: Arc<tokio::sync::Mutex<()>>,
    loaded: Arc<Mutex<Vec<Arc<Loaded>>>>,
    /// Of the last set that compiled, so that the next one costs what has changed.
    compiled: Arc<Mutex<Arc<Compiled>>>,
}

impl Registry {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, writing: Arc::default(), loaded: Arc::default(), compiled: Arc::default() }
    }

    /// The newest generation; 0 is none.
    pub fn head(&self) -> u64 {
        self.store.head(LogId::Config)
    }

    /// Follows the head; a receiver sees the newest, not every one.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.watch(LogId::Config)
    }

    /// The configuration at a generation; 0 is the head.
    ///
    /// # Errors
    /// If there is no such generation, or it cannot be read.
    pub async fn at(&self, generation: u64) -> Result<Arc<Loaded>, Error> {
        let wanted = if generation == 0 { self.head() } else { generation };
        if wanted == 0 {
            return Ok(Arc::default());
        }
        if let Some(loaded) = self.loaded.lock().iter().find(|loaded| loaded.generation == wanted) {
            return Ok(loaded.clone());
        }
        let revision = (generation != 0).then_some(generation);
        let state = self.store.state(LogId::Config, revision).await?;
        let before = self.loaded.lock().last().cloned().unwrap_or_default();
        let loaded = Arc::new(blocking(move || Loaded::new(state, &before)).await?);
        let mut cache = self.loaded.lock();
        cache.retain(|other| other.generation != loaded.generation);
        if cache.len() >= LOADED_MAX {
            cache.remove(0);
        }
        cache.push(loaded.clone());
        Ok(loaded)
    }

    /// Creates or replaces resources, and deletes those that have all of
    /// `prune` as labels, or are in `delete`, and are not among them. Dropping the future does not
    /// take back a commit that has begun; so with every change.
    ///
    /// # Errors
    /// If the result does not compile, the head is not the expected one, or the
    /// store fails. Then nothing has changed.
    pub async fn apply(
        &self,
        resources: Vec<Resource>,
        delete: &BTreeSet<Key>,
        prune: &BTreeMap<String, String>,
        terms: Terms,
    ) -> Result<Outcome, Error> {
        bounded("resources", resources.len().max(delete.len()))?;
        let resources = plan::parse(resources)?;
        self.change(terms, |now| Ok(plan::apply(&now.set, &resources, delete, prune))).await
    }

    /// Deletes resources.
    ///
    /// # Errors
    /// As [`Registry::apply`], and if one is not there.
    pub async fn delete(&self, keys: Vec<Key>, terms: Terms) -> Result<Outcome, Error> {
        bounded("refs", keys.len())?;
        let keys: BTreeSet<Key> = keys.into_iter().collect();
        self.change(terms, |now| plan::delete(&now.set, &keys)).await
    }

    /// Reverses what one generation changed; 0 is the head.
    ///
    /// # Errors
    /// As [`Registry::apply`], and if a later generation has touched the same.
    pub async fn undo(&self, generation: u64, mut terms: Terms) -> Result<Outcome, Error> {
        let head = self.head();
        let generation = if generation == 0 { head } else { generation };
        let commit = self.commit(generation).await?;
        let before = match generation - 1 {
            0 => Arc::default(),
            previous => self.at(previous).await?,
        };
        if terms.message.is_empty() {
            terms.message = format!("undo of generation {generation}");
        }
        self.change(terms, |now| plan::undo(&now.set, &now.state, &before.set, &commit)).await
    }

    /// What is different between two generations; 0 is the head.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub async fn diff(&self, from: u64, to: u64) -> Result<Vec<Edit>, Error> {
        let (from, to) = (self.at(from).await?, self.at(to).await?);
        Ok(plan::diff(&from.set, &to.set))
    }

    /// What one generation changed.
    ///
    /// # Errors
    /// If it or the one before it cannot be read.
    pub async fn changes_of(&self, generation: u64) -> Result<Vec<Edit>, Error> {
        let before = match generation.saturating_sub(1) {
            0 => Arc::default(),
            previous => self.at(previous).await?,
        };
        Ok(plan::diff(&before.set, &self.at(generation).await?.set))
    }

    /// Generations below `before` (none: from the head), newest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn history(&self, before: Option<u64>, limit: usize) -> Result<Vec<Arc<Commit>>, Error> {
        Ok(self.store.history(LogId::Config, before, limit).await?)
    }

    /// What a generation did.
    ///
    /// # Errors
    /// If there is no such generation, or it is no longer kept.
    pub async fn commit(&self, generation: u64) -> Result<Arc<Commit>, Error> {
        let head = self.head();
        if generation == 0 || generation > head {
            return Err(Error::NoGeneration { generation, head });
        }
        let found = self.store.history(LogId::Config, Some(generation.saturating_add(1)), 1).await?;
        let found = found.into_iter().find(|commit| commit.revision == generation);
        found.ok_or(Error::Compacted { generation, oldest: generation.saturating_add(1) })
    }

    async fn change(
        &self,
        terms: Terms,
        plan: impl Fn(&Loaded) -> Result<Vec<Edit>, Error>,
    ) -> Result<Outcome, Error> {
        let note = note(&terms)?;
        let _one_at_a_time = self.writing.lock().await;
        let mut attempt = 1;
        loop {
            let now = self.at(0).await?;
            let head = now.generation;
            if terms.expected_generation != 0 && terms.expected_generation != head {
                return Err(Error::Moved { expected: terms.expected_generation, head });
            }
            let planned = plan(&now)?;
            let before = self.compiled.lock().clone();
            let (edits, compiled) = blocking(move || {
                let compiled = check(&now.set, &planned, &before)?;
                Ok::<_, Error>((planned, compiled))
            })
            .await?;
            *self.compiled.lock() = Arc::new(compiled);
            if terms.dry_run || edits.is_empty() {
                return Ok(Outcome { generation: head, edits });
            }
            let writes = edits.iter().map(write).collect();
            match self.store.commit(LogId::Config, Some(head), writes, note.clone()).await {
                Ok(commit) => {
                    info!(
                        generation = commit.revision,
                        author = note.author,
                        changes = edits.len(),
                        "committed"
                    );
                    return Ok(Outcome { generation: commit.revision, edits });
                }
                // Another control plane on the same store was faster.
                Err(store::Error::HeadMoved { .. })
                    if terms.expected_generation == 0 && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The set as it would be, which must compile.
fn check(now: &ResourceSet, edits: &[Edit], before: &Compiled) -> Result<Compiled, Error> {
    let mut set = now.clone();
    for edit in edits {
        match &edit.after {
            Some(resource) => set.insert(edit.key.clone(), resource.clone()),
            None => set.remove(&edit.key),
        };
    }
    if set.len() > RESOURCES_MAX {
        let reason = format!("there would be {} resources, more than {RESOURCES_MAX}", set.len());
        return Err(Error::Argument { field: "resources", reason });
    }
    set.compile_after(before).map_err(Error::Problems)
}

fn write(edit: &Edit) -> Write {
    match &edit.after {
        Some(resource) => Write::put(edit.key.to_string(), resource.encode_to_vec()),
        None => Write::delete(edit.key.to_string()),
    }
}

fn bounded(field: &'static str, count: usize) -> Result<(), Error> {
    match count {
        1..=CHANGES_MAX => Ok(()),
        _ => Err(Error::Argument {
            field,
            reason: format!("must have 1 to {CHANGES_MAX} elements, not {count}"),
        }),
    }
}

fn note(terms: &Terms) -> Result<Note, Error> {
    for (field, text, max) in
        [("author", &terms.author, AUTHOR_BYTES_MAX), ("message", &terms.message, MESSAGE_BYTES_MAX)]
    {
        if text.len() > max {
            return Err(Error::Argument { field, reason: format!("is longer than {max} bytes") });
        }
    }
    Ok(Note { author: terms.author.clone(), message: terms.message.clone() })
}

#[cfg(test)]
mod tests;
