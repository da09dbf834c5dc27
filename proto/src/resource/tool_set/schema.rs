//! The JSON Schemas of tools, checked when they are configured.
//!
//! What nearly all schemas are made of is checked in one walk. The meta-schema
//! is asked only about what the walk does not know to be right, and a schema is
//! compiled only where that can fail in other ways: at patterns and at names
//! for parts of schemas. Nothing is ever fetched.

use serde_json::{Map, Value};

use crate::resource::{check::quoted, problem::key_path};

/// Schemas in each other.
const DEPTH_MAX: usize = 64;
/// Schemas in one schema.
const SUBSCHEMAS_MAX: usize = 10_000;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
/// In these the walk's keywords mean what it takes them to mean.
const DIALECTS: [&str; 3] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
];

/// What is wrong with a schema.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Below the schema: `.properties.zip.type`; empty is the schema itself.
    pub path: String,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// Checks a schema.
///
/// # Errors
/// The first flaw that was found.
pub fn check(schema: &Value) -> Result<(), Flaw> {
    let mut walk = Walk { root: schema, path: Vec::new(), count: 0, depth: 0, sure: true, compile: false };
    walk.schema(schema)?;
    let Walk { sure, compile, .. } = walk;
    let verdict = match (compile, sure) {
        (true, _) => jsonschema::validator_for(schema).map(drop),
        (false, false) => jsonschema::meta::validate(schema),
        (false, true) => Ok(()),
    };
    verdict.map_err(|error| {
        let steps = error.instance_path().to_string();
        let path = steps.split('/').skip(1).fold(String::new(), |path, step| {
            let step = step.replace("~1", "/").replace("~0", "~");
            if step.bytes().all(|b| b.is_ascii_digit()) {
                format!("{path}[{step}]")
            } else {
                key_path(&path, &step)
            }
        });
        let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        let message = format!("this is not a JSON Schema: {}", shortened(&error.to_string()));
        Flaw { path: format!("{dot}{path}"), message, hint: None }
    })
}

/// As much as people read.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

struct Walk<'a> {
    root: &'a Value,
    path: Vec<Step<'a>>,
    count: usize,
    depth: usize,
    /// Everything so far is as the meta-schema wants it.
    sure: bool,
    /// Only compiling it can tell.
    compile: bool,
}

impl<'a> Walk<'a> {
    fn flaw(&self, message: impl Into<String>, hint: Option<&'static str>) -> Flaw {
        let path = self.path.iter().fold(String::from("_"), |path, step| match step {
            Step::Key(key) => key_path(&path, key),
            Step::Index(index) => format!("{path}[{index}]"),
        });
        Flaw { path: path[1..].to_owned(), message: message.into(), hint }
    }

    fn under(
        &mut self,
        step: Step<'a>,
        visit: impl FnOnce(&mut Self) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        self.path.push(step);
        let result = visit(self);
        self.path.pop();
        result
    }

