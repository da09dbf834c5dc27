//! From a tree to a message, led by the message's descriptor.
//!
//! Nothing here knows a kind: a field that the contract gets can be written in
//! a file at once. Reading goes on after every mistake, as if the nearest right
//! thing had been written, so that each mistake is reported once and by itself.

use std::{collections::HashMap, sync::LazyLock};

use mt_proto::{
    pb::FILE_DESCRIPTOR_SET,
    resource::{closest, key_path},
};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use crate::{
    Diagnostic, duration,
    node::{Data, Entry, Node, Reading},
    places::Places,
    source::{Source, Span},
};

const DURATION: &str = "google.protobuf.Duration";
const STRUCT: &str = "google.protobuf.Struct";
/// Our own text or reference, which has a short form.
const VALUE: &str = "magictunnel.resource.v1.Value";
/// Of one resource: after so many, reading goes on without a word.
const DIAGNOSTICS_MAX: usize = 200;

/// The descriptors of the contract.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptors are made together with the bindings")
});

/// Reads the messages of one resource.
pub struct Decoder<'a> {
    source: &'a Source,
    pub places: Places,
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> Decoder<'a> {
    pub fn new(source: &'a Source) -> Self {
        Self { source, places: Places::default(), diagnostics: Vec::new() }
    }

    pub fn source_name(&self) -> &str {
        self.source.name()
    }

    pub fn report(&mut self, span: &Span, path: &str, message: impl Into<String>, hint: Option<String>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(self.source.diagnostic(span, path, message, hint));
        }
    }

    /// Reports a value of the wrong type; its field counts as unreadable.
    pub fn wrong_type(&mut self, node: &Node, path: &str, name: &str, expected: &str, hint: Option<String>) {
        let message = format!("`{name}` must be {expected}, but this is {}", node.what());
        self.report(&node.span, path, message, hint);
        self.places.spoil(path);
    }

    /// Reads an object with the fields of a message.
    pub fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
        path: &str,
        name: &str,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let Some(entries) = node.as_map() else {
            self.wrong_type(node, path, name, "an object", example(descriptor));
            return message;
        };
        let mut oneofs: HashMap<String, String> = HashMap::new();
        for entry in entries {
            let Some(field) = self.find_field(descriptor, entry, entries, path) else { continue };
            let json = field.json_name();
            let path = key_path(path, json);
            self.places.insert(&path, place_of(entry));
            if entry.value.is_null() {
                continue; // As if it were not there.
            }
            if message.has_field(&field) {
                let message = format!("`{json}` is written twice, in two spellings");
                self.report(&entry.key_span, &path, message, Some("keep one of them".into()));
                continue;
            }
            if let Some(oneof) = field.containing_oneof()
                && !oneof.is_synthetic()
                && let Some(other) = oneofs.insert(oneof.name().to_owned(), json.to_owned())
            {
                let message = format!("`{other}` and `{json}` exclude each other");
                self.report(&entry.key_span, &path, message, Some("keep one of them".into()));
                continue;
            }
            if let Some(value) = self.field(&field, &entry.value, &path) {
                message.set_field(&field, value);
            }
        }
        message
    }

    /// The field that a key names, or is most likely meant to name.
    fn find_field(
        &mut self,
        descriptor: &MessageDescriptor,
        entry: &Entry,
        entries: &[Entry],
        path: &str,
    ) -> Option<FieldDescriptor> {
        let key = entry.key.as_str();
        let found = descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key));
        if found.is_some() || self.diagnostics.len() >= DIAGNOSTICS_MAX {
            return found;
        }
        let fields: Vec<_> = descriptor.fields().collect();
        let near = closest(key, fields.iter().map(FieldDescriptor::json_name));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let names: Vec<_> = fields.iter().map(|f| format!("`{}`", f.json_name())).collect();
                format!("here can be {}", names.join(", "))
            }
        };
        self.report(&entry.key_span, &key_path(path, key), format!("unknown field `{key}`"), Some(hint));
        let near = near?;
        // What is meant cannot be what is there under its right name.
        let taken = entries.iter().any(|e| e.key == near);
        fields.iter().find(|f| f.json_name() == near).filter(|_| !taken).cloned()
    }

    fn field(&mut self, field: &FieldDescriptor, node: &Node, path: &str) -> Option<Value> {
        let name = field.json_name();
        if field.is_map() {
            let entry = field.kind();
            let values = entry.as_message()?.map_entry_value_field();
            let Some(entries) = node.as_map() else {
                self.wrong_type(
                    node,
                    path,
                    name,
                    "an object",
                    Some(format!("write `{name}: {{key: value}}`")),
                );
                return None;
            };
            let mut map = HashMap::new();
            for entry in entries {
                let path = key_path(path, &entry.key);
                self.places.insert(&path, place_of(entry));
                let value = self.single(&values.kind(), &entry.value, &path, &entry.key);
                map.insert(
                    MapKey::String(entry.key.clone()),
                    value.unwrap_or_else(|| Value::default_value_for_field(&values)),
                );
            }
            return Some(Value::Map(map));
        }
        if field.is_list() {
            let Some(items) = node.as_list() else {
                let hint = list_hint(field, node);
                self.wrong_type(node, path, name, "a list", Some(hint));
                return None;
            };
            let mut list = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                let path = format!("{path}[{i}]");
                self.places.insert(&path, item.span.clone());
                // What cannot be read keeps its place, so that the numbers of the others stay right.
                let value = self.single(&field.kind(), item, &path, &format!("{name}[{i}]"));
                list.push(value.unwrap_or_else(|| Value::default_value(&field.kind())));
            }
            return Some(Value::List(list));
        }
        self.single(&field.kind(), node, path, name)
    }

    fn single(&mut self, kind: &Kind, node: &Node, path: &str, name: &str) -> Option<Value> {
        match kind {
            Kind::String => match node.as_text() {
                Some(text) => Some(Value::String(text.to_owned())),
                None => {
                    self.wrong_type(node, path, name, "a text", Some(format!("write `{name}: \"...\"`")));
                    None
                }
            },
            Kind::Bool => match node.as_bool() {
                Some(value) => Some(Value::Bool(value)),
                None => {
                    self.wrong_type(node, path, name, "true or false", bool_hint(node, name));
                    None
                }
            },
            Kind::Uint32 => self.integer(node, path, name, u32::MIN, u32::MAX).map(Value::U32),
            Kind::Uint64 => self.integer(node, path, name, u64::MIN, u64::MAX).map(Value::U64),
            Kind::Int32 => self.integer(node, path, name, i32::MIN, i32::MAX).map(Value::I32),
            Kind::Int64 => self.integer(node, path, name, i64::MIN, i64::MAX).map(Value::I64),
            Kind::Enum(descriptor) => self.enumeration(descriptor, node, path, name),
            Kind::Message(descriptor) => Some(Value::Message(match descriptor.full_name() {
                DURATION => self.duration(node, path, name)?,
                STRUCT => self.structure(node, path, name)?,
                VALUE if matches!(node.data, Data::Scalar(_)) => {
                    self.short_value(descriptor, node, path, name)?
                }
                _ => self.message(descriptor, node, path, name),
            })),
            _ => {
                self.report(&node.span, path, format!("`{name}` cannot be written in a file"), None);
                None
            }
        }
    }

    fn integer<T>(&mut self, node: &Node, path: &str, name: &str, least: T, most: T) -> Option<T>
    where
        T: TryFrom<i128> + std::fmt::Display,
    {
        let expected = format!("a whole number from {least} to {most}");
        let reading = match &node.data {
            Data::Scalar(scalar) => scalar.read(),
            Data::List(_) | Data::Map(_) => Reading::Null,
        };
        match reading {
            Reading::Integer(value) => match T::try_from(value) {
                Ok(value) => return Some(value),
                Err(_) => {
                    let message = format!("{value} is out of range: `{name}` must be {expected}");
                    self.report(&node.span, path, message, Some("leave it out for the default".into()));
                    self.places.spoil(path);
                }
            },
            Reading::Text(text) if text.trim().parse::<i128>().is_ok() => {
                let hint = Some(format!("write it without quotes: `{name}: {}`", text.trim()));
                self.wrong_type(node, path, name, &expected, hint);
            }
            _ => self.wrong_type(node, path, name, &expected, Some(format!("for example `{name}: 100`"))),
        }
        None
    }

    fn enumeration(
        &mut self,
        descriptor: &EnumDescriptor,
        node: &Node,
        path: &str,
        name: &str,
    ) -> Option<Value> {
        let values: Vec<(String, i32)> = descriptor
            .values()
            .filter(|v| v.number() != 0)
            .map(|v| (short_name(descriptor, v.name()), v.number()))
            .collect();
        let Some(text) = node.as_text() else {
            let all: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
            self.wrong_type(node, path, name, "a word", Some(format!("one of {}", all.join(", "))));
            return None;
        };
        let fold = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
        let full = fold(&prefix(descriptor));
        let wanted = fold(text);
        let wanted = wanted.strip_prefix(&full).unwrap_or(&wanted);
        if let Some((_, number)) = values.iter().find(|(name, _)| fold(name) == wanted) {
            return Some(Value::EnumNumber(*number));
        }
        let names = values.iter().map(|(name, _)| name.as_str());
        let hint = match closest(text, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        self.report(&node.span, path, format!("`{text}` is not something that `{name}` can be"), Some(hint));
        self.places.spoil(path);
        None
    }

    fn duration(&mut self, node: &Node, path: &str, name: &str) -> Option<DynamicMessage> {
        const EXAMPLES: &str = "for example `30s`, `500ms` or `1m30s`";
        let Some(text) = node.as_text() else {
            self.wrong_type(node, path, name, "a duration", Some(EXAMPLES.into()));
            return None;
        };
        let Some(duration) = duration::parse(text) else {
            let hint = match text.parse::<f64>() {
                Ok(number) if number >= 0.0 => format!("the unit is missing: write `{text}s` or `{text}ms`"),
                _ => EXAMPLES.to_owned(),
            };
            self.report(&node.span, path, format!("`{text}` is not a duration"), Some(hint));
            self.places.spoil(path);
            return None;
        };
        Some(dynamic(&duration, DURATION))
    }

    fn short_value(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
        path: &str,
        name: &str,
    ) -> Option<DynamicMessage> {
        let Some(text) = node.as_text() else {
            let hint = format!("write `{name}: text` or `{name}: {{secret: name}}`");
            self.wrong_type(node, path, name, "a text or a reference", Some(hint));
            return None;
        };
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field_by_name("text", Value::String(text.to_owned()));
        Some(message)
    }

    fn structure(&mut self, node: &Node, path: &str, name: &str) -> Option<DynamicMessage> {
        let Some(entries) = node.as_map() else {
            self.wrong_type(node, path, name, "an object", None);
            return None;
        };
        Some(dynamic(&self.json_object(entries, path), STRUCT))
    }

    fn json_object(&mut self, entries: &[Entry], path: &str) -> prost_types::Struct {
        let mut fields = std::collections::BTreeMap::new();
        for entry in entries {
            let path = key_path(path, &entry.key);
            self.places.insert(&path, place_of(entry));
            fields.insert(entry.key.clone(), self.json(&entry.value, &path));
        }
        prost_types::Struct { fields }
    }

    /// Any value; its depth is bounded because the tree's is.
    fn json(&mut self, node: &Node, path: &str) -> prost_types::Value {
        use prost_types::value::Kind as Json;
        let kind = match &node.data {
            Data::Map(entries) => Json::StructValue(self.json_object(entries, path)),
            Data::List(items) => {
                let values =
                    items.iter().enumerate().map(|(i, item)| self.json(item, &format!("{path}[{i}]")));
                Json::ListValue(prost_types::ListValue { values: values.collect() })
            }
            Data::Scalar(scalar) => match scalar.read() {
                Reading::Null => Json::NullValue(0),
                Reading::Bool(value) => Json::BoolValue(value),
                Reading::Text(text) => Json::StringValue(text.to_owned()),
                #[expect(clippy::cast_precision_loss, reason = "a number of JSON is a double on the wire")]
                Reading::Integer(value) => Json::NumberValue(value as f64),
                Reading::Float(value) if value.is_finite() => Json::NumberValue(value),
                Reading::Float(_) => {
                    let hint = Some("write it in quotes if it is a text".to_owned());
                    self.report(&node.span, path, "JSON has no such number", hint);
                    Json::NullValue(0)
                }
            },
        };
        prost_types::Value { kind: Some(kind) }
    }
}

