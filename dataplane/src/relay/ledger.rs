//! What this node knows of sessions beyond their tokens: the records of its own,
//! copies of other nodes' records, and where a session was found last.
//!
//! In memory only, and bounded: what is dropped costs a client its upstream
//! state at worst, never its session.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use dashmap::DashMap;
use mt_proto::{pb::node::SessionRecord, resource::ResourceName};
use parking_lot::Mutex;

use super::{
    change::Change,
    directory::now_seconds,
    record::{self, Stamp},
};

/// Copies of other nodes' records.
pub const COPIES_MAX: usize = 50_000;
/// Sessions whose place is remembered though their token says another one.
pub const HINTS_MAX: usize = 20_000;

/// What a backend held for a session under its owner before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A session that can be gone on with.
    Session { id: Bytes, protocol_version: String },
    /// Something that went with its node.
    Lost,
}

/// A session of this node.
pub struct Own {
    pub id: Arc<str>,
    pub gateway: ResourceName,
    owner: Arc<str>,
    expires_seconds: u64,
    /// None while there is nothing that the next owner must know: so it is with
    /// most sessions, and this is the greater part of them.
    told: OnceLock<Box<Told>>,
}

struct Told {
    record: Mutex<SessionRecord>,
    /// From the owner before, until it is asked for.
    inherited: Mutex<HashMap<String, Held>>,
    /// Where the last copy is, and of what.
    copied: tokio::sync::Mutex<Option<(Arc<str>, Stamp)>>,
}

impl Own {
    pub fn record(&self) -> SessionRecord {
        self.told.get().map_or_else(|| self.fresh(), |told| told.record.lock().clone())
    }

    /// Where the last copy is, and of what.
    pub fn copied(&self) -> &tokio::sync::Mutex<Option<(Arc<str>, Stamp)>> {
        &self.told().copied
    }

    fn told(&self) -> &Told {
        self.told.get_or_init(|| Told::new(self.fresh(), HashMap::new()))
    }

    /// The record of a session in which nothing has happened.
    fn fresh(&self) -> SessionRecord {
        SessionRecord {
            id: self.id.to_string(),
            owner: self.owner.to_string(),
            expires_seconds: self.expires_seconds,
            ..Default::default()
        }
    }
}

impl Told {
    fn new(record: SessionRecord, inherited: HashMap<String, Held>) -> Box<Self> {
        let copied = tokio::sync::Mutex::new(None);
        Box::new(Self { record: Mutex::new(record), inherited: Mutex::new(inherited), copied })
    }
}

#[derive(Default)]
pub struct Ledger {
    own: DashMap<Arc<str>, Arc<Own>>,
    copies: Mutex<Bounded<SessionRecord, COPIES_MAX>>,
    hints: Mutex<Bounded<Arc<str>, HINTS_MAX>>,
}

impl Ledger {
    pub fn own(&self, tag: &Arc<str>, session: &Arc<str>, gateway: &ResourceName, good_for: Duration) {
        if !self.own.contains_key(session) {
            self.own.entry(session.clone()).or_insert_with(|| Arc::new(own(tag, session, gateway, good_for)));
        }
    }

    /// As [`own`](Self::own), after another node. None: it is this node's already.
    pub fn take_up(
        &self,
        tag: &Arc<str>,
        session: &Arc<str>,
        gateway: &ResourceName,
        good_for: Duration,
        known: Option<SessionRecord>,
    ) -> Option<Arc<Own>> {
        let own = own(tag, session, gateway, good_for);
        let inherited = known.as_ref().map(held).unwrap_or_default();
        let record = record::succeeded(known.unwrap_or_else(|| own.fresh()), tag);
        let own = Arc::new(Own { told: OnceLock::from(Told::new(record, inherited)), ..own });
        let mut begun = None;
        self.own.entry(session.clone()).or_insert_with(|| {
            begun = Some(own.clone());
            own
        });
        begun
    }

    /// As [`change`](Self::change) with the end, which is all that stays of it.
    pub fn end(&self, session: &str) -> Option<Arc<Own>> {
        let own = self.change(session, Change::Ended);
        if let Some(own) = &own {
            self.copies.lock().insert(session, own.record());
        }
        self.own.remove(session);
        own
    }

    pub fn disown(&self, session: &str) {
        self.own.remove(session);
    }

    /// None: nothing has changed, or the session is not this node's.
    pub fn change(&self, session: &str, change: Change) -> Option<Arc<Own>> {
        let own = self.own.get(session)?.value().clone();
        let changed = record::apply(&mut own.told().record.lock(), change);
        changed.then_some(own)
    }

    pub fn take_held(&self, session: &str, backend: &ResourceName) -> Option<Held> {
        let own = self.own.get(session)?;
        own.told.get()?.inherited.lock().remove(backend.as_str())
    }

    pub fn own_record(&self, session: &str) -> Option<SessionRecord> {
        self.own.get(session).map(|own| own.record())
    }

