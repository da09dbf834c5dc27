//! A schema from the JSON that a service gives about itself.

use serde_json::Value;

use super::model::{Field, InputValue, KIND_DEPTH_MAX, Kind, Schema, Shape, TYPES_MAX, Type, is_name};
use crate::generate::{GenerateError, unusable};

/// The query that a service is asked for its schema with.
pub const INTROSPECTION: &str = "query Introspection {
  __schema {
    queryType { name }
    mutationType { name }
    subscriptionType { name }
    types {
      kind
      name
      fields(includeDeprecated: true) {
        name
        description
        isDeprecated
        args { ...Value }
        type { ...Kind }
      }
      inputFields { ...Value }
      enumValues { name }
      possibleTypes { name }
    }
  }
}
fragment Value on __InputValue { name description defaultValue type { ...Kind } }
fragment Kind on __Type {
  kind name ofType { kind name ofType { kind name ofType { kind name ofType {
    kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } }
}";

pub fn read(answer: &Value) -> Result<Schema, GenerateError> {
    let hint = "it has `__schema`, or `data` with `__schema` in it";
    let root = [&answer["__schema"], &answer["data"]["__schema"]].into_iter().find(|root| root.is_object());
    let Some(root) = root else {
        if let Some(message) = answer["errors"][0]["message"].as_str() {
            let message = crate::generate::bounded(message, 200);
            return Err(unusable(
                format!("the service does not show its schema: {message}"),
                "give a file of its schema",
            ));
        }
        return Err(unusable("this is not what a service says about its schema", hint));
    };
    let name = |key: &str| root[key]["name"].as_str().map(str::to_owned);
    let mut schema = Schema {
        query: name("queryType"),
        mutation: name("mutationType"),
        subscription: name("subscriptionType"),
        ..Schema::default()
    };
    let types = root["types"].as_array().map(Vec::as_slice).unwrap_or_default();
    if types.len() > TYPES_MAX {
        return Err(unusable(format!("the schema has more than {TYPES_MAX} types"), "take some out"));
    }
    for written in types {
        let Some(name) = written["name"].as_str().filter(|name| is_name(name)) else { continue };
        let names = |key: &str| {
            let items = written[key].as_array().into_iter().flatten();
            items
                .filter_map(|item| item["name"].as_str())
                .filter(|name| is_name(name))
                .map(str::to_owned)
                .collect()
        };
        let shape = match written["kind"].as_str().unwrap_or_default() {
            "OBJECT" | "INTERFACE" => Shape::Object(list(&written["fields"], field)),
            "INPUT_OBJECT" => Shape::Input(list(&written["inputFields"], input_value)),
            "ENUM" => Shape::Enum(names("enumValues")),
            "UNION" => Shape::Union(names("possibleTypes")),
            _ => Shape::Scalar,
        };
        schema.types.insert(name.to_owned(), Type { shape });
    }
    Ok(schema)
}

fn list<T>(items: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    items.as_array().into_iter().flatten().filter_map(read).collect()
}

fn field(written: &Value) -> Option<Field> {
    Some(Field {
        name: legal(written)?,
        description: text(written),
        arguments: list(&written["args"], input_value),
        kind: kind(&written["type"], 0)?,
        deprecated: written["isDeprecated"] == true,
    })
}

fn input_value(written: &Value) -> Option<InputValue> {
    Some(InputValue {
        name: legal(written)?,
        description: text(written),
        kind: kind(&written["type"], 0)?,
        has_default: written["defaultValue"].is_string(),
    })
}

fn legal(written: &Value) -> Option<String> {
    written["name"].as_str().filter(|name| is_name(name)).map(str::to_owned)
}

fn text(written: &Value) -> String {
    written["description"].as_str().unwrap_or_default().to_owned()
}

fn kind(written: &Value, depth: usize) -> Option<Kind> {
    if depth > KIND_DEPTH_MAX {
        return None;
    }
    let inner = || kind(&written["ofType"], depth + 1).map(Box::new);
    match written["kind"].as_str()? {
        "NON_NULL" => match *inner()? {
            Kind::Required(_) => None,
            other => Some(Kind::Required(Box::new(other))),
        },
        "LIST" => inner().map(Kind::List),
        _ => legal(written).map(Kind::Named),
    }
}
