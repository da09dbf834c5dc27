//! A gateway as its clients see it: the members' catalogs merged under the
//! gateway's names, with ready-made list pages and an index from every name
//! back to its member.
//!
//! Pure, and made once per snapshot: a list costs no backend and no work
//! proportional to its length when it is asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use mt_proto::resource::{Compiled, Gateway, Member, ResourceName};
use serde_json::{Map, Value, json};

use super::{
    catalog::{Catalog, Entry},
    rewrite::{self, Place},
    uri,
};
use crate::mcp::{Era, ProtocolVersion, splice::Patch, version};

/// The kinds of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListKind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl ListKind {
    pub const ALL: [ListKind; 4] =
        [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::Templates];

    /// The member of the result that holds the entries.
    pub fn member(self) -> &'static str {
        match self {
            ListKind::Tools => "tools",
            ListKind::Prompts => "prompts",
            ListKind::Resources => "resources",
            ListKind::Templates => "resourceTemplates",
        }
    }
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub backend: ResourceName,
    /// What the backend calls it.
    pub own: String,
}

/// One merged list, cut into pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Each a JSON array; at least one.
    pub pages: Vec<Bytes>,
    /// Of all pages: tells whether the list has changed.
    pub digest: [u8; 32],
    pub len: usize,
}

/// A name that two members want; the first has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    pub list: &'static str,
    pub name: String,
    pub winner: ResourceName,
    pub loser: ResourceName,
}

/// A gateway as its clients see it.
#[derive(Debug)]
pub struct GatewayView {
    pub gateway: Arc<Gateway>,
    /// Members that are switched on, in order.
    pub members: Vec<ResourceName>,
    pub tools: HashMap<String, Target>,
    pub prompts: HashMap<String, Target>,
    pub clashes: Vec<Clash>,
    /// Backends that serve resources; URIs are wrapped where there are several.
    pub resource_members: Vec<ResourceName>,
    lists: [List; 4],
    versions: &'static [ProtocolVersion],
    capabilities: [Bytes; 2],
    /// Joined from the members, or the gateway's own.
    pub instructions: Option<String>,
    pub title: String,
}

impl GatewayView {
    /// Merges what the members offer. A backend without a catalog, or switched
    /// off, offers nothing.
    pub fn new(
        gateway: &Arc<Gateway>,
        config: &Compiled,
        catalogs: &BTreeMap<ResourceName, Arc<Catalog>>,
    ) -> Self {
        let nothing = Arc::new(Catalog::default());
        let members: Vec<(&Member, Arc<Catalog>)> = gateway
            .members
            .iter()
            .filter(|m| config.backends.get(&m.backend).is_some_and(|b| !b.disabled))
            .map(|m| (m, catalogs.get(&m.backend).unwrap_or(&nothing).clone()))
            .collect();
        let resource_members: Vec<ResourceName> =
            members.iter().filter(|(_, c)| c.serves_resources()).map(|(m, _)| m.backend.clone()).collect();
        let wraps = resource_members.len() > 1;

        let mut clashes = Vec::new();
        let (tools, tool_list) = merge_named(&members, ListKind::Tools, |c| &c.tools, wraps, &mut clashes);
        let (prompts, prompt_list) =
            merge_named(&members, ListKind::Prompts, |c| &c.prompts, wraps, &mut clashes);
        let resources = merge_resources(&members, "uri", |c| &c.resources, wraps);
        let templates = merge_resources(&members, "uriTemplate", |c| &c.templates, wraps);
        let catalogs: Vec<&Catalog> = members.iter().map(|(_, c)| c.as_ref()).collect();
        let size = gateway.page_size;
        Self {
            lists: [
                List::new(&tool_list, size),
                List::new(&prompt_list, size),
                List::new(&resources, size),
                List::new(&templates, size),
            ],
            versions: versions(&catalogs),
            capabilities: [Era::Legacy, Era::Modern].map(|era| capabilities(&catalogs, era)),
            instructions: gateway.instructions.clone().or_else(|| join_instructions(&members)),
            title: gateway.title.clone().unwrap_or_else(|| gateway.name.to_string()),
            members: members.iter().map(|(m, _)| m.backend.clone()).collect(),
            gateway: gateway.clone(),
            tools,
            prompts,
            clashes,
            resource_members,
        }
    }

    pub fn list(&self, kind: ListKind) -> &List {
        &self.lists[kind as usize]
    }

    /// What the gateway can do, as a raw `capabilities` object of an era.
    pub fn capabilities(&self, era: Era) -> &Bytes {
        &self.capabilities[era as usize]
    }

