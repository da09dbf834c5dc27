//! A plain file of tools, resources and prompts: no envelope, and named by its
//! file or by its `metadata`.
//!
//! What stands at its top are the fields of a [`ToolSet`](pb::ToolSet), so that
//! a field that the contract gets can be written there at once. What else its
//! authors say about it in `metadata` is kept as annotations.

use mt_proto::pb::resource as pb;
use prost::Message as _;

use super::FOREIGN;
use crate::{
    decode::{Decoder, POOL, Path, place_of},
    names::legal_name,
    node::{Data, Entry, Node},
};

/// One of these makes a file without `kind` a tool set.
const CONTENT: [&str; 3] = ["tools", "resources", "prompts"];
/// Keys of the file that say something about it, as annotations.
const ABOUT: &str = "capability-file";
/// Of a file whose name has no character that a resource's may have.
const NAME_DEFAULT: &str = "tools";

/// Whether a value without an envelope is such a file. What has the keys of
/// another program's configuration is one only if it has tools.
pub fn is_plain(node: &Node) -> bool {
    let has = |key: &&str| node.get(key).is_some();
    has(&"tools") || (CONTENT.iter().any(&has) && !FOREIGN.iter().any(has))
}

/// Whether it is one that is named by its file.
pub fn is_unnamed(node: &Node) -> bool {
    let enveloped = node.get("kind").is_some() || node.get("apiVersion").is_some();
    !enveloped && node.get("metadata").and_then(|metadata| metadata.get("name")).is_none()
}

/// Reads it as far as it can be read.
pub fn tool_set(decoder: &mut Decoder<'_>, node: &Node, entries: &[Entry]) -> pb::Resource {
    let descriptor =
        POOL.get_message_by_name("magictunnel.resource.v1.ToolSet").expect("the contract has tool sets");
    let mut metadata = pb::Metadata::default();
    let mut enabled = None;
    for entry in entries {
        match entry.key.as_str() {
            "metadata" => about(decoder, entry, &mut metadata),
            "enabled" if !entry.value.is_null() => enabled = Some(entry),
            _ => {}
        }
    }
    let fields = entries.iter().filter(|entry| !matches!(entry.key.as_str(), "metadata" | "enabled"));
    let message = decoder.fields(&descriptor, fields, Path::top("spec"));
    let mut tool_set = pb::ToolSet::decode(message.as_slice()).expect("what was written is a tool set");
    if let Some(entry) = enabled {
        tool_set.disabled = is_disabled(decoder, entry, node);
    }
    if metadata.name.is_empty() {
        metadata.name = name_of(decoder.source_name());
    }
    pb::Resource { metadata: Some(metadata), spec: Some(pb::resource::Spec::ToolSet(tool_set)) }
}

/// The name that a file gives to what is in it.
pub fn name_of(file: &str) -> String {
    let stem = std::path::Path::new(file).file_stem().unwrap_or_default();
    legal_name(&stem.to_string_lossy()).unwrap_or_else(|| NAME_DEFAULT.into())
}

/// What `enabled` at the top says.
fn is_disabled(decoder: &mut Decoder<'_>, entry: &Entry, node: &Node) -> bool {
    decoder.note(Path::top("spec").key("disabled"), || place_of(entry));
    if node.get("disabled").is_some() {
        let hint = "keep one of them";
        decoder.report(
            &entry.key_span,
            "enabled",
            "`enabled` and `disabled` exclude each other",
            Some(hint.into()),
        );
    }
    match entry.value.as_bool() {
        Some(enabled) => !enabled,
        None => {
            let hint = "write `enabled: true` or `enabled: false`";
            decoder.wrong_type(&entry.value, Path::top("enabled"), "true or false", Some(hint.into()));
            false
        }
    }
}

/// Reads `metadata`: a name, labels, and whatever else there is.
fn about(decoder: &mut Decoder<'_>, entry: &Entry, metadata: &mut pb::Metadata) {
    if entry.value.is_null() {
        return;
    }
    let Some(entries) = entry.value.as_map() else {
        let hint = "write `metadata: {description: ...}`";
        decoder.wrong_type(&entry.value, Path::top("metadata"), "an object", Some(hint.into()));
        return;
    };
    let path = Path::top("metadata");
    decoder.note(path, || place_of(entry));
    for entry in entries {
        match entry.key.as_str() {
            "name" => {
                decoder.note(path.key("name"), || place_of(entry));
                let Some(text) = entry.value.as_text() else { continue };
                // People write titles there: "Google Maps" names the set `google-maps`.
                metadata.name = legal_name(text).unwrap_or_default();
                if metadata.name != text {
                    metadata.annotations.insert(format!("{ABOUT}/name"), text.to_owned());
                }
            }
            "labels" => labels(decoder, entry, metadata),
            key => {
                decoder.note(path.key("annotations"), || entry.key_span.clone());
                annotate(&format!("{ABOUT}/{key}"), &entry.value, metadata);
            }
        }
    }
}

fn labels(decoder: &mut Decoder<'_>, entry: &Entry, metadata: &mut pb::Metadata) {
    let top = Path::top("metadata");
    let path = top.key("labels");
    let Some(entries) = entry.value.as_map() else {
        let hint = "write `labels: {team: core}`";
        decoder.wrong_type(&entry.value, path, "an object", Some(hint.into()));
        return;
    };
    for label in entries {
        let path = path.key(&label.key);
        decoder.note(path, || place_of(label));
        match label.value.as_text() {
            Some(text) => _ = metadata.labels.insert(label.key.clone(), text.to_owned()),
            None => decoder.wrong_type(&label.value, path, "a text", None),
        }
    }
}

/// Keeps a value of any shape as texts: a list of texts as one, the entries of
/// an object each by itself.
fn annotate(key: &str, value: &Node, metadata: &mut pb::Metadata) {
    let text = match &value.data {
        Data::Map(entries) => {
            for entry in entries {
                annotate(&format!("{key}.{}", entry.key), &entry.value, metadata);
            }
            return;
        }
        Data::List(items) => items.iter().filter_map(Node::as_text).collect::<Vec<_>>().join(", "),
        Data::Scalar(_) => value.as_text().unwrap_or_default().to_owned(),
    };
    if !text.is_empty() {
        metadata.annotations.insert(key.to_owned(), text);
    }
}
