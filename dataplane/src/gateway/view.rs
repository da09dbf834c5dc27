//! A gateway as its clients see it: the members' catalogs merged under the
//! gateway's names, with ready-made list pages and an index from every name
//! back to its member.
//!
//! Pure, and made once per snapshot: a list costs no backend and no work
//! proportional to its length when it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use mt_proto::resource::{Compiled, Gateway, Member, ResourceName};
use serde_json::{Map, Value, json};

use super::{
    alias,
    bridge::shown,
    catalog::{Alias, Catalog, Entry},
    kind::ListKind,
    page::{Greetings, Page},
    rewrite::{self, Place},
    uri,
};
use crate::{
    hash::HashMap,
    mcp::{Era, ProtocolVersion, splice::Patch, version},
};

/// As the table of lists and capabilities has them.
const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

/// Where a name leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub backend: ResourceName,
    /// What the backend calls it.
    pub own: String,
    /// The tool set's words for it, where the tool stands for another's.
    pub alias: Option<Alias>,
    /// How long a call may take, once that has been found out.
    pub limit: OnceLock<Duration>,
}

impl Target {
    fn new(backend: ResourceName, own: impl Into<String>) -> Self {
        Self { backend, own: own.into(), alias: None, limit: OnceLock::new() }
    }

    /// Where an entry of a member leads.
    fn of(member: &Member, entry: &Entry) -> Self {
        match &entry.alias {
            Some(alias) => Self {
                backend: alias.of.backend.clone(),
                own: alias.of.tool.clone(),
                alias: Some(alias.clone()),
                limit: OnceLock::new(),
            },
            None => Self::new(member.backend.clone(), &entry.key),
        }
    }
}

/// One merged list, cut into pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Each a JSON array; at least one.
    pub pages: Vec<Bytes>,
    /// The same, as results hold them: they share the arrays' memory.
    results: Vec<Page>,
    /// Of all pages: tells whether the list has changed.
    pub digest: [u8; 32],
    pub len: usize,
}

/// A gateway as its clients see it.
#[derive(Debug)]
pub struct GatewayView {
    pub gateway: Arc<Gateway>,
    /// Members that are switched on, in order.
    pub members: Vec<ResourceName>,
    pub tools: HashMap<String, Target>,
    pub prompts: HashMap<String, Target>,
    /// Backends that serve resources; URIs are wrapped where there are several.
    pub resource_members: Vec<ResourceName>,
    /// Backends that are no members, but have a tool that a member stands for.
    strangers: BTreeSet<ResourceName>,
    lists: [List; 4],
    /// The tools in the modern era, where they are shown otherwise there.
    modern_tools: Option<List>,
    capabilities: [Bytes; 2],
    /// Joined from the members, or the gateway's own.
    pub instructions: Option<String>,
    pub title: String,
    /// What clients hear first, made when it is first asked for.
    pub(super) greetings: Greetings,
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