    /// The revisions to advertise, newest first.
    pub fn versions(&self) -> &'static [ProtocolVersion] {
        self.versions
    }

    /// The only member; a call that names nothing can only mean it.
    pub fn sole_member(&self) -> Option<&ResourceName> {
        match self.members.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether URIs carry their backend.
    pub fn wraps_uris(&self) -> bool {
        self.resource_members.len() > 1
    }

    /// Which member a resource belongs to, by its URI alone: a link need not be
    /// in any list.
    pub fn resource(&self, uri: &str) -> Option<Target> {
        match self.resource_members.as_slice() {
            [] => None,
            [only] => Some(Target { backend: only.clone(), own: uri.to_owned() }),
            several => {
                let (backend, own) = uri::unwrap(uri)?;
                several.contains(&backend).then_some(Target { backend, own })
            }
        }
    }
}

impl List {
    fn new(entries: &[Bytes], page_size: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut pages: Vec<Bytes> = entries
            .chunks(page_size.max(1))
            .map(|chunk| {
                let mut page = BytesMut::with_capacity(chunk.iter().map(|e| e.len() + 1).sum::<usize>() + 2);
                page.put_u8(b'[');
                for (i, entry) in chunk.iter().enumerate() {
                    if i > 0 {
                        page.put_u8(b',');
                    }
                    page.put_slice(entry);
                }
                page.put_u8(b']');
                hasher.update(&page);
                page.freeze()
            })
            .collect();
        if pages.is_empty() {
            pages.push(Bytes::from_static(b"[]"));
        }
        Self { pages, digest: *hasher.finalize().as_bytes(), len: entries.len() }
    }
}

/// Tools and prompts: chosen by the member's globs, named by its template.
fn merge_named(
    members: &[(&Member, Arc<Catalog>)],
    kind: ListKind,
    entries: fn(&Catalog) -> &Vec<Entry>,
    wraps: bool,
    clashes: &mut Vec<Clash>,
) -> (HashMap<String, Target>, Vec<Bytes>) {
    let mut index: HashMap<String, Target> = HashMap::new();
    let mut list = Vec::new();
    for (member, catalog) in members {
        for entry in entries(catalog) {
            if !chosen(member, &entry.key) {
                continue;
            }
            let name = match member.rename.get(&entry.key) {
                Some(name) => name.clone(),
                None => member.template.apply(&entry.key),
            };
            if let Some(winner) = index.get(&name) {
                clashes.push(Clash {
                    list: kind.member(),
                    name,
                    winner: winner.backend.clone(),
                    loser: member.backend.clone(),
                });
                continue;
            }
            let mut raw = entry.raw.clone();
            if name != entry.key {
                raw = with_text(&raw, "name", &name);
            }
            if wraps {
                raw = rewrite::wrap_uris(Place::Tool, &member.backend, raw);
            }
            list.push(raw);
            index.insert(name, Target { backend: member.backend.clone(), own: entry.key.clone() });
        }
    }
    (index, list)
}

fn chosen(member: &Member, name: &str) -> bool {
    member.include.as_ref().is_none_or(|include| include.is_match(name)) && !member.exclude.is_match(name)
}

fn merge_resources(
    members: &[(&Member, Arc<Catalog>)],
    key: &str,
    entries: fn(&Catalog) -> &Vec<Entry>,
    wraps: bool,
) -> Vec<Bytes> {
    members
        .iter()
        .flat_map(|(member, catalog)| entries(catalog).iter().map(move |entry| (member, entry)))
        .map(|(member, entry)| {
            if wraps {
                with_text(&entry.raw, key, &uri::wrap(&member.backend, &entry.key))
            } else {
                entry.raw.clone()
            }
        })
        .collect()
}

/// The entry with another text in one member; every other byte stays.
fn with_text(entry: &Bytes, key: &str, text: &str) -> Bytes {
    match Patch::of(entry) {
        Ok(patch) => patch.set_text(key, text).finish(),
        // It was read as an object when the catalog was made.
        Err(_) => entry.clone(),
    }
}

/// What clients that speak both eras should choose from. Where some member speaks
/// only the legacy one, and none only the modern one, only the legacy revisions
/// are named: such clients take that for a legacy server, and can use them all.
fn versions(catalogs: &[&Catalog]) -> &'static [ProtocolVersion] {
    let only = |legacy: bool| {
        catalogs.iter().any(|c| {
            let modern = !c.facts.modern_versions.is_empty();
            (c.facts.legacy, modern) == (legacy, !legacy)
        })
    };
    if only(true) && !only(false) { &version::LEGACY } else { &version::ALL }
}

