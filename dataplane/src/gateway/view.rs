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
use mt_proto::resource::{Compiled, Gateway, Mcp, Member, ResourceName};
use serde_json::{Map, Value, json};

use super::{
    bridge::shown,
    catalog::{Alias, Catalog, Entry},
    rewrite::{self, Place},
    uri,
};
use crate::mcp::{Era, ProtocolVersion, splice::Patch, version};

/// As the table of lists and capabilities has them.
const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

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
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub backend: ResourceName,
    /// What the backend calls it.
    pub own: String,
    /// The tool set's words for it, where the tool stands for another's.
    pub alias: Option<Arc<Mcp>>,
}

impl Target {
    fn new(backend: ResourceName, own: impl Into<String>) -> Self {
        Self { backend, own: own.into(), alias: None }
    }

    /// Where an entry of a member leads.
    fn of(member: &Member, entry: &Entry) -> Self {
        match &entry.alias {
            Some(Alias { of }) => {
                Self { backend: of.backend.clone(), own: of.tool.clone(), alias: Some(of.clone()) }
            }
            None => Self::new(member.backend.clone(), &entry.key),
        }
    }
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
    /// The tools in the modern era, where they are shown otherwise there.
    modern_tools: Option<List>,
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
        let (tools, tool_list) =
            merge_named(gateway, &members, ListKind::Tools, |c| &c.tools, wraps, &mut clashes);
        let (prompts, prompt_list) =
            merge_named(gateway, &members, ListKind::Prompts, |c| &c.prompts, wraps, &mut clashes);
        let (tool_list, modern_tools) = shown_tools(&members, tool_list, gateway.page_size);
        let resources = merge_resources(&members, "uri", |c| &c.resources, wraps);
        let templates = merge_resources(&members, "uriTemplate", |c| &c.templates, wraps);
        let catalogs: Vec<&Catalog> = members.iter().map(|(_, c)| c.as_ref()).collect();
        let size = gateway.page_size;
        Self {
            lists: [
                tool_list,
                List::new(prompt_list.iter().map(|(_, raw)| raw), size),
                List::new(&resources, size),
                List::new(&templates, size),
            ],
            modern_tools,
            capabilities: ERAS.map(|era| capabilities(&catalogs, era)),
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

    /// A list; its digest tells of changes in either era.
    pub fn list(&self, kind: ListKind) -> &List {
        &self.lists[kind as usize]
    }

    /// A list as clients of an era see it.
    pub fn list_in(&self, era: Era, kind: ListKind) -> &List {
        match (era, kind, &self.modern_tools) {
            (Era::Modern, ListKind::Tools, Some(tools)) => tools,
            _ => self.list(kind),
        }
    }

    /// What the gateway can do, as a raw `capabilities` object of an era.
    pub fn capabilities(&self, era: Era) -> &Bytes {
        &self.capabilities[era as usize]
    }

    /// The revisions to advertise, newest first: all, whatever the members
    /// speak.
    pub fn versions(&self) -> &'static [ProtocolVersion] {
        &version::ALL
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
            [only] => Some(Target::new(only.clone(), uri)),
            several => {
                let (backend, own) = uri::unwrap(uri)?;
                several.contains(&backend).then(|| Target::new(backend, own))
            }
        }
    }
}

