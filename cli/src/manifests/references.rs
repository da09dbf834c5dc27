//! What resources refer to by name. Pure.
//!
//! Files are often only a part of the configuration. To check them alone, what
//! they refer to and do not have is taken as being in the store, unless its
//! name is so near to one of theirs that it must be a typing mistake.

use std::collections::BTreeSet;

use mt_proto::{
    pb::resource::{
        Backend, BackendAuth, HttpTransport, Metadata, Resource, Secret, ToolSet, Value, backend::Transport,
        backend_auth::Method, member::Source, resource::Spec, secret, value,
    },
    resource::{Key, Kind, ResourceSet, closest},
};

/// Stands in for a backend that is not at hand.
const STAND_IN_URL: &str = "http://127.0.0.1:1/";

/// What the resources refer to and do not have, as far as it is likely to be
/// elsewhere.
pub fn absent(resources: &[Resource]) -> BTreeSet<Key> {
    let here: BTreeSet<Key> = resources.iter().filter_map(Key::of).collect();
    let near = |key: &Key| {
        let alike = here.iter().filter(|other| other.kind == key.kind).map(|other| other.name.as_str());
        closest(key.name.as_str(), alike).is_some()
    };
    let all = resources.iter().flat_map(references);
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

fn references(resource: &Resource) -> Vec<Key> {
    let key = |kind, name: &str| Some(Key::new(kind, name.parse().ok()?));
    let secret = |value: &Option<Value>| match &value.as_ref()?.source {
        Some(value::Source::Secret(name)) => key(Kind::Secret, name),
        _ => None,
    };
    match &resource.spec {
        Some(Spec::Gateway(gateway)) => {
            let members = gateway.members.iter().filter_map(|member| match &member.source {
                Some(Source::Backend(name)) => key(Kind::Backend, name),
                Some(Source::ToolSet(name)) => key(Kind::ToolSet, name),
                _ => None,
            });
            members.collect()
        }
        Some(Spec::Backend(backend)) => match &backend.transport {
            Some(Transport::Http(http) | Transport::Sse(http) | Transport::Websocket(http)) => {
                let headers = http.headers.iter().filter_map(|header| secret(&header.value));
                headers.chain(http.auth.iter().filter_map(|auth| secret(&shown(auth).cloned()))).collect()
            }
            Some(Transport::Stdio(stdio)) => {
                stdio.env.iter().filter_map(|variable| secret(&variable.value)).collect()
            }
            None => Vec::new(),
        },
        Some(Spec::Route(route)) => {
            route.backends.iter().filter_map(|target| key(Kind::Backend, &target.backend)).collect()
        }
        _ => Vec::new(),
    }
}

/// What is kept secret of what a node shows to a backend.
fn shown(auth: &BackendAuth) -> Option<&Value> {
    match auth.method.as_ref()? {
        Method::Bearer(value) => Some(value),
        Method::ApiKey(header) => header.value.as_ref(),
        Method::Query(parameter) => parameter.value.as_ref(),
        Method::ClientCredentials(credentials) => credentials.client_secret.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(text: &str) -> Vec<Resource> {
        mt_capabilities::parse("a.yaml", text).resources.into_iter().map(|located| located.resource).collect()
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
    fn the_stand_ins_compile() {
        let keys = absent(&resources(&format!("{GATEWAY}{}", BACKEND.replace("timer", "search"))));
        assert!(stand_ins(&keys).compile().is_ok());
    }
}
