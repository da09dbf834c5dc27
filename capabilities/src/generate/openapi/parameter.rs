//! Parameters: what of a call stands in the path, the query and the headers.

use serde_json::{Map, Value};

use super::{
    argument::{Argument, tag},
    document::Document,
    schema::types,
};
use crate::generate::names::ArgumentNames;

const PARAMETERS_MAX: usize = 200;
/// What the request or the credential says by itself.
const OWN_HEADERS: [&str; 3] = ["accept", "content-type", "authorization"];
/// What no argument decides about.
const FIXED_HEADERS: [&str; 18] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-real-ip",
];

/// Where the parameters of one operation go.
#[derive(Debug, Default)]
pub struct Parameters {
    /// The path as a template.
    pub path: String,
    pub query: Map<String, Value>,
    pub headers: Map<String, Value>,
}

/// Reads the parameters of an operation, those of its path included.
///
/// # Errors
/// Why no call of the operation could be right.
pub fn read<'a>(
    document: &Document<'a>,
    path: &str,
    item: &'a Value,
    operation: &'a Value,
    names: &mut ArgumentNames,
    arguments: &mut Vec<Argument<'a>>,
    notes: &mut Vec<String>,
) -> Result<Parameters, String> {
    let mut found = Parameters::default();
    let mut in_path: Vec<(String, String)> = Vec::new();
    for parameter in all(document, item, operation, notes)? {
        let parameter = Parameter::new(document, parameter);
        let required = parameter.required;
        match parameter.place {
            "path" => {
                let argument = parameter.argument(names, arguments, true);
                in_path.push((parameter.name.to_owned(), parameter.path_value(&argument)));
            }
            "query" => parameter.query(document, names, arguments, &mut found.query),
            "header" => {
                let lower = parameter.name.to_ascii_lowercase();
                if OWN_HEADERS.contains(&lower.as_str()) {
                    continue;
                }
                let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                let legal = matches!(lower.len(), 1..=128) && lower.bytes().all(token);
                if !legal || FIXED_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-forwarded-") {
                    notes.push(left_out("header", parameter.name, required, "no argument decides about it"));
                    continue;
                }
                let argument = parameter.argument(names, arguments, required);
                found.headers.insert(parameter.name.to_owned(), tag(&argument).into());
            }
            "cookie" => {
                notes.push(left_out("cookie", parameter.name, required, "no argument decides about cookies"));
            }
            _ => {}
        }
    }
    found.path = fill(path, &in_path, names, arguments);
    Ok(found)
}

fn left_out(what: &str, name: &str, required: bool, why: &str) -> String {
    let needed = if required { ", which the service demands," } else { "" };
    format!("the {what} `{name}`{needed} is left out: {why}")
}

/// The parameters of the operation, and those of its path that it does not have
/// itself.
fn all<'a>(
    document: &Document<'a>,
    item: &'a Value,
    operation: &'a Value,
    notes: &mut Vec<String>,
) -> Result<Vec<&'a Value>, String> {
    let mut found: Vec<(&str, &str, &Value)> = Vec::new();
    for list in [&item["parameters"], &operation["parameters"]] {
        for written in list.as_array().into_iter().flatten() {
            let parameter = match document.resolve(written) {
                Ok(parameter) => parameter,
                Err(why) => {
                    notes.push(format!("a parameter is left out: {why}"));
                    continue;
                }
            };
            let (Some(name), Some(place)) = (parameter["name"].as_str(), parameter["in"].as_str()) else {
                continue;
            };
            if name.is_empty() {
                continue;
            }
            found.retain(|(known, at, _)| (*known, *at) != (name, place));
            found.push((name, place, parameter));
        }
    }
    if found.len() > PARAMETERS_MAX {
        return Err(format!("it has {} parameters, at most {PARAMETERS_MAX} are read", found.len()));
    }
    // Those of the path first: their names change least.
    found.sort_by_key(|(_, place, _)| *place != "path");
    Ok(found.into_iter().map(|(_, _, parameter)| parameter).collect())
}

