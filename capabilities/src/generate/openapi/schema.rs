//! Schemas of OpenAPI 3.0 and 3.1 as JSON Schema 2020-12, whole in themselves.
//!
//! What is cut or not understood makes a schema say less, never more: a model
//! may then send what the service refuses, but nothing that the service takes
//! is kept from it.

use serde_json::{Map, Value, json};

use super::document::Document;
use crate::generate::{
    bounded,
    schema::{DESCRIPTION_CHARS_MAX, NODES_MAX, VALUES_MAX},
};

/// What a field may hold, from JSON Schema 2020-12.
const TYPES: [&str; 7] = ["string", "number", "integer", "boolean", "array", "object", "null"];
/// Keywords that are a whole number from 0.
const COUNTS: [&str; 6] =
    ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"];
const NUMBERS: [&str; 2] = ["minimum", "maximum"];
/// Pairs of a bound and the word that excludes it.
const EXCLUSIVE: [(&str, &str); 2] = [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")];
/// A text in a default or a list of values.
const LITERAL_BYTES_MAX: usize = 512;
const PROPERTIES_MAX: usize = 300;
const VARIANTS_MAX: usize = 50;

/// Which way what is described goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the service: without what only it says.
    Request,
    /// From the service: without what it never says.
    Response,
}

/// Converts schemas, of which all together are not too many.
pub struct Converter<'a> {
    document: &'a Document<'a>,
    side: Side,
    depth_max: usize,
    nodes_left: usize,
    /// The references that are being followed.
    open: Vec<&'a str>,
    /// Something is left out for its depth or number.
    pub cut: bool,
    /// References that could not be followed, in words.
    pub broken: Vec<String>,
}

impl<'a> Converter<'a> {
    pub fn new(document: &'a Document<'a>, side: Side, depth_max: usize) -> Self {
        Self {
            document,
            side,
            depth_max,
            nodes_left: NODES_MAX,
            open: Vec::new(),
            cut: false,
            broken: Vec::new(),
        }
    }

    /// A schema; anything at all, where it is none.
    pub fn convert(&mut self, schema: &'a Value) -> Value {
        self.at(schema, 0)
    }

