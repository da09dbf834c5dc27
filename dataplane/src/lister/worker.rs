//! Keeps the listing of one backend current: lists, listens for changes, and
//! looks again from time to time, because a change may have been missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use metrics::counter;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use mt_proto::{
    pb::discovery::{Catalog, ServerFacts},
    resource::{Backend, Transport},
};

use super::{
    Catalogs, Listed,
    pages::{List, Pages, Unlistable},
};
use crate::{
    gateway::call::{Answer, Call, CallError, Caller, Client, Identity, Scope, ToClient},
    mcp::{
        Era, Limits, Message, Method, Params, ProtocolVersion, RawId,
        error::code,
        id::IdCounter,
        meta::key,
        splice::Object,
        version::{LATEST_LEGACY, LATEST_MODERN},
    },
    upstream::{Upstream, UpstreamState},
};

/// How long one listing may take, once the backend is up.
pub const LISTING_TIMEOUT: Duration = Duration::from_secs(10);
/// A backend is not listed more often than this, however often it changes.
pub const REFRESH_INTERVAL: Duration = Duration::from_millis(250);
/// Without any hint, it is listed this often.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The bounds of the pause after a failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(250);
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How long finding out what a backend speaks may take, besides its start.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
/// A subscription is made anew this often.
const LISTEN_MAX: Duration = Duration::from_secs(60 * 60);

/// Why a listing failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{method} failed: {message}", method = .method.as_str())]
    Answer { method: Method, message: String },
    #[error("{method} cannot be used: {source}", method = .method.as_str())]
    List { method: Method, source: Unlistable },
    #[error("listing took longer than {0:?}")]
    Slow(Duration),
}

/// Runs until it is dropped, which leaves nothing open that a call has opened.
pub(super) async fn run(upstream: Arc<Upstream>, catalogs: Catalogs) {
    let (events, inbox) = Caller::channel();
    let worker = Worker {
        upstream,
        catalogs,
        events,
        ids: IdCounter::default(),
        hints: AtomicU8::new(0),
        hinted: Notify::new(),
        listening: watch::Sender::new(None),
    };
    tokio::join!(
        worker.keep_listed(),
        worker.take_hints(inbox),
        worker.watch_health(),
        worker.keep_listening()
    );
}

/// A good listing: what the backend is and has, in the order of [`List::ALL`].
struct Known {
    facts: ServerFacts,
    lists: [Vec<Bytes>; 4],
}

impl Known {
    fn is_empty(&self) -> bool {
        self.lists.iter().all(Vec::is_empty)
    }
}

struct Worker {
    upstream: Arc<Upstream>,
    catalogs: Catalogs,
    /// Where the upstream sends `list_changed` of any of its legs.
    events: Caller,
    ids: IdCounter,
    /// What may have changed: lists, as [`bit`]s, or everything ([`ANEW`]).
    hints: AtomicU8,
    hinted: Notify,
    /// Who subscribes to changes; none where they come by themselves, or never.
    listening: watch::Sender<Option<Arc<Client>>>,
}

impl Worker {
    async fn keep_listed(&self) {
        let mut failures = 0;
        let mut known = None;
        loop {
            let began = Instant::now();
            // Whatever was said until now, the listing that follows sees it.
            let hints = self.hints.swap(0, Ordering::AcqRel);
            let pause = match self.list(known.take(), hints).await {
                Ok(listing) => {
                    failures = 0;
                    self.found(&listing);
                    known = Some(listing);
                    RELIST_INTERVAL
                }
                Err(failed) => {
                    failures += 1;
                    self.failed(&failed);
                    backoff(failures, rand::random())
                }
            };
            tokio::select! {
                () = sleep(pause) => known = None,
                () = self.hinted.notified() => sleep_until(began + REFRESH_INTERVAL).await,
            }
        }
    }

