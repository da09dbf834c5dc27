//! How the nodes of a fleet take each other's requests, so that no load balancer
//! has to know which node has what.
//!
//! ```text
//!  directory    which nodes there are, as the control plane says    (pure)
//!  rendezvous   which of them something belongs to                  (pure)
//!  record       what outlives the owner of a session, and merging it (pure)
//!  ledger       records of this node's sessions, copies of others'
//!  peers        the way to the other nodes        server    their way to here
//!  credential   by which a node of the fleet is known
//! ```
//!
//! This part carries requests and copies; what is relayed at all, and what a
//! request means, is the doors' business (`downstream/elsewhere.rs`,
//! `inbound.rs`). A relayed
//! request is never relayed again. Reasons: docs/adr/0008.

pub mod change;
pub mod credential;
pub mod directory;
pub mod ledger;
mod peers;
pub mod record;
pub mod rendezvous;
pub mod server;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{
    future::{BoxFuture, join_all},
    stream::BoxStream,
};
use http::{Request, Response};
use mt_proto::{
    pb::{self, node::SessionRecord},
    resource::ResourceName,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use self::peers::{Cut, Failure, Relayed};
use self::{
    change::Change,
    directory::{Directory, Entry},
    ledger::{Held, Ledger, Own},
    peers::Peers,
};
use crate::{gateway::call::Identity, seal::KeyRing};

/// How many nodes hold a copy of a session's record besides its owner: one that
/// is tried, and another one if that fails.
const COPY_ATTEMPTS_MAX: usize = 2;
/// How long a copy, or a question for one, may take.
const RECORD_TIMEOUT: Duration = Duration::from_millis(500);
/// Nodes that are asked what they know of a session before it is taken up.
const ASKED_MAX: usize = 6;
/// Between two looks whether copies are where they should be.
const RECOPY_EVERY: Duration = Duration::from_secs(5);

/// A labels' selector of each gateway.
type Selectors = HashMap<ResourceName, BTreeMap<String, String>>;

/// This node among the others.
pub struct Relay {
    tag: Arc<str>,
    keys: Arc<ArcSwap<KeyRing>>,
    directory: ArcSwap<Directory>,
    changed: watch::Sender<()>,
    selectors: ArcSwap<Selectors>,
    peers: Peers,
    ledger: Ledger,
    inbound: OnceLock<Arc<dyn Inbound>>,
}

/// A request that another node has relayed, as its doors would have served it.
pub struct Incoming {
    pub request: Request<Bytes>,
    pub identity: Arc<Identity>,
}

/// What taking a session up has come to.
#[derive(Clone, Debug)]
pub enum TakenUp {
    /// What its owner before had told the backends is in here.
    Now(SessionRecord),
    /// Somebody here was faster.
    Already,
    /// It has ended.
    Over,
}

/// Why a relayed request is not begun here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Declined {
    /// Another node, by its tag, has what it is about.
    Moved(Arc<str>),
    /// This node stops.
    Draining,
}

/// Serves what others relay: the doors of this node.
pub trait Inbound: Send + Sync {
    fn take(
        &self,
        incoming: Incoming,
    ) -> BoxFuture<'static, Result<Response<BoxStream<'static, Bytes>>, Declined>>;
    /// Whether a session has its place here now.
    fn serves(&self, session: &str) -> bool;
    /// Another node has taken a session up: this one lets go of it, and leaves
    /// to the other what backends hold.
    fn displaced(&self, session: &str);
}

impl Relay {
    /// A node that knows of no others yet.
    pub fn new(tag: Arc<str>, keys: Arc<ArcSwap<KeyRing>>) -> Arc<Self> {
        Arc::new(Self {
            peers: Peers::new(),
            ledger: Ledger::default(),
            tag,
            keys,
            directory: ArcSwap::default(),
            changed: watch::Sender::new(()),
            selectors: ArcSwap::default(),
            inbound: OnceLock::new(),
        })
    }

