//! From the text of a file to resources.

mod plain;

use std::sync::OnceLock;

use mt_proto::{
    pb::resource as pb,
    resource::{Kind, closest},
};
use prost::Message as _;

use crate::{
    Diagnostic,
    decode::{Decoder, Encoded, POOL, Path, place_of, put_bytes},
    json,
    node::{Entry, Node},
    places::Places,
    source::Source,
    yaml,
};

/// What `apiVersion` must say.
pub const API_VERSION: &str = "magictunnel/v1";
/// A larger file is not read.
pub const FILE_BYTES_MAX: usize = 8 << 20;
/// After so many, a file is not read further.
const DIAGNOSTICS_MAX: usize = 1000;

const RESOURCE: &str = "magictunnel.resource.v1.Resource";
const ENVELOPE: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
/// Keys by which other programs' configurations are known.
pub(crate) const FOREIGN: [&str; 7] =
    ["mcpServers", "external_mcp", "servers", "httpServices", "sseServices", "context_servers", "mcp"];

/// One file: its resources, as far as they could be read, and what is wrong
/// with it.
#[derive(Clone, Debug)]
pub struct Document {
    pub source: Source,
    pub resources: Vec<Located>,
    pub diagnostics: Vec<Diagnostic>,
    /// Of each resource, once somebody has asked.
    places: OnceLock<Vec<Places>>,
}

/// A resource, and where its fields stand in the file.
#[derive(Clone, Debug)]
pub struct Located {
    pub resource: pb::Resource,
    /// It says nothing of its name.
    pub named_by_file: bool,
    /// Among the resources of its document.
    index: usize,
}

impl Document {
    /// Where the fields of one of its resources stand. Nearly nobody asks, so
    /// the document is read once more for the first who does.
    pub fn places(&self, located: &Located) -> &Places {
        let all = self.places.get_or_init(|| read(&self.source, true).2);
        all.get(located.index).expect("reading again finds the same resources")
    }
}

/// Reads a file of YAML documents, or of JSON with one resource or a list of
/// them. What is wrong with the set as a whole, [`crate::check`] finds.
pub fn parse(source_name: &str, text: &str) -> Document {
    if text.len() > FILE_BYTES_MAX {
        let source = Source::new(source_name, "");
        let message = format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", text.len());
        let diagnostic =
            Diagnostic::without_place(source_name, "", message, Some("use several files".into()));
        return Document {
            source,
            resources: Vec::new(),
            diagnostics: vec![diagnostic],
            places: OnceLock::new(),
        };
    }
    let source = Source::new(source_name, text);
    let (resources, diagnostics, _) = read(&source, false);
    Document { source, resources, diagnostics, places: OnceLock::new() }
}

/// The resources of a text, what is wrong with it, and if `recording` where the
/// fields of each resource stand.
fn read(source: &Source, recording: bool) -> (Vec<Located>, Vec<Diagnostic>, Vec<Places>) {
    let (documents, mut diagnostics) = trees(source);
    let (mut resources, mut places) = (Vec::new(), Vec::new());
    let items = documents.iter().flat_map(|d| d.as_list().unwrap_or(std::slice::from_ref(d)));
    for item in items.filter(|item| !item.is_null()) {
        if diagnostics.len() >= DIAGNOSTICS_MAX {
            let message = "the rest of the file is not read, there are too many mistakes before";
            diagnostics.push(source.diagnostic(&item.span, "", message, Some("correct those first".into())));
            break;
        }
        let mut decoder = Decoder::new(source, recording);
        let resource = resource(&mut decoder, item);
        diagnostics.append(&mut decoder.diagnostics);
        if let Some(resource) = resource {
            let named_by_file = plain::is_unnamed(item);
            resources.push(Located { resource, named_by_file, index: resources.len() });
            places.push(decoder.places);
        }
    }
    diagnostics.sort_by_key(|d| (d.line, d.column));
    (resources, diagnostics, places)
}

/// The values of a text, be it YAML or JSON.
pub fn trees(source: &Source) -> (Vec<Node>, Vec<Diagnostic>) {
    if json::is_json(source) {
        let (node, diagnostics) = json::parse(source);
        return (node.into_iter().collect(), diagnostics);
    }
    yaml::parse(source)
}