    fn found(&self, listing: &Known) {
        counter!("mt_lister_listings_total", "outcome" => "ok").increment(1);
        let backend = &self.upstream.config().name;
        let [tools, prompts, resources, resource_templates] = listing.lists.clone();
        let counts = (tools.len(), prompts.len(), resources.len());
        let listed = Listed::new(Catalog {
            backend: backend.to_string(),
            server: Some(listing.facts.clone()),
            tools,
            prompts,
            resources,
            resource_templates,
            parts: 1,
        });
        if self.catalogs.found(backend, listed) {
            let (tools, prompts, resources) = counts;
            info!(%backend, tools, prompts, resources, "listed");
        }
    }

    fn failed(&self, failed: &Failed) {
        counter!("mt_lister_listings_total", "outcome" => "failed").increment(1);
        let backend = &self.upstream.config().name;
        if self.catalogs.failed(backend, failed.to_string()) {
            warn!(%backend, error = %crate::chain(failed), "listing failed, the last good list stays");
        }
    }

    /// Lists everything, or only what the hints say, where the rest is known.
    async fn list(&self, known: Option<Known>, hints: u8) -> Result<Known, Failed> {
        let limit = LISTING_TIMEOUT + start_time(self.upstream.config());
        let (mut known, hints) = match known {
            // Of one that had nothing to offer, its capabilities may be news too: a
            // gateway, say, before it knew its members.
            Some(known) if hints != ANEW && !known.is_empty() => (known, hints),
            _ => {
                let limit = PROBE_TIMEOUT + limit;
                let facts =
                    timeout(limit, self.upstream.probe()).await.map_err(|_| Failed::Slow(limit))??;
                (Known { facts, lists: Default::default() }, ALL_LISTS)
            }
        };
        let client = self.client(&known.facts);
        let declared = Declared::read(match client.version.era() {
            Era::Legacy => &known.facts.legacy_capabilities,
            Era::Modern => &known.facts.modern_capabilities,
        });
        let entries = async {
            for (list, entries) in List::ALL.into_iter().zip(&mut known.lists) {
                if hints & bit(list) != 0 && declared.has(list) {
                    *entries = self.pages(list, &client, Instant::now() + limit).await?;
                }
            }
            Ok::<_, Failed>(())
        };
        timeout(limit, entries).await.map_err(|_| Failed::Slow(limit))??;
        let listens = client.version.era() == Era::Modern && declared.tells_changes();
        self.listening.send_if_modified(|who| {
            let changes = who.is_some() != listens;
            if changes {
                *who = listens.then_some(client);
            }
            changes
        });
        Ok(known)
    }

