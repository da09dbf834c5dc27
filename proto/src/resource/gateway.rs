//! A gateway, validated, with its selectors resolved.

use std::collections::{BTreeMap, BTreeSet};

use globset::GlobSet;

use super::{
    Key, Kind, NameTemplate, ResourceName, ResourceSet,
    check::{Checker, is_tool_name, matches, quoted},
    problem::key_path,
    template::is_namespace,
};
use crate::pb::resource as pb;

const PAGE_SIZE_DEFAULT: u64 = 1000;
const PAGE_SIZE_MAX: u64 = 10_000;

/// An MCP endpoint that clients see.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub name: ResourceName,
    pub labels: BTreeMap<String, String>,
    /// What `{namespace}` stands for; may be empty.
    pub namespace: String,
    /// In order; selectors are resolved, and no backend is in it twice.
    pub members: Vec<Member>,
    /// Labels a node must have to serve it.
    pub nodes: BTreeMap<String, String>,
    pub title: Option<String>,
    pub instructions: Option<String>,
    /// 1 to 10000.
    pub page_size: usize,
    /// Not listed, by the names clients see.
    pub hide: GlobSet,
    /// Listed though hidden.
    pub show: GlobSet,
}

/// One backend or tool set in a gateway.
#[derive(Clone, Debug)]
pub struct Member {
    pub backend: ResourceName,
    /// None: everything.
    pub include: Option<GlobSet>,
    pub exclude: GlobSet,
    /// From the backend's own name to the name clients see.
    pub rename: BTreeMap<String, String>,
    pub template: NameTemplate,
}

/// The backends of each member as written, in the order of the members: by
/// name, or by labels in the order of names without those that another member
/// has, be it by name or by an earlier selector.
///
/// Reads only what is there, so that it also serves sets that do not compile.
pub(super) fn resolve(set: &ResourceSet, gateway: &pb::Gateway) -> Vec<Vec<Key>> {
    let named = gateway.members.iter().filter_map(|member| match &member.source {
        Some(pb::member::Source::Backend(name)) => Some((Kind::Backend, name.as_str())),
        Some(pb::member::Source::ToolSet(name)) => Some((Kind::ToolSet, name.as_str())),
        _ => None,
    });
    let mut taken: BTreeSet<(Kind, &str)> = named.collect();
    let mut selected = |kind, selector: &pb::LabelSelector| -> Vec<Key> {
        set.of_kind(kind)
            .filter(|(_, resource)| {
                let labels = resource.metadata.as_ref().map(|m| &m.labels);
                labels.is_some_and(|labels| matches(&selector.match_labels, labels))
            })
            .filter(|(key, _)| taken.insert((kind, key.name.as_str())))
            .map(|(key, _)| key.clone())
            .collect()
    };
    let one = |kind, name: &str| name.parse().into_iter().map(|name| Key::new(kind, name)).collect();
    let resolved = gateway.members.iter().map(|member| match &member.source {
        Some(pb::member::Source::Backend(name)) => one(Kind::Backend, name),
        Some(pb::member::Source::ToolSet(name)) => one(Kind::ToolSet, name),
        Some(pb::member::Source::Backends(selector)) => selected(Kind::Backend, selector),
        Some(pb::member::Source::ToolSets(selector)) => selected(Kind::ToolSet, selector),
        None => Vec::new(),
    });
    resolved.collect()
}

