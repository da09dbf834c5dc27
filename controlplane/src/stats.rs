//! Counts what gateways have, as their clients would. Pure: of one publication.

use std::collections::{BTreeMap, btree_map::Entry};

use mt_proto::{
    pb::{
        control::{GatewayStats, NameClash, NameKind},
        discovery::Catalog,
    },
    resource::{Backend, Compiled, Gateway, Member, ResourceName, Transport},
};
use serde::Deserialize;

/// Clashes of names that are told; all are counted.
const CLASHES_MAX: usize = 100;
/// Of a name that is told.
const NAME_CHARS_MAX: usize = 256;

/// What a backend offers, by name.
#[derive(Default)]
struct Offered {
    /// With whether it is hidden.
    tools: Vec<(String, bool)>,
    prompts: Vec<(String, bool)>,
    resources: usize,
}

/// What a gateway has, whichever nodes there are.
#[derive(Debug)]
pub struct Counted {
    stats: GatewayStats,
    /// Labels that a node must have to serve it.
    selector: BTreeMap<String, String>,
}

impl Counted {
    /// `catalog` finds what has been listed of a backend.
    pub fn of<'a>(
        gateway: &Gateway,
        config: &Compiled,
        catalog: impl Fn(&str) -> Option<&'a Catalog>,
    ) -> Self {
        Self { stats: of(gateway, config, catalog), selector: gateway.nodes.clone() }
    }

    pub fn gateway(&self) -> &str {
        &self.stats.gateway
    }

    /// The statistics; `labels` are those of each node that is connected.
    pub fn with_nodes(&self, labels: &[BTreeMap<String, String>]) -> GatewayStats {
        let serves = |node: &&BTreeMap<String, String>| {
            self.selector.iter().all(|(key, value)| node.get(key) == Some(value))
        };
        GatewayStats { nodes: count(labels.iter().filter(serves).count()), ..self.stats.clone() }
    }
}

fn of<'a>(
    gateway: &Gateway,
    config: &Compiled,
    catalog: impl Fn(&str) -> Option<&'a Catalog>,
) -> GatewayStats {
    let mut stats = GatewayStats {
        gateway: gateway.name.to_string(),
        namespace: gateway.namespace.clone(),
        ..GatewayStats::default()
    };
    let (mut tools, mut prompts) = (Names::new(NameKind::Tool), Names::new(NameKind::Prompt));
    let mut resources = 0;
    for member in &gateway.members {
        let Some(backend) = config.backends.get(&member.backend).filter(|backend| !backend.disabled) else {
            continue;
        };
        stats.enabled = true;
        match backend.transport {
            Transport::Agents(_) => stats.tool_sets += 1,
            _ => stats.servers += 1,
        }
        let offered = offered(backend, catalog(backend.name.as_str()));
        resources += offered.resources;
        for (own, hidden) in offered.tools {
            let Some(name) = tools.take(member, &own, &mut stats) else { continue };
            match is_hidden(gateway, &name, hidden) {
                true => stats.hidden_tools += 1,
                false => stats.tools += 1,
            }
        }
        for (own, hidden) in offered.prompts {
            let Some(name) = prompts.take(member, &own, &mut stats) else { continue };
            stats.prompts += u32::from(!is_hidden(gateway, &name, hidden));
        }
    }
    stats.resources = count(resources);
    stats
}

/// The names of one kind that clients know, and whose they are.
struct Names<'a> {
    kind: NameKind,
    taken: BTreeMap<String, &'a ResourceName>,
}

impl<'a> Names<'a> {
    fn new(kind: NameKind) -> Self {
        Self { kind, taken: BTreeMap::new() }
    }

