//! Checks files that are only a part of the configuration. Pure.
//!
//! What they refer to and do not have is taken as being in the store, unless
//! its name is so near to one of theirs that it must be a typing mistake.

use std::collections::BTreeSet;

use mt_proto::{
    pb::resource::{
        Backend, HttpTransport, Metadata, Resource, Secret, ToolSet, backend::Transport, member::Source,
        resource::Spec, secret,
    },
    resource::{self, Key, Kind, ResourceSet, closest},
};

use crate::{Diagnostic, Document, check_onto};

/// Stands in for a backend that is not at hand.
const STAND_IN_URL: &str = "http://127.0.0.1:1/";

/// What the resources refer to and do not have, as far as it is likely to be
/// elsewhere.
pub fn absent<'a>(resources: impl IntoIterator<Item = &'a Resource> + Clone) -> BTreeSet<Key> {
    let here: BTreeSet<Key> = resources.clone().into_iter().filter_map(Key::of).collect();
    let near = |key: &Key| {
        let alike = here.iter().filter(|other| other.kind == key.kind).map(|other| other.name.as_str());
        closest(key.name.as_str(), alike).is_some()
    };
    let all = resources.into_iter().flat_map(references);
    all.filter(|key| !here.contains(key) && !near(key)).collect()
}

/// A set in which the keys are there, saying as little as they can.
pub fn stand_ins<'a>(keys: impl IntoIterator<Item = &'a Key>) -> ResourceSet {
    let resources = keys.into_iter().filter_map(|key| {
        let spec = match key.kind {
            Kind::Backend => {
                let http = HttpTransport { url: STAND_IN_URL.to_owned(), ..Default::default() };
                Spec::Backend(Backend { transport: Some(Transport::Http(http)), ..Default::default() })
            }
            Kind::ToolSet => Spec::ToolSet(ToolSet::default()),
            Kind::Secret => Spec::Secret(Secret { source: Some(secret::Source::Env("X".to_owned())) }),
            // Nothing that is checked alone refers to the others.
            _ => return None,
        };
        let metadata = Metadata { name: key.name.to_string(), ..Default::default() };
        Some(Resource { metadata: Some(metadata), spec: Some(spec) })
    });
    ResourceSet::gather(resources).0
}

/// Everything that is wrong with files, as far as that can be told without what
/// else is configured.
pub fn check_alone(documents: &[Document]) -> Vec<Diagnostic> {
    let located = documents.iter().flat_map(|document| &document.resources);
    let absent = absent(located.map(|located| &located.resource));
    check_onto(documents, &stand_ins(&absent))
}

fn references(resource: &Resource) -> Vec<Key> {
    let key = |kind, name: &str| Some(Key::new(kind, name.parse().ok()?));
    match &resource.spec {
        Some(Spec::Gateway(gateway)) => {
            let members = gateway.members.iter().filter_map(|member| match &member.source {
                Some(Source::Backend(name)) => key(Kind::Backend, name),
                Some(Source::ToolSet(name)) => key(Kind::ToolSet, name),
                _ => None,
            });
            members.collect()
        }
        Some(Spec::Route(route)) => {
            route.backends.iter().filter_map(|target| key(Kind::Backend, &target.backend)).collect()
        }
        _ => resource::references(resource).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Vec<Resource> {
        crate::parse("a.yaml", text).resources.into_iter().map(|located| located.resource).collect()
    }

    const GATEWAY: &str = "\
apiVersion: magictunnel/v1
kind: Gateway
metadata: {name: default}
spec:
  members: [{backend: time}]
";
    const BACKEND: &str = "\
---
apiVersion: magictunnel/v1
kind: Backend
metadata: {name: timer}
spec:
  http:
    url: http://a/
    headers: [{name: Authorization, value: {secret: token}}]
";

    fn names(text: &str) -> Vec<String> {
        absent(&resources(text)).iter().map(Key::to_string).collect()
    }

    #[test]
    fn what_is_not_in_the_files_is_taken_as_being_elsewhere() {
        assert_eq!(names(GATEWAY), ["backend/time"]);
        assert_eq!(names(&BACKEND.replace("timer", "search")), ["secret/token"]);
    }

    #[test]
    fn a_name_that_is_near_to_one_in_the_files_is_a_mistake() {
        assert_eq!(names(&format!("{GATEWAY}{BACKEND}")), ["secret/token"]);
    }

    #[test]
    fn a_file_of_tools_may_name_secrets_and_backends_that_are_elsewhere() {
        let text = "tools:\n  - name: a\n    routing: {type: mcp, config: {backend: time, tool: now}}\n  - name: b\n    routing:\n      type: http\n      config: {url: 'http://a/', headers: {x-key: {secret: token}}}\n";
        assert_eq!(names(text), ["backend/time", "secret/token"]);
        assert_eq!(check_alone(&[crate::parse("a.yaml", text)]), []);
    }

    #[test]
    fn the_stand_ins_compile() {
        let keys = absent(&resources(&format!("{GATEWAY}{}", BACKEND.replace("timer", "search"))));
        assert!(stand_ins(&keys).compile().is_ok());
    }
}