    fn at(&mut self, schema: &'a Value, depth: usize) -> Value {
        match schema {
            Value::Bool(_) => return schema.clone(),
            Value::Object(_) => {}
            _ => return json!({}),
        }
        let Some(left) = self.nodes_left.checked_sub(1) else {
            self.cut = true;
            return json!({});
        };
        self.nodes_left = left;
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.referred(schema, reference, depth);
        }
        self.object(schema, depth)
    }

    fn referred(&mut self, schema: &'a Value, reference: &'a str, depth: usize) -> Value {
        if self.open.contains(&reference) {
            self.cut = true;
            return json!({});
        }
        let target = match self.document.find(reference) {
            Ok(target) => target,
            Err(why) => {
                if !self.broken.contains(&why) {
                    self.broken.push(why);
                }
                self.cut = true;
                return json!({});
            }
        };
        self.open.push(reference);
        let mut converted = self.at(target, depth);
        self.open.pop();
        // What stands beside the reference says what this use of it is for.
        if let (Value::Object(converted), Some(text)) = (&mut converted, schema["description"].as_str()) {
            converted.insert("description".into(), bounded(text, DESCRIPTION_CHARS_MAX).into());
        }
        converted
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let mut out = Map::new();
        let kinds = types(schema);
        if !kinds.is_empty() {
            let single = kinds.len() == 1;
            out.insert("type".into(), if single { kinds[0].into() } else { kinds.clone().into() });
        }
        if let Some(text) = schema["description"].as_str().or(schema["title"].as_str()) {
            let text = bounded(text, DESCRIPTION_CHARS_MAX);
            if !text.is_empty() {
                out.insert("description".into(), text.into());
            }
        }
        literals(schema, &kinds, &mut out);
        bounds(schema, &mut out);
        if depth >= self.depth_max {
            let inner =
                ["properties", "items", "prefixItems", "allOf", "anyOf", "oneOf", "additionalProperties"];
            self.cut |= inner.iter().any(|key| schema.get(*key).is_some_and(|value| !value.is_boolean()));
            return Value::Object(out);
        }
        self.inside(schema, depth + 1, &mut out);
        Value::Object(out)
    }

    fn inside(&mut self, schema: &'a Value, depth: usize, out: &mut Map<String, Value>) {
        if let Some(properties) = schema["properties"].as_object() {
            let mut converted = Map::new();
            for (name, property) in properties.iter().take(PROPERTIES_MAX) {
                if !self.is_other_side(property) {
                    converted.insert(name.clone(), self.at(property, depth));
                }
            }
            self.cut |= properties.len() > PROPERTIES_MAX;
            let required = self.required(schema);
            out.insert("properties".into(), Value::Object(converted));
            if !required.is_empty() {
                out.insert("required".into(), required.into());
            }
        }
        match (self.side, &schema["additionalProperties"]) {
            (_, Value::Null) | (Side::Response, Value::Bool(_)) => {}
            (Side::Request, Value::Bool(false)) if schema.get("allOf").is_some() => {}
            (_, other) => _ = out.insert("additionalProperties".into(), self.at(other, depth)),
        }
        if schema["items"].is_object() {
            out.insert("items".into(), self.at(&schema["items"], depth));
        }
        if let Some(items) = schema["prefixItems"].as_array().filter(|items| !items.is_empty()) {
            out.insert("prefixItems".into(), items.iter().map(|item| self.at(item, depth)).collect());
        }
        if let Some(all) = variants(schema, "allOf") {
            let all: Vec<Value> = all.iter().map(|part| self.at(part, depth)).collect();
            self.put_together(all, out);
        }
        // One of two parts that were cut to the same would never be met, so any will do.
        for key in ["anyOf", "oneOf"] {
            let Some(any) = variants(schema, key) else { continue };
            let any: Vec<Value> = any.iter().map(|part| self.at(part, depth)).collect();
            let everything = any.iter().any(|part| part.as_object().is_some_and(Map::is_empty));
            if !everything && !out.contains_key("anyOf") {
                out.insert("anyOf".into(), any.into());
            }
        }
        let nullable = schema["nullable"] == true;
        if let Some(Value::Array(any)) = out.get_mut("anyOf").filter(|_| nullable) {
            any.push(json!({"type": "null"}));
        }
    }

    /// All of several objects as one object, where they are objects.
    fn put_together(&self, parts: Vec<Value>, out: &mut Map<String, Value>) {
        let known = ["type", "properties", "required", "description"];
        let simple = |part: &Value| {
            part.as_object().is_some_and(|part| {
                part.keys().all(|key| known.contains(&key.as_str()))
                    && part
                        .get("type")
                        .is_none_or(|kind| kind == "object" || kind == &json!(["object", "null"]))
            })
        };
        let mergeable = parts.iter().all(simple) && out.get("type").is_none_or(|kind| kind == "object");
        if parts.len() == 1 && !out.contains_key("properties") {
            for part in parts {
                if let Value::Object(part) = part {
                    for (key, value) in part {
                        out.entry(key).or_insert(value);
                    }
                }
            }
        } else if mergeable {
            for part in parts {
                self.merge(part, out);
            }
        } else {
            out.insert("allOf".into(), parts.into());
        }
    }

    fn merge(&self, part: Value, out: &mut Map<String, Value>) {
        let Value::Object(mut part) = part else { return };
        out.insert("type".into(), "object".into());
        if let Some(Value::Object(more)) = part.remove("properties") {
            let properties = out.entry("properties").or_insert_with(|| json!({}));
            if let Value::Object(properties) = properties {
                properties.extend(more);
            }
        }
        if let Some(Value::Array(more)) = part.remove("required") {
            let required = out.entry("required").or_insert_with(|| json!([]));
            if let Value::Array(required) = required {
                for name in more {
                    if !required.contains(&name) {
                        required.push(name);
                    }
                }
            }
        }
    }

    /// What must be there, of what is there on this side.
    pub fn required(&self, schema: &'a Value) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let property = schema["properties"].get(name);
            if !property.is_some_and(|p| self.is_other_side(p)) && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// Whether only the other side says it.
    pub fn is_other_side(&self, property: &'a Value) -> bool {
        let resolved = self.document.resolve(property).unwrap_or(property);
        let word = match self.side {
            Side::Request => "readOnly",
            Side::Response => "writeOnly",
        };
        property[word] == true || resolved[word] == true
    }
}

/// The types that a schema allows; none if it does not say.
pub fn types(schema: &Value) -> Vec<&str> {
    let mut kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ if schema["properties"].is_object() && schema.get("allOf").is_none() => vec!["object"],
        _ => Vec::new(),
    };
    kinds.retain(|kind| TYPES.contains(kind));
    if schema["nullable"] == true && !kinds.is_empty() && !kinds.contains(&"null") {
        kinds.push("null");
    }
    let mut seen = Vec::new();
    for kind in kinds {
        if !seen.contains(&kind) {
            seen.push(kind);
        }
    }
    seen
}