    /// The name of something that a member has; none if the member does not take
    /// it, or if an earlier one has the name, which is noted.
    fn take(&mut self, member: &'a Member, own: &str, stats: &mut GatewayStats) -> Option<String> {
        let name = name_in(member, own)?;
        match self.taken.entry(name) {
            Entry::Vacant(free) => {
                let name = free.key().clone();
                free.insert(&member.backend);
                Some(name)
            }
            // A backend that lists a name twice means the same by it.
            Entry::Occupied(taken) if **taken.get() == member.backend => None,
            Entry::Occupied(taken) => {
                stats.clash_count += 1;
                if stats.clashes.len() < CLASHES_MAX {
                    stats.clashes.push(NameClash {
                        kind: self.kind.into(),
                        name: taken.key().chars().take(NAME_CHARS_MAX).collect(),
                        winner: taken.get().to_string(),
                        loser: member.backend.to_string(),
                    });
                }
                None
            }
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn is_hidden(gateway: &Gateway, name: &str, hidden: bool) -> bool {
    (hidden || gateway.hide.is_match(name)) && !gateway.show.is_match(name)
}

/// The name that clients know, if the member takes it.
fn name_in(member: &Member, own: &str) -> Option<String> {
    let taken =
        member.include.as_ref().is_none_or(|include| include.is_match(own)) && !member.exclude.is_match(own);
    taken.then(|| member.rename.get(own).cloned().unwrap_or_else(|| member.template.apply(own)))
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

fn offered(backend: &Backend, catalog: Option<&Catalog>) -> Offered {
    if let Transport::Agents(set) = &backend.transport {
        return Offered {
            tools: set.tools.iter().map(|tool| (tool.name.clone(), tool.hidden)).collect(),
            prompts: set.prompts.iter().map(|prompt| (prompt.name.clone(), prompt.hidden)).collect(),
            resources: set.resources.len(),
        };
    }
    let Some(catalog) = catalog else { return Offered::default() };
    let names = |entries: &[bytes::Bytes]| {
        let read = entries.iter().filter_map(|raw| serde_json::from_slice::<Named>(raw).ok());
        read.map(|named| (named.name, false)).collect()
    };
    Offered {
        tools: names(&catalog.tools),
        prompts: names(&catalog.prompts),
        resources: catalog.resources.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mt_proto::{
        pb::resource as pb,
        resource::{Key, Kind, ResourceSet},
    };

    use super::*;

    fn put(set: &mut ResourceSet, kind: Kind, name: &str, spec: pb::resource::Spec) {
        let metadata = Some(pb::Metadata { name: name.into(), ..Default::default() });
        let key = Key::new(kind, name.parse().unwrap());
        set.insert(key, Arc::new(pb::Resource { metadata, spec: Some(spec) }));
    }

    fn backends(all: &[(&str, bool)]) -> ResourceSet {
        let mut set = ResourceSet::default();
        let http = pb::HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
        for (name, disabled) in all {
            let transport = Some(pb::backend::Transport::Http(http.clone()));
            let backend = pb::Backend { transport, disabled: *disabled, ..Default::default() };
            put(&mut set, Kind::Backend, name, pb::resource::Spec::Backend(backend));
        }
        set
    }

    fn member(backend: &str) -> pb::Member {
        pb::Member { source: Some(pb::member::Source::Backend(backend.into())), ..Default::default() }
    }

    fn with_tools(names: &[&str]) -> Catalog {
        let tools = names.iter().map(|name| bytes::Bytes::from(format!(r#"{{"name":"{name}"}}"#)));
        Catalog { tools: tools.collect(), ..Default::default() }
    }

    #[test]
    fn who_cannot_have_a_name_is_told() {
        let mut set = backends(&[("a", false), ("b", false)]);
        let members = vec![member("a"), member("b")];
        let gateway = pb::Gateway { members, tool_name: "{tool}".into(), ..Default::default() };
        put(&mut set, Kind::Gateway, "default", pb::resource::Spec::Gateway(gateway));
        let config = set.compile().unwrap();
        let (now, many) = (with_tools(&["now"]), (0..150).map(|n| format!("t{n}")).collect::<Vec<_>>());
        let many = with_tools(&many.iter().map(String::as_str).chain(["now"]).collect::<Vec<_>>());
        let stats = |a: &Catalog, b: &Catalog| {
            let (a, b) = (a.clone(), b.clone());
            of(&config.gateways["default"], &config, |name| Some(if name == "a" { &a } else { &b }))
        };
        let one = stats(&now, &many);
        let clash = NameClash {
            kind: NameKind::Tool.into(),
            name: "now".into(),
            winner: "a".into(),
            loser: "b".into(),
        };
        assert_eq!((one.tools, one.clash_count, one.clashes.as_slice()), (151, 1, &[clash][..]));
        let twice = stats(&with_tools(&["now", "now"]), &Catalog::default());
        assert_eq!((twice.tools, twice.clash_count), (1, 0), "by one backend it is one tool");
        let all = stats(&many, &many);
        assert_eq!((all.tools, all.clash_count, all.clashes.len()), (151, 151, CLASHES_MAX));
    }

    #[test]
    fn a_gateway_counts_what_its_clients_see() {
        let mut set = backends(&[("time", false), ("old", true)]);
        let gateway = pb::Gateway {
            members: vec![member("time"), member("old")],
            namespace: "proxy".into(),
            tool_name: "{namespace}.{backend}.{tool}".into(),
            hide: vec!["*.secret".into()],
            ..Default::default()
        };
        put(&mut set, Kind::Gateway, "default", pb::resource::Spec::Gateway(gateway));
        let config = set.compile().unwrap();
        let catalog = with_tools(&["now", "secret"]);
        let counted =
            Counted::of(&config.gateways["default"], &config, |name| (name == "time").then_some(&catalog));
        assert_eq!(
            counted.with_nodes(&[BTreeMap::new()]),
            GatewayStats {
                gateway: "default".into(),
                enabled: true,
                namespace: "proxy".into(),
                servers: 1,
                tools: 1,
                hidden_tools: 1,
                nodes: 1,
                ..Default::default()
            }
        );
    }
}
