//! What must outlive the owner of a session, and which of two records holds.
//!
//! Pure. Records form a chain of owners (epochs) with a chain of changes each
//! (versions); the later one holds whole, because it began as a copy of the one
//! before. Only the end is kept from any of them.

use mt_proto::pb::node::{PutRecordResponse, SessionRecord, UpstreamSession};

use super::change::Change;

/// Backends that one record names.
pub const UPSTREAM_MAX: usize = 64;
/// Subscriptions in one record; more are lost with their node.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// The longest URI, session id or log level in it.
pub const TEXT_BYTES_MAX: usize = 2048;
/// The longest record that is taken from another node, encoded.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// Which record holds: the greater one.
pub type Stamp = (u64, u64, String);

pub fn stamp(record: &SessionRecord) -> Stamp {
    (record.epoch, record.version, record.owner.clone())
}

/// The record that holds of two; over if one of them is.
pub fn join(one: Option<SessionRecord>, other: Option<SessionRecord>) -> Option<SessionRecord> {
    let (one, other) = match (one, other) {
        (Some(one), Some(other)) => (one, other),
        (only, None) | (None, only) => return only,
    };
    let ended = one.ended || other.ended;
    let holds = if stamp(&other) > stamp(&one) { other } else { one };
    Some(SessionRecord { ended, ..holds })
}

/// Whether somebody else has the session that this record's owner thinks it has.
pub fn is_displaced(own: &SessionRecord, answer: &PutRecordResponse) -> bool {
    answer.owner != own.owner && (answer.epoch, &answer.owner) > (own.epoch, &own.owner)
}

/// The first record of a new owner.
#[must_use]
pub fn succeeded(before: SessionRecord, owner: &str) -> SessionRecord {
    SessionRecord { epoch: before.epoch + 1, version: 0, owner: owner.to_owned(), ..before }
}

/// Applies a change. False: there is nothing new, or no room for it.
pub fn apply(record: &mut SessionRecord, change: Change) -> bool {
    let changed = match change {
        Change::Upstream { backend, session_id, protocol_version } => {
            let entry = UpstreamSession {
                backend: backend.to_string(),
                session_id: session_id.clone(),
                protocol_version,
            };
            let fits = entry.session_id.len() <= TEXT_BYTES_MAX;
            let room = record.upstream.len() < UPSTREAM_MAX;
            match record.upstream.iter_mut().find(|known| known.backend == entry.backend) {
                Some(known) if fits && *known != entry => {
                    *known = entry;
                    true
                }
                None if fits && room => {
                    record.upstream.push(entry);
                    true
                }
                _ => false,
            }
        }
        Change::LogLevel(level) if level.len() <= TEXT_BYTES_MAX && record.log_level != level => {
            record.log_level = level;
            true
        }
        Change::Subscribed(uri) => {
            let fits = uri.len() <= TEXT_BYTES_MAX && record.subscriptions.len() < SUBSCRIPTIONS_MAX;
            let new = fits && !record.subscriptions.contains(&uri);
            if new {
                record.subscriptions.push(uri);
            }
            new
        }
        Change::Unsubscribed(uri) => {
            let before = record.subscriptions.len();
            record.subscriptions.retain(|known| *known != uri);
            record.subscriptions.len() != before
        }
        Change::Ended => !std::mem::replace(&mut record.ended, true),
        Change::LogLevel(_) => false,
    };
    record.version += u64::from(changed);
    changed
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    fn records() -> impl Strategy<Value = Option<SessionRecord>> {
        let record = (0..4u64, 0..4u64, "[ab]", any::<bool>()).prop_map(|(epoch, version, owner, ended)| {
            // What a record says follows from its stamp: an owner counts its changes.
            let log_level = format!("{epoch}.{version}.{owner}").into();
            SessionRecord { epoch, version, owner, ended, log_level, ..Default::default() }
        });
        option::of(record)
    }

    proptest! {
        #[test]
        fn nodes_agree_in_whatever_order_they_hear(a in records(), b in records(), c in records()) {
            let join2 = |x: &Option<SessionRecord>, y: &Option<SessionRecord>| join(x.clone(), y.clone());
            prop_assert_eq!(join2(&a, &b), join2(&b, &a));
            prop_assert_eq!(join2(&join2(&a, &b), &c), join2(&a, &join2(&b, &c)));
            prop_assert_eq!(join2(&a, &a), a);
        }

        #[test]
        fn what_is_over_stays_over(a in records(), b in records()) {
            let ended = a.iter().chain(&b).any(|record| record.ended);
            prop_assert_eq!(join(a, b).is_some_and(|record| record.ended), ended);
        }

        #[test]
        fn a_new_owner_beats_the_one_before(a in records(), owner in "[ab]") {
            if let Some(before) = a {
                let after = succeeded(before.clone(), &owner);
                prop_assert!(stamp(&after) > stamp(&before));
            }
        }
    }

    #[test]
    fn a_change_that_changes_nothing_is_not_copied() {
        let mut record = SessionRecord::default();
        let subscribe = || Change::Subscribed("file:///a".into());
        assert!(apply(&mut record, subscribe()));
        assert!(!apply(&mut record, subscribe()));
        assert!(apply(&mut record, Change::Unsubscribed("file:///a".into())));
        assert!(!apply(&mut record, Change::Unsubscribed("file:///a".into())));
        assert_eq!(record.version, 2);
    }

    #[test]
    fn a_record_is_bounded() {
        let mut record = SessionRecord::default();
        for n in 0..2 * SUBSCRIPTIONS_MAX {
            apply(&mut record, Change::Subscribed(n.to_string()));
            let backend = format!("b{n}").parse().unwrap();
            let change =
                Change::Upstream { backend, session_id: "x".into(), protocol_version: String::new() };
            apply(&mut record, change);
        }
        assert!(!apply(&mut record, Change::LogLevel(vec![b'x'; TEXT_BYTES_MAX + 1].into())));
        assert_eq!((record.subscriptions.len(), record.upstream.len()), (SUBSCRIPTIONS_MAX, UPSTREAM_MAX));
    }

    #[test]
    fn a_second_owner_of_one_epoch_makes_one_of_them_let_go() {
        let own = |owner: &str| SessionRecord { epoch: 1, owner: owner.into(), ..Default::default() };
        let answer = |owner: &str| PutRecordResponse { epoch: 1, owner: owner.into(), ended: false };
        assert!(is_displaced(&own("a"), &answer("b")) && !is_displaced(&own("b"), &answer("a")));
        assert!(!is_displaced(&own("a"), &answer("a")));
    }
}