impl List {
    fn new<'a>(entries: impl IntoIterator<Item = &'a Bytes>, page_size: usize) -> Self {
        let entries: Vec<&Bytes> = entries.into_iter().collect();
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

/// The tools for either era; the second only where it differs from the first.
/// What a member offers is in the words of an era that it speaks.
fn shown_tools(
    members: &[(&Member, Arc<Catalog>)],
    tools: Vec<(usize, Bytes)>,
    page_size: usize,
) -> (List, Option<List>) {
    let lacks: Vec<[bool; 2]> =
        members.iter().map(|(_, catalog)| ERAS.map(|era| catalog.lacks(era))).collect();
    let of = |era: Era| {
        let shown = |(at, raw): &(usize, Bytes)| {
            if lacks[*at][era as usize] { shown::tool(era, raw) } else { Some(raw.clone()) }
        };
        tools.iter().filter_map(shown).collect::<Vec<Bytes>>()
    };
    let [legacy, modern] = ERAS.map(of);
    let mut list = List::new(&legacy, page_size);
    if legacy == modern {
        return (list, None);
    }
    let mut other = List::new(&modern, page_size);
    let digest = *blake3::Hasher::new().update(&list.digest).update(&other.digest).finalize().as_bytes();
    list.digest = digest;
    other.digest = digest;
    (list, Some(other))
}

/// Tools and prompts: chosen by the member's globs, named by its template.
fn merge_named(
    gateway: &Gateway,
    members: &[(&Member, Arc<Catalog>)],
    kind: ListKind,
    entries: fn(&Catalog) -> &Vec<Entry>,
    wraps: bool,
    clashes: &mut Vec<Clash>,
) -> (HashMap<String, Target>, Vec<(usize, Bytes)>) {
    let mut index: HashMap<String, Target> = HashMap::new();
    let mut list = Vec::new();
    for (at, (member, catalog)) in members.iter().enumerate() {
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
            let target = Target::of(member, entry);
            let is_hidden = entry.hidden || gateway.hide.is_match(&name);
            if is_hidden && !gateway.show.is_match(&name) {
                index.insert(name, target);
                continue;
            }
            let mut raw = entry.raw.clone();
            if name != entry.key {
                raw = with_text(&raw, "name", &name);
            }
            if wraps {
                raw = rewrite::wrap_uris(Place::Tool, &member.backend, raw);
            }
            list.push((at, raw));
            index.insert(name, target);
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

/// The union of what the members can do, less what this gateway cannot relay.
/// A member that does not speak the era is called in the other one.
fn capabilities(catalogs: &[&Catalog], era: Era) -> Bytes {
    let mut union = Map::new();
    for catalog in catalogs {
        let (legacy, modern) = (&catalog.facts.legacy_capabilities, &catalog.facts.modern_capabilities);
        let (own, other) = if era == Era::Legacy { (legacy, modern) } else { (modern, legacy) };
        let read = |raw: &Bytes| serde_json::from_slice::<Map<String, Value>>(raw).unwrap_or_default();
        let declared = if catalog.lacks(era) { shown::capabilities(era, read(other)) } else { read(own) };
        merge(&mut union, declared);
    }
    // A task's id says nothing about its backend, so tasks need a sole member.
    if catalogs.len() > 1 {
        union.remove("tasks");
        shown::drop_tasks_extension(&mut union);
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
        let target = Target::new("b".parse().unwrap(), "t");
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

    /// A catalog of a backend that speaks only one era.
    fn only(era: Era, capabilities: &'static str, tools: &[&'static str]) -> Arc<Catalog> {
        let capabilities = Bytes::from_static(capabilities.as_bytes());
        let server = match era {
            Era::Legacy => {
                ServerFacts { legacy: true, legacy_capabilities: capabilities, ..Default::default() }
            }
            Era::Modern => ServerFacts {
                modern_versions: vec![version::LATEST_MODERN.to_string()],
                modern_capabilities: capabilities,
                ..Default::default()
            },
        };
        let tools = tools.iter().map(|raw| Bytes::from_static(raw.as_bytes())).collect();
        Arc::new(Catalog::new(CatalogPb { server: Some(server), tools, ..Default::default() }))
    }

    #[test]
    fn members_of_either_era_are_shown_in_both() {
        let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
        let legacy = only(
            Era::Legacy,
            r#"{"logging":{},"tasks":{},"resources":{"subscribe":true}}"#,
            &[
                r#"{"name":"plain"}"#,
                r#"{"name":"task","execution":{"taskSupport":"required"}}"#,
                r#"{"name":"may","execution":{"taskSupport":"optional"}}"#,
            ],
        );
        let modern = only(
            Era::Modern,
            r#"{"completions":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
            &[r#"{"name":"any","outputSchema":{"type":"array"}}"#],
        );
        let view = view(gateway, legacy, modern);
        assert_eq!(view.versions(), &version::ALL);
        for era in ERAS {
            assert_eq!(
                serde_json::from_slice::<Value>(view.capabilities(era)).unwrap(),
                json!({"logging": {}, "completions": {}, "tools": {"listChanged": true},
                       "resources": {"subscribe": true, "listChanged": true}}),
            );
        }
        let shown = |era| std::str::from_utf8(&view.list_in(era, ListKind::Tools).pages[0]).unwrap();
        assert_eq!(
            shown(Era::Legacy),
            r#"[{"name":"a_plain"},{"name":"a_task","execution":{"taskSupport":"required"}},{"name":"a_may","execution":{"taskSupport":"optional"}},{"name":"b_any"}]"#
        );
        assert_eq!(
            shown(Era::Modern),
            r#"[{"name":"a_plain"},{"name":"a_may"},{"name":"b_any","outputSchema":{"type":"array"}}]"#
        );
        let digest = |era| view.list_in(era, ListKind::Tools).digest;
        assert_eq!(digest(Era::Legacy), digest(Era::Modern));
    }
}
