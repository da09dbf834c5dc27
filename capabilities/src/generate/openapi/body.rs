//! The body of a request: which of its forms is sent, and what of it is an
//! argument.

use serde_json::{Map, Value, json};

use super::{
    argument::{Argument, tag},
    document::Document,
    schema::{Converter, Side, types},
};
use crate::generate::names::ArgumentNames;

/// A body of more fields is one argument.
const FIELDS_MAX: usize = 60;
/// Schemas in each other that are one object.
const PARTS_DEPTH_MAX: usize = 8;

/// Which settings of the agent send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Urlencoded,
    Multipart,
    Text,
}

/// Reads the body of an operation into the settings of a request.
///
/// # Errors
/// Why no call of the operation could be right.
pub fn read<'a>(
    document: &'a Document<'a>,
    operation: &'a Value,
    names: &mut ArgumentNames,
    arguments: &mut Vec<Argument<'a>>,
    config: &mut Map<String, Value>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let Some(body) = operation.get("requestBody").filter(|body| !body.is_null()) else { return Ok(()) };
    let body = document.resolve(body)?;
    let required = body["required"] == true;
    let content = body["content"].as_object();
    let forms = content.into_iter().flatten().filter_map(|(kind, media)| Some((form(kind)?, kind, media)));
    let Some((form, kind, media)) = forms.min_by_key(|(form, _, _)| *form as u8) else {
        if content.is_none_or(Map::is_empty) {
            return Ok(());
        }
        let kinds: Vec<_> = content.into_iter().flatten().map(|(kind, _)| format!("`{kind}`")).collect();
        let words = format!("its body is sent as {}, which is not made here", kinds.join(", "));
        if required {
            return Err(words);
        }
        notes.push(format!("{words}, so it is left out"));
        return Ok(());
    };
    let description = body["description"].as_str().unwrap_or_default();
    let schema = &media["schema"];
    let fields = match form {
        Form::Text => None,
        _ => fields(document, schema).filter(|fields| fields.len() <= FIELDS_MAX),
    };
    let literal_kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (form, fields) {
        (Form::Json, fields) => {
            if literal_kind != "application/json" {
                config.insert("contentType".into(), literal_kind.into());
            }
            let value = match fields {
                Some(fields) => {
                    let put = |(name, schema, needed): Field<'a>| {
                        let argument = names.take(&name, "body");
                        arguments.push(Argument::new(&argument, schema, "", needed && required));
                        (name, tag(&argument).into())
                    };
                    Value::Object(fields.into_iter().map(put).collect())
                }
                None => {
                    let argument = names.take("body", "request");
                    arguments.push(Argument::new(&argument, schema, description, required));
                    tag(&argument).into()
                }
            };
            config.insert("body".into(), value);
        }
        (Form::Urlencoded, Some(fields)) => {
            let mut form = Map::new();
            for (name, schema, needed) in fields {
                let argument = field(document, &name, schema, needed && required, names, arguments);
                form.insert(name, argument);
            }
            config.insert("form".into(), Value::Object(form));
        }
        (Form::Multipart, Some(fields)) => {
            let parts = fields.into_iter().map(|(name, schema, needed)| {
                part(document, &name, schema, needed && required, names, arguments)
            });
            config.insert("multipart".into(), parts.collect());
        }
        (Form::Text, _) => {
            let argument = names.take("body", "request");
            arguments.push(Argument::new(&argument, schema, description, required).into_text(""));
            config.insert("bodyText".into(), tag(&argument).into());
            config.insert("contentType".into(), literal_kind.into());
        }
        (Form::Urlencoded | Form::Multipart, None) => {
            let words = "the document does not say which fields its form has";
            if required {
                return Err(words.to_owned());
            }
            notes.push(format!("{words}, so it is left out"));
        }
    }
    Ok(())
}

