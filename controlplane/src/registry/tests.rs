//! Changes on a real store: all of one or none of it, and never over another.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use mt_proto::pb::resource::{Metadata, Secret, resource::Spec, secret::Source};
use tempfile::TempDir;

use super::*;
use crate::store::sled::{Options, SledStore};

fn secret(name: &str, env: &str) -> Resource {
    Resource {
        metadata: Some(Metadata { name: name.into(), ..Default::default() }),
        spec: Some(Spec::Secret(Secret { source: Some(Source::Env(env.into())) })),
    }
}

fn open() -> (TempDir, Arc<SledStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SledStore::open(&dir.path().join("store"), Options::default()).unwrap();
    (dir, Arc::new(store))
}

async fn apply(registry: &Registry, resources: &[Resource]) -> Outcome {
    registry.apply(resources.to_vec(), &BTreeSet::new(), &BTreeMap::new(), Terms::default()).await.unwrap()
}

fn expecting(expected_generation: u64) -> Terms {
    Terms { expected_generation, ..Terms::default() }
}

async fn env_of(registry: &Registry, name: &str) -> Option<String> {
    let loaded = registry.at(0).await.unwrap();
    let (resource, ..) = loaded.stored(&Key::parse(&format!("secret/{name}")).unwrap())?;
    match &resource.spec {
        Some(Spec::Secret(Secret { source: Some(Source::Env(env)) })) => Some(env.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn what_changes_nothing_is_no_generation() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    assert_eq!(apply(&registry, &[secret("a", "A")]).await.generation, 1);
    let again = apply(&registry, &[secret("a", "A")]).await;
    assert_eq!((again.generation, again.edits.len()), (1, 0));
    let dry = Terms { dry_run: true, ..Terms::default() };
    let dry = registry.apply(vec![secret("a", "B")], &BTreeSet::new(), &BTreeMap::new(), dry).await.unwrap();
    assert_eq!((dry.generation, dry.edits.len()), (1, 1));
    assert_eq!(env_of(&registry, "a").await.as_deref(), Some("A"));
}

#[tokio::test]
async fn a_set_that_does_not_compile_changes_nothing_and_names_every_problem() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    let bad = vec![secret("a", "A"), secret("b", ""), secret("c", "")];
    let error = registry.apply(bad, &BTreeSet::new(), &BTreeMap::new(), Terms::default()).await.unwrap_err();
    let Error::Problems(problems) = error else { panic!("{error}") };
    let names: Vec<_> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(registry.head(), 0);
}

#[tokio::test]
async fn a_head_that_moved_aborts_who_expected_another() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    apply(&registry, &[secret("a", "A1")]).await;
    apply(&registry, &[secret("a", "A2")]).await;
    let moved =
        registry.apply(vec![secret("a", "A3")], &BTreeSet::new(), &BTreeMap::new(), expecting(1)).await;
    assert!(matches!(moved, Err(Error::Moved { expected: 1, head: 2 })), "{moved:?}");
    let key = Key::parse("secret/a").unwrap();
    assert!(matches!(registry.delete(vec![key], expecting(1)).await, Err(Error::Moved { .. })));
    assert!(
        registry
            .apply(vec![secret("a", "A3")], &BTreeSet::new(), &BTreeMap::new(), expecting(2))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn undo_reverses_one_generation_and_keeps_the_others() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    apply(&registry, &[secret("a", "A1"), secret("b", "B1")]).await;
    apply(&registry, &[secret("a", "A2"), secret("c", "C2")]).await;
    apply(&registry, &[secret("b", "B3")]).await;
    let undone = registry.undo(2, Terms::default()).await.unwrap();
    assert_eq!((undone.generation, undone.edits.len()), (4, 2));
    assert_eq!(env_of(&registry, "a").await.as_deref(), Some("A1"));
    assert_eq!(env_of(&registry, "b").await.as_deref(), Some("B3"));
    assert_eq!(env_of(&registry, "c").await, None);
    assert_eq!(registry.commit(4).await.unwrap().message, "undo of generation 2");

    let refused = registry.undo(1, Terms::default()).await.unwrap_err();
    let Error::TouchedLater { generation: 1, keys } = refused else { panic!("{refused}") };
    assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["secret/a", "secret/b"]);

    // The head, which is an undo itself.
    registry.undo(0, Terms::default()).await.unwrap();
    assert_eq!(env_of(&registry, "a").await.as_deref(), Some("A2"));
}

