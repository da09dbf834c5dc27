//! The server's half of the discovery protocol, as a state machine without I/O.
//!
//! Nothing here sleeps, reads a clock or touches a socket: `server.rs` feeds
//! requests and views in, and asks for the next response when there is room for
//! one, so a push of any size holds one response at a time. Rules by number:
//! docs/discovery.md.

mod held;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mt_proto::{
    discovery::{self as shared, PUSH_BYTES_MAX, TYPE_FACT, TYPE_ITEM, WILDCARD},
    pb::{
        ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
        discovery::{Item, Marker, item},
    },
};
use prost::Message;

use self::held::Held;
use super::{Stamp, View, ViewId};

/// Names that one stream may ask for.
pub const NAMES_MAX: usize = 20_000;
/// Versions that a stream may begin with.
pub const INITIAL_VERSIONS_MAX: usize = 100_000;
/// A push that makes no progress for this long ends its stream.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(120);
/// Of what a client says about a refusal, this much is kept.
pub const REASON_BYTES_MAX: usize = 4 << 10;

/// What a marker takes up in a response, at most.
const MARKER_BYTES: usize = 512;
/// What a resource takes up besides its name, version and body.
const RESOURCE_OVERHEAD_BYTES: usize = TYPE_FACT.len() + 32;

/// The state of one stream. The two types are independent of each other.
#[derive(Debug)]
pub struct Machine {
    items: Subscription,
    facts: Subscription,
    nonces: u64,
}

/// What a request turned out to be, besides a change of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: no answer to a push, or one that no longer counts.
    None,
    /// The view with this stamp is in service.
    Acked(Option<Stamp>),
    /// The view with this stamp was refused, for this reason.
    Refused { stamp: Option<Stamp>, reason: String },
    /// It is about a type that this server does not have.
    UnknownType(String),
}

/// One response to be sent.
#[derive(Debug)]
pub struct Outgoing {
    pub response: DeltaDiscoveryResponse,
    /// Set on the response that completes a push: the stamp of its view.
    pub completes: Option<Stamp>,
}

/// Why a stream must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    #[error("a stream may ask for {NAMES_MAX} names at most")]
    TooManyNames,
    #[error("a stream may begin with {INITIAL_VERSIONS_MAX} versions at most")]
    TooManyVersions,
    #[error("a push was not answered for {ACK_TIMEOUT:?}")]
    Unanswered,
}

impl Default for Machine {
    fn default() -> Self {
        Self { items: Subscription::new(TYPE_ITEM), facts: Subscription::new(TYPE_FACT), nonces: 0 }
    }
}

impl Machine {
    /// Takes a request: what is wanted, an ACK or a NACK, or both.
    ///
    /// # Errors
    /// If the stream must end.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<Reply, Close> {
        match request.type_url.as_str() {
            TYPE_ITEM => self.items.on_request(request),
            TYPE_FACT => self.facts.on_request(request),
            _ => Ok(Reply::UnknownType(request.type_url)),
        }
    }

    /// There is a new view of the items. One that has not been sent yet is
    /// dropped for it.
    pub fn on_view(&mut self, view: Arc<View>) {
        self.items.on_view(view);
    }

    /// There is a new view of the facts.
    pub fn on_facts(&mut self, view: Arc<View>) {
        self.facts.on_view(view);
    }

    /// The next response, if one is due; to be asked after every event and
    /// after every response that was sent. `now` is the time since the stream
    /// began.
    pub fn next(&mut self, now: Duration) -> Option<Outgoing> {
        let nonces = &mut self.nonces;
        // Facts first: they are few, and items may need the keys among them.
        self.facts.next(now, nonces).or_else(|| self.items.next(now, nonces))
    }

    /// Time has passed.
    ///
    /// # Errors
    /// If the stream must end, because a push has not been answered.
    pub fn on_tick(&self, now: Duration) -> Result<(), Close> {
        self.items.on_tick(now)?;
        self.facts.on_tick(now)
    }
}

/// One type on one stream.
#[derive(Debug)]
struct Subscription {
    type_url: &'static str,
    wanted: Option<Wanted>,
    /// What the client has in service, as far as it is wanted.
    held: Held,
    /// The newest.
    view: Option<Arc<View>>,
    state: State,
    /// The view that is in service; none if the client's set may have changed
    /// in another way since.
    acked: Option<ViewId>,
    refused: Option<ViewId>,
    /// Something has happened that may make a push necessary.
    due: bool,
}

