//! A tool's JSON Schema, so that it stands in a document with others. Pure.
//!
//! Definitions move to the document's components, and references follow them.
//! What means nothing there (`$id`, `$schema`) goes, and so does a reference that
//! leads nowhere. Older drafts are written as the newest one has it. A schema
//! that still is none becomes one that takes anything: one bad tool must not
//! make the description of the others unreadable.

use serde_json::{Map, Value, json};

use super::names::{Taken, shortened};

/// The longest schema that is shown.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
const COMPONENTS: &str = "#/components/schemas/";

/// Members that hold schemas by name.
const MAPS: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];
/// Members that hold one schema.
const ONES: [&str; 12] = [
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "additionalItems",
    "contentSchema",
];
/// Members that hold a list of schemas.
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// Adds a schema to the components and gives the reference to it. Descriptions
/// are cut to so many characters.
pub fn add(
    components: &mut Map<String, Value>,
    taken: &mut Taken,
    name: &str,
    schema: &Value,
    chars_max: usize,
) -> Value {
    let own = taken.take(name);
    let mut root = schema.clone();
    modernize(&mut root, chars_max);
    if !is_schema(&root) {
        root = json!({"type": "object", "description": "Its schema cannot be shown."});
    }
    let mut moved = Vec::new();
    for holder in ["$defs", "definitions"] {
        let Some(Value::Object(definitions)) =
            root.as_object_mut().and_then(|root| root.shift_remove(holder))
        else {
            continue;
        };
        for (key, definition) in definitions {
            let name = taken.take(&format!("{own}_{key}"));
            moved.push((format!("#/{holder}/{}", escaped(&key)), name, definition));
        }
    }
    let targets: Vec<(String, String)> =
        moved.iter().map(|(pointer, name, _)| (pointer.clone(), name.clone())).collect();
    let mut all: Map<String, Value> = Map::from_iter([(own.clone(), root)]);
    all.extend(moved.into_iter().map(|(_, name, definition)| (name, definition)));
    for schema in all.values_mut() {
        visit(schema, &mut |object| redirect(object, &own, &targets));
    }
    let known = Value::Object(all.clone());
    for schema in all.values_mut() {
        visit(schema, &mut |object| drop_dangling(object, &known));
    }
    components.extend(all);
    json!({"$ref": format!("{COMPONENTS}{own}")})
}

fn is_schema(root: &Value) -> bool {
    root.to_string().len() <= SCHEMA_BYTES_MAX && jsonschema::draft202012::meta::is_valid(root)
}

/// Calls for the schema and every schema in it, the inner ones last.
fn visit(schema: &mut Value, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Value::Object(object) = schema else { return };
    change(object);
    for (key, value) in object.iter_mut() {
        match value {
            Value::Object(map) if MAPS.contains(&key.as_str()) => {
                map.values_mut().for_each(|schema| visit(schema, change));
            }
            Value::Array(list) if LISTS.contains(&key.as_str()) => {
                list.iter_mut().for_each(|schema| visit(schema, change));
            }
            value if ONES.contains(&key.as_str()) => visit(value, change),
            _ => {}
        }
    }
}

fn modernize(root: &mut Value, chars_max: usize) {
    visit(root, &mut |object| {
        for gone in ["$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$comment", "$vocabulary"] {
            // `id` was a keyword once, with a text; elsewhere it is nothing.
            if object.get(gone).is_some_and(Value::is_string) {
                object.shift_remove(gone);
            }
        }
        if object.get("items").is_some_and(Value::is_array) {
            let items = object.shift_remove("items").unwrap_or_default();
            object.insert("prefixItems".to_owned(), items);
            if let Some(rest) = object.shift_remove("additionalItems") {
                object.insert("items".to_owned(), rest);
            }
        }
        for (exclusive, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
            match object.get(exclusive) {
                Some(Value::Bool(true)) => {
                    let bound = object.shift_remove(limit);
                    object.shift_remove(exclusive);
                    object.extend(bound.map(|bound| (exclusive.to_owned(), bound)));
                }
                Some(Value::Bool(false)) => _ = object.shift_remove(exclusive),
                _ => {}
            }
        }
        if let Some(Value::String(description)) = object.get_mut("description") {
            *description = shortened(description, chars_max);
        }
    });
}