    async fn pages(&self, list: List, client: &Arc<Client>, deadline: Instant) -> Result<Vec<Bytes>, Failed> {
        let mut pages = Pages::new(list);
        let mut cursor: Option<String> = None;
        loop {
            let params = match &cursor {
                None => params(client.version, |object| object),
                Some(cursor) => params(client.version, |object| object.set_text("cursor", cursor)),
            };
            let result = match self.call(list.method(), params, client, deadline).await? {
                Answer::Result(result) => result,
                Answer::Error(error) => match RpcHead::read(&error) {
                    // Declared, but not there: some servers have resources without templates.
                    head if head.code == code::METHOD_NOT_FOUND => break,
                    head => return Err(Failed::Answer { method: list.method(), message: head.message }),
                },
            };
            let next =
                pages.take(&result).map_err(|source| Failed::List { method: list.method(), source })?;
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        if pages.left_out > 0 {
            let (backend, entries) = (&self.upstream.config().name, pages.left_out);
            warn!(%backend, method = list.method().as_str(), entries, "entries are too large, left out");
        }
        Ok(pages.finish())
    }

    async fn call(
        &self,
        method: Method,
        params: Params,
        client: &Arc<Client>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let id = RawId::text(&format!("list-{}", self.ids.next()));
        let call = Call { id, method, params, client: client.clone(), deadline, param_headers: vec![] };
        // Hints come to `events`, and nothing else that is told during a listing matters.
        let (caller, mut told) = Caller::channel();
        let answer = self.upstream.call(&call, &caller);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                Some(message) = told.recv() => self.look_at(&message),
            }
        }
    }

    /// The node as a client: it has no capabilities, so nobody asks it anything.
    fn client(&self, facts: &ServerFacts) -> Arc<Client> {
        let version = if facts.legacy {
            let agreed = ProtocolVersion::parse(&facts.legacy_version);
            agreed.filter(|version| version.era() == Era::Legacy).unwrap_or(LATEST_LEGACY)
        } else {
            LATEST_MODERN
        };
        Arc::new(Client {
            identity: Identity::node(),
            version,
            info: own_info(),
            capabilities: Bytes::from_static(b"{}"),
            scope: Scope::Node,
            events: Some(self.events.clone()),
        })
    }

    async fn take_hints(&self, mut inbox: mpsc::Receiver<ToClient>) {
        while let Some(message) = inbox.recv().await {
            self.look_at(&message);
        }
    }

    fn look_at(&self, message: &ToClient) {
        if let ToClient::Notify(message) = message {
            self.hint(changed_lists(message));
        }
    }

    fn hint(&self, lists: u8) {
        if lists != 0 {
            self.hints.fetch_or(lists, Ordering::AcqRel);
            self.hinted.notify_one();
        }
    }

    /// A backend that comes back may be another one.
    async fn watch_health(&self) {
        let mut state = self.upstream.state();
        let mut was_down = false;
        loop {
            match &*state.borrow_and_update() {
                UpstreamState::Unavailable { .. } | UpstreamState::NeedsAuth { .. } => was_down = true,
                UpstreamState::Ready if std::mem::take(&mut was_down) => self.hint(ANEW),
                _ => {}
            }
            if state.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Modern backends tell changes only to who subscribes.
    async fn keep_listening(&self) {
        let mut listening = self.listening.subscribe();
        let mut failures = 0;
        loop {
            let Some(client) = listening.borrow_and_update().clone() else {
                failures = 0;
                _ = listening.changed().await;
                continue;
            };
            let notifications = Object::default()
                .set("toolsListChanged", &b"true"[..])
                .set("promptsListChanged", &b"true"[..])
                .set("resourcesListChanged", &b"true"[..])
                .finish();
            let params = params(client.version, |object| object.set("notifications", &notifications));
            let began = Instant::now();
            let ended = self.call(Method::Listen, params, &client, began + LISTEN_MAX);
            let pause = tokio::select! {
                // Only when there is nobody left to listen for.
                _ = listening.wait_for(Option::is_none) => continue,
                ended = timeout(LISTEN_MAX, ended) => {
                    debug!(backend = %self.upstream.config().name, ?ended, "subscription ended");
                    // One that lasted was a good one.
                    failures = if began.elapsed() > BACKOFF_MAX { 1 } else { failures + 1 };
                    backoff(failures, rand::random())
                }
            };
            sleep(pause).await;
            // What changed meanwhile was not told.
            self.hint(ALL_LISTS);
        }
    }
}

/// What a server declares, as far as lists go. Servers write `null`, and other
/// things, where an object or a boolean belongs: one such member must not take
/// the others away.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Declared {
    tools: Option<Value>,
    prompts: Option<Value>,
    resources: Option<Value>,
}

impl Declared {
    /// Nothing, if it cannot be read.
    fn read(capabilities: &[u8]) -> Self {
        serde_json::from_slice(capabilities).unwrap_or_default()
    }

    fn has(&self, list: List) -> bool {
        match list {
            List::Tools => self.tools.is_some(),
            List::Prompts => self.prompts.is_some(),
            List::Resources | List::ResourceTemplates => self.resources.is_some(),
        }
    }

    fn tells_changes(&self) -> bool {
        let mut all = [&self.tools, &self.prompts, &self.resources].into_iter().flatten();
        all.any(|one| one["listChanged"] == true)
    }
}

/// The head of an error that is not passed on, only read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RpcHead {
    code: i32,
    message: String,
}

impl RpcHead {
    fn read(error: &[u8]) -> Self {
        serde_json::from_slice(error)
            .unwrap_or_else(|_| Self { message: "the error cannot be read".to_owned(), ..Self::default() })
    }
}

const ALL_LISTS: u8 = 0b1111;
/// Besides the lists: nothing that was known of the backend is certain any more.
const ANEW: u8 = 0b1_0000 | ALL_LISTS;

