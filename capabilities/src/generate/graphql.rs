//! Tools from a GraphQL schema: one for each query and mutation.

mod introspection;
mod model;
mod sdl;
mod selection;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

pub use self::introspection::INTROSPECTION;
use self::model::{Field, InputValue, Schema, Shape, Type};
use super::{
    Draft, Drafts, GenerateError, Options, SOURCE_BYTES_MAX, bounded, credential,
    names::ToolNames,
    read,
    schema::{self, DESCRIPTION_CHARS_MAX, INPUT_BYTES_MAX, NODES_MAX, VALUES_MAX},
    unusable,
};

const TOOL_DESCRIPTION_CHARS_MAX: usize = 1_000;
const FIELDS_MAX: usize = 10_000;

pub fn draft(file_name: &str, text: &str, options: &Options) -> Result<Drafts, GenerateError> {
    if text.len() > SOURCE_BYTES_MAX {
        let message = format!("the schema has {} bytes, at most {SOURCE_BYTES_MAX} are read", text.len());
        return Err(unusable(message, "take out what is not needed"));
    }
    let schema = match text.trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        true => introspection::read(&read::value(file_name, text)?)?,
        false => sdl::read(text)?,
    };
    let from_server = options.source.starts_with("http://") || options.source.starts_with("https://");
    let endpoint = options.base_url.as_ref().or(from_server.then_some(&options.source));
    let Some(endpoint) = endpoint.filter(|endpoint| url::Url::parse(endpoint).is_ok()) else {
        return Err(unusable(
            "nobody says where the service is",
            "say it: --base-url https://api.example.com/graphql",
        ));
    };
    let mut drafts = Drafts { kind: "graphql", title: "a GraphQL service".into(), ..Drafts::default() };
    let auth = options.auth.as_ref().map(|auth| credential::chosen(auth, &options.name));
    let mut names = ToolNames::new(&options.prefix);
    let mut fields = 0;
    for (kind, root) in [("query", &schema.query), ("mutation", &schema.mutation)] {
        let Some(Type { shape: Shape::Object(all), .. }) =
            root.as_ref().and_then(|root| schema.types.get(root))
        else {
            continue;
        };
        for field in all {
            fields += 1;
            if fields > FIELDS_MAX {
                return Err(unusable(
                    format!("the schema has more than {FIELDS_MAX} operations"),
                    "take some out",
                ));
            }
            let call = format!("{kind} {}", field.name);
            if !options.filter.takes(&[field.name.as_str(), call.as_str()]) {
                continue;
            }
            if field.deprecated && !options.deprecated {
                drafts.notes.kept_out(&call, "it is deprecated");
                continue;
            }
            let Some(query) = document(&schema, kind, field) else {
                drafts.notes.kept_out(&call, "nothing of its result can be asked for without arguments");
                continue;
            };
            let mut config = Map::new();
            config.insert("url".into(), endpoint.as_str().into());
            config.insert("query".into(), query.into());
            config.extend(auth.iter().map(|(auth, _)| ("auth".to_owned(), auth.clone())));
            let description = bounded(&field.description, TOOL_DESCRIPTION_CHARS_MAX);
            if description.is_empty() {
                drafts.notes.changed(&call, "the schema does not say what it is for");
            }
            drafts.tools.push(Draft {
                name: names.take(&field.name, &call),
                title: String::new(),
                description,
                input: input(&schema, field),
                output: None,
                annotations: Map::from_iter([("readOnlyHint".to_owned(), (kind == "query").into())]),
                agent: "graphql",
                config,
                call,
                group: kind.to_owned(),
            });
        }
    }
    let subscriptions = schema.subscription.as_ref().and_then(|root| schema.types.get(root));
    if let Some(Type { shape: Shape::Object(all), .. }) = subscriptions {
        for field in all.iter().take(FIELDS_MAX) {
            let call = format!("subscription {}", field.name);
            drafts.notes.kept_out(&call, "subscriptions are written by hand: what ends one only you know");
        }
    }
    if fields == 0 {
        return Err(unusable("the schema has no queries and no mutations", "is it the whole schema?"));
    }
    drafts.secrets = auth.map(|(_, secrets)| secrets).unwrap_or_default();
    Ok(drafts)
}