        let others = Others { config, catalogs };
        let (tools, tool_list) = merge_named(gateway, &members, &others, |c| &c.tools, wraps);
        let (prompts, prompt_list) = merge_named(gateway, &members, &others, |c| &c.prompts, wraps);
        let (tool_list, modern_tools) = shown_tools(tool_list, gateway.page_size);
        let is_member = |backend: &ResourceName| members.iter().any(|(m, _)| m.backend == *backend);
        let strangers = tools
            .values()
            .map(|target| &target.backend)
            .filter(|backend| !is_member(backend))
            .cloned()
            .collect();
        let resources = merge_resources(&members, "uri", |c| &c.resources, wraps);
        let templates = merge_resources(&members, "uriTemplate", |c| &c.templates, wraps);
        let catalogs: Vec<&Catalog> = members.iter().map(|(_, c)| c.as_ref()).collect();
        let size = gateway.page_size;
        Self {
            lists: [
                tool_list,
                List::new(ListKind::Prompts, prompt_list.iter().map(|(_, raw)| raw), size),
                List::new(ListKind::Resources, &resources, size),
                List::new(ListKind::Templates, &templates, size),
            ],
            modern_tools,
            capabilities: ERAS.map(|era| capabilities(&catalogs, era)),
            instructions: gateway.instructions.clone().or_else(|| join_instructions(&members)),
            title: gateway.title.clone().unwrap_or_else(|| gateway.name.to_string()),
            members: members.iter().map(|(m, _)| m.backend.clone()).collect(),
            gateway: gateway.clone(),
            tools,
            prompts,
            resource_members,
            strangers,
            greetings: Greetings::default(),
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

    /// Whether the URIs of a backend carry its name: also those of one that is no
    /// member, for they lead to none.
    pub fn wraps_uris_of(&self, backend: &ResourceName) -> bool {
        self.wraps_uris() || self.strangers.contains(backend)
    }

    /// Which member a resource belongs to, by its URI alone: a link need not be
    /// in any list. A backend of which only a tool is shown has none to show.
    pub fn resource(&self, uri: &str) -> Option<Target> {
        if !self.strangers.is_empty() && uri::unwrap(uri).is_some_and(|(of, _)| self.strangers.contains(&of))
        {
            return None;
        }
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
    fn new<'a>(kind: ListKind, entries: impl IntoIterator<Item = &'a Bytes>, page_size: usize) -> Self {
        let entries: Vec<&Bytes> = entries.into_iter().collect();
        let mut results: Vec<Page> =
            entries.chunks(page_size.max(1)).map(|chunk| Page::new(kind, chunk)).collect();
        let mut hasher = blake3::Hasher::new();
        results.iter().for_each(|page| _ = hasher.update(page.entries()));
        if results.is_empty() {
            results.push(Page::new(kind, &[]));
        }
        let pages = results.iter().map(|page| page.entries().clone()).collect();
        Self { pages, results, digest: *hasher.finalize().as_bytes(), len: entries.len() }
    }

    /// A page as results hold it.
    pub(super) fn result(&self, page: usize) -> Option<&Page> {
        self.results.get(page)
    }
}

/// The tools for either era; the second only where it differs from the first.
/// What a member offers is in the words of an era that it speaks; beside each
/// stands which eras it lacks.
fn shown_tools(tools: Vec<Worded>, page_size: usize) -> (List, Option<List>) {
    let of = |era: Era| {
        let shown = |(lacks, raw): &Worded| {
            if lacks[era as usize] { shown::tool(era, raw) } else { Some(raw.clone()) }
        };
        tools.iter().filter_map(shown).collect::<Vec<Bytes>>()
    };
    let [legacy, modern] = ERAS.map(of);
    let mut list = List::new(ListKind::Tools, &legacy, page_size);
    if legacy == modern {
        return (list, None);
    }
    let mut other = List::new(ListKind::Tools, &modern, page_size);
    let digest = *blake3::Hasher::new().update(&list.digest).update(&other.digest).finalize().as_bytes();
    list.digest = digest;
    other.digest = digest;
    (list, Some(other))
}

/// The eras in whose words an entry is not written, and the entry.
type Worded = ([bool; 2], Bytes);

/// All that is configured and known, members or not.
struct Others<'a> {
    config: &'a Compiled,
    catalogs: &'a BTreeMap<ResourceName, Arc<Catalog>>,
}

impl Others<'_> {
    /// A tool that stands for another's, and the eras that its words are not
    /// of. None: what it stands for is switched off.
    fn stood_for(&self, entry: &Entry, alias: &Alias) -> Option<Worded> {
        let backend = &alias.of.backend;
        self.config.backends.get(backend).filter(|backend| !backend.disabled)?;
        let catalog = self.catalogs.get(backend).map(Arc::as_ref);
        let lacks_modern = catalog.is_some_and(|catalog| catalog.lacks(Era::Modern));
        // The tool set's own words are modern ones.
        Some(([true, lacks_modern], alias::definition(entry, alias, catalog)))
    }
}

/// Tools and prompts: chosen by the member's globs, named by its template.
fn merge_named(
    gateway: &Gateway,
    members: &[(&Member, Arc<Catalog>)],
    others: &Others<'_>,
    entries: fn(&Catalog) -> &Vec<Entry>,
    wraps: bool,
) -> (HashMap<String, Target>, Vec<Worded>) {
    let mut index: HashMap<String, Target> = HashMap::default();
    let mut list = Vec::new();
    for (member, catalog) in members {
        let lacks = ERAS.map(|era| catalog.lacks(era));
        for entry in entries(catalog) {
            if !chosen(member, &entry.key) {
                continue;
            }
            let name = match member.rename.get(&entry.key) {
                Some(name) => name.clone(),
                None => member.template.apply(&entry.key),
            };
            // The earlier member has it; the control plane tells who has not.
            if index.contains_key(&name) {
                continue;
            }
            let target = Target::of(member, entry);
            let is_hidden = entry.hidden || gateway.hide.is_match(&name);
            if is_hidden && !gateway.show.is_match(&name) {
                index.insert(name, target);
                continue;
            }
            let shown = match &entry.alias {
                Some(alias) => others.stood_for(entry, alias),
                None => Some((lacks, entry.raw.clone())),
            };
            let Some((lacks, mut raw)) = shown else {
                index.insert(name, target);
                continue;
            };
            if name != entry.key {
                raw = with_text(&raw, "name", &name);
            }
            if wraps {
                raw = rewrite::wrap_uris(Place::Tool, &target.backend, raw);
            }
            list.push((lacks, raw));
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
mod tests;
