//! From resources to text that reads back as the same resources.

use mt_proto::{pb::resource as pb, resource::Kind};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, Value as Field};
use serde_json::{Map, Value as Json};

use crate::{
    decode::{POOL, short_name},
    document::API_VERSION,
    duration, emit,
};

/// A resource as YAML: our shape, defaults left out, durations and values short.
pub fn to_yaml(resource: &pb::Resource) -> String {
    emit::yaml(&to_value(resource))
}

/// Resources as YAML documents.
pub fn to_yaml_all<'a>(resources: impl IntoIterator<Item = &'a pb::Resource>) -> String {
    let documents: Vec<String> = resources.into_iter().map(to_yaml).collect();
    documents.join("---\n")
}

/// A resource as JSON, in the same shape.
pub fn to_json(resource: &pb::Resource) -> String {
    format!("{:#}", to_value(resource))
}

/// Resources as a list of JSON.
pub fn to_json_all<'a>(resources: impl IntoIterator<Item = &'a pb::Resource>) -> String {
    format!("{:#}", Json::Array(resources.into_iter().map(to_value).collect()))
}

/// A resource in the shape that users write.
pub fn to_value(resource: &pb::Resource) -> Json {
    let descriptor =
        POOL.get_message_by_name("magictunnel.resource.v1.Resource").expect("the contract has resources");
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic.transcode_from(resource).expect("a resource decodes as what it is");
    let mut object = Map::new();
    object.insert("apiVersion".into(), API_VERSION.into());
    if let Some(kind) = Kind::of(resource) {
        object.insert("kind".into(), kind.yaml().into());
    }
    for (field, value) in dynamic.fields() {
        let name = if field.name() == "metadata" { "metadata" } else { "spec" };
        object.insert(name.into(), single(&field.kind(), value));
    }
    Json::Object(object)
}

/// The fields that are set, in the order of the contract.
fn message(message: &DynamicMessage) -> Json {
    use prost_reflect::ReflectMessage as _;
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        "google.protobuf.Duration" => {
            let value: Option<prost_types::Duration> = message.transcode_to().ok();
            return value.map_or(Json::Null, |value| duration::write(&value).into());
        }
        "google.protobuf.Struct" => {
            let value: Option<prost_types::Struct> = message.transcode_to().ok();
            return value.map_or(Json::Null, json_object);
        }
        "magictunnel.resource.v1.Value" => {
            let text = descriptor.get_field_by_name("text").filter(|text| message.has_field(text));
            if let Some(text) = text {
                return message.get_field(&text).as_str().unwrap_or_default().into();
            }
        }
        _ => {}
    }
    let mut object = Map::new();
    for field in descriptor.fields().filter(|field| message.has_field(field)) {
        object.insert(field.json_name().to_owned(), any(&field, &message.get_field(&field)));
    }
    Json::Object(object)
}

fn any(field: &FieldDescriptor, value: &Field) -> Json {
    match value {
        Field::List(items) => items.iter().map(|item| single(&field.kind(), item)).collect(),
        Field::Map(entries) => {
            let kind = field.kind();
            let values =
                kind.as_message().expect("a map is a list of entries").map_entry_value_field().kind();
            let mut entries: Vec<(String, Json)> = entries
                .iter()
                .map(|(key, value)| match key {
                    MapKey::String(key) => (key.clone(), single(&values, value)),
                    other => (format!("{other:?}"), single(&values, value)),
                })
                .collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(entries.into_iter().collect())
        }
        value => single(&field.kind(), value),
    }
}

fn single(kind: &FieldKind, value: &Field) -> Json {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => number(f64::from(*value)),
        Field::F64(value) => number(*value),
        Field::String(value) => value.as_str().into(),
        Field::EnumNumber(number) => {
            let name = kind
                .as_enum()
                .and_then(|descriptor| Some(short_name(descriptor, descriptor.get_value(*number)?.name())));
            name.map_or_else(|| (*number).into(), Json::from)
        }
        Field::Message(value) => message(value),
        Field::Bytes(_) | Field::List(_) | Field::Map(_) => Json::Null,
    }
}

fn json_object(object: prost_types::Struct) -> Json {
    Json::Object(object.fields.into_iter().map(|(key, value)| (key, json(value))).collect())
}

fn json(value: prost_types::Value) -> Json {
    use prost_types::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(value)) => value.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
        Some(Kind::StructValue(object)) => json_object(object),
    }
}

/// A whole number without `.0`, as people write it.
fn number(value: f64) -> Json {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX && !(value == 0.0 && value.is_sign_negative()) {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return (value as i64).into();
    }
    value.into()
}