    /// Sessions with something to copy.
    pub fn changed(&self) -> Vec<Arc<Own>> {
        let changed = self.own.iter().filter(|own| {
            own.told.get().is_some_and(|told| {
                let record = told.record.lock();
                record.version > 0 || record.epoch > 0
            })
        });
        changed.map(|own| own.value().clone()).collect()
    }

    /// The newest copy of a session's record here, after this one has come.
    pub fn keep_copy(&self, record: SessionRecord) -> SessionRecord {
        let id = record.id.clone();
        let mut copies = self.copies.lock();
        let known = record::join(copies.get(&id).cloned(), self.own_record(&id));
        let joined = record::join(known, Some(record)).expect("one of them is there");
        copies.insert(&id, joined.clone());
        joined
    }

    pub fn copy_of(&self, session: &str) -> Option<SessionRecord> {
        let copy = self.copies.lock().get(session).cloned();
        record::join(copy, self.own_record(session))
    }

    pub fn copies(&self) -> usize {
        self.copies.lock().by_id.len()
    }

    pub fn hint(&self, session: &str) -> Option<Arc<str>> {
        self.hints.lock().get(session).cloned()
    }

    pub fn set_hint(&self, session: &str, owner: &Arc<str>) {
        self.hints.lock().insert(session, owner.clone());
    }

    /// Drops what no token is good for any more.
    pub fn prune(&self, now_seconds: u64) {
        self.own.retain(|_, own| {
            let told = own.told.get().map(|told| told.record.lock().expires_seconds);
            told.unwrap_or(own.expires_seconds) > now_seconds
        });
        self.copies.lock().retain(|record| record.expires_seconds > now_seconds);
    }
}

fn own(tag: &Arc<str>, session: &Arc<str>, gateway: &ResourceName, good_for: Duration) -> Own {
    Own {
        id: session.clone(),
        gateway: gateway.clone(),
        owner: tag.clone(),
        expires_seconds: now_seconds() + good_for.as_secs(),
        told: OnceLock::new(),
    }
}

/// What backends held for a session under its owner before.
fn held(before: &SessionRecord) -> HashMap<String, Held> {
    let held = before.upstream.iter().map(|upstream| {
        let held = match upstream.session_id.is_empty() {
            true => Held::Lost,
            false => Held::Session {
                id: upstream.session_id.clone(),
                protocol_version: upstream.protocol_version.clone(),
            },
        };
        (upstream.backend.clone(), held)
    });
    held.collect()
}

/// A table whose oldest entries go when it is full.
struct Bounded<T, const MAX: usize> {
    by_id: HashMap<Arc<str>, T>,
    order: VecDeque<Arc<str>>,
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T, const MAX: usize> Bounded<T, MAX> {
    fn get(&self, id: &str) -> Option<&T> {
        self.by_id.get(id)
    }

    fn insert(&mut self, id: &str, value: T) {
        if let Some(known) = self.by_id.get_mut(id) {
            *known = value;
            return;
        }
        let id: Arc<str> = id.into();
        self.order.push_back(id.clone());
        self.by_id.insert(id, value);
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }

    fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.by_id.retain(|_, value| keep(value));
        self.order.retain(|id| self.by_id.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn opened(backend: &str) -> Change {
        let backend = backend.parse().unwrap();
        Change::Upstream { backend, session_id: "up".into(), protocol_version: "2025-11-25".into() }
    }

    #[test]
    fn the_next_owner_goes_on_where_the_one_before_was() {
        let (id, gateway, backend): (Arc<str>, _, _) =
            ("s".into(), "g".parse().unwrap(), "b".parse().unwrap());
        let (first, second) = (Ledger::default(), Ledger::default());
        first.own(&"n1".into(), &id, &gateway, DAY);
        let copied = first.change(&id, opened("b")).unwrap().record();
        second.keep_copy(copied);
        let known = second.copy_of(&id);
        second.take_up(&"n2".into(), &id, &gateway, DAY, known).unwrap();
        let held = second.take_held(&id, &backend);
        assert_eq!(held, Some(Held::Session { id: "up".into(), protocol_version: "2025-11-25".into() }));
        assert_eq!(second.take_held(&id, &backend), None, "it is told once");
        let record = second.own_record(&id).unwrap();
        assert_eq!((record.epoch, record.owner.as_str(), record.upstream.len()), (1, "n2", 1));
    }

    #[test]
    fn a_copy_from_the_past_does_not_undo_the_end() {
        let (id, gateway): (Arc<str>, _) = ("s".into(), "g".parse().unwrap());
        let ledger = Ledger::default();
        ledger.own(&"n1".into(), &id, &gateway, DAY);
        let before = ledger.own_record(&id).unwrap();
        let over = ledger.change(&id, Change::Ended).unwrap().record();
        let other = Ledger::default();
        other.keep_copy(over);
        assert!(other.keep_copy(before).ended);
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let mut table = Bounded::<u8, 2>::default();
        for (id, value) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            table.insert(id, value);
        }
        assert_eq!((table.get("a"), table.get("b"), table.get("c")), (None, Some(&2), Some(&4)));
    }
}
