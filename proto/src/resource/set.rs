//! A set of resources, and what it compiles to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use prost::Message;
use rayon::prelude::*;

use super::{
    Admission, Backend, Gateway, Key, Kind, Policy, Principals, Problem, ResourceName, SecretSource, backend,
    check::{Checker, matches},
    gateway, policy, principal, route, secret, tool_set,
};
use crate::pb::resource::{self as pb, resource::Spec};

/// Of one resource, encoded.
const RESOURCE_BYTES_MAX: usize = 1 << 20;

/// Resources as they were written, by kind and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceSet {
    resources: BTreeMap<Key, Arc<pb::Resource>>,
}

/// A set in which everything is right: what a node serves from.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub gateways: BTreeMap<ResourceName, Arc<Gateway>>,
    pub backends: BTreeMap<ResourceName, Arc<Backend>>,
    pub secrets: HashMap<ResourceName, SecretSource>,
    /// In the order of their names.
    pub policies: Vec<Arc<Policy>>,
    pub principals: Principals,
    /// Who may call each gateway.
    pub admissions: HashMap<ResourceName, Arc<Admission>>,
    /// What the next set need not check again.
    tool_sets: HashMap<ResourceName, CheckedToolSet>,
}

/// A tool set in which everything is right, and what that rests on.
#[derive(Clone, Debug)]
struct CheckedToolSet {
    wire: Arc<pb::Resource>,
    backend: Arc<Backend>,
    /// Must be in the set.
    references: Vec<Key>,
}

impl ResourceSet {
    /// Makes a set of resources that may not even have a kind or a name.
    ///
    /// What cannot be put in is a problem, and so is a second one with the same
    /// key; [`Self::compile`] finds everything else.
    pub fn gather(resources: impl IntoIterator<Item = pb::Resource>) -> (ResourceSet, Vec<Problem>) {
        let (mut set, mut problems) = (ResourceSet::default(), Vec::new());
        for resource in resources {
            match Key::of(&resource) {
                Some(key) if set.resources.contains_key(&key) => {
                    let message = format!("there are two resources {key}");
                    problems.push(Problem {
                        kind: Some(key.kind),
                        name: key.name.as_str().to_owned(),
                        path: "metadata.name".into(),
                        message,
                        hint: Some("give one of them another name".into()),
                    });
                }
                Some(key) => _ = set.insert(key, Arc::new(resource)),
                None => problems.extend(check_identity(&resource)),
            }
        }
        (set, problems)
    }

    /// Puts a resource in, in the place of one with the same key, which it returns.
    pub fn insert(&mut self, key: Key, resource: Arc<pb::Resource>) -> Option<Arc<pb::Resource>> {
        self.resources.insert(key, resource)
    }

    pub fn remove(&mut self, key: &Key) -> Option<Arc<pb::Resource>> {
        self.resources.remove(key)
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<pb::Resource>> {
        self.resources.get(key)
    }

    /// In the order of kind and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<pb::Resource>)> {
        self.resources.iter()
    }

