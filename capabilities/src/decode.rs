//! From a tree to the wire form of a message, led by the message's descriptor.
//!
//! Nothing here knows a kind: a field that the contract gets can be written in
//! a file at once. Reading goes on after every mistake, as if the nearest right
//! thing had been written, so that each mistake is reported once and by itself.
//! Where everything stands is written down only when somebody has to be told.

mod path;

use std::{collections::HashMap, sync::LazyLock};

use mt_proto::{pb::FILE_DESCRIPTOR_SET, resource::closest};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

pub use self::path::Path;
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
/// Lists and objects in each other in a value of any shape. Each is up to three
/// messages in each other on the wire, where readers take a hundred in all.
const FREE_DEPTH_MAX: usize = 28;

/// The descriptors of the contract.
pub static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the descriptors are made together with the bindings")
});

/// An encoded message.
pub type Encoded = Vec<u8>;

/// One value on the wire.
enum Wire {
    Varint(u64),
    Fixed64(u64),
    Bytes(Encoded),
}

/// Adds a field to a message.
pub fn put_bytes(message: &mut Encoded, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(value.len() as u64, message);
    message.extend_from_slice(value);
}

fn put(message: &mut Encoded, number: u32, value: &Wire) {
    match value {
        Wire::Bytes(bytes) => put_bytes(message, number, bytes),
        Wire::Varint(value) => {
            encode_key(number, WireType::Varint, message);
            encode_varint(*value, message);
        }
        Wire::Fixed64(value) => {
            encode_key(number, WireType::SixtyFourBit, message);
            message.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Reads the messages of one resource.
pub struct Decoder<'a> {
    source: &'a Source,
    /// Whether places are written down.
    recording: bool,
    pub places: Places,
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> Decoder<'a> {
    /// `recording`: whether the places of fields are wanted.
    pub fn new(source: &'a Source, recording: bool) -> Self {
        Self { source, recording, places: Places::default(), diagnostics: Vec::new() }
    }

    pub fn source_name(&self) -> &str {
        self.source.name()
    }

    pub fn report(&mut self, span: &Span, path: &str, message: impl Into<String>, hint: Option<String>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(self.source.diagnostic(span, path, message, hint));
        }
    }

    /// Writes down where a field stands, if somebody wants to know.
    pub fn note(&mut self, path: Path<'_>, span: impl FnOnce() -> Span) {
        if self.recording {
            self.places.insert(&path.to_string(), span());
        }
    }

    /// Reports a value of the wrong type; its field counts as unreadable.
    pub fn wrong_type(&mut self, node: &Node, path: Path<'_>, expected: &str, hint: Option<String>) {
        let message = format!("`{}` must be {expected}, but this is {}", path.name(), node.what());
        self.unreadable(node, path, message, hint);
    }

    fn unreadable(&mut self, node: &Node, path: Path<'_>, message: String, hint: Option<String>) {
        let path = path.to_string();
        self.report(&node.span, &path, message, hint);
        self.places.spoil(&path);
    }

    /// Reads an object with the fields of a message.
    pub fn message(&mut self, descriptor: &MessageDescriptor, node: &Node, path: Path<'_>) -> Encoded {
        let Some(entries) = node.as_map() else {
            self.wrong_type(node, path, "an object", example(descriptor));
            return Encoded::new();
        };
        self.fields(descriptor, entries.iter(), path)
    }

    /// As [`message`](Self::message), of some of the entries of an object.
    pub fn fields<'n>(
        &mut self,
        descriptor: &MessageDescriptor,
        entries: impl Iterator<Item = &'n Entry> + Clone,
        path: Path<'_>,
    ) -> Encoded {
        let mut message = Encoded::new();
        let mut written: Vec<u32> = Vec::new();
        let mut oneofs: HashMap<String, String> = HashMap::new();
        for entry in entries.clone() {
            let Some(field) = self.find_field(descriptor, entry, entries.clone(), path) else { continue };
            let json = field.json_name();
            let path = path.key(json);
            self.note(path, || place_of(entry));
            if entry.value.is_null() {
                continue; // As if it were not there.
            }
            if written.contains(&field.number()) {
                let message = format!("`{json}` is written twice, in two spellings");
                self.report(&entry.key_span, &path.to_string(), message, Some("keep one of them".into()));
                continue;
            }
            if let Some(oneof) = field.containing_oneof()
                && !oneof.is_synthetic()
                && let Some(other) = oneofs.insert(oneof.name().to_owned(), json.to_owned())
            {
                let message = format!("`{other}` and `{json}` exclude each other");
                self.report(&entry.key_span, &path.to_string(), message, Some("keep one of them".into()));
                continue;
            }
            if self.field(&mut message, &field, &entry.value, path) {
                written.push(field.number());
            }
        }
        message
    }

    /// The field that a key names, or is most likely meant to name.
    fn find_field<'n>(
        &mut self,
        descriptor: &MessageDescriptor,
        entry: &Entry,
        mut entries: impl Iterator<Item = &'n Entry>,
        path: Path<'_>,
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
        let message = format!("unknown field `{key}`");
        self.report(&entry.key_span, &path.key(key).to_string(), message, Some(hint));
        let near = near?;
        // What is meant cannot be what is there under its right name.
        let taken = entries.any(|e| e.key == near);
        fields.iter().find(|f| f.json_name() == near).filter(|_| !taken).cloned()
    }

    /// Whether something was written.
    fn field(&mut self, message: &mut Encoded, field: &FieldDescriptor, node: &Node, path: Path<'_>) -> bool {
        let (name, number) = (field.json_name(), field.number());
        if field.is_map() {
            let entry = field.kind();
            let Some(values) = entry.as_message().map(MessageDescriptor::map_entry_value_field) else {
                return false;
            };
            let Some(entries) = node.as_map() else {
                let hint = format!("write `{name}: {{key: value}}`");
                self.wrong_type(node, path, "an object", Some(hint));
                return false;
            };
            for entry in entries {
                let path = path.key(&entry.key);
                self.note(path, || place_of(entry));
                let mut pair = Encoded::new();
                put_bytes(&mut pair, 1, entry.key.as_bytes());
                if let Some(value) = self.single(&values.kind(), &entry.value, path) {
                    put(&mut pair, 2, &value);
                }
                put_bytes(message, number, &pair);
            }
            return true;
        }
        if field.is_list() {
            let Some(items) = node.as_list() else {
                let hint = list_hint(field, node);
                self.wrong_type(node, path, "a list", Some(hint));
                return false;
            };
            let kind = field.kind();
            for (i, item) in items.iter().enumerate() {
                let path = path.index(i);
                self.note(path, || item.span.clone());
                // What cannot be read keeps its place, so that the numbers of the others stay right.
                let nothing = || match &kind {
                    Kind::String | Kind::Message(_) => Wire::Bytes(Encoded::new()),
                    _ => Wire::Varint(0),
                };
                let value = self.single(&kind, item, path).unwrap_or_else(nothing);
                put(message, number, &value);
            }
            return true;
        }
        let value = self.single(&field.kind(), node, path);
        value.inspect(|value| put(message, number, value)).is_some()
    }

    fn single(&mut self, kind: &Kind, node: &Node, path: Path<'_>) -> Option<Wire> {
        match kind {
            Kind::String => match node.as_text() {
                Some(text) => Some(Wire::Bytes(text.as_bytes().to_vec())),
                None => {
                    let hint = format!("write `{}: \"...\"`", path.name());
                    self.wrong_type(node, path, "a text", Some(hint));
                    None
                }
            },
            Kind::Bool => match node.as_bool() {
                Some(value) => Some(Wire::Varint(value.into())),
                None => {
                    self.wrong_type(node, path, "true or false", bool_hint(node, &path.name()));
                    None
                }
            },
            Kind::Uint32 => self.integer(node, path, u32::MIN, u32::MAX).map(|n| Wire::Varint(n.into())),
            Kind::Uint64 => self.integer(node, path, u64::MIN, u64::MAX).map(Wire::Varint),
            Kind::Int32 => self.integer(node, path, i32::MIN, i32::MAX).map(|n| signed(n.into())),
            Kind::Int64 => self.integer(node, path, i64::MIN, i64::MAX).map(signed),
            Kind::Enum(descriptor) => self.enumeration(descriptor, node, path),
            Kind::Message(descriptor) => Some(Wire::Bytes(match descriptor.full_name() {
                DURATION => self.duration(node, path)?,
                STRUCT => self.structure(node, path)?,
                VALUE if matches!(node.data, Data::Scalar(_)) => self.short_value(descriptor, node, path)?,
                _ => self.message(descriptor, node, path),
            })),
            _ => {
                let message = format!("`{}` cannot be written in a file", path.name());
                self.report(&node.span, &path.to_string(), message, None);
                None
            }
        }
    }

    fn integer<T>(&mut self, node: &Node, path: Path<'_>, least: T, most: T) -> Option<T>
    where
        T: TryFrom<i128> + std::fmt::Display,
    {
        let reading = match &node.data {
            Data::Scalar(scalar) => scalar.read(),
            Data::List(_) | Data::Map(_) => Reading::Null,
        };
        if let Reading::Integer(value) = reading
            && let Ok(value) = T::try_from(value)
        {
            return Some(value);
        }
        let name = path.name();
        let expected = format!("a whole number from {least} to {most}");
        match reading {
            Reading::Integer(value) => {
                let message = format!("{value} is out of range: `{name}` must be {expected}");
                self.unreadable(node, path, message, Some("leave it out for the default".into()));
            }
            Reading::Text(text) if text.trim().parse::<i128>().is_ok() => {
                let hint = Some(format!("write it without quotes: `{name}: {}`", text.trim()));
                self.wrong_type(node, path, &expected, hint);
            }
            _ => self.wrong_type(node, path, &expected, Some(format!("for example `{name}: 100`"))),
        }
        None
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor, node: &Node, path: Path<'_>) -> Option<Wire> {
        let values: Vec<(String, i32)> = descriptor
            .values()
            .filter(|v| v.number() != 0)
            .map(|v| (short_name(descriptor, v.name()), v.number()))
            .collect();
        let Some(text) = node.as_text() else {
            let all: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
            self.wrong_type(node, path, "a word", Some(format!("one of {}", all.join(", "))));
            return None;
        };
        let fold = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
        let full = fold(&prefix(descriptor));
        let wanted = fold(text);
        let wanted = wanted.strip_prefix(&full).unwrap_or(&wanted);
        if let Some((_, number)) = values.iter().find(|(name, _)| fold(name) == wanted) {
            return Some(signed((*number).into()));
        }
        let names = values.iter().map(|(name, _)| name.as_str());
        let hint = match closest(text, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        let message = format!("`{text}` is not something that `{}` can be", path.name());
        self.unreadable(node, path, message, Some(hint));
        None
    }

    fn duration(&mut self, node: &Node, path: Path<'_>) -> Option<Encoded> {
        const EXAMPLES: &str = "for example `30s`, `500ms` or `1m30s`";
        let Some(text) = node.as_text() else {
            self.wrong_type(node, path, "a duration", Some(EXAMPLES.into()));
            return None;
        };
        let Some(duration) = duration::parse(text) else {
            let hint = match text.parse::<f64>() {
                Ok(number) if number >= 0.0 => format!("the unit is missing: write `{text}s` or `{text}ms`"),
                _ => EXAMPLES.to_owned(),
            };
            self.unreadable(node, path, format!("`{text}` is not a duration"), Some(hint));
            return None;
        };
        Some(duration.encode_to_vec())
    }

    fn short_value(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
        path: Path<'_>,
    ) -> Option<Encoded> {
        let Some(text) = node.as_text() else {
            let name = path.name();
            let hint = format!("write `{name}: text` or `{name}: {{secret: name}}`");
            self.wrong_type(node, path, "a text or a reference", Some(hint));
            return None;
        };
        let field = descriptor.get_field_by_name("text").expect("a value may be a text");
        let mut message = Encoded::new();
        put_bytes(&mut message, field.number(), text.as_bytes());
        Some(message)
    }

    fn structure(&mut self, node: &Node, path: Path<'_>) -> Option<Encoded> {
        let Some(entries) = node.as_map() else {
            self.wrong_type(node, path, "an object", None);
            return None;
        };
        Some(self.json_object(entries, path, 0))
    }

    /// A `google.protobuf.Struct`.
    fn json_object(&mut self, entries: &[Entry], path: Path<'_>, depth: usize) -> Encoded {
        let mut object = Encoded::new();
        for entry in entries {
            let path = path.key(&entry.key);
            self.note(path, || place_of(entry));
            let mut pair = Encoded::with_capacity(64);
            put_bytes(&mut pair, 1, entry.key.as_bytes());
            let value = self.json(&entry.value, path, depth + 1);
            put_bytes(&mut pair, 2, &value);
            put_bytes(&mut object, 1, &pair);
        }
        object
    }

    /// A `google.protobuf.Value`.
    fn json(&mut self, node: &Node, path: Path<'_>, depth: usize) -> Encoded {
        let mut value = Encoded::new();
        let null = Wire::Varint(0);
        if depth > FREE_DEPTH_MAX && !matches!(node.data, Data::Scalar(_)) {
            let message = format!("lists and objects are more than {FREE_DEPTH_MAX} levels deep here");
            self.unreadable(node, path, message, Some("in a schema, use `$defs` and `$ref`".into()));
            put(&mut value, 1, &null);
            return value;
        }
        match &node.data {
            Data::Map(entries) => {
                let object = self.json_object(entries, path, depth);
                put_bytes(&mut value, 5, &object);
            }
            Data::List(items) => {
                let mut list = Encoded::new();
                for (i, item) in items.iter().enumerate() {
                    let item = self.json(item, path.index(i), depth + 1);
                    put_bytes(&mut list, 1, &item);
                }
                put_bytes(&mut value, 6, &list);
            }
            Data::Scalar(scalar) => match scalar.read() {
                Reading::Null => put(&mut value, 1, &null),
                Reading::Bool(yes) => put(&mut value, 4, &Wire::Varint(yes.into())),
                Reading::Text(text) => put_bytes(&mut value, 3, text.as_bytes()),
                #[expect(clippy::cast_precision_loss, reason = "a number of JSON is a double on the wire")]
                Reading::Integer(number) => put(&mut value, 2, &Wire::Fixed64((number as f64).to_bits())),
                Reading::Float(number) if number.is_finite() => {
                    put(&mut value, 2, &Wire::Fixed64(number.to_bits()));
                }
                Reading::Float(_) => {
                    let hint = Some("write it in quotes if it is a text".to_owned());
                    self.report(&node.span, &path.to_string(), "JSON has no such number", hint);
                    put(&mut value, 1, &null);
                }
            },
        }
        value
    }
}

/// As the wire has numbers that may be negative.
fn signed(number: i64) -> Wire {
    Wire::Varint(number.cast_unsigned())
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