    /// Relayed requests are served by these doors from now on; the first stay.
    pub fn serve_with(&self, inbound: Arc<dyn Inbound>) {
        _ = self.inbound.set(inbound);
    }

    /// Takes over which nodes there are.
    pub fn set_directory(&self, told: &pb::discovery::NodeDirectory) {
        let next = self.directory.load().updated(told, Instant::now());
        self.peers.keep(&next);
        self.directory.store(Arc::new(next));
        self.changed.send_replace(());
    }

    /// Takes over which nodes serve which gateway.
    pub fn set_selectors(&self, selectors: Selectors) {
        self.selectors.store(Arc::new(selectors));
    }

    pub fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    /// The nodes that serve a gateway, the one first that something with this
    /// key belongs to. Without those that cannot be reached at the moment; this
    /// node is among them if the directory has it.
    pub fn order(&self, gateway: &ResourceName, key: &[u8]) -> Vec<Arc<Entry>> {
        let (directory, selectors) = (self.directory.load(), self.selectors.load());
        let now = Instant::now();
        let Some(selector) = selectors.get(gateway) else { return Vec::new() };
        let up = directory.serving(selector).filter(|node| !self.peers.is_down(&node.tag, now));
        rendezvous::order(key, up.map(|node| (&*node.node_id, node.clone())))
    }

    /// A node by its tag, unless it cannot be reached at the moment.
    pub fn node(&self, tag: &str) -> Option<Arc<Entry>> {
        let now = Instant::now();
        self.directory.load().get(tag, now).filter(|node| !self.peers.is_down(&node.tag, now)).cloned()
    }

    /// Has a request served by another node.
    ///
    /// # Errors
    /// Why it is not, and whether it may have been begun.
    pub async fn send(
        &self,
        to: &Arc<Entry>,
        request: &Request<Bytes>,
        identity: &Identity,
    ) -> Result<Relayed, Failure> {
        self.peers.relay(&self.keys.load(), to, request, identity).await
    }

    /// Where a session was found when it was not where its token says.
    pub fn hint(&self, session: &str) -> Option<Arc<str>> {
        self.ledger.hint(session)
    }

    pub fn set_hint(&self, session: &str, owner: &Arc<str>) {
        self.ledger.set_hint(session, owner);
    }

    /// Notes that a session has its place on this node.
    pub fn own(&self, session: &Arc<str>, gateway: &ResourceName, good_for: Duration) {
        self.ledger.own(&self.tag, session, gateway, good_for);
    }

    /// A session of this node is over. Returns when another node knows, if there
    /// is one, so that its token is refused there too.
    pub async fn end(&self, session: &str) {
        if let Some(own) = self.ledger.end(session) {
            self.copy(&own).await;
        }
    }

    /// This node no longer has it; what others hold of it stays.
    pub fn disown(&self, session: &str) {
        self.ledger.disown(session);
    }

    /// What a backend held for a session that this node has taken up; told once.
    pub fn held(&self, session: &str, backend: &ResourceName) -> Option<Held> {
        self.ledger.take_held(session, backend)
    }

    /// Notes a change of a session, and has it copied to another node before
    /// this returns, if there is one. Without one the session goes on all the same.
    pub async fn note(&self, session: &str, change: Change) {
        if let Some(own) = self.ledger.change(session, change) {
            self.copy(&own).await;
        }
    }