/// What the client asks for. Both may be set.
#[derive(Debug, Default)]
struct Wanted {
    all: bool,
    names: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
enum State {
    Settled,
    /// Some of its responses are still to be made.
    Pushing(Push),
    /// All have been made.
    Unanswered(Push),
}

#[derive(Debug)]
struct Push {
    view: Arc<View>,
    /// What the client will have when it is in service.
    target: Held,
    removed: Vec<Arc<str>>,
    changed: Vec<Arc<str>>,
    /// How many of `removed` and `changed`, in this order, have been sent.
    done: usize,
    /// Of the last response that was made.
    nonce: String,
    progress_at: Duration,
    /// What is wanted has changed since it began. It is completed as it began.
    outdated: bool,
    /// Names that were asked for again since it began.
    forgotten: BTreeSet<Arc<str>>,
    /// Everything was asked for again since it began.
    all_forgotten: bool,
}

impl Subscription {
    fn new(type_url: &'static str) -> Self {
        Self {
            type_url,
            wanted: None,
            held: Held::default(),
            view: None,
            state: State::Settled,
            acked: None,
            refused: None,
            due: false,
        }
    }

    fn on_view(&mut self, view: Arc<View>) {
        self.view = Some(view);
        self.due = true;
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<Reply, Close> {
        let reply = self.on_answer(&request);
        self.on_wanted(request)?;
        Ok(reply)
    }

    /// R7 to R9: only the nonce of the last response of a push counts.
    fn on_answer(&mut self, request: &DeltaDiscoveryRequest) -> Reply {
        let push = match std::mem::replace(&mut self.state, State::Settled) {
            State::Unanswered(push) if push.nonce == request.response_nonce => push,
            other => {
                self.state = other;
                return Reply::None;
            }
        };
        self.due = true;
        let stamp = push.view.stamp();
        match &request.error_detail {
            None => {
                self.held = push.target;
                self.refused = None;
                self.acked = Some(push.view.id()).filter(|_| !push.outdated);
                if let (true, Some(wanted)) = (push.outdated, &self.wanted) {
                    if push.all_forgotten {
                        self.held.forget_all();
                    }
                    push.forgotten.iter().for_each(|name| self.held.forget(name));
                    self.held.retain(|name| wanted.wants(name));
                }
                Reply::Acked(stamp)
            }
            Some(status) => {
                // A client that wants something else by now may refuse the same
                // view for that alone.
                self.refused = Some(push.view.id()).filter(|_| !push.outdated);
                Reply::Refused { stamp, reason: shorten(&status.message, REASON_BYTES_MAX) }
            }
        }
    }

    fn on_wanted(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Close> {
        let first = self.wanted.is_none();
        let wanted = self.wanted.get_or_insert_default();
        if first {
            if request.initial_resource_versions.len() > INITIAL_VERSIONS_MAX {
                return Err(Close::TooManyVersions);
            }
            // R3: asking for nothing at first is asking for everything.
            wanted.all = request.resource_names_subscribe.is_empty();
        } else if request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty()
        {
            return Ok(());
        }
        let had_all = wanted.all;
        let mut again = BTreeSet::new();
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                wanted.all = true;
            } else if name != shared::MARKER {
                let name: Arc<str> = name.into();
                wanted.names.insert(name.clone());
                // R5: named again is sent again, and what is not there is said to be gone.
                again.insert(name);
            }
        }
        if wanted.names.len() > NAMES_MAX {
            return Err(Close::TooManyNames);
        }
        for name in request.resource_names_unsubscribe {
            if name == WILDCARD {
                wanted.all = false;
            } else if let (Some(name), true) = (wanted.names.take(name.as_str()), wanted.all) {
                again.insert(name);
            }
        }
        again.iter().for_each(|name| self.held.forget(name));
        let all_again = wanted.all && !had_all;
        if all_again {
            self.held.forget_all();
        }
        if first {
            // R4: what the client has counts as sent, as far as it is wanted.
            for (name, version) in request.initial_resource_versions {
                if name != shared::MARKER && wanted.wants(&name) {
                    self.held.insert(name.into(), version.into());
                }
            }
        }
        if !wanted.all {
            self.held.retain(|name| wanted.wants(name));
        }
        if let State::Pushing(push) | State::Unanswered(push) = &mut self.state {
            push.outdated = true;
            push.all_forgotten |= all_again;
            push.forgotten.append(&mut again);
            if push.forgotten.len() > NAMES_MAX {
                return Err(Close::TooManyNames);
            }
        }
        self.acked = None;
        self.refused = None;
        self.due = true;
        Ok(())
    }