/// One parameter, and how its values are written.
struct Parameter<'a> {
    name: &'a str,
    place: &'a str,
    required: bool,
    style: &'a str,
    explode: bool,
    description: &'a str,
    schema: &'a Value,
    /// The value is JSON in a text.
    encoded: bool,
    /// What the schema is, references followed.
    resolved: &'a Value,
}

impl<'a> Parameter<'a> {
    fn new(document: &Document<'a>, parameter: &'a Value) -> Self {
        let place = parameter["in"].as_str().unwrap_or_default();
        let default = if matches!(place, "query" | "cookie") { "form" } else { "simple" };
        let style = parameter["style"].as_str().unwrap_or(default);
        let content = parameter["content"].as_object().and_then(|content| content.values().next());
        let schema = content.map_or(&parameter["schema"], |content| &content["schema"]);
        let resolved = document.resolve(schema).unwrap_or(&Value::Null);
        let structured = types(resolved).iter().any(|kind| matches!(*kind, "array" | "object"));
        Self {
            name: parameter["name"].as_str().unwrap_or_default(),
            place,
            required: parameter["required"] == true || place == "path",
            style,
            explode: parameter["explode"].as_bool().unwrap_or(style == "form"),
            description: parameter["description"].as_str().unwrap_or_default(),
            schema,
            encoded: content.is_some() && structured,
            resolved,
        }
    }

    fn is(&self, kind: &str) -> bool {
        types(self.resolved).contains(&kind)
    }

    /// How several values stand in one text, if the value is a list or an
    /// object that cannot be given as what it is.
    fn joined(&self) -> Option<&'static str> {
        if self.encoded {
            return Some("as JSON");
        }
        if self.is("object") && !self.is("string") {
            return Some("as key,value,key,value");
        }
        let separator = match self.style {
            "spaceDelimited" => "several values are separated by spaces",
            "pipeDelimited" => "several values are separated by |",
            _ => "several values are separated by commas",
        };
        let repeated = self.place == "query" && self.style == "form" && self.explode;
        (self.is("array") && !repeated).then_some(separator)
    }

    fn argument(
        &self,
        names: &mut ArgumentNames,
        arguments: &mut Vec<Argument<'a>>,
        required: bool,
    ) -> String {
        let name = names.take(self.name, self.place);
        let argument = Argument::new(&name, self.schema, self.description, required);
        arguments.push(match self.joined() {
            Some(how) => argument.into_text(how),
            None => argument,
        });
        name
    }

    fn path_value(&self, argument: &str) -> String {
        match self.style {
            "label" => format!(".{}", tag(argument)),
            "matrix" => format!(";{}={}", literal(self.name), tag(argument)),
            _ => tag(argument),
        }
    }

    fn query(
        &self,
        document: &Document<'a>,
        names: &mut ArgumentNames,
        arguments: &mut Vec<Argument<'a>>,
        query: &mut Map<String, Value>,
    ) {
        let properties = self.resolved["properties"].as_object().filter(|properties| !properties.is_empty());
        let spread = !self.encoded && (self.style == "deepObject" || (self.style == "form" && self.explode));
        match properties.filter(|_| spread && self.is("object")) {
            None => {
                let argument = self.argument(names, arguments, self.required);
                query.insert(self.name.to_owned(), tag(&argument).into());
            }
            Some(properties) => {
                let required = self.resolved["required"].as_array();
                for (name, schema) in properties {
                    let key = match self.style {
                        "deepObject" => format!("{}[{name}]", self.name),
                        _ => name.clone(),
                    };
                    let argument = names.take(&key, "query");
                    let needed = self.required && required.is_some_and(|all| all.iter().any(|r| r == name));
                    let resolved = document.resolve(schema).unwrap_or(&Value::Null);
                    let flat = !types(resolved).contains(&"object");
                    let made = Argument::new(&argument, schema, "", needed);
                    arguments.push(if flat { made } else { made.into_text("as JSON") });
                    query.insert(key, tag(&argument).into());
                }
            }
        }
    }
}