    /// Makes what is known of a session, here and on other nodes, the state of
    /// this one, which is its owner from now on.
    ///
    /// # Errors
    /// The tag of a node that serves it at this moment.
    pub async fn take_up(
        &self,
        session: &Arc<str>,
        gateway: &ResourceName,
        opener: &str,
        good_for: Duration,
    ) -> Result<TakenUp, Arc<str>> {
        let mut asked = self.order(gateway, session.as_bytes());
        asked.truncate(ASKED_MAX);
        if let Some(opener) = self.node(opener)
            && !asked.iter().any(|node| node.tag == opener.tag)
        {
            asked.push(opener);
        }
        asked.retain(|node| node.tag != self.tag);
        let keys = self.keys.load_full();
        let answers = asked.iter().map(|node| async {
            let got = tokio::time::timeout(RECORD_TIMEOUT, self.peers.get_record(&keys, node, session)).await;
            got.ok()?.ok().map(|answer| (node.tag.clone(), answer))
        });
        let mut known = self.ledger.copy_of(session);
        let mut serving: Option<(u64, Arc<str>)> = None;
        for (tag, answer) in join_all(answers).await.into_iter().flatten() {
            let epoch = answer.record.as_ref().map_or(0, |record| record.epoch);
            if answer.serving && serving.as_ref().is_none_or(|(best, _)| epoch >= *best) {
                serving = Some((epoch, tag));
            }
            known = record::join(known, answer.record);
        }
        if let Some((_, tag)) = serving {
            return Err(tag);
        }
        if known.as_ref().is_some_and(|record| record.ended) {
            return Ok(TakenUp::Over);
        }
        let Some(own) = self.ledger.take_up(&self.tag, session, gateway, good_for, known) else {
            return Ok(TakenUp::Already);
        };
        debug!("a session is taken up");
        metrics::counter!("mt_relay_sessions_taken_up_total").increment(1);
        self.copy(&own).await;
        Ok(TakenUp::Now(own.record()))
    }

    /// Copies a record to the node that would take the session up.
    async fn copy(&self, own: &Arc<Own>) {
        // One at a time, so that a newer version is never overtaken by an older one.
        let mut copied = own.copied().lock().await;
        let keys = self.keys.load_full();
        for _ in 0..COPY_ATTEMPTS_MAX {
            let record = own.record();
            let order = self.order(&own.gateway, own.id.as_bytes());
            let Some(holder) = order.into_iter().find(|node| node.tag != self.tag) else { return };
            if copied
                .as_ref()
                .is_some_and(|(tag, stamp)| *tag == holder.tag && *stamp == record::stamp(&record))
            {
                return;
            }
            let put = self.peers.put_record(&keys, &holder, &record);
            match tokio::time::timeout(RECORD_TIMEOUT, put).await {
                Ok(Ok(answer)) => {
                    *copied = Some((holder.tag.clone(), record::stamp(&record)));
                    if record::is_displaced(&record, &answer) {
                        self.displaced(&own.id, &answer.owner);
                    }
                    return;
                }
                Ok(Err(_)) | Err(_) => {
                    metrics::counter!("mt_relay_copies_failed_total").increment(1);
                    self.peers.mark_down(&holder.tag);
                }
            }
        }
    }

    fn displaced(&self, session: &str, owner: &str) {
        metrics::counter!("mt_relay_sessions_displaced_total").increment(1);
        self.ledger.disown(session);
        self.ledger.set_hint(session, &owner.into());
        if let Some(inbound) = self.inbound.get() {
            inbound.displaced(session);
        }
    }

    /// Keeps copies where they should be as nodes come and go, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changed = self.changed.subscribe();
        let mut look = tokio::time::interval(RECOPY_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick() => {}
                Ok(()) = changed.changed() => {}
            }
            changed.mark_unchanged();
            for own in self.ledger.changed() {
                self.copy(&own).await;
            }
            self.ledger.prune(directory::now_seconds());
            metrics::gauge!("mt_relay_copies").set(self.ledger.copies() as f64);
        }
    }

    /// Keeps another node's copy; the newest that is known here.
    fn keep_copy(&self, record: SessionRecord) -> SessionRecord {
        let kept = self.ledger.keep_copy(record);
        if let Some(own) = self.ledger.own_record(&kept.id)
            && record::stamp(&own) < record::stamp(&kept)
        {
            self.displaced(&kept.id, &kept.owner);
        }
        kept
    }
}

impl Default for Relay {
    /// Of a node that is alone, with keys of its own.
    fn default() -> Self {
        let keys = Arc::new(ArcSwap::from_pointee(KeyRing::ephemeral()));
        Arc::into_inner(Self::new("".into(), keys)).expect("nobody else has it yet")
    }
}
