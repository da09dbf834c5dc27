//! Messages as JSON Schema, by the JSON mapping of Protocol Buffers.

use std::collections::HashMap;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use crate::generate::{
    bounded,
    schema::{self, DESCRIPTION_CHARS_MAX, NODES_MAX, VALUES_MAX},
};

/// The comments of all files, by the full name of what they are about.
#[derive(Debug, Default)]
pub struct Comments(HashMap<String, String>);

impl Comments {
    pub fn new(pool: &DescriptorPool) -> Self {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let Some(info) = &file.file_descriptor_proto().source_code_info else { continue };
            let located: HashMap<&[i32], String> = info
                .location
                .iter()
                .filter_map(|at| {
                    let text = at.leading_comments.as_deref().or(at.trailing_comments.as_deref())?;
                    Some((at.path.as_slice(), tidy(text)))
                })
                .collect();
            let mut keep = |name: &str, path: &[i32]| {
                if let Some(text) = located.get(path) {
                    comments.insert(name.to_owned(), text.clone());
                }
            };
            for service in file.services() {
                keep(service.full_name(), service.path());
                service.methods().for_each(|method| keep(method.full_name(), method.path()));
            }
            for message in pool.all_messages().filter(|message| message.parent_file() == file) {
                keep(message.full_name(), message.path());
                message.fields().for_each(|field| keep(field.full_name(), field.path()));
            }
        }
        Self(comments)
    }

    /// What is written about something; empty if nothing is.
    pub fn of(&self, full_name: &str) -> String {
        self.0.get(full_name).cloned().unwrap_or_default()
    }
}

/// A comment without the space that stands before each of its lines.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> =
        text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n").trim().to_owned()
}

/// Converts messages, of which all together are not too many.
pub struct Converter<'a> {
    comments: &'a Comments,
    depth_max: usize,
    /// What is sent, and not what comes back.
    input: bool,
    nodes_left: usize,
    open: Vec<String>,
    /// Something is left out for its depth or number.
    pub cut: bool,
}

impl<'a> Converter<'a> {
    pub fn new(comments: &'a Comments, depth_max: usize, input: bool) -> Self {
        Self { comments, depth_max, input, nodes_left: NODES_MAX, open: Vec::new(), cut: false }
    }

    /// The schema of a message that is the whole of the arguments or of the
    /// result.
    pub fn arguments(&mut self, message: &MessageDescriptor) -> Value {
        match well_known(message.full_name()) {
            Some(schema) if schema["type"] == "object" => schema,
            // Not an object in JSON, so nothing can be said about it.
            Some(_) => {
                self.cut = true;
                json!({"type": "object"})
            }
            None => self.fields(message, 0),
        }
    }

    fn message(&mut self, message: &MessageDescriptor, depth: usize) -> Value {
        if let Some(schema) = well_known(message.full_name()) {
            return schema;
        }
        let name = message.full_name();
        if depth >= self.depth_max || self.open.iter().any(|open| open == name) {
            self.cut = true;
            return json!({"type": "object"});
        }
        self.fields(message, depth)
    }

    fn fields(&mut self, message: &MessageDescriptor, depth: usize) -> Value {
        self.open.push(message.full_name().to_owned());
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in message.fields() {
            let Some(left) = self.nodes_left.checked_sub(1) else {
                self.cut = true;
                break;
            };
            self.nodes_left = left;
            if field.cardinality() == Cardinality::Required {
                required.push(field.json_name().to_owned());
            }
            properties.insert(field.json_name().to_owned(), self.field(&field, depth + 1));
        }
        self.open.pop();
        if self.input {
            return schema::object(properties, required);
        }
        json!({"type": "object", "properties": properties})
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        let mut schema = if field.is_map() {
            let kind = field.kind();
            let entry = kind.as_message().expect("a map is a list of entries");
            json!({"type": "object", "additionalProperties": self.kind(&entry.map_entry_value_field().kind(), depth)})
        } else if field.is_list() {
            json!({"type": "array", "items": self.kind(&field.kind(), depth)})
        } else {
            self.kind(&field.kind(), depth)
        };
        let mut text = bounded(&self.comments.of(field.full_name()), DESCRIPTION_CHARS_MAX);
        if let Some(oneof) = field.containing_oneof().filter(|oneof| oneof.fields().len() > 1) {
            let others = oneof.fields().filter(|other| other.number() != field.number()).take(8);
            let others: Vec<String> = others.map(|other| format!("`{}`", other.json_name())).collect();
            let gap = if text.is_empty() { "" } else { " " };
            text = format!("{text}{gap}(not together with {})", others.join(", "));
        }
        if let (Value::Object(schema), false) = (&mut schema, text.is_empty()) {
            schema.insert("description".into(), text.into());
        }
        schema
    }

    fn kind(&mut self, kind: &Kind, depth: usize) -> Value {
        // A client may send numbers as texts and texts as numbers; what comes
        // back has one form.
        let long = |format: &str| match self.input {
            true => json!({"type": ["string", "integer"], "format": format}),
            false => json!({"type": "string", "format": format}),
        };
        match kind {
            Kind::Double | Kind::Float if self.input => json!({"type": "number"}),
            // `NaN` and `Infinity` are texts.
            Kind::Double | Kind::Float => json!({"type": ["number", "string"]}),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
            Kind::Uint32 | Kind::Fixed32 => json!({"type": "integer", "minimum": 0, "format": "uint32"}),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => long("int64"),
            Kind::Uint64 | Kind::Fixed64 => long("uint64"),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
            Kind::Enum(values) => self.enumeration(values),
            Kind::Message(message) => self.message(message, depth),
        }
    }

    fn enumeration(&self, values: &EnumDescriptor) -> Value {
        if values.full_name() == "google.protobuf.NullValue" {
            return json!({"type": "null"});
        }
        let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
        // A value that is newer than the descriptor comes as its number.
        match (self.input, names.len() <= VALUES_MAX) {
            (true, true) => json!({"type": "string", "enum": names}),
            (true, false) => json!({"type": "string"}),
            (false, _) => json!({"type": ["string", "integer"]}),
        }
    }
}

/// The types that are not objects of their fields in JSON.
fn well_known(name: &str) -> Option<Value> {
    Some(match name {
        "google.protobuf.Timestamp" => json!({"type": "string", "format": "date-time"}),
        "google.protobuf.Duration" => json!({"type": "string", "description": "such as `3.5s`"}),
        "google.protobuf.FieldMask" => json!({"type": "string", "description": "paths, separated by commas"}),
        "google.protobuf.Empty" => json!({"type": "object"}),
        "google.protobuf.Struct" => json!({"type": "object"}),
        "google.protobuf.Value" => json!({}),
        "google.protobuf.ListValue" => json!({"type": "array"}),
        "google.protobuf.Any" => {
            json!({"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]})
        }
        "google.protobuf.BoolValue" => json!({"type": ["boolean", "null"]}),
        "google.protobuf.StringValue" | "google.protobuf.BytesValue" => json!({"type": ["string", "null"]}),
        "google.protobuf.Int32Value" | "google.protobuf.UInt32Value" => json!({"type": ["integer", "null"]}),
        "google.protobuf.Int64Value" | "google.protobuf.UInt64Value" => {
            json!({"type": ["string", "integer", "null"]})
        }
        "google.protobuf.FloatValue" | "google.protobuf.DoubleValue" => {
            json!({"type": ["number", "string", "null"]})
        }
        _ => return None,
    })
}