fn resource(decoder: &mut Decoder<'_>, node: &Node) -> Option<pb::Resource> {
    let Some(entries) = node.as_map() else {
        let hint = "a resource starts with `apiVersion: magictunnel/v1` and `kind: ...`";
        let message = format!("a resource is an object, but this is {}", node.what());
        decoder.report(&node.span, "", message, Some(hint.into()));
        return None;
    };
    let first = entries.first().map_or(node.span.clone(), |entry| entry.key_span.clone());
    decoder.places.insert("", first.clone());
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    if !has("kind") && !has("apiVersion") {
        if plain::is_plain(node) {
            return Some(plain::tool_set(decoder, node, entries));
        }
        if let Some(foreign) = entries.iter().find(|entry| FOREIGN.contains(&entry.key.as_str())) {
            let message = format!("`{}` belongs to another program's configuration", foreign.key);
            decoder.report(
                &foreign.key_span,
                "",
                message,
                Some("`mtctl import FILE` makes resources of it".into()),
            );
            return None;
        }
    }
    for entry in entries {
        match entry.key.as_str() {
            known if ENVELOPE.contains(&known) => decoder.places.insert(known, place_of(entry)),
            unknown => {
                let hint = match closest(unknown, ENVELOPE) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "here can be `apiVersion`, `kind`, `metadata` and `spec`".into(),
                };
                decoder.report(&entry.key_span, unknown, format!("unknown field `{unknown}`"), Some(hint));
            }
        }
    }
    check_api_version(decoder, entries, node);
    let kind = find_kind(decoder, entries, node);
    let metadata = read_metadata(decoder, entries, node);
    let kind = kind?;
    let descriptor = POOL.get_message_by_name(RESOURCE).expect("the contract has resources");
    let field = descriptor
        .get_field_by_name(&kind.slug().replace('-', "_"))
        .expect("each kind is a field of the resource");
    let mut message = Encoded::new();
    let spec = match meant(entries, "spec").filter(|entry| !entry.value.is_null()) {
        Some(spec) => {
            let kind = field.kind();
            let descriptor = kind.as_message().expect("each kind is a message");
            decoder.message(descriptor, &spec.value, Path::top("spec"))
        }
        None => Encoded::new(),
    };
    put_bytes(&mut message, field.number(), &spec);
    let mut resource = pb::Resource::decode(message.as_slice()).expect("what was written is a resource");
    resource.metadata = Some(metadata.unwrap_or_default());
    Some(resource)
}

/// The entry of a key of the envelope, or of a key that is most likely meant to
/// be it.
fn meant<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Entry> {
    let exact = entries.iter().find(|entry| entry.key == key);
    exact.or_else(|| entries.iter().find(|entry| closest(&entry.key, ENVELOPE) == Some(key)))
}

fn check_api_version(decoder: &mut Decoder<'_>, entries: &[Entry], node: &Node) {
    let hint = || Some(format!("write `apiVersion: {API_VERSION}`"));
    match meant(entries, "apiVersion") {
        Some(entry) if entry.value.as_text() == Some(API_VERSION) => {}
        Some(entry) => {
            let message = match entry.value.as_text() {
                Some(other) => format!("the apiVersion `{other}` is not known here"),
                None => "the apiVersion is not a text".to_owned(),
            };
            decoder.report(&place_of(entry), "apiVersion", message, hint());
        }
        None => missing(decoder, node, "apiVersion", "the resource has no `apiVersion`", hint()),
    }
}

fn missing(decoder: &mut Decoder<'_>, node: &Node, path: &str, message: &str, hint: Option<String>) {
    let span = decoder.places.find(path);
    let span = if span.is_empty() { node.span.clone() } else { span };
    decoder.report(&span, path, message, hint);
}

fn find_kind(decoder: &mut Decoder<'_>, entries: &[Entry], node: &Node) -> Option<Kind> {
    let all: Vec<&str> = Kind::ALL.iter().map(|kind| kind.yaml()).collect();
    let hint = || format!("one of {}", all.join(", "));
    let Some(entry) = meant(entries, "kind") else {
        missing(decoder, node, "kind", "the resource has no `kind`", Some(hint()));
        return None;
    };
    let Some(text) = entry.value.as_text() else {
        decoder.report(&place_of(entry), "kind", "the kind is not a text", Some(hint()));
        return None;
    };
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.yaml() == text) {
        return Some(kind);
    }
    let near = Kind::parse(text).map(Kind::yaml).or_else(|| closest(text, all.iter().copied()));
    let hint = near.map_or_else(hint, |near| format!("did you mean `{near}`?"));
    decoder.report(&place_of(entry), "kind", format!("unknown kind `{text}`"), Some(hint));
    near.and_then(Kind::parse)
}

fn read_metadata(decoder: &mut Decoder<'_>, entries: &[Entry], node: &Node) -> Option<pb::Metadata> {
    let hint = || Some("add `metadata: {name: ...}`".to_owned());
    let Some(entry) = meant(entries, "metadata").filter(|entry| !entry.value.is_null()) else {
        missing(decoder, node, "metadata", "the resource has no `metadata`", hint());
        decoder.places.spoil("metadata");
        return None;
    };
    let descriptor =
        POOL.get_message_by_name("magictunnel.resource.v1.Metadata").expect("resources have metadata");
    let before = decoder.diagnostics.len();
    let metadata = decoder.message(&descriptor, &entry.value, Path::top("metadata"));
    let metadata = pb::Metadata::decode(metadata.as_slice()).expect("what was written is metadata");
    if metadata.name.is_empty() && decoder.diagnostics.len() == before {
        missing(decoder, node, "metadata.name", "the resource has no name", Some("add `name: ...`".into()));
    }
    if metadata.name.is_empty() {
        decoder.places.spoil("metadata.name");
    }
    Some(metadata)
}
