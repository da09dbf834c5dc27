//! Counts what gateways have, as their clients would. Pure: of one publication.

use std::collections::{BTreeMap, BTreeSet};

use mt_proto::{
    pb::{control::GatewayStats, discovery::Catalog},
    resource::{Backend, Compiled, Gateway, Member, Transport},
};
use serde::Deserialize;

/// What a backend offers, by name.
#[derive(Default)]
struct Offered {
    /// With whether it is hidden.
    tools: Vec<(String, bool)>,
    prompts: Vec<(String, bool)>,
    resources: usize,
}

/// The statistics of a gateway. `catalog` finds what has been listed of a
/// backend; `labels` are those of each node that is connected.
pub fn of<'a>(
    gateway: &Gateway,
    config: &Compiled,
    catalog: impl Fn(&str) -> Option<&'a Catalog>,
    labels: &[BTreeMap<String, String>],
) -> GatewayStats {
    let mut stats = GatewayStats {
        gateway: gateway.name.to_string(),
        namespace: gateway.namespace.clone(),
        nodes: count(labels.iter().filter(|node| serves(gateway, node)).count()),
        ..GatewayStats::default()
    };
    let (mut tools, mut prompts) = (BTreeSet::new(), BTreeSet::new());
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
            let Some(name) = name_in(member, &own).filter(|name| tools.insert(name.clone())) else {
                continue;
            };
            match is_hidden(gateway, &name, hidden) {
                true => stats.hidden_tools += 1,
                false => stats.tools += 1,
            }
        }
        for (own, hidden) in offered.prompts {
            let Some(name) = name_in(member, &own).filter(|name| prompts.insert(name.clone())) else {
                continue;
            };
            stats.prompts += u32::from(!is_hidden(gateway, &name, hidden));
        }
    }
    stats.resources = count(resources);
    stats
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn serves(gateway: &Gateway, node: &BTreeMap<String, String>) -> bool {
    gateway.nodes.iter().all(|(key, value)| node.get(key) == Some(value))
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

    #[test]
    fn a_gateway_counts_what_its_clients_see() {
        let mut set = ResourceSet::default();
        let http = pb::HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
        for (name, disabled) in [("time", false), ("old", true)] {
            let transport = Some(pb::backend::Transport::Http(http.clone()));
            let backend = pb::Backend { transport, disabled, ..Default::default() };
            put(&mut set, Kind::Backend, name, pb::resource::Spec::Backend(backend));
        }
        let member = |backend: &str| pb::Member {
            source: Some(pb::member::Source::Backend(backend.into())),
            ..Default::default()
        };
        let gateway = pb::Gateway {
            members: vec![member("time"), member("old")],
            namespace: "proxy".into(),
            tool_name: "{namespace}.{backend}.{tool}".into(),
            hide: vec!["*.secret".into()],
            ..Default::default()
        };
        put(&mut set, Kind::Gateway, "default", pb::resource::Spec::Gateway(gateway));
        let config = set.compile().unwrap();
        let tools = ["now", "secret"].map(|name| bytes::Bytes::from(format!(r#"{{"name":"{name}"}}"#)));
        let catalog = Catalog { tools: tools.to_vec(), ..Default::default() };
        let stats = of(
            &config.gateways["default"],
            &config,
            |name| (name == "time").then_some(&catalog),
            &[BTreeMap::new()],
        );
        assert_eq!(
            stats,
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