/// The document of an operation; none if nothing can be selected.
fn document(schema: &Schema, kind: &str, field: &Field) -> Option<String> {
    let selection = selection::of(schema, &field.kind)?;
    let mut text = kind.to_owned();
    if !field.arguments.is_empty() {
        let declared: Vec<_> =
            field.arguments.iter().map(|a| format!("${}: {}", a.name, a.variable())).collect();
        let given: Vec<_> = field.arguments.iter().map(|a| format!("{0}: ${0}", a.name)).collect();
        let _ = write!(text, "({}) {{\n  {}({})", declared.join(", "), field.name, given.join(", "));
    } else {
        let _ = write!(text, " {{\n  {}", field.name);
    }
    text.push_str(&selection);
    text.push_str("\n}");
    Some(text)
}

fn input(schema: &Schema, field: &Field) -> Value {
    let (input, _) = schema::fitting(INPUT_BYTES_MAX, |depth| {
        let mut converter =
            Converter { schema, depth_max: depth, nodes_left: NODES_MAX, open: Vec::new(), cut: false };
        (converter.object(&field.arguments, 0), converter.cut)
    });
    input
}

/// Converts types of arguments.
struct Converter<'a> {
    schema: &'a Schema,
    depth_max: usize,
    nodes_left: usize,
    open: Vec<&'a str>,
    cut: bool,
}

impl<'a> Converter<'a> {
    fn object(&mut self, values: &'a [InputValue], depth: usize) -> Value {
        let mut properties = Map::new();
        for value in values {
            let Some(left) = self.nodes_left.checked_sub(1) else {
                self.cut = true;
                break;
            };
            self.nodes_left = left;
            let mut schema = self.kind(&value.kind, depth);
            let text = bounded(&value.description, DESCRIPTION_CHARS_MAX);
            if let (Value::Object(schema), false) = (&mut schema, text.is_empty()) {
                schema.insert("description".into(), text.into());
            }
            properties.insert(value.name.clone(), schema);
        }
        let required = values.iter().filter(|value| value.kind.is_required() && !value.has_default);
        let required = required.filter(|value| properties.contains_key(&value.name));
        let required = required.map(|value| value.name.clone()).collect();
        schema::object(properties, required)
    }

    fn kind(&mut self, kind: &'a model::Kind, depth: usize) -> Value {
        match kind {
            model::Kind::Required(inner) => self.bare(inner, depth),
            other => or_null(self.bare(other, depth)),
        }
    }

    /// Without the null that may stand for it.
    fn bare(&mut self, kind: &'a model::Kind, depth: usize) -> Value {
        match kind {
            model::Kind::Required(inner) => self.bare(inner, depth),
            model::Kind::List(inner) => json!({"type": "array", "items": self.kind(inner, depth)}),
            model::Kind::Named(name) => self.named(name, depth),
        }
    }

    fn named(&mut self, name: &'a str, depth: usize) -> Value {
        match name {
            "Int" => return json!({"type": "integer"}),
            "Float" => return json!({"type": "number"}),
            "Boolean" => return json!({"type": "boolean"}),
            "String" => return json!({"type": "string"}),
            "ID" => return json!({"type": ["string", "integer"]}),
            _ => {}
        }
        match self.schema.types.get(name).map(|kind| &kind.shape) {
            Some(Shape::Enum(values)) if values.len() <= VALUES_MAX => {
                json!({"type": "string", "enum": values})
            }
            Some(Shape::Enum(_)) => json!({"type": "string"}),
            Some(Shape::Input(fields)) => {
                if depth >= self.depth_max || self.open.contains(&name) {
                    self.cut = true;
                    return json!({"type": "object"});
                }
                self.open.push(name);
                let object = self.object(fields, depth + 1);
                self.open.pop();
                object
            }
            // A scalar of the service's own can be anything.
            _ => json!({"description": name}),
        }
    }
}

fn or_null(mut schema: Value) -> Value {
    let Value::Object(entries) = &mut schema else { return schema };
    match entries.get_mut("type") {
        Some(Value::String(kind)) => {
            let kinds = json!([kind, "null"]);
            entries.insert("type".into(), kinds);
        }
        Some(Value::Array(kinds)) => kinds.push("null".into()),
        _ => {}
    }
    if let Some(Value::Array(values)) = entries.get_mut("enum") {
        values.push(Value::Null);
    }
    schema
}
