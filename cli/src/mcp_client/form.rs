//! Text that a person typed, as values of a JSON Schema: for the fields of an
//! elicitation and for `k=v` arguments of a call. Pure.

use serde_json::Value;

/// One thing that an elicitation asks for.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    schema: Value,
    required: bool,
}

/// The fields of a requested schema, in its order.
pub fn fields(schema: &Value) -> Vec<Field> {
    let required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, schema)| Field { name: name.clone(), schema: schema.clone(), required: required(name) })
        .collect()
}

impl Field {
    /// What the person is shown.
    pub fn prompt(&self) -> String {
        let mut text = self.schema["title"].as_str().unwrap_or(&self.name).to_owned();
        if let Some(description) = self.schema["description"].as_str() {
            text.push_str(&format!(" ({description})"));
        }
        let choices = choices(&self.schema);
        if !choices.is_empty() {
            let many = if self.schema["type"] == "array" { ", several with commas" } else { "" };
            text.push_str(&format!(" [one of: {}{many}]", choices.join(", ")));
        }
        match &self.schema["default"] {
            Value::Null if self.required => {}
            Value::Null => text.push_str(" [may be empty]"),
            default => text.push_str(&format!(" [default: {default}]")),
        }
        text.push(':');
        text
    }

    /// The value of what was typed; none if the field is left out.
    ///
    /// # Errors
    /// Says what is wanted instead.
    pub fn read(&self, text: &str) -> Result<Option<Value>, String> {
        if text.is_empty() {
            return match &self.schema["default"] {
                Value::Null if self.required => Err(format!("{} is required", self.name)),
                Value::Null => Ok(None),
                default => Ok(Some(default.clone())),
            };
        }
        let value = if self.schema["type"] == "array" && !text.starts_with('[') {
            Value::from(text.split(',').map(str::trim).collect::<Vec<_>>())
        } else {
            read(text, &self.schema).map_err(|wanted| format!("{} must be {wanted}", self.name))?
        };
        let choices = choices(&self.schema);
        let typed = match &value {
            Value::Array(items) => items.clone(),
            value => vec![value.clone()],
        };
        let known = |value: &Value| choices.iter().any(|choice| value.as_str() == Some(choice));
        if !choices.is_empty() && !typed.iter().all(known) {
            return Err(format!("{} must be one of: {}", self.name, choices.join(", ")));
        }
        Ok(Some(value))
    }
}

fn choices(schema: &Value) -> Vec<&str> {
    let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
    let listed = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let titled = ["oneOf", "anyOf"].into_iter().flat_map(|key| schema[key].as_array()).flatten();
    listed.chain(titled.filter_map(|choice| choice["const"].as_str())).collect()
}

/// Reads a text by a schema: `01` stays a text where a text is wanted and is a
/// number where a number is. Without a word of the schema, JSON is taken as
/// JSON and everything else as text.
///
/// # Errors
/// The types that are wanted.
pub fn read(text: &str, schema: &Value) -> Result<Value, String> {
    let mut types = Vec::new();
    collect_types(schema, &mut types, 0);
    let json: Option<Value> = serde_json::from_str(text).ok();
    if types.is_empty() {
        return Ok(json.unwrap_or_else(|| text.into()));
    }
    let fits = |value: &Value| types.iter().any(|wanted| is_type(value, wanted));
    match json {
        Some(value) if !value.is_string() && !value.is_null() && fits(&value) => Ok(value),
        _ if types.contains(&"string") => Ok(text.into()),
        Some(Value::Null) if types.contains(&"null") => Ok(Value::Null),
        _ => Err(types.join(" or ")),
    }
}

fn collect_types<'a>(schema: &'a Value, types: &mut Vec<&'a str>, depth: u8) {
    let mut add = |found: &'a str| {
        if !types.contains(&found) {
            types.push(found);
        }
    };
    match &schema["type"] {
        Value::String(one) => add(one),
        Value::Array(many) => many.iter().filter_map(Value::as_str).for_each(&mut add),
        _ => {}
    }
    for key in ["anyOf", "oneOf"] {
        // Schemas may nest without end; arguments that are typed do not.
        for branch in schema[key].as_array().into_iter().flatten().take_while(|_| depth < 4) {
            collect_types(branch, types, depth + 1);
        }
    }
}

fn is_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_decides_what_a_text_is() {
        let cases = [
            ("01234", json!({"type": "string"}), json!("01234")),
            ("42", json!({"type": "string"}), json!("42")),
            ("42", json!({"type": "integer"}), json!(42)),
            ("4.5", json!({"type": "number"}), json!(4.5)),
            ("true", json!({"type": "boolean"}), json!(true)),
            ("[1,2]", json!({"type": "array"}), json!([1, 2])),
            ("5", json!({"type": ["string", "integer"]}), json!(5)),
            ("x", json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), json!("x")),
            ("null", json!({"type": ["integer", "null"]}), Value::Null),
            ("7", json!({}), json!(7)),
            ("seven", json!({}), json!("seven")),
        ];
        for (text, schema, value) in cases {
            assert_eq!(read(text, &schema), Ok(value), "{text} by {schema}");
        }
    }

    #[test]
    fn a_text_that_does_not_fit_says_what_would() {
        assert_eq!(read("x", &json!({"type": "integer"})), Err("integer".into()));
        assert_eq!(read("1.5", &json!({"type": ["integer", "boolean"]})), Err("integer or boolean".into()));
    }

    #[test]
    fn fields_know_defaults_choices_and_what_is_required() {
        let schema = json!({"required": ["name"], "properties": {
            "name": {"type": "string", "description": "yours"},
            "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        }});
        let fields = fields(&schema);
        assert_eq!(fields[0].prompt(), "name (yours):");
        assert!(fields[0].read("").is_err());
        assert_eq!(fields[1].read(""), Ok(Some(json!("red"))));
        assert!(fields[1].read("green").unwrap_err().contains("red, blue"));
        assert_eq!(fields[2].read("a, b"), Ok(Some(json!(["a", "b"]))));
        assert_eq!(fields[2].read(""), Ok(None));
    }
}