/// What a problem with an entry points at: its value if that is short, else
/// its key.
pub fn place_of(entry: &Entry) -> Span {
    match &entry.value.data {
        Data::Scalar(_) if !entry.value.is_null() => entry.value.span.clone(),
        _ => entry.key_span.clone(),
    }
}

/// `per_session` for `SHARING_PER_SESSION`.
pub fn short_name(descriptor: &EnumDescriptor, name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_prefix(&prefix(descriptor)).unwrap_or(&name).to_owned()
}

/// `sharing_`, which every value of `Sharing` starts with.
fn prefix(descriptor: &EnumDescriptor) -> String {
    let mut prefix = String::new();
    for c in descriptor.name().chars() {
        if c.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_lowercase());
    }
    prefix + "_"
}

fn dynamic(message: &impl prost::Message, name: &str) -> DynamicMessage {
    let descriptor =
        POOL.get_message_by_name(name).expect("the contract imports the well-known types it uses");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(message).expect("a message decodes as what it is");
    dynamic
}

fn bool_hint(node: &Node, name: &str) -> Option<String> {
    let value = match node.as_text()?.to_ascii_lowercase().as_str() {
        "yes" | "on" | "y" | "true" | "1" => "true",
        "no" | "off" | "n" | "false" | "0" => "false",
        _ => return Some(format!("write `{name}: true` or `{name}: false`")),
    };
    Some(format!("write `{name}: {value}`"))
}

/// How a list is written, for somebody who wrote something else.
fn list_hint(field: &FieldDescriptor, node: &Node) -> String {
    let name = field.json_name();
    let named = field.kind().as_message().is_some_and(|m| m.get_field_by_name("name").is_some());
    match (node.as_text(), node.as_map().and_then(<[Entry]>::first)) {
        (Some(text), _) if text.len() < 60 => format!("write `{name}: [{text}]`"),
        (None, Some(first)) if named => format!("write `- name: {}` and below it `value: ...`", first.key),
        _ => "write one element in each line, after `- `".into(),
    }
}

/// The fields of a message, for somebody who wrote something else.
fn example(descriptor: &MessageDescriptor) -> Option<String> {
    let names: Vec<_> = descriptor.fields().take(8).map(|f| format!("`{}`", f.json_name())).collect();
    (!names.is_empty()).then(|| format!("it has {}", names.join(", ")))
}