#[tokio::test]
async fn undo_of_a_deletion_brings_it_back() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    apply(&registry, &[secret("a", "A1")]).await;
    registry.delete(vec![Key::parse("secret/a").unwrap()], Terms::default()).await.unwrap();
    assert_eq!(env_of(&registry, "a").await, None);
    registry.undo(0, Terms::default()).await.unwrap();
    assert_eq!(env_of(&registry, "a").await.as_deref(), Some("A1"));
    assert!(matches!(registry.undo(99, Terms::default()).await, Err(Error::NoGeneration { head: 3, .. })));
}

#[tokio::test]
async fn undo_of_the_first_generation_leaves_nothing() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    assert!(matches!(registry.undo(0, Terms::default()).await, Err(Error::NoGeneration { .. })));
    apply(&registry, &[secret("a", "A1")]).await;
    registry.undo(0, Terms::default()).await.unwrap();
    assert!(registry.at(0).await.unwrap().set.is_empty());
}

/// Another control plane that commits just before the first few of ours.
struct Rival {
    inner: Arc<SledStore>,
    rounds: AtomicUsize,
}

impl Store for Rival {
    fn head(&self, log: LogId) -> u64 {
        self.inner.head(log)
    }

    fn commit(
        &self,
        log: LogId,
        expected_head: Option<u64>,
        writes: Vec<Write>,
        note: Note,
    ) -> BoxFuture<'_, Result<Arc<Commit>, store::Error>> {
        Box::pin(async move {
            let left = self.rounds.load(Ordering::Relaxed);
            if left > 0 {
                self.rounds.store(left - 1, Ordering::Relaxed);
                let other =
                    Write::put(format!("secret/r{left}"), secret(&format!("r{left}"), "R").encode_to_vec());
                self.inner.commit(log, None, vec![other], Note::default()).await?;
            }
            self.inner.commit(log, expected_head, writes, note).await
        })
    }

    fn state(&self, log: LogId, revision: Option<u64>) -> BoxFuture<'_, Result<Arc<State>, store::Error>> {
        self.inner.state(log, revision)
    }

    fn history(
        &self,
        log: LogId,
        before: Option<u64>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Arc<Commit>>, store::Error>> {
        self.inner.history(log, before, limit)
    }

    fn watch(&self, log: LogId) -> tokio::sync::watch::Receiver<u64> {
        self.inner.watch(log)
    }
}

#[tokio::test]
async fn a_change_is_planned_anew_when_a_rival_was_faster_but_not_for_ever() {
    let (_dir, inner) = open();
    let rival = Arc::new(Rival { inner, rounds: AtomicUsize::new(ATTEMPTS_MAX - 1) });
    let registry = Registry::new(rival.clone());
    let outcome = apply(&registry, &[secret("a", "A")]).await;
    assert_eq!(outcome.generation, ATTEMPTS_MAX as u64);
    assert_eq!(registry.at(0).await.unwrap().set.len(), ATTEMPTS_MAX);

    rival.rounds.store(ATTEMPTS_MAX, Ordering::Relaxed);
    let lost =
        registry.apply(vec![secret("a", "B")], &BTreeSet::new(), &BTreeMap::new(), Terms::default()).await;
    assert!(matches!(lost, Err(Error::Moved { .. })), "{lost:?}");

    rival.rounds.store(1, Ordering::Relaxed);
    let head = registry.head();
    let lost =
        registry.apply(vec![secret("a", "B")], &BTreeSet::new(), &BTreeMap::new(), expecting(head)).await;
    assert!(matches!(lost, Err(Error::Moved { .. })), "who names a head gets that one or none");
}

#[tokio::test]
async fn changes_at_the_same_time_lose_nothing() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    let mut writers = tokio::task::JoinSet::new();
    for index in 0..32 {
        let registry = registry.clone();
        writers.spawn(async move {
            let resource = secret(&format!("s{index}"), "A");
            registry
                .apply(vec![resource], &BTreeSet::new(), &BTreeMap::new(), Terms::default())
                .await
                .unwrap()
                .generation
        });
    }
    let mut generations = writers.join_all().await;
    generations.sort_unstable();
    assert_eq!(generations, (1..=32).collect::<Vec<_>>());
    assert_eq!(registry.at(0).await.unwrap().set.len(), 32);
}

#[tokio::test]
async fn sizes_are_checked_before_anything_is_done() {
    let (_dir, store) = open();
    let registry = Registry::new(store);
    let none = registry.apply(vec![], &BTreeSet::new(), &BTreeMap::new(), Terms::default()).await;
    assert!(matches!(none, Err(Error::Argument { field: "resources", .. })));
    let long = Terms { author: "x".repeat(AUTHOR_BYTES_MAX + 1), ..Terms::default() };
    let long = registry.apply(vec![secret("a", "A")], &BTreeSet::new(), &BTreeMap::new(), long).await;
    assert!(matches!(long, Err(Error::Argument { field: "author", .. })));
}
