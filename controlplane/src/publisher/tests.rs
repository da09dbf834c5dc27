//! When what is committed is published, and what of it a node is to have.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use mt_proto::pb::{
    discovery::Catalog,
    resource::{
        Backend, Gateway, HttpTransport, LabelSelector, Member, Metadata, backend, member, resource::Spec,
    },
};

use super::*;
use crate::store::{Commit, Note, Write};

/// Only heads and revisions: what is stored does not matter to a debounce.
struct Heads(HashMap<LogId, watch::Sender<u64>>);

impl Heads {
    fn new() -> Arc<Self> {
        Arc::new(Self(LogId::ALL.map(|log| (log, watch::channel(0).0)).into()))
    }

    fn bump(&self, log: LogId) {
        self.0[&log].send_modify(|head| *head += 1);
    }
}

impl Store for Heads {
    fn head(&self, log: LogId) -> u64 {
        *self.0[&log].borrow()
    }

    fn commit(
        &self,
        _: LogId,
        _: Option<u64>,
        _: Vec<Write>,
        _: Note,
    ) -> BoxFuture<'_, Result<Arc<Commit>, store::Error>> {
        Box::pin(async { Err(store::Error::Closed) })
    }

    fn state(&self, log: LogId, _: Option<u64>) -> BoxFuture<'_, Result<Arc<State>, store::Error>> {
        Box::pin(async move { Ok(Arc::new(State { revision: self.head(log), ..State::default() })) })
    }

    fn history(
        &self,
        _: LogId,
        _: Option<u64>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<Arc<Commit>>, store::Error>> {
        Box::pin(async { Ok(vec![]) })
    }

    fn watch(&self, log: LogId) -> watch::Receiver<u64> {
        self.0[&log].subscribe()
    }
}

/// Bumps a head every `gap`, `count` times; gives when what was published, in
/// milliseconds since the first.
async fn published_at(gap: Duration, count: u64) -> Vec<(u128, u64)> {
    let store = Heads::new();
    let publisher = Publisher::start(store.clone()).await.unwrap();
    let mut published = publisher.published();
    let shutdown = CancellationToken::new();
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(publisher.run(shutdown.clone()));
    let began = Instant::now();
    parts.spawn(async move {
        for _ in 0..count {
            store.bump(LogId::Config);
            tokio::time::sleep(gap).await;
        }
    });
    let mut seen = vec![];
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(5), published.changed()).await {
        let generation = published.borrow_and_update().stamp.generation;
        seen.push((began.elapsed().as_millis(), generation));
    }
    shutdown.cancel();
    parts.join_all().await;
    seen
}