    fn schema(&mut self, value: &'a Value) -> Result<(), Flaw> {
        let object = match value {
            Value::Bool(_) => return Ok(()),
            Value::Object(object) => object,
            _ => {
                self.sure = false;
                return Ok(());
            }
        };
        self.count += 1;
        if self.count > SUBSCHEMAS_MAX {
            return Err(self.flaw(format!("the schema has more than {SUBSCHEMAS_MAX} parts"), None));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let hint = Some("give inner parts a name in `$defs` and refer to them");
            return Err(self.flaw(format!("the schema is more than {DEPTH_MAX} levels deep"), hint));
        }
        for (key, value) in object {
            self.under(Step::Key(key), |walk| walk.keyword(key, value))?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn keyword(&mut self, key: &str, value: &'a Value) -> Result<(), Flaw> {
        let is_size = |value: &Value| value.as_u64().is_some();
        let sure = match key {
            "type" => is_type(value),
            "properties" | "$defs" | "definitions" | "dependentSchemas" => return self.map(value),
            "patternProperties" => {
                self.compile = true;
                return self.map(value);
            }
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => return self.list(value),
            "items" if value.is_array() => {
                self.sure = false; // As drafts before 2020-12 have it.
                return self.list(value);
            }
            "items"
            | "not"
            | "if"
            | "then"
            | "else"
            | "contains"
            | "propertyNames"
            | "additionalProperties"
            | "additionalItems"
            | "unevaluatedItems"
            | "unevaluatedProperties"
            | "contentSchema" => return self.schema(value),
            "required" => is_set_of_texts(value),
            "description" | "title" | "$comment" | "format" | "contentMediaType" | "contentEncoding" => {
                value.is_string()
            }
            "enum" | "examples" => value.is_array(),
            "const" | "default" => true,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "multipleOf" => value.as_f64().is_some_and(|number| number > 0.0),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
            | "minContains" | "maxContains" => is_size(value),
            "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => value.is_boolean(),
            "pattern" => {
                self.compile = true;
                value.is_string()
            }
            "$schema" => {
                value.as_str().is_some_and(|dialect| DIALECTS.contains(&dialect.trim_end_matches('#')))
            }
            "$ref" => return self.reference(value),
            "$dynamicRef" | "$recursiveRef" | "$id" | "$anchor" | "$dynamicAnchor" | "$recursiveAnchor" => {
                self.compile = true;
                true
            }
            // Of draft 4; elsewhere somebody's own word.
            "id" if self.root.get("$schema").is_some() => {
                self.compile = true;
                true
            }
            "dependentRequired" | "dependencies" | "$vocabulary" | "divisibleBy" | "disallow" | "extends" => {
                false
            }
            // What no meta-schema knows it does not mind.
            _ => true,
        };
        self.sure &= sure;
        Ok(())
    }

    fn map(&mut self, value: &'a Value) -> Result<(), Flaw> {
        let Some(schemas) = value.as_object() else {
            self.sure = false;
            return Ok(());
        };
        schemas.iter().try_for_each(|(name, schema)| self.under(Step::Key(name), |walk| walk.schema(schema)))
    }

    fn list(&mut self, value: &'a Value) -> Result<(), Flaw> {
        let Some(schemas) = value.as_array().filter(|schemas| !schemas.is_empty()) else {
            self.sure = false;
            return Ok(());
        };
        schemas
            .iter()
            .enumerate()
            .try_for_each(|(i, schema)| self.under(Step::Index(i), |walk| walk.schema(schema)))
    }

    /// A reference must lead somewhere in the same schema.
    fn reference(&mut self, value: &Value) -> Result<(), Flaw> {
        let Some(text) = value.as_str() else {
            self.sure = false;
            return Ok(());
        };
        match text.strip_prefix('#') {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                if pointer.contains('%') || self.root.get("$id").is_some() {
                    self.compile = true;
                } else if self.root.pointer(pointer).is_none() && !self.has_inner_names() {
                    let hint = Some("refer to a part by its place, as in `#/$defs/name`");
                    return Err(self.flaw(format!("the schema has no part {}", quoted(text)), hint));
                } else {
                    return self.check_circle(text);
                }
            }
            Some(_) => self.compile = true,
            // The meta-schemas are at hand.
            None if text.contains("://json-schema.org/draft") => self.compile = true,
            None if self.root.get("$id").is_some() || self.has_inner_names() => self.compile = true,
            None => {
                let message = format!("the schema refers to {}, and no schema is ever fetched", quoted(text));
                let hint = Some("put that schema into `$defs` and refer to it as `#/$defs/name`");
                return Err(self.flaw(message, hint));
            }
        }
        Ok(())
    }

    /// Whether parts have names of their own, by which others may refer to them.
    fn has_inner_names(&self) -> bool {
        let definitions =
            ["$defs", "definitions"].into_iter().filter_map(|key| self.root.get(key)?.as_object());
        definitions.flat_map(Map::values).any(|schema| schema.get("$id").is_some())
    }

    /// A schema that is only a reference to itself means nothing, and whoever
    /// follows it never ends.
    fn check_circle(&self, from: &str) -> Result<(), Flaw> {
        let mut at = from;
        for _ in 0..=DEPTH_MAX {
            let target = self.root.pointer(&at[1..]);
            match target.and_then(|schema| schema.get("$ref")).and_then(Value::as_str) {
                Some(next) if next.starts_with('#') => at = next,
                _ => return Ok(()),
            }
        }
        Err(self.flaw(format!("the reference {} leads in a circle", quoted(from)), None))
    }
}

fn is_type(value: &Value) -> bool {
    match value {
        Value::String(name) => TYPES.contains(&name.as_str()),
        Value::Array(names) => {
            is_set_of_texts(value)
                && !names.is_empty()
                && names.iter().all(|name| name.as_str().is_some_and(|name| TYPES.contains(&name)))
        }
        _ => false,
    }
}

/// A list of texts, none of them twice. Long lists are left to the meta-schema,
/// which does not compare each with each.
fn is_set_of_texts(value: &Value) -> bool {
    const LENGTH_MAX: usize = 32;
    let Some(texts) = value.as_array().filter(|texts| texts.len() <= LENGTH_MAX) else { return false };
    texts.iter().enumerate().all(|(i, text)| text.is_string() && !texts[..i].contains(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn flaw(schema: Value) -> String {
        match check(&schema) {
            Ok(()) => String::new(),
            Err(Flaw { path, message, .. }) => format!("{path}: {message}"),
        }
    }

    #[test]
    fn a_flaw_is_found_where_it_is() {
        assert_eq!(flaw(json!({"type": "object", "properties": {"a": {"type": ["string", "null"]}}})), "");
        let wrong = flaw(json!({"properties": {"a": {"type": "text"}}}));
        assert!(wrong.starts_with(".properties.a.type: this is not a JSON Schema: \"text\""), "{wrong}");
        let wrong = flaw(json!({"oneOf": [{"minLength": -1}]}));
        assert!(wrong.starts_with(".oneOf[0].minLength: this is not"), "{wrong}");
        let wrong = flaw(json!({"properties": {"a": {"pattern": "("}}}));
        assert!(wrong.contains("this is not a JSON Schema"), "{wrong}");
        assert_ne!(flaw(json!({"properties": []})), "");
        assert_ne!(flaw(json!({"required": ["a", "a"]})), "");
        assert_ne!(flaw(json!({"allOf": []})), "");
        assert_ne!(flaw(json!({"$schema": "https://example.com/mine"})), "");
    }

    #[test]
    fn references_stay_in_the_schema_and_lead_somewhere() {
        assert_eq!(flaw(json!({"$defs": {"a": {}}, "properties": {"x": {"$ref": "#/$defs/a"}}})), "");
        assert_eq!(flaw(json!({"properties": {"next": {"$ref": "#"}}})), "");
        let wrong = flaw(json!({"properties": {"x": {"$ref": "#/$defs/a"}}}));
        assert_eq!(
            wrong,
            ".properties.x.$ref: the schema has no part \"#/$defs/a\"".replace(".$ref", "[\"$ref\"]")
        );
        for url in ["https://example.com/a.json", "http://127.0.0.1/x", "file:///etc/passwd", "other.json"] {
            assert!(flaw(json!({"items": {"$ref": url}})).contains("no schema is ever fetched"), "{url}");
            let named = json!({"$id": "https://example.com/mine", "items": {"$ref": url}});
            assert_ne!(flaw(named), "", "{url}");
        }
        assert_ne!(flaw(json!({"items": {"$ref": "#nowhere"}})), "");
        assert_eq!(flaw(json!({"$defs": {"a": {"$anchor": "here"}}, "items": {"$ref": "#here"}})), "");
        assert_eq!(flaw(json!({"items": {"$ref": "https://json-schema.org/draft/2020-12/schema"}})), "");
        assert!(flaw(json!({"$defs": {"a": {"$ref": "#/$defs/a"}}})).contains("in a circle"));
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = (0..200).fold(json!({}), |inner, _| json!({"items": inner}));
        assert!(flaw(deep).contains("levels deep"));
        let many: Map<String, Value> = (0..10_001).map(|i| (format!("p{i}"), json!({}))).collect();
        assert!(flaw(json!({"properties": many})).contains("more than 10000 parts"));
    }

    fn any_schema() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!("string")),
            Just(json!("nonsense")),
            Just(json!(["string", "null"])),
            Just(json!(-1)),
            Just(json!(3)),
            Just(json!(true)),
            Just(json!(null)),
            Just(json!(["a", "a"])),
            Just(json!([])),
        ];
        let key = prop::sample::select(vec![
            "type",
            "properties",
            "items",
            "required",
            "minLength",
            "enum",
            "anyOf",
            "not",
            "title",
            "multipleOf",
            "minimum",
            "uniqueItems",
            "additionalProperties",
            "default",
            "x-mine",
            "$defs",
        ]);
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec((key.clone(), inner.clone()), 0..4).prop_map(|entries| {
                    Value::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                }),
                prop::collection::vec(inner, 0..3).prop_map(Value::Array),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_walk_says_what_the_meta_schema_says(schema in any_schema()) {
            prop_assert_eq!(check(&schema).is_ok(), jsonschema::meta::is_valid(&schema), "{}", schema);
        }
    }
}