/// Values that are written out.
fn literals(schema: &Value, kinds: &[&str], out: &mut Map<String, Value>) {
    let small = |value: &&Value| value.to_string().len() <= LITERAL_BYTES_MAX;
    let values = schema["enum"].as_array().filter(|values| (1..=VALUES_MAX).contains(&values.len()));
    if let Some(values) = values.filter(|values| values.iter().all(|value| small(&value))) {
        let mut distinct: Vec<Value> = Vec::new();
        for value in values {
            if !distinct.contains(value) {
                distinct.push(value.clone());
            }
        }
        if kinds.contains(&"null") && !distinct.contains(&Value::Null) {
            distinct.push(Value::Null);
        }
        out.insert("enum".into(), distinct.into());
    }
    for key in ["const", "default"] {
        if let Some(value) = schema.get(key).filter(small).filter(|value| !value.is_null()) {
            out.insert(key.into(), value.clone());
        }
    }
    for key in ["format", "pattern"] {
        if let Some(text) = schema[key].as_str().filter(|text| text.len() <= LITERAL_BYTES_MAX) {
            out.insert(key.into(), text.into());
        }
    }
    if schema["deprecated"] == true {
        out.insert("deprecated".into(), true.into());
    }
}

/// Bounds of numbers and lengths, those of 3.0 as those of 3.1.
fn bounds(schema: &Value, out: &mut Map<String, Value>) {
    for key in COUNTS {
        if let Some(count) = schema[key].as_u64() {
            out.insert(key.into(), count.into());
        }
    }
    for key in NUMBERS {
        if schema[key].is_number() {
            out.insert(key.into(), schema[key].clone());
        }
    }
    for (exclusive, inclusive) in EXCLUSIVE {
        match &schema[exclusive] {
            Value::Bool(true) => {
                if let Some(bound) = out.shift_remove(inclusive) {
                    out.insert(exclusive.into(), bound);
                }
            }
            number @ Value::Number(_) => _ = out.insert(exclusive.into(), number.clone()),
            _ => {}
        }
    }
    if schema["multipleOf"].as_f64().is_some_and(|factor| factor > 0.0) {
        out.insert("multipleOf".into(), schema["multipleOf"].clone());
    }
    if schema["uniqueItems"] == true {
        out.insert("uniqueItems".into(), true.into());
    }
}

fn variants<'a>(schema: &'a Value, key: &str) -> Option<&'a Vec<Value>> {
    schema[key].as_array().filter(|parts| (1..=VARIANTS_MAX).contains(&parts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value, expected: &Value) {
        let root = json!({"components": {"schemas": {
            "Name": {"type": "string"},
            "Tree": {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/Tree"}}},
            "Id": {"type": "integer", "readOnly": true},
        }}});
        let document = Document::new(&root);
        let schema: &Value = schema;
        let mut converter = Converter::new(&document, Side::Request, 4);
        let converted = converter.convert(schema);
        assert_eq!(&converted, expected, "{schema}");
        assert!(crate::generate::schema::serves(&converted), "{converted}");
    }

    #[test]
    fn what_3_0_says_its_own_way_is_said_as_2020_12_says_it() {
        check(&json!({"type": "string", "nullable": true}), &json!({"type": ["string", "null"]}));
        check(
            &json!({"type": "string", "nullable": true, "enum": ["a", "a"]}),
            &json!({"type": ["string", "null"], "enum": ["a", null]}),
        );
        check(
            &json!({"type": "number", "minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false}),
            &json!({"type": "number", "maximum": 9, "exclusiveMinimum": 1}),
        );
        check(&json!({"type": "file", "example": 1, "xml": {}}), &json!({}));
        check(
            &json!({"nullable": true, "oneOf": [{"type": "string"}, {"type": "integer"}]}),
            &json!({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}),
        );
    }

    #[test]
    fn references_become_what_they_stand_for_and_circles_end() {
        check(
            &json!({"$ref": "#/components/schemas/Name", "description": "Whose"}),
            &json!({"type": "string", "description": "Whose"}),
        );
        check(
            &json!({"$ref": "#/components/schemas/Tree"}),
            &json!({"type": "object", "properties": {"child": {}}}),
        );
        check(&json!({"$ref": "other.json#/x"}), &json!({}));
    }

    #[test]
    fn what_only_the_service_says_is_not_asked_for() {
        let schema = json!({
            "type": "object",
            "required": ["id", "name", "name", 7],
            "properties": {"id": {"$ref": "#/components/schemas/Id"}, "name": {"type": "string"}},
        });
        let expected =
            json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
        check(&schema, &expected);
    }

    #[test]
    fn all_of_several_objects_is_one_object() {
        let schema = json!({"allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"properties": {"b": {"type": "integer"}}, "required": ["a", "b"]},
        ]});
        let properties = json!({"a": {"type": "string"}, "b": {"type": "integer"}});
        check(&schema, &json!({"type": "object", "properties": properties, "required": ["a", "b"]}));
        let single = json!({"description": "x", "allOf": [{"$ref": "#/components/schemas/Name"}]});
        check(&single, &json!({"description": "x", "type": "string"}));
    }

    #[test]
    fn nonsense_says_nothing() {
        for schema in [json!(7), json!({"type": 7}), json!({"properties": [1], "required": {}, "enum": 3})] {
            check(&schema, &json!({}));
        }
        check(&json!({"minLength": -1, "multipleOf": 0, "minimum": "x", "format": 3}), &json!({}));
    }
}