#[tokio::test(start_paused = true)]
async fn a_single_change_goes_out_at_once() {
    assert_eq!(published_at(Duration::ZERO, 1).await, [(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_follows_in_a_burst_goes_out_together_when_it_is_over() {
    let seen = published_at(Duration::from_millis(10), 20).await;
    assert_eq!(seen[0], (0, 1));
    assert_eq!(seen.len(), 2);
    let (at, generation) = seen[1];
    assert_eq!(generation, 20);
    assert!((240..=260).contains(&at), "{at}: 190 ms of changes and 50 ms of quiet");
}

#[tokio::test(start_paused = true)]
async fn a_burst_without_end_is_published_all_the_same() {
    let seen = published_at(Duration::from_millis(10), 300).await;
    assert_eq!(seen.last().unwrap().1, 300);
    assert!((5..=10).contains(&seen.len()), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 520), "{seen:?}");
}

fn metadata(name: &str) -> Option<Metadata> {
    Some(Metadata { name: name.into(), ..Default::default() })
}

fn backend(name: &str, disabled: bool) -> Resource {
    let http = HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
    let spec = Backend { transport: Some(backend::Transport::Http(http)), disabled, ..Default::default() };
    Resource { metadata: metadata(name), spec: Some(Spec::Backend(spec)) }
}

fn gateway(name: &str, backends: &[&str], site: &str) -> Resource {
    let member =
        |name: &&str| Member { source: Some(member::Source::Backend((*name).into())), ..Default::default() };
    let nodes = LabelSelector { match_labels: labels(site) };
    let spec =
        Gateway { members: backends.iter().map(member).collect(), nodes: Some(nodes), ..Default::default() };
    Resource { metadata: metadata(name), spec: Some(Spec::Gateway(spec)) }
}

fn labels(site: &str) -> Labels {
    Labels::from([("site".to_owned(), site.to_owned())])
}

fn state(revision: u64, entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> State {
    let entry = |value: Vec<u8>| Entry { hash: BlobHash::of(&value), value: value.into(), revision };
    State { revision, entries: entries.into_iter().map(|(key, value)| (key, entry(value))).collect() }
}

fn config(revision: u64, resources: &[Resource]) -> State {
    let named = |resource: &Resource| (Key::of(resource).unwrap().to_string(), resource.encode_to_vec());
    state(revision, resources.iter().map(named))
}

fn names(view: &View) -> Vec<String> {
    view.items().keys().map(ToString::to_string).collect()
}

#[test]
fn a_node_gets_the_gateways_for_its_labels_their_backends_and_their_catalogs() {
    let config = config(
        3,
        &[
            gateway("east", &["a", "off"], "east"),
            gateway("west", &["b"], "west"),
            backend("a", false),
            backend("b", false),
            backend("off", true),
        ],
    );
    let catalog = |backend: &str, tools: usize| {
        let tools = vec![vec![b'x'; 200 << 10].into(); tools];
        let catalog = Catalog { backend: backend.into(), tools, parts: 1, ..Default::default() };
        (catalog::key_of(backend), catalog.encode_to_vec())
    };
    let catalogs = state(2, [catalog("a", 3), catalog("b", 1)]);
    let published = Published::new(&Published::empty(), &config, &catalogs);

    let view = published.view_for(&labels("east"));
    let expected = ["backend/a", "backend/off", "catalog/a/0", "catalog/a/1", "gateway/east"];
    assert_eq!(names(&view), expected);
    assert_eq!(view.stamp(), Some(Stamp { generation: 3, catalog_revision: 2 }));
    assert_eq!(published.backends_for(&labels("east")).iter().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
    assert_eq!(names(&published.view_for(&labels("west"))), ["backend/b", "catalog/b/0", "gateway/west"]);
    assert_eq!(names(&published.view_for(&Labels::new())), [""; 0]);
    assert!(Arc::ptr_eq(&view, &published.view_for(&labels("east"))), "made once");
}

#[test]
fn an_item_keeps_its_version_while_its_content_stays() {
    let first = config(1, &[gateway("east", &["a"], "east"), backend("a", false)]);
    let second = config(2, &[gateway("east", &["a"], "east"), backend("a", true)]);
    let before = Published::new(&Published::empty(), &first, &state(0, []));
    let after = Published::new(&before, &second, &state(0, []));
    let afresh = Published::new(&Published::empty(), &second, &state(0, []));
    let item = |published: &Published, name: &str| published.view_for(&labels("east")).items()[name].clone();
    assert_eq!(item(&before, "gateway/east"), item(&after, "gateway/east"));
    assert_ne!(item(&before, "backend/a"), item(&after, "backend/a"));
    assert_eq!(after.view_for(&labels("east")).hash(), afresh.view_for(&labels("east")).hash());
    let body = item(&after, "backend/a").body;
    assert_eq!(&*item(&after, "backend/a").version, shared::version_of(&body));
}

#[test]
fn an_entry_that_cannot_be_read_is_left_out() {
    let config = state(1, [("backend/a".to_owned(), vec![0xff]), ("what/ever".to_owned(), vec![])]);
    let published = Published::new(&Published::empty(), &config, &state(1, [("x".to_owned(), vec![])]));
    assert!(published.set.is_empty());
}

#[test]
fn views_that_are_in_use_are_ready_before_they_are_asked_for() {
    let config = |revision| config(revision, &[gateway("east", &["a"], "east"), backend("a", false)]);
    let first = Published::new(&Published::empty(), &config(1), &state(0, []));
    first.view_for(&labels("east"));
    let second = Published::new(&first, &config(2), &state(0, []));
    assert!(second.parts.lock()[&labels("east")].part.get().is_some());
    let third = Published::new(&second, &config(3), &state(0, []));
    assert!(third.parts.lock().is_empty(), "nobody asked for it any more");
}