fn form(kind: &str) -> Option<Form> {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" | "text/json" | "*/*" => Some(Form::Json),
        "application/x-www-form-urlencoded" => Some(Form::Urlencoded),
        "multipart/form-data" => Some(Form::Multipart),
        json if json.ends_with("+json") && !json.contains('*') => Some(Form::Json),
        text if text.starts_with("text/") && !text.contains('*') => Some(Form::Text),
        "application/xml" | "application/yaml" | "application/x-ndjson" | "application/graphql" => {
            Some(Form::Text)
        }
        _ => None,
    }
}

/// A field of a form that is a text, a number or a list of them; anything
/// deeper goes as JSON.
fn field<'a>(
    document: &'a Document<'a>,
    name: &str,
    schema: &'a Value,
    required: bool,
    names: &mut ArgumentNames,
    arguments: &mut Vec<Argument<'a>>,
) -> Value {
    let argument = names.take(name, "form");
    let resolved = document.resolve(schema).unwrap_or(&Value::Null);
    let made = Argument::new(&argument, schema, "", required);
    let nested = types(resolved).contains(&"object");
    arguments.push(if nested { made.into_text("as JSON") } else { made });
    tag(&argument).into()
}

fn part<'a>(
    document: &'a Document<'a>,
    name: &str,
    schema: &'a Value,
    required: bool,
    names: &mut ArgumentNames,
    arguments: &mut Vec<Argument<'a>>,
) -> Value {
    let resolved = document.resolve(schema).unwrap_or(&Value::Null);
    let resolved_item = document.resolve(&resolved["items"]).unwrap_or(&Value::Null);
    let binary = |schema: &Value| {
        matches!(schema["format"].as_str(), Some("binary" | "byte" | "base64"))
            || schema.get("contentMediaType").is_some()
            || schema.get("contentEncoding").is_some()
    };
    let name_kept = name.replace(['"', '\r', '\n'], "_");
    if binary(resolved) || binary(resolved_item) {
        let argument = names.take(name, "form");
        arguments
            .push(Argument::new(&argument, schema, "", required).into_text("the bytes of a file, as base64"));
        return json!({"name": name_kept, "data": tag(&argument), "fileName": name_kept});
    }
    let value = field(document, name, schema, required, names, arguments);
    json!({"name": name_kept, "value": value})
}

/// A field of an object: its name, its schema, and whether it must be there.
type Field<'a> = (String, &'a Value, bool);

/// The fields of an object that has nothing else; none if it is anything but
/// that.
fn fields<'a>(document: &'a Document<'a>, schema: &'a Value) -> Option<Vec<Field<'a>>> {
    let converter = Converter::new(document, Side::Request, 1);
    let mut fields: Vec<Field<'a>> = Vec::new();
    collect(document, &converter, schema, 0, &mut fields)?;
    (!fields.is_empty()).then_some(fields)
}

fn collect<'a>(
    document: &'a Document<'a>,
    converter: &Converter<'a>,
    schema: &'a Value,
    depth: usize,
    fields: &mut Vec<Field<'a>>,
) -> Option<()> {
    if depth > PARTS_DEPTH_MAX {
        return None;
    }
    let schema = document.resolve(schema).ok()?;
    let open = schema["additionalProperties"].is_object() || schema["additionalProperties"] == true;
    let one_of_several =
        ["oneOf", "anyOf", "not", "patternProperties"].iter().any(|key| schema.get(*key).is_some());
    let kinds = types(schema);
    let other = kinds.iter().any(|kind| *kind != "object");
    if open || one_of_several || other {
        return None;
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect(document, converter, part, depth + 1, fields)?;
    }
    let required = converter.required(schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if converter.is_other_side(property) {
            continue;
        }
        let needed = required.contains(name);
        match fields.iter_mut().find(|(known, _, _)| known == name) {
            Some(field) => *field = (name.clone(), property, needed || field.2),
            None => fields.push((name.clone(), property, needed)),
        }
    }
    for name in &required {
        if let Some(field) = fields.iter_mut().find(|(known, _, _)| known == name) {
            field.2 = true;
        }
    }
    Some(())
}
