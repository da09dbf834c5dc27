//! Which node lists which backend for the fleet.
//!
//! Rendezvous hashing: every backend goes to the node with the highest score
//! for the pair, so a node that comes or goes moves only its own share, and
//! every control plane decides alike.

use std::{collections::BTreeMap, sync::Arc};

/// A node that may list, and what it serves.
pub struct Candidate<'a> {
    pub node_id: &'a str,
    pub backends: Arc<[Arc<str>]>,
}

/// From the name of each backend that somebody serves to the id of its lister.
pub fn assign(candidates: &[Candidate<'_>]) -> BTreeMap<Arc<str>, String> {
    let mut best: BTreeMap<&Arc<str>, (u64, &str)> = BTreeMap::new();
    for candidate in candidates {
        let node = digest(candidate.node_id);
        for backend in candidate.backends.iter() {
            let bid = (mix(node ^ digest(backend).rotate_left(32)), candidate.node_id);
            let held = best.entry(backend).or_insert(bid);
            *held = (*held).max(bid);
        }
    }
    best.into_iter().map(|(backend, (_, node_id))| (backend.clone(), node_id.to_owned())).collect()
}

/// FNV-1a, 64 bits: the same on every machine and in every version.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of SplitMix64: every bit of the input moves every bit.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str, count: usize) -> Arc<[Arc<str>]> {
        (0..count).map(|i| format!("{prefix}-{i}").into()).collect()
    }

    #[test]
    fn every_backend_has_one_lister_that_serves_it_and_the_shares_are_fair() {
        let (all, some) = (names("backend", 300), names("backend", 30));
        let candidates = [
            Candidate { node_id: "a", backends: all.clone() },
            Candidate { node_id: "b", backends: all.clone() },
            Candidate { node_id: "c", backends: some.clone() },
        ];
        let listers = assign(&candidates);
        assert_eq!(listers.len(), 300);
        assert!(listers.iter().all(|(backend, node)| node != "c" || some.contains(backend)));
        let share = listers.values().filter(|node| *node == "a").count();
        assert!((100..=200).contains(&share), "{share}");
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_backends() {
        let all = names("backend", 100);
        let before = assign(&["a", "b", "c"].map(|node_id| Candidate { node_id, backends: all.clone() }));
        let after = assign(&["b", "a"].map(|node_id| Candidate { node_id, backends: all.clone() }));
        for (backend, lister) in &before {
            assert!(lister == "c" || after[backend] == *lister);
        }
    }

    #[test]
    fn without_nodes_there_are_no_listers() {
        assert!(assign(&[]).is_empty());
    }
}
