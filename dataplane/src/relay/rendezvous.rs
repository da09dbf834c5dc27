//! Which node something belongs to: rendezvous hashing, so that every node finds
//! the same one without asking, and only what belonged to a node that goes, or
//! comes, moves.

/// Nodes by how well they fit a key, the best first. Each has a name by which it
/// is hashed; names must differ.
pub fn order<'a, T>(key: &[u8], nodes: impl Iterator<Item = (&'a str, T)>) -> Vec<T> {
    let mut scored: Vec<_> = nodes.map(|(name, node)| (score(key, name), name, node)).collect();
    scored.sort_by(|a, b| (b.0, b.1).cmp(&(a.0, a.1)));
    scored.into_iter().map(|(_, _, node)| node).collect()
}

fn score(key: &[u8], name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(&[0]).update(key);
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_set, prelude::*};

    use super::*;

    fn ordered(key: &[u8], names: &[String]) -> Vec<String> {
        order(key, names.iter().map(|name| (name.as_str(), name.clone())))
    }

    #[test]
    fn keys_spread_over_the_nodes() {
        let names: Vec<String> = (0..4).map(|n| format!("node-{n}")).collect();
        let firsts = (0..4000).map(|n: u32| ordered(&n.to_le_bytes(), &names)[0].clone());
        let mut counts = std::collections::BTreeMap::<_, usize>::new();
        firsts.for_each(|first| *counts.entry(first).or_default() += 1);
        assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn every_node_finds_the_same_order(key: [u8; 8], names in btree_set("[a-z]{1,6}", 1..8)) {
            let names: Vec<String> = names.into_iter().collect();
            let mut reversed = names.clone();
            reversed.reverse();
            prop_assert_eq!(ordered(&key, &names), ordered(&key, &reversed));
        }

        #[test]
        fn who_goes_leaves_the_order_of_the_others(key: [u8; 8], names in btree_set("[a-z]{1,6}", 2..8), gone in any::<prop::sample::Index>()) {
            let names: Vec<String> = names.into_iter().collect();
            let gone = names[gone.index(names.len())].clone();
            let rest: Vec<String> = names.iter().filter(|name| **name != gone).cloned().collect();
            let mut expected = ordered(&key, &names);
            expected.retain(|name| *name != gone);
            prop_assert_eq!(ordered(&key, &rest), expected);
        }
    }
}