fn bit(list: List) -> u8 {
    match list {
        List::Tools => 1,
        List::Prompts => 2,
        List::Resources => 4,
        List::ResourceTemplates => 8,
    }
}

/// Which lists a message says have changed, as bits.
fn changed_lists(message: &Bytes) -> u8 {
    match Message::parse(message.clone(), Limits::BACKEND) {
        Ok(Message::Notification(told)) => match told.method {
            Method::ToolsListChanged => bit(List::Tools),
            Method::PromptsListChanged => bit(List::Prompts),
            Method::ResourcesListChanged => bit(List::Resources) | bit(List::ResourceTemplates),
            _ => 0,
        },
        _ => 0,
    }
}

/// Params of the node's own, with what a modern request must say about itself.
fn params(version: ProtocolVersion, add: impl FnOnce(Object) -> Object) -> Params {
    let mut object = Object::default();
    if version.requires_request_meta() {
        let meta = Object::default()
            .set_text(key::PROTOCOL_VERSION, version.as_str())
            .set(key::CLIENT_INFO, &own_info())
            .set(key::CLIENT_CAPABILITIES, &b"{}"[..])
            .finish();
        object = object.set("_meta", &meta);
    }
    Params::scan(&add(object).finish(), Limits::CLIENT).expect("what is written here is a small object")
}

fn own_info() -> Bytes {
    Object::default().set_text("name", "magictunnel").set_text("version", env!("CARGO_PKG_VERSION")).finish()
}

/// How long its process may take to come up.
fn start_time(backend: &Backend) -> Duration {
    match &backend.transport {
        Transport::Http(_) | Transport::Sse(_) | Transport::WebSocket(_) | Transport::Agents(_) => {
            Duration::ZERO
        }
        Transport::Stdio(stdio) => stdio.start_timeout,
    }
}

/// Between half of the bound and the bound, which doubles with each failure.
/// `random` is in 0..1.
fn backoff(failures: u32, random: f64) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    bound.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_failures_grow_up_to_a_bound() {
        assert_eq!(backoff(1, 1.0), BACKOFF_MIN);
        assert_eq!(backoff(2, 0.0), BACKOFF_MIN);
        assert_eq!(backoff(3, 1.0), BACKOFF_MIN * 4);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
    }

    #[test]
    fn only_what_is_declared_is_listed() {
        let declared =
            Declared::read(br#"{"tools":{"listChanged":true},"logging":{},"resources":{"subscribe":true}}"#);
        assert_eq!(List::ALL.map(|list| declared.has(list)), [true, false, true, true]);
        assert!(declared.tells_changes());
        assert!(!Declared::read(br#"{"tools":{}}"#).tells_changes());
        assert!(!Declared::read(b"nonsense").has(List::Tools));
        let sloppy = Declared::read(
            br#"{"tools":{"listChanged":null},"prompts":true,"resources":{"listChanged":true}}"#,
        );
        assert!(sloppy.has(List::Tools) && sloppy.has(List::Resources) && sloppy.tells_changes());
    }

    #[test]
    fn a_change_of_a_list_is_a_hint_and_other_messages_are_not() {
        for (method, lists) in [
            ("notifications/tools/list_changed", 0b0001),
            ("notifications/prompts/list_changed", 0b0010),
            ("notifications/resources/list_changed", 0b1100),
            ("notifications/resources/updated", 0),
            ("notifications/message", 0),
        ] {
            let message = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{}}}}"#);
            assert_eq!(changed_lists(&message.into()), lists, "{method}");
        }
    }

    #[test]
    fn modern_requests_say_who_asks_and_cursors_are_text() {
        let modern = params(LATEST_MODERN, |object| object.set_text("cursor", "a\"b"));
        assert_eq!(modern.cursor().as_deref(), Some("a\"b"));
        let meta = modern.meta().unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta[key::PROTOCOL_VERSION], LATEST_MODERN.as_str());
        assert_eq!(meta[key::CLIENT_CAPABILITIES], serde_json::json!({}));
        assert_eq!(params(LATEST_LEGACY, |object| object).object(), Bytes::from_static(b"{}"));
    }
}
