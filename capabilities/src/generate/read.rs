//! From the text of a description to JSON, whatever its form.

use serde_json::{Map, Number, Value};

use super::{GenerateError, SOURCE_BYTES_MAX, unusable};
use crate::{
    document::trees,
    node::{Data, Node, Reading},
    source::Source,
};

/// The value of a text of JSON or YAML.
///
/// # Errors
/// If it is neither, or larger than is read.
pub fn value(file_name: &str, text: &str) -> Result<Value, GenerateError> {
    if text.len() > SOURCE_BYTES_MAX {
        let message =
            format!("the description has {} bytes, at most {SOURCE_BYTES_MAX} are read", text.len());
        return Err(unusable(message, "take out what is not needed"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A description of many megabytes is JSON, and needs no places.
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let (nodes, diagnostics) = trees(&Source::new(file_name, text));
    if !diagnostics.is_empty() {
        return Err(GenerateError::Unreadable(diagnostics));
    }
    match nodes.iter().find(|node| !node.is_null()) {
        Some(node) => Ok(json(node)),
        None => Err(unusable("the description is empty", "give a file, - for stdin, or an address")),
    }
}

fn json(node: &Node) -> Value {
    match &node.data {
        Data::List(items) => items.iter().map(json).collect(),
        Data::Map(entries) => {
            let entries = entries.iter().map(|entry| (entry.key.clone(), json(&entry.value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Data::Scalar(scalar) => match scalar.read() {
            Reading::Null => Value::Null,
            Reading::Bool(value) => value.into(),
            Reading::Integer(value) => whole(value),
            Reading::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
            Reading::Text(text) => text.into(),
        },
    }
}

fn whole(value: i128) -> Value {
    if let Ok(value) = i64::try_from(value) {
        return value.into();
    }
    match u64::try_from(value) {
        Ok(value) => value.into(),
        #[expect(clippy::cast_precision_loss, reason = "what JSON readers make of it too")]
        Err(_) => (value as f64).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_read_the_same() {
        let expected = json!({"a": [1, 2.5, true, null, "x"], "200": {"b": 18_446_744_073_709_551_615_u64}});
        let yaml = "a: [1, 2.5, true, ~, x]\n200:\n  b: 18446744073709551615\n";
        assert_eq!(value("f", yaml).unwrap(), expected);
        assert_eq!(value("f", &format!("\u{feff} {expected}")).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert!(
            matches!(value("f", "{\"a\": 1 b"), Err(GenerateError::Unreadable(found)) if found[0].line == 1)
        );
        assert!(matches!(value("f", "  \n"), Err(GenerateError::Unusable { .. })));
    }
}