/// The union of what the members can do, less what this gateway cannot relay.
fn capabilities(catalogs: &[&Catalog], era: Era) -> Bytes {
    let mut union = Map::new();
    for catalog in catalogs {
        let raw = match era {
            Era::Legacy => &catalog.facts.legacy_capabilities,
            Era::Modern => &catalog.facts.modern_capabilities,
        };
        if let Ok(declared) = serde_json::from_slice::<Map<String, Value>>(raw) {
            merge(&mut union, declared);
        }
    }
    // A task's id says nothing about its backend, so tasks need a sole member.
    if catalogs.len() > 1 {
        union.remove("tasks");
        if let Some(Value::Object(extensions)) = union.get_mut("extensions") {
            extensions.remove("io.modelcontextprotocol/tasks");
        }
    }
    // The node itself tells when a list has changed; tools may come at any time.
    union.entry("tools").or_insert_with(|| json!({}));
    for list in ["tools", "prompts", "resources"] {
        if let Some(Value::Object(capability)) = union.get_mut(list) {
            capability.insert("listChanged".to_owned(), Value::Bool(true));
        }
    }
    Bytes::from(Value::Object(union).to_string())
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(have)), Value::Object(more)) => merge(have, more),
            (Some(Value::Bool(have)), Value::Bool(more)) => *have |= more,
            (Some(_), _) => {}
            (None, value) => _ = into.insert(key, value),
        }
    }
}