/// Leads a reference to where its target is now.
fn redirect(object: &mut Map<String, Value>, own: &str, targets: &[(String, String)]) {
    for key in ["$ref", "$dynamicRef"] {
        let Some(Value::String(reference)) = object.get(key) else { continue };
        let Some(pointer) = reference.strip_prefix('#') else {
            object.shift_remove(key);
            continue;
        };
        let moved = targets.iter().find_map(|(from, name)| {
            let rest = reference.strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{COMPONENTS}{name}{rest}"))
        });
        let target = moved.unwrap_or_else(|| format!("{COMPONENTS}{own}{pointer}"));
        object.shift_remove(key);
        object.insert("$ref".to_owned(), target.into());
    }
}

/// Takes a reference out that leads nowhere.
fn drop_dangling(object: &mut Map<String, Value>, known: &Value) {
    let Some(Value::String(reference)) = object.get("$ref") else { return };
    let pointer = reference.strip_prefix(COMPONENTS).map(|rest| format!("/{rest}"));
    // Pointers in references are encoded as fragments of URLs.
    let target = pointer.and_then(|pointer| {
        let shielded = pointer.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
        let (decoded, _) = url::form_urlencoded::parse(shielded.as_bytes()).next()?;
        known.pointer(&decoded)
    });
    if !target.is_some_and(|target| target.is_object() || target.is_boolean()) {
        object.shift_remove("$ref");
    }
}

/// A key in a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(schema: Value) -> Map<String, Value> {
        let mut components = Map::new();
        let reference = add(&mut components, &mut Taken::default(), "t_input", &schema, 700);
        assert_eq!(reference, json!({"$ref": "#/components/schemas/t_input"}));
        components
    }

    #[test]
    fn definitions_move_and_references_follow_them() {
        let components = added(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://x.example/t",
            "type": "object",
            "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "top": {"$ref": "#"}}}},
            "definitions": {"Old": {"type": "string"}},
            "properties": {
                "first": {"$ref": "#/$defs/Node"},
                "old": {"$ref": "#/definitions/Old"},
                "same": {"$ref": "#/properties/first"},
                "inner": {"$ref": "#/$defs/Node/properties/next"},
                "$ref": {"type": "string"},
                "value": {"enum": [{"$ref": "#/$defs/Node"}], "default": {"$ref": "x"}},
            },
        }));
        let at = |name: &str| components[name].clone();
        let to = |rest: &str| json!({"$ref": format!("#/components/schemas/{rest}")});
        let properties = at("t_input")["properties"].clone();
        assert_eq!(properties["first"], to("t_input_Node"));
        assert_eq!(properties["old"], to("t_input_Old"));
        assert_eq!(properties["same"], to("t_input/properties/first"));
        assert_eq!(properties["inner"], to("t_input_Node/properties/next"));
        assert_eq!(properties["$ref"], json!({"type": "string"}));
        assert_eq!(properties["value"]["enum"], json!([{"$ref": "#/$defs/Node"}]));
        assert_eq!(at("t_input_Node")["properties"]["next"], to("t_input_Node"));
        assert_eq!(at("t_input_Node")["properties"]["top"], to("t_input"));
        let gone = ["$schema", "$id", "$defs", "definitions"];
        assert!(gone.iter().all(|key| components["t_input"].get(key).is_none()));
    }

    #[test]
    fn a_reference_that_leads_nowhere_goes() {
        let components = added(json!({"type": "object", "properties": {
            "far": {"$ref": "https://x.example/y", "description": "d"}, "none": {"$ref": "#/$defs/None"},
        }}));
        let properties = &components["t_input"]["properties"];
        assert_eq!(properties, &json!({"far": {"description": "d"}, "none": {}}));
    }

    #[test]
    fn older_drafts_are_written_as_the_newest_and_what_is_no_schema_is_replaced() {
        let components = added(json!({"type": "object", "properties": {
            "pair": {"type": "array", "items": [{"type": "string"}], "additionalItems": false},
            "count": {"type": "number", "minimum": 3, "exclusiveMinimum": true, "exclusiveMaximum": false},
        }}));
        let properties = &components["t_input"]["properties"];
        assert_eq!(
            properties["pair"],
            json!({"type": "array", "prefixItems": [{"type": "string"}], "items": false})
        );
        assert_eq!(properties["count"], json!({"type": "number", "exclusiveMinimum": 3}));
        for bad in
            [json!({"type": 7}), json!([]), json!({"type": "object", "properties": {"a": {"minimum": "x"}}})]
        {
            assert_eq!(added(bad)["t_input"]["type"], "object");
        }
    }
}
