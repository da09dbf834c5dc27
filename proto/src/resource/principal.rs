//! Somebody who calls, validated.
//!
//! Only hashes of keys are here: a key has 256 random bits, so its hash can be
//! looked up and pushed to nodes, and says nothing about the key.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    ResourceName,
    check::{Checker, quoted},
};
use crate::pb::resource as pb;

/// Of a group's name.
const GROUP_CHARS_MAX: usize = 63;
/// Of one principal.
const GROUPS_MAX: usize = 256;
/// Of one principal. Two are enough to change a key without a gap.
const KEYS_MAX: usize = 32;
/// What callers without a name, and nodes, are called.
const RESERVED: [&str; 2] = ["anonymous", "node"];

/// The SHA-256 of an API key.
pub type KeyHash = [u8; 32];

/// Somebody who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub name: ResourceName,
    pub groups: Vec<Arc<str>>,
}

/// The principals that have keys, by those.
pub type Principals = HashMap<KeyHash, Arc<Principal>>;

/// `seen` has the keys of the principals before: a key says who calls, so it
/// can be only one's.
pub(super) fn check<'a>(
    checker: &mut Checker<'_>,
    name: &'a ResourceName,
    principal: &'a pb::Principal,
    seen: &mut BTreeMap<&'a str, &'a str>,
    principals: &mut Principals,
) {
    if RESERVED.contains(&name.as_str()) {
        let message = format!("{:?} is what callers are called who show no key", name.as_str());
        checker.problem_with_hint("metadata.name", message, "give it another name");
    }
    if principal.groups.len() > GROUPS_MAX {
        checker.problem("spec.groups", format!("at most {GROUPS_MAX} groups are kept"));
    }
    if principal.api_key_sha256.len() > KEYS_MAX {
        checker.problem("spec.apiKeySha256", format!("at most {KEYS_MAX} keys are kept"));
    }
    for (i, group) in principal.groups.iter().enumerate() {
        if group.is_empty() || group.chars().count() > GROUP_CHARS_MAX || group.chars().any(char::is_control)
        {
            let message = format!(
                "{} is not a group: 1 to {GROUP_CHARS_MAX} characters that can be seen",
                quoted(group)
            );
            checker.problem(&format!("spec.groups[{i}]"), message);
        }
    }
    let groups = principal.groups.iter().map(|group| group.as_str().into()).collect();
    let somebody = Arc::new(Principal { name: name.clone(), groups });
    for (i, key) in principal.api_key_sha256.iter().enumerate() {
        let path = format!("spec.apiKeySha256[{i}]");
        let Some(hash) = parse(key) else {
            let hint = "the hash of the key, not the key: 64 digits of 0-9 and a-f";
            checker.problem_with_hint(&path, "this is not a SHA-256 hash in lower-case hexadecimal", hint);
            continue;
        };
        if let Some(owner) = seen.insert(key, name.as_str()) {
            checker.problem(&path, format!("this key is also one of principal {owner:?}"));
        }
        principals.insert(hash, Arc::clone(&somebody));
    }
}

fn parse(hex: &str) -> Option<KeyHash> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut hash = KeyHash::default();
    if hex.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}
