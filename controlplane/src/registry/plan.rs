//! What a change comes to, as pure functions from sets to edits.
//!
//! Nothing here checks that the result is right: that is one function,
//! `ResourceSet::compile`, for every kind of change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mt_proto::{
    pb::resource::Resource,
    resource::{Key, Kind, Problem, ResourceName, ResourceSet},
};
use prost::Message;

use super::{Error, RESOURCE_BYTES_MAX};
use crate::store::{Commit, State};

/// What happens to one resource. `before` and `after` are never equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    pub key: Key,
    pub before: Option<Arc<Resource>>,
    pub after: Option<Arc<Resource>>,
}

/// Resources by key.
pub type Selection = BTreeMap<Key, Arc<Resource>>;

/// Gives every resource its key.
///
/// # Errors
/// Every resource that has none, that is too large, or whose key comes twice.
pub fn parse(resources: Vec<Resource>) -> Result<Selection, Error> {
    let mut parsed = Selection::new();
    let mut problems = vec![];
    for (index, resource) in resources.into_iter().enumerate() {
        let kind = Kind::of(&resource);
        let name = resource.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
        let mut problem = |path: &str, message: String, hint: Option<&str>| {
            let name = if name.is_empty() { format!("#{index}") } else { name.chars().take(80).collect() };
            problems.push(Problem { kind, name, path: path.into(), message, hint: hint.map(Into::into) });
        };
        let bytes = resource.encoded_len();
        if bytes > RESOURCE_BYTES_MAX {
            problem("", format!("is {bytes} bytes, more than {RESOURCE_BYTES_MAX}"), Some("split it"));
            continue;
        }
        let Some(kind) = kind else {
            problem("spec", "is missing".into(), None);
            continue;
        };
        match name.parse::<ResourceName>() {
            Err(error) => problem("metadata.name", error.to_string(), None),
            Ok(parsed_name) => {
                if parsed.insert(Key::new(kind, parsed_name), Arc::new(resource)).is_some() {
                    problem("metadata.name", "comes twice in one change".into(), None);
                }
            }
        }
    }
    if problems.is_empty() { Ok(parsed) } else { Err(Error::Problems(problems)) }
}

/// Puts resources in, and takes out what is in `delete` or has all of the labels
/// `prune` (if there are any) and is not among them.
pub fn apply(
    now: &ResourceSet,
    resources: &Selection,
    delete: &BTreeSet<Key>,
    prune: &BTreeMap<String, String>,
) -> Vec<Edit> {
    let mut edits: Vec<Edit> =
        resources.iter().filter_map(|(key, after)| edit(key, now.get(key), Some(after))).collect();
    let mut gone: BTreeSet<&Key> = delete.iter().collect();
    if !prune.is_empty() {
        gone.extend(now.iter().filter(|(_, resource)| has(resource, prune)).map(|(key, _)| key));
    }
    let gone = gone.into_iter().filter(|key| !resources.contains_key(key));
    edits.extend(gone.filter_map(|key| edit(key, now.get(key), None)));
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    edits
}

/// Takes resources out.
///
/// # Errors
/// If one is not there.
pub fn delete(now: &ResourceSet, keys: &BTreeSet<Key>) -> Result<Vec<Edit>, Error> {
    let missing: Vec<Key> = keys.iter().filter(|key| now.get(key).is_none()).cloned().collect();
    if !missing.is_empty() {
        return Err(Error::NotFound(missing));
    }
    Ok(keys.iter().filter_map(|key| edit(key, now.get(key), None)).collect())
}

/// Puts back what `commit` changed, as it was in the set before it.
///
/// # Errors
/// If what it changed is no longer as it left it.
pub fn undo(
    now: &ResourceSet,
    state: &State,
    before: &ResourceSet,
    commit: &Commit,
) -> Result<Vec<Edit>, Error> {
    let (mut edits, mut touched) = (vec![], vec![]);
    for change in &commit.changes {
        let key = Key::parse(&change.key).ok_or_else(|| Error::Foreign { key: change.key.clone() })?;
        // The revision, not only the hash: changed and changed back is touched.
        let current = state.entries.get(&change.key);
        let untouched = match (&change.after, current) {
            (Some(after), Some(entry)) => entry.revision == commit.revision && entry.hash == *after,
            (None, None) => true,
            _ => false,
        };
        if untouched {
            edits.extend(edit(&key, now.get(&key), before.get(&key)));
        } else {
            touched.push(key);
        }
    }
    if !touched.is_empty() {
        return Err(Error::TouchedLater { generation: commit.revision, keys: touched });
    }
    edits.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(edits)
}

/// What is different, in the order of kind and name.
pub fn diff(from: &ResourceSet, to: &ResourceSet) -> Vec<Edit> {
    let keys: BTreeSet<&Key> = from.iter().chain(to.iter()).map(|(key, _)| key).collect();
    keys.into_iter().filter_map(|key| edit(key, from.get(key), to.get(key))).collect()
}