    fn next(&mut self, now: Duration, nonces: &mut u64) -> Option<Outgoing> {
        let mut push = match std::mem::replace(&mut self.state, State::Settled) {
            State::Settled => self.begin()?,
            State::Pushing(push) => push,
            answered @ State::Unanswered(_) => {
                self.state = answered;
                return None;
            }
        };
        *nonces += 1;
        push.nonce = nonces.to_string();
        push.progress_at = now;
        let (response, complete) = push.next_response(self.type_url);
        let completes = push.view.stamp().filter(|_| complete);
        self.state = if complete { State::Unanswered(push) } else { State::Pushing(push) };
        Some(Outgoing { response, completes })
    }

    /// The push that brings the client to the newest view, if it needs one.
    fn begin(&mut self) -> Option<Push> {
        let (wanted, view) = (self.wanted.as_ref()?, self.view.clone()?);
        if !std::mem::take(&mut self.due) || self.refused == Some(view.id()) {
            return None;
        }
        if self.acked == Some(view.id()) || self.would_empty(&view) {
            return None;
        }
        let target = Held::wanted_of(&view, wanted);
        let gone = self.held.iter().filter(|(name, _)| !target.contains(name));
        let removed = gone.map(|(name, _)| name.clone()).collect();
        let new = target.iter().filter(|(name, version)| self.held.version(name) != Some(&***version));
        let changed = new.map(|(name, _)| name.clone()).collect();
        let push = Push {
            view,
            target,
            removed,
            changed,
            done: 0,
            nonce: String::new(),
            progress_at: Duration::ZERO,
            outdated: false,
            forgotten: BTreeSet::new(),
            all_forgotten: false,
        };
        // Without a marker there is nothing to say when nothing differs.
        if push.view.stamp().is_none() && push.removed.is_empty() && push.changed.is_empty() {
            self.acked = Some(push.view.id());
            return None;
        }
        Some(push)
    }

    /// R4: a server that has no configuration yet, perhaps because somebody gave it
    /// the wrong directory, takes nothing away from a client that has one.
    fn would_empty(&self, view: &View) -> bool {
        view.stamp().is_some_and(|stamp| stamp.generation == 0) && self.held.has_any()
    }

    fn on_tick(&self, now: Duration) -> Result<(), Close> {
        match &self.state {
            State::Pushing(push) | State::Unanswered(push)
                if now.saturating_sub(push.progress_at) > ACK_TIMEOUT =>
            {
                Err(Close::Unanswered)
            }
            _ => Ok(()),
        }
    }
}

impl Wanted {
    fn wants(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
}

impl Push {
    /// As much as fits, but at least one item, the marker with the last; and
    /// whether that is all.
    fn next_response(&mut self, type_url: &str) -> (DeltaDiscoveryResponse, bool) {
        let mut response = DeltaDiscoveryResponse {
            system_version_info: self.view.label(),
            type_url: type_url.to_owned(),
            nonce: self.nonce.clone(),
            ..Default::default()
        };
        let total = self.removed.len() + self.changed.len();
        let mut bytes = MARKER_BYTES;
        let first = self.done;
        while self.done < total {
            let (name, item) = match self.done.checked_sub(self.removed.len()) {
                None => (&self.removed[self.done], None),
                Some(index) => (&self.changed[index], self.view.items().get(&self.changed[index])),
            };
            let cost = name.len()
                + item.map_or(8, |item| item.version.len() + item.body.len() + RESOURCE_OVERHEAD_BYTES);
            if self.done > first && bytes + cost > PUSH_BYTES_MAX {
                return (response, false);
            }
            bytes += cost;
            match item {
                None => response.removed_resources.push(name.to_string()),
                Some(item) => {
                    response.resources.push(resource(type_url, name, &item.version, item.body.to_vec()));
                }
            }
            self.done += 1;
        }
        if let Some(stamp) = self.view.stamp() {
            response.resources.push(self.marker(stamp));
        }
        (response, true)
    }

    fn marker(&self, stamp: Stamp) -> Resource {
        let hash = if self.target.is_whole(&self.view) {
            self.view.hash()
        } else {
            shared::view_hash(self.target.iter().map(|(name, version)| (&**name, &**version)))
        };
        let marker = Marker {
            generation: stamp.generation,
            catalog_revision: stamp.catalog_revision,
            item_count: self.target.len() as u64,
            view_hash: hash.to_vec().into(),
        };
        let body = Item { item: Some(item::Item::Marker(marker)) }.encode_to_vec();
        resource(TYPE_ITEM, shared::MARKER, &shared::version_of(&body), body)
    }
}

fn resource(type_url: &str, name: &str, version: &str, body: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(prost_types::Any { type_url: type_url.to_owned(), value: body }),
        ..Default::default()
    }
}

/// At most so many bytes, cut between characters.
fn shorten(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}