/// The path with templates for parameters. What has no parameter in the
/// document becomes an argument of its own.
fn fill<'a>(
    path: &str,
    parameters: &[(String, String)],
    names: &mut ArgumentNames,
    arguments: &mut Vec<Argument<'a>>,
) -> String {
    let mut filled = String::new();
    let mut rest = path;
    let mut made: Vec<(String, String)> = Vec::new();
    while let Some((before, tail)) = rest.split_once('{') {
        let Some((name, after)) = tail.split_once('}') else { break };
        filled.push_str(&literal(before));
        let known = parameters.iter().chain(&made).find(|(known, _)| known == name);
        match known {
            Some((_, value)) => filled.push_str(value),
            None => {
                let argument = names.take(name, "path");
                arguments.push(Argument::new(&argument, &Value::Null, "", true).into_text(""));
                filled.push_str(&tag(&argument));
                made.push((name.to_owned(), tag(&argument)));
            }
        }
        rest = after;
    }
    filled.push_str(&literal(rest));
    if !filled.starts_with('/') {
        filled.insert(0, '/');
    }
    // An argument that stands nowhere would be asked for in vain.
    arguments.retain(|argument| {
        let own = tag(&argument.name);
        !parameters.iter().any(|(_, value)| value.ends_with(&own)) || filled.contains(&own)
    });
    filled
}

/// A part of a path of which nothing is a template, a query or a fragment.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' => literal.push(c),
            '/' | '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+' | ',' | ';'
            | '=' | ':' | '@' | '%' => literal.push(c),
            other => {
                let mut bytes = [0; 4];
                for byte in other.encode_utf8(&mut bytes).bytes() {
                    literal.push_str(&format!("%{byte:02X}"));
                }
            }
        }
    }
    literal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(path: &str, parameters: Value) -> (String, Value, Vec<String>, Vec<String>) {
        let operation: &'static Value = Box::leak(Box::new(json!({"parameters": parameters})));
        let document = Document::new(operation);
        let (mut names, mut arguments, mut notes) = (ArgumentNames::default(), Vec::new(), Vec::new());
        let found =
            read(&document, path, &Value::Null, operation, &mut names, &mut arguments, &mut notes).unwrap();
        let query = json!({"query": found.query, "headers": found.headers});
        (found.path, query, arguments.into_iter().map(|argument| argument.name).collect(), notes)
    }

    #[test]
    fn parameters_stand_where_the_document_says() {
        let (path, rest, names, notes) = read_all(
            "/a b/{id}/{x-y}/{none}?{{",
            json!([
                {"name": "id", "in": "query"},
                {"name": "id", "in": "path"},
                {"name": "x-y", "in": "path", "style": "matrix"},
                {"name": "unused", "in": "path"},
                {"name": "X-Trace", "in": "header"},
                {"name": "accept", "in": "header"},
                {"name": "Host", "in": "header", "required": true},
                {"name": "sid", "in": "cookie"},
            ]),
        );
        assert_eq!(path, "/a%20b/{{id}}/;x-y={{x_y}}/{{none}}%3F%7B%7B");
        assert_eq!(rest, json!({"query": {"id": "{{query_id}}"}, "headers": {"X-Trace": "{{X_Trace}}"}}));
        assert_eq!(names, ["id", "x_y", "query_id", "X_Trace", "none"]);
        assert_eq!(
            notes,
            [
                "the header `Host`, which the service demands, is left out: no argument decides about it",
                "the cookie `sid` is left out: no argument decides about cookies",
            ]
        );
    }

    #[test]
    fn objects_in_a_query_are_spread_over_arguments() {
        let object = json!({"type": "object", "properties": {"a": {}, "b": {"type": "array"}}});
        let (_, rest, names, _) = read_all(
            "/",
            json!([
                {"name": "filter", "in": "query", "style": "deepObject", "schema": object},
                {"name": "page", "in": "query", "schema": object},
                {"name": "ids", "in": "query", "explode": false, "schema": {"type": "array"}},
            ]),
        );
        let query = json!({
            "filter[a]": "{{filter_a}}", "filter[b]": "{{filter_b}}", "a": "{{a}}", "b": "{{b}}", "ids": "{{ids}}",
        });
        assert_eq!(rest["query"], query);
        assert_eq!(names, ["filter_a", "filter_b", "a", "b", "ids"]);
    }
}