/// With one member its own words; with several, each under the backend's name.
fn join_instructions(members: &[(&Member, Arc<Catalog>)]) -> Option<String> {
    let said: Vec<_> = members.iter().filter(|(_, c)| !c.facts.instructions.is_empty()).collect();
    match said.as_slice() {
        [] => None,
        [(_, only)] if members.len() == 1 => Some(only.facts.instructions.clone()),
        several => Some(
            several
                .iter()
                .map(|(m, c)| format!("{}:\n{}", m.backend, c.facts.instructions.trim_end()))
                .collect::<Vec<_>>()
                .join("\n\n"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use mt_proto::{
        pb::{
            discovery::{Catalog as CatalogPb, ServerFacts},
            resource as pb,
        },
        resource::{Key, Kind, ResourceSet},
    };

    use super::*;

    fn backend(set: &mut ResourceSet, name: &str) {
        let http = pb::HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
        let spec = pb::Backend { transport: Some(pb::backend::Transport::Http(http)), ..Default::default() };
        put(set, Kind::Backend, name, pb::resource::Spec::Backend(spec));
    }

    fn put(set: &mut ResourceSet, kind: Kind, name: &str, spec: pb::resource::Spec) {
        let metadata = Some(pb::Metadata { name: name.into(), ..Default::default() });
        let key = Key::new(kind, name.parse().unwrap());
        set.insert(key, Arc::new(pb::Resource { metadata, spec: Some(spec) }));
    }

    fn catalog(tools: &[&str], resources: &[&str], capabilities: &'static str) -> Arc<Catalog> {
        Arc::new(Catalog::new(CatalogPb {
            server: Some(ServerFacts {
                legacy_capabilities: Bytes::from_static(capabilities.as_bytes()),
                ..Default::default()
            }),
            tools: tools.iter().map(|name| Bytes::from(format!(r#"{{"x":1E2,"name":"{name}"}}"#))).collect(),
            resources: resources.iter().map(|uri| Bytes::from(format!(r#"{{"uri":"{uri}"}}"#))).collect(),
            ..Default::default()
        }))
    }

    fn member(backend: &str) -> pb::Member {
        pb::Member { source: Some(pb::member::Source::Backend(backend.into())), ..Default::default() }
    }

    /// A view of two backends, `a` and `b`.
    fn view(gateway: pb::Gateway, a: Arc<Catalog>, b: Arc<Catalog>) -> GatewayView {
        let mut set = ResourceSet::default();
        backend(&mut set, "a");
        backend(&mut set, "b");
        put(&mut set, Kind::Gateway, "default", pb::resource::Spec::Gateway(gateway));
        let config = set.compile().unwrap();
        let catalogs = [("a", a), ("b", b)].map(|(name, c)| (name.parse().unwrap(), c)).into();
        GatewayView::new(&config.gateways["default"], &config, &catalogs)
    }

    fn page(view: &GatewayView, kind: ListKind, number: usize) -> &str {
        std::str::from_utf8(&view.list(kind).pages[number]).unwrap()
    }

    #[test]
    fn names_get_the_template_and_every_other_byte_stays() {
        let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
        let view = view(gateway, catalog(&["t"], &[], "{}"), catalog(&["t"], &[], "{}"));
        assert_eq!(page(&view, ListKind::Tools, 0), r#"[{"x":1E2,"name":"a_t"},{"x":1E2,"name":"b_t"}]"#);
        let target = Target { backend: "b".parse().unwrap(), own: "t".into() };
        assert_eq!(view.tools.get("b_t"), Some(&target));
    }

    #[test]
    fn on_a_clash_the_earlier_member_wins_and_the_loser_is_known() {
        let gateway = pb::Gateway {
            members: vec![member("b"), member("a")],
            tool_name: "{tool}".into(),
            ..Default::default()
        };
        let view = view(gateway, catalog(&["t"], &[], "{}"), catalog(&["t"], &[], "{}"));
        assert_eq!(view.tools["t"].backend.as_str(), "b");
        assert_eq!(view.clashes.len(), 1);
        assert_eq!(view.clashes[0].loser.as_str(), "a");
    }

    #[test]
    fn globs_choose_and_renames_replace_the_template() {
        let mut a = member("a");
        a.include = vec!["get_*".into(), "x".into()];
        a.exclude = vec!["*_secret".into()];
        a.rename = [("x".to_owned(), "better".to_owned())].into();
        let gateway = pb::Gateway { members: vec![a], ..Default::default() };
        let offered = catalog(&["get_one", "get_secret", "put", "x"], &[], "{}");
        let view = view(gateway, offered, catalog(&[], &[], "{}"));
        let mut names: Vec<_> = view.tools.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["a_get_one", "better"]);
    }

    #[test]
    fn uris_are_wrapped_only_where_two_members_serve_resources() {
        let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
        let one = view(gateway.clone(), catalog(&[], &["f:x"], "{}"), catalog(&["t"], &[], "{}"));
        assert_eq!(page(&one, ListKind::Resources, 0), r#"[{"uri":"f:x"}]"#);
        assert_eq!(one.resource("any:thing").unwrap().backend.as_str(), "a");
        let two = view(gateway, catalog(&[], &["f:x"], "{}"), catalog(&[], &[], r#"{"resources":{}}"#));
        assert_eq!(page(&two, ListKind::Resources, 0), r#"[{"uri":"mt+a+f:x"}]"#);
        assert_eq!(two.resource("mt+b+f:y").unwrap().own, "f:y");
        assert_eq!(two.resource("f:x"), None);
    }

    #[test]
    fn long_lists_have_pages_and_a_change_anywhere_changes_the_digest() {
        let gateway = pb::Gateway { members: vec![member("a")], page_size: 2, ..Default::default() };
        let nothing = || catalog(&[], &[], "{}");
        let before = view(gateway.clone(), catalog(&["1", "2", "3"], &[], "{}"), nothing());
        assert_eq!(before.list(ListKind::Tools).pages.len(), 2);
        assert_eq!(page(&before, ListKind::Prompts, 0), "[]");
        let same = view(gateway.clone(), catalog(&["1", "2", "3"], &[], "{}"), nothing());
        assert_eq!(before.list(ListKind::Tools).digest, same.list(ListKind::Tools).digest);
        let after = view(gateway, catalog(&["1", "2", "4"], &[], "{}"), nothing());
        assert_ne!(before.list(ListKind::Tools).digest, after.list(ListKind::Tools).digest);
    }

    #[test]
    fn capabilities_are_united_and_tasks_need_a_sole_member() {
        let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
        let a = catalog(&[], &[], r#"{"logging":{},"tasks":{},"resources":{"subscribe":true}}"#);
        let b = catalog(&[], &[], r#"{"prompts":{},"resources":{"subscribe":false}}"#);
        let both = view(gateway, a.clone(), b.clone());
        let read =
            |view: &GatewayView| serde_json::from_slice::<Value>(view.capabilities(Era::Legacy)).unwrap();
        assert_eq!(
            read(&both),
            json!({
                "logging": {}, "prompts": {"listChanged": true},
                "resources": {"subscribe": true, "listChanged": true}, "tools": {"listChanged": true},
            })
        );
        let sole = view(pb::Gateway { members: vec![member("a")], ..Default::default() }, a, b);
        assert!(read(&sole).get("tasks").is_some());
    }

    #[test]
    fn a_member_that_speaks_only_the_legacy_era_decides_what_is_advertised() {
        let facts = |legacy: bool, modern: bool| {
            let modern_versions = if modern { vec!["2026-07-28".to_owned()] } else { Vec::new() };
            let server = ServerFacts { legacy, modern_versions, ..Default::default() };
            Arc::new(Catalog::new(CatalogPb { server: Some(server), ..Default::default() }))
        };
        let gateway = || pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
        let (dual, legacy, modern, unknown) =
            (facts(true, true), facts(true, false), facts(false, true), facts(false, false));
        let advertised =
            |a: &Arc<Catalog>, b: &Arc<Catalog>| view(gateway(), a.clone(), b.clone()).versions();
        assert_eq!(advertised(&dual, &legacy), &version::LEGACY);
        for (a, b) in [(&dual, &dual), (&dual, &unknown), (&dual, &modern), (&legacy, &modern)] {
            assert_eq!(advertised(a, b), &version::ALL);
        }
    }
}