    /// Those of one kind, in the order of names.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Arc<pb::Resource>)> {
        let first: ResourceName = "0".parse().expect("the least of all names is a name");
        self.resources.range(Key::new(kind, first)..).take_while(move |(key, _)| key.kind == kind)
    }

    pub fn len(&self) -> usize {
        self.resources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The names of the secrets that backends and tool sets refer to.
    pub fn secrets(&self) -> BTreeSet<&str> {
        let all = self.resources.values().flat_map(|resource| references_of(resource));
        all.filter(|(kind, _)| *kind == Kind::Secret).map(|(_, name)| name).collect()
    }

    /// Checks the whole set and resolves every reference.
    ///
    /// # Errors
    /// Every problem that was found, not only the first, in the order of kind
    /// and name; of a set with very many, the first ten thousand.
    pub fn compile(&self) -> Result<Compiled, Vec<Problem>> {
        self.compile_after(&Compiled::default())
    }

    /// As [`Self::compile`], where tool sets that are the same as in an earlier
    /// set that compiled, and whose references are there, are taken from that:
    /// the cost is that of what has changed. New ones are checked on all cores.
    ///
    /// # Errors
    /// As [`Self::compile`]: the same, whatever was before.
    pub fn compile_after(&self, before: &Compiled) -> Result<Compiled, Vec<Problem>> {
        let mut checker = Checker::new(self);
        let mut compiled = Compiled::default();
        let mut api_keys = BTreeMap::new();
        let mut prefixes = policy::Prefixes::new();
        let mut tool_sets = self.tool_sets_after(before).into_iter();
        for (key, resource) in &self.resources {
            let name = &key.name;
            checker.enter(Some(key.kind), name.as_str());
            if key.kind == Kind::ToolSet {
                let (found, checked) = tool_sets.next().expect("all tool sets were looked at, in order");
                found.into_iter().for_each(|found| checker.absorb(found));
                if let Some(checked) = checked {
                    compiled.backends.insert(name.clone(), checked.backend.clone());
                    compiled.tool_sets.insert(name.clone(), checked);
                }
                continue;
            }
            let Some((metadata, spec)) = open(&mut checker, key, resource) else { continue };
            match spec {
                Spec::Gateway(wire) => {
                    let gateway = gateway::check(&mut checker, name, &metadata.labels, wire);
                    compiled.gateways.insert(name.clone(), Arc::new(gateway));
                }
                Spec::Backend(wire) => {
                    let backend = backend::check(&mut checker, name, &metadata.labels, wire);
                    compiled.backends.extend(backend.map(|b| (name.clone(), Arc::new(b))));
                }
                Spec::ToolSet(_) => {} // Of another kind than its key, so it was not opened.
                Spec::Route(wire) => route::check(&mut checker, wire),
                Spec::Policy(wire) => {
                    let policy = policy::check(&mut checker, name, wire, &mut prefixes);
                    compiled.policies.extend(policy.map(Arc::new));
                }
                Spec::Secret(wire) => {
                    let source = secret::check(&mut checker, wire);
                    compiled.secrets.extend(source.map(|s| (name.clone(), s)));
                }
                Spec::Principal(wire) => {
                    principal::check(&mut checker, name, wire, &mut api_keys, &mut compiled.principals);
                }
            }
        }
        compiled.admissions = policy::admissions(&compiled.gateways, &compiled.policies);
        let problems = checker.into_problems();
        if problems.is_empty() { Ok(compiled) } else { Err(problems) }
    }

    /// Every tool set in order, with what was found if it was looked at.
    fn tool_sets_after(&self, before: &Compiled) -> Vec<(Option<Checker<'_>>, Option<CheckedToolSet>)> {
        let all: Vec<_> = self.of_kind(Kind::ToolSet).collect();
        let one = |(key, wire): (&Key, &Arc<pb::Resource>)| {
            if let Some(known) = before.tool_sets.get(&key.name).filter(|known| self.still_holds(known, wire))
            {
                return (None, Some(known.clone()));
            }
            let mut checker = Checker::new(self);
            checker.enter(Some(key.kind), key.name.as_str());
            let checked = check_tool_set(&mut checker, key, wire);
            (Some(checker), checked)
        };
        all.into_par_iter().map(one).collect()
    }

    /// Whether a check of `wire` would find what it has found before.
    fn still_holds(&self, known: &CheckedToolSet, wire: &Arc<pb::Resource>) -> bool {
        let same = Arc::ptr_eq(&known.wire, wire) || known.wire == *wire;
        same && known.references.iter().all(|key| self.get(key).is_some())
            && self.get(&Key::new(Kind::Backend, known.backend.name.clone())).is_none()
    }

    /// The part that a node with these labels serves, closed under references:
    /// its gateways, their backends, the secrets and policies of those, and
    /// everybody who may call.
    ///
    /// A part of a set that compiles also compiles, and to the same gateways:
    /// a selector finds in it all that it finds in the whole.
    pub fn subset_for(&self, labels: &BTreeMap<String, String>) -> ResourceSet {
        let mut keep = BTreeSet::new();
        for (key, resource) in self.of_kind(Kind::Gateway) {
            let Some(Spec::Gateway(gateway)) = &resource.spec else { continue };
            if gateway.nodes.as_ref().is_none_or(|nodes| matches(&nodes.match_labels, labels)) {
                keep.insert(key.clone());
                keep.extend(gateway::resolve(self, gateway).into_iter().flatten());
            }
        }
        // Tool sets refer to backends, and both to secrets.
        for _ in 0..2 {
            let resources = keep.iter().filter_map(|key| self.get(key));
            let referred: Vec<Key> = resources
                .flat_map(|resource| references_of(resource))
                .filter_map(|(kind, name)| Some(Key::new(kind, name.parse().ok()?)))
                .collect();
            keep.extend(referred);
        }
        let policies: Vec<Key> = self
            .of_kind(Kind::Policy)
            .filter(|(_, resource)| match &resource.spec {
                Some(Spec::Policy(policy)) => {
                    // Who may call is asked of a gateway without backends too.
                    let authn = matches!(policy.rule, Some(pb::policy::Rule::Authn(_)));
                    self.any_matches(&keep, Kind::Gateway, policy.gateways.as_ref())
                        && (authn
                            || self.any_matches(&keep, Kind::Backend, policy.backends.as_ref())
                            || self.any_matches(&keep, Kind::ToolSet, policy.backends.as_ref()))
                }
                _ => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        keep.extend(policies);
        if !keep.is_empty() {
            keep.extend(self.of_kind(Kind::Principal).map(|(key, _)| key.clone()));
        }
        let kept = keep.into_iter().filter_map(|key| Some((key.clone(), Arc::clone(self.get(&key)?))));
        ResourceSet { resources: kept.collect() }
    }

    fn any_matches(&self, keys: &BTreeSet<Key>, kind: Kind, selector: Option<&pb::LabelSelector>) -> bool {
        keys.iter().filter(|key| key.kind == kind).any(|key| {
            let labels = self.get(key).and_then(|r| r.metadata.as_ref()).map(|m| &m.labels);
            labels.is_some_and(|labels| selector.is_none_or(|s| matches(&s.match_labels, labels)))
        })
    }
}

/// The parts of a resource that is what its key says, and not too large.
fn open<'a>(
    checker: &mut Checker<'_>,
    key: &Key,
    resource: &'a pb::Resource,
) -> Option<(&'a pb::Metadata, &'a Spec)> {
    let bytes = resource.encoded_len();
    if bytes > RESOURCE_BYTES_MAX {
        let message = format!("the resource is {bytes} bytes, at most {RESOURCE_BYTES_MAX} are kept");
        checker.problem("spec", message);
        return None;
    }
    if Key::of(resource).as_ref() != Some(key) {
        checker.problem("metadata.name", format!("the resource is kept as {key}, but says otherwise"));
        return None;
    }
    let (metadata, spec) = (resource.metadata.as_ref()?, resource.spec.as_ref()?);
    checker.metadata(metadata);
    Some((metadata, spec))
}

fn check_tool_set(checker: &mut Checker<'_>, key: &Key, wire: &Arc<pb::Resource>) -> Option<CheckedToolSet> {
    let (metadata, Spec::ToolSet(spec)) = open(checker, key, wire)? else { return None };
    let backend = tool_set::check(checker, &key.name, &metadata.labels, spec);
    let (wire, references) = (wire.clone(), references(wire).into_iter().collect());
    Some(CheckedToolSet { wire, backend: Arc::new(backend), references })
}

/// Why a resource has no key.
fn check_identity(resource: &pb::Resource) -> Vec<Problem> {
    let nothing = ResourceSet::default();
    let mut checker = Checker::new(&nothing);
    let metadata = resource.metadata.clone().unwrap_or_default();
    checker.enter(Kind::of(resource), &metadata.name);
    checker.metadata(&metadata);
    if resource.spec.is_none() {
        checker.problem_with_hint("spec", "the resource says nothing", "its kind and its `spec` are missing");
    }
    checker.into_problems()
}

/// What a backend or a tool set refers to, as far as it can be read.
pub fn references(resource: &pb::Resource) -> BTreeSet<Key> {
    let all = references_of(resource).into_iter();
    all.filter_map(|(kind, name)| Some(Key::new(kind, name.parse().ok()?))).collect()
}

fn references_of(resource: &pb::Resource) -> Vec<(Kind, &str)> {
    match &resource.spec {
        Some(Spec::Backend(backend)) => {
            secrets_of(backend).into_iter().map(|name| (Kind::Secret, name)).collect()
        }
        Some(Spec::ToolSet(tool_set)) => tool_set::references(tool_set),
        _ => Vec::new(),
    }
}

fn secrets_of(backend: &pb::Backend) -> Vec<&str> {
    use pb::backend::Transport;
    let values: Vec<Option<&pb::Value>> = match &backend.transport {
        Some(Transport::Http(http) | Transport::Sse(http) | Transport::Websocket(http)) => {
            let headers = http.headers.iter().map(|h| h.value.as_ref());
            headers.chain([http.auth.as_ref().and_then(shown_value)]).collect()
        }
        Some(Transport::Stdio(stdio)) => stdio.env.iter().map(|e| e.value.as_ref()).collect(),
        None => Vec::new(),
    };
    values
        .into_iter()
        .flatten()
        .filter_map(|value| match &value.source {
            Some(pb::value::Source::Secret(name)) => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

/// What is kept secret of what a node shows.
fn shown_value(auth: &pb::BackendAuth) -> Option<&pb::Value> {
    use pb::backend_auth::Method;
    match auth.method.as_ref()? {
        Method::Bearer(value) => Some(value),
        Method::ApiKey(header) => header.value.as_ref(),
        Method::Query(parameter) => parameter.value.as_ref(),
        Method::ClientCredentials(credentials) => credentials.client_secret.as_ref(),
    }
}
