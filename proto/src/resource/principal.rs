//! The checks on principals, which no node follows yet.

use std::collections::BTreeMap;

use super::check::{Checker, quoted};
use crate::pb::resource as pb;

/// Of a group's name.
const GROUP_CHARS_MAX: usize = 63;

/// `seen` has the keys of the principals before: a key says who calls, so it
/// can be only one's.
pub(super) fn check<'a>(
    checker: &mut Checker<'_>,
    name: &'a str,
    principal: &'a pb::Principal,
    seen: &mut BTreeMap<&'a str, &'a str>,
) {
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
    for (i, key) in principal.api_key_sha256.iter().enumerate() {
        let path = format!("spec.apiKeySha256[{i}]");
        if key.len() != 64 || !key.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            let hint = "the hash of the key, not the key: 64 digits of 0-9 and a-f";
            checker.problem_with_hint(&path, "this is not a SHA-256 hash in lower-case hexadecimal", hint);
        } else if let Some(owner) = seen.insert(key, name) {
            checker.problem(&path, format!("this key is also one of principal {owner:?}"));
        }
    }
}