/// Whether a resource has all of these labels.
pub fn has(resource: &Resource, labels: &BTreeMap<String, String>) -> bool {
    let metadata = resource.metadata.as_ref();
    labels.iter().all(|(key, value)| metadata.and_then(|m| m.labels.get(key)) == Some(value))
}

fn edit(key: &Key, before: Option<&Arc<Resource>>, after: Option<&Arc<Resource>>) -> Option<Edit> {
    let same = match (before, after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after) || before == after,
        (before, after) => before.is_none() && after.is_none(),
    };
    (!same).then(|| Edit { key: key.clone(), before: before.cloned(), after: after.cloned() })
}

#[cfg(test)]
mod tests {
    use mt_proto::pb::resource::{Metadata, Secret, resource::Spec, secret::Source};
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn secret(name: &str, env: &str, labels: &[(&str, &str)]) -> Resource {
        Resource {
            metadata: Some(Metadata {
                name: name.into(),
                labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
                ..Default::default()
            }),
            spec: Some(Spec::Secret(Secret { source: Some(Source::Env(env.into())) })),
        }
    }

    fn set(resources: impl IntoIterator<Item = Resource>) -> ResourceSet {
        let mut set = ResourceSet::default();
        for (key, resource) in parse(resources.into_iter().collect()).unwrap() {
            set.insert(key, resource);
        }
        set
    }

    fn keys(edits: &[Edit]) -> Vec<String> {
        edits.iter().map(|edit| edit.key.to_string()).collect()
    }

    #[test]
    fn every_resource_without_a_key_is_a_problem() {
        let error = parse(vec![
            secret("ok", "A", &[]),
            secret("No Name", "A", &[]),
            Resource::default(),
            secret("ok", "B", &[]),
            secret("big", &"x".repeat(RESOURCE_BYTES_MAX), &[]),
        ]);
        let Err(Error::Problems(problems)) = error else { panic!("{error:?}") };
        let places: Vec<_> = problems.iter().map(|p| (p.name.as_str(), p.path.as_str())).collect();
        assert_eq!(
            places,
            [("No Name", "metadata.name"), ("#2", "spec"), ("ok", "metadata.name"), ("big", "")]
        );
    }

    #[test]
    fn applying_what_is_there_is_no_edit() {
        let now = set([secret("a", "A", &[]), secret("b", "B", &[])]);
        let same = parse(vec![secret("a", "A", &[])]).unwrap();
        assert_eq!(apply(&now, &same, &BTreeSet::new(), &BTreeMap::new()), []);
    }

    #[test]
    fn pruning_takes_only_what_has_all_the_labels() {
        let now = set([
            secret("a", "A", &[("from", "dir"), ("x", "1")]),
            secret("b", "B", &[("from", "dir")]),
            secret("c", "C", &[("x", "1")]),
        ]);
        let new = parse(vec![secret("d", "D", &[("from", "dir"), ("x", "1")])]).unwrap();
        let prune = BTreeMap::from([("from".into(), "dir".into()), ("x".into(), "1".into())]);
        assert_eq!(keys(&apply(&now, &new, &BTreeSet::new(), &prune)), ["secret/a", "secret/d"]);
        assert_eq!(keys(&apply(&now, &new, &BTreeSet::new(), &BTreeMap::new())), ["secret/d"]);
        let gone: BTreeSet<Key> =
            ["secret/a", "secret/d", "secret/nowhere"].into_iter().filter_map(Key::parse).collect();
        let edits = apply(&now, &new, &gone, &BTreeMap::new());
        assert_eq!(keys(&edits), ["secret/a", "secret/d"]);
        assert!(edits[0].after.is_none() && edits[1].after.is_some());
    }

    #[test]
    fn deleting_names_everything_that_is_missing() {
        let now = set([secret("a", "A", &[])]);
        let wanted = ["secret/a", "secret/x", "secret/y"].map(|text| Key::parse(text).unwrap()).into();
        let Err(Error::NotFound(missing)) = delete(&now, &wanted) else { panic!("deleted") };
        assert_eq!(missing.len(), 2);
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_set_to_the_other(
            from in btree_map("[a-e]", "[A-C]", 0..5),
            to in btree_map("[a-e]", "[A-C]", 0..5),
        ) {
            let make = |map: BTreeMap<String, String>| set(map.iter().map(|(name, env)| secret(name, env, &[])));
            let (from, to) = (make(from), make(to));
            let mut now = from.clone();
            for edit in diff(&from, &to) {
                prop_assert_eq!(now.get(&edit.key), edit.before.as_ref());
                match edit.after {
                    Some(after) => now.insert(edit.key, after),
                    None => now.remove(&edit.key),
                };
            }
            prop_assert_eq!(now, to);
        }
    }
}
