//! JSON Schemas within bounds: tried from deep to shallow, until one fits.

use serde_json::{Map, Value, json};

/// Of the schema of one tool's arguments.
pub const INPUT_BYTES_MAX: usize = 16 << 10;
/// Of the schema of one tool's result; a larger one is left out.
pub const OUTPUT_BYTES_MAX: usize = 6 << 10;
/// How deep the schemas of fields go, each try. With less, models know less;
/// with more, a store's limit on nesting comes near.
pub const DEPTHS: [usize; 5] = [6, 4, 3, 2, 1];
/// Of a description of an argument or a field.
pub const DESCRIPTION_CHARS_MAX: usize = 400;
/// Schemas within one schema.
pub const NODES_MAX: usize = 1_500;
/// Values of one enumeration.
pub const VALUES_MAX: usize = 200;

/// The deepest schema that fits, or the shallowest; and whether all of it is
/// there. `build` gives the schema of a depth, and whether it was cut.
pub fn fitting(bytes_max: usize, mut build: impl FnMut(usize) -> (Value, bool)) -> (Value, bool) {
    let mut last = (json!({"type": "object"}), false);
    for depth in DEPTHS {
        let (schema, cut) = build(depth);
        let whole = !cut && depth == DEPTHS[0];
        last = (schema, whole);
        if last.0.to_string().len() <= bytes_max {
            return last;
        }
    }
    (last.0, false)
}

/// The schema of an object.
pub fn object(properties: Map<String, Value>, required: Vec<String>) -> Value {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema.insert("additionalProperties".into(), false.into());
    Value::Object(schema)
}

/// Whether a node can serve it: patterns, for one, are not the same everywhere.
pub fn serves(schema: &Value) -> bool {
    jsonschema::validator_for(schema).is_ok()
}

/// Takes out all patterns.
pub fn without_patterns(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            if entries.get("pattern").is_some_and(Value::is_string) {
                entries.shift_remove("pattern");
            }
            entries.shift_remove("patternProperties");
            entries.values_mut().for_each(without_patterns);
        }
        Value::Array(items) => items.iter_mut().for_each(without_patterns),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_becomes_shallower_until_it_fits() {
        let mut tried = Vec::new();
        let (schema, whole) = fitting(100, |depth| {
            tried.push(depth);
            (json!({"description": "x".repeat(40 * depth)}), false)
        });
        assert_eq!((tried, whole), (vec![6, 4, 3, 2], false));
        assert!(schema.to_string().len() <= 100);
        assert!(fitting(1000, |_| (json!({}), false)).1);
        assert!(!fitting(1000, |_| (json!({}), true)).1);
    }

    #[test]
    fn a_pattern_that_nobody_can_read_is_taken_out() {
        let mut schema = json!({"properties": {"pattern": {"type": "string", "pattern": "(?<=a"}}});
        assert!(!serves(&schema));
        without_patterns(&mut schema);
        assert!(serves(&schema));
        assert!(schema["properties"]["pattern"].is_object());
    }
}