pub(super) fn check(
    checker: &mut Checker<'_>,
    name: &ResourceName,
    labels: &BTreeMap<String, String>,
    gateway: &pb::Gateway,
) -> Gateway {
    let resolved = resolve(checker.set(), gateway);
    let mut members = Vec::new();
    let (mut names, mut targets) = (BTreeSet::new(), BTreeMap::new());
    for (i, (member, sources)) in gateway.members.iter().zip(resolved).enumerate() {
        let path = format!("spec.members[{i}]");
        check_source(checker, &path, member, &mut names);
        let include = checker.globs_or_all(&format!("{path}.include"), &member.include);
        let exclude = checker.globs(&format!("{path}.exclude"), &member.exclude);
        check_rename(checker, &path, i, member, &mut targets);
        let template = match member.tool_name.as_str() {
            "" => gateway.tool_name.as_str(),
            own => {
                check_template(checker, &format!("{path}.toolName"), own, &gateway.namespace);
                own
            }
        };
        for Key { kind, name: backend } in sources {
            let template = match (template, kind) {
                ("", Kind::ToolSet) => NameTemplate::PLAIN,
                (template, _) => or_default(template),
            };
            let Ok(template) = NameTemplate::parse(template, &gateway.namespace, backend.as_str()) else {
                continue; // Reported where it is written.
            };
            let (include, exclude, rename) = (include.clone(), exclude.clone(), member.rename.clone());
            members.push(Member { backend, include, exclude, rename, template });
        }
    }
    check_template(checker, "spec.toolName", &gateway.tool_name, &gateway.namespace);
    if !gateway.namespace.is_empty() && !is_namespace(&gateway.namespace) {
        let message =
            format!("{} is not a namespace: 1 to 63 of A-Z, a-z, 0-9 and '_.-'", quoted(&gateway.namespace));
        checker.problem("spec.namespace", message);
    }
    let hide = checker.globs("spec.hide", &gateway.hide);
    let show = checker.globs("spec.show", &gateway.show);
    let nodes = checker.selector("spec.nodes", gateway.nodes.as_ref());
    let page_size =
        checker.count("spec.pageSize", gateway.page_size.into(), 1..=PAGE_SIZE_MAX, PAGE_SIZE_DEFAULT);
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    Gateway {
        name: name.clone(),
        labels: labels.clone(),
        namespace: gateway.namespace.clone(),
        members,
        nodes,
        title: some(&gateway.title),
        instructions: some(&gateway.instructions),
        page_size,
        hide,
        show,
    }
}

fn check_source<'a>(
    checker: &mut Checker<'_>,
    path: &str,
    member: &'a pb::Member,
    names: &mut BTreeSet<(Kind, &'a str)>,
) {
    match &member.source {
        Some(pb::member::Source::Backend(name)) => {
            check_named(checker, &format!("{path}.backend"), Kind::Backend, name, names);
        }
        Some(pb::member::Source::ToolSet(name)) => {
            check_named(checker, &format!("{path}.toolSet"), Kind::ToolSet, name, names);
        }
        Some(pb::member::Source::Backends(selector)) => {
            checker.labels(&format!("{path}.backends.matchLabels"), &selector.match_labels);
        }
        Some(pb::member::Source::ToolSets(selector)) => {
            checker.labels(&format!("{path}.toolSets.matchLabels"), &selector.match_labels);
        }
        None => {
            let hint = "add `backend: name` or `toolSet: name`, or `backends: {matchLabels: {...}}`";
            checker.problem_with_hint(path, "nothing says what the member is", hint);
        }
    }
}

fn check_named<'a>(
    checker: &mut Checker<'_>,
    path: &str,
    kind: Kind,
    name: &'a str,
    names: &mut BTreeSet<(Kind, &'a str)>,
) {
    checker.reference(path, kind, name);
    if !names.insert((kind, name)) {
        let hint = "take more of it with `include` of the first";
        checker.problem_with_hint(path, format!("{kind} {} is already a member", quoted(name)), hint);
    }
}

/// `targets` has the names given so far, with the place of each.
fn check_rename<'a>(
    checker: &mut Checker<'_>,
    path: &str,
    index: usize,
    member: &'a pb::Member,
    targets: &mut BTreeMap<&'a str, usize>,
) {
    for (from, to) in &member.rename {
        let path = key_path(&format!("{path}.rename"), from);
        if from.is_empty() {
            checker.problem(&path, "the name of the tool to rename is missing");
        }
        if !is_tool_name(to) {
            let message =
                format!("{} is not the name of a tool: 1 to 128 of A-Z, a-z, 0-9 and '_.-'", quoted(to));
            checker.problem(&path, message);
        } else if let Some(first) = targets.insert(to, index) {
            checker.problem(&path, format!("{to:?} is already a new name in spec.members[{first}]"));
        }
    }
}

fn check_template(checker: &mut Checker<'_>, path: &str, template: &str, namespace: &str) {
    if let Err(error) = NameTemplate::parse(or_default(template), namespace, "backend") {
        checker.problem_with_hint(path, error.to_string(), error.hint());
    }
}

fn or_default(template: &str) -> &str {
    if template.is_empty() { NameTemplate::DEFAULT } else { template }
}
