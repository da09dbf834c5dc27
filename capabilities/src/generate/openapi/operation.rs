//! One operation as one tool.

use serde_json::{Map, Value, json};

use super::{
    argument::Argument,
    body,
    document::Document,
    parameter,
    schema::{Converter, Side},
    security::Security,
    server::Servers,
};
use crate::generate::{
    Draft, Notes, Options, bounded,
    names::{ArgumentNames, ToolNames},
    schema::{self, INPUT_BYTES_MAX, OUTPUT_BYTES_MAX},
};

const TOOL_DESCRIPTION_CHARS_MAX: usize = 1_000;
const TITLE_CHARS_MAX: usize = 80;
/// Of the tags that a filter looks at.
const TAGS_MAX: usize = 20;

/// An operation of a document.
pub struct Operation<'a> {
    pub method: &'static str,
    pub path: &'a str,
    /// The path item that it is in.
    pub item: &'a Value,
    pub written: &'a Value,
}

impl Operation<'_> {
    /// `GET /users/{id}`.
    pub fn call(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What operations are made into tools with.
pub struct Maker<'m, 'a> {
    pub document: &'a Document<'a>,
    pub servers: &'m Servers,
    pub security: &'m mut Security<'a>,
    pub names: &'m mut ToolNames,
    pub notes: &'m mut Notes,
    pub options: &'m Options,
}

impl<'a> Maker<'_, 'a> {
    /// The tool of an operation; none if it is not asked for.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn make(&mut self, operation: &Operation<'a>) -> Result<Option<Draft>, String> {
        let written = operation.written;
        let call = operation.call();
        let id = written["operationId"].as_str().filter(|id| !id.trim().is_empty());
        let tags: Vec<&str> = written["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .take(TAGS_MAX)
            .collect();
        let mut known = vec![operation.path, call.as_str()];
        known.extend(id);
        known.extend(&tags);
        if !self.options.filter.takes(&known) {
            return Ok(None);
        }
        if written["deprecated"] == true && !self.options.deprecated {
            return Err("it is deprecated".to_owned());
        }
        let base = self.servers.of(operation.item, written)?;
        let (mut names, mut arguments, mut remarks) = (ArgumentNames::default(), Vec::new(), Vec::new());
        let mut found = parameter::read(
            self.document,
            operation.path,
            operation.item,
            written,
            &mut names,
            &mut arguments,
            &mut remarks,
        )?;
        let mut config = Map::new();
        config.insert("method".into(), operation.method.into());
        config.insert("url".into(), format!("{base}{}", found.path).into());
        let mut sent = Map::new();
        body::read(self.document, written, &mut names, &mut arguments, &mut sent, &mut remarks)?;
        self.security.apply(written, &mut sent, &mut found.headers, &mut found.query)?;
        for (key, value) in [("query", found.query), ("headers", found.headers)] {
            if !value.is_empty() {
                config.insert(key.into(), Value::Object(value));
            }
        }
        config.extend(sent);
        let input = self.input(&arguments, &mut remarks);
        let output = if self.options.no_output_schema { None } else { self.output(written) };
        for remark in remarks {
            self.notes.changed(&call, remark);
        }
        let (title, description) = words(written);
        if description.is_empty() {
            self.notes.changed(&call, "the document does not say what it is for");
        }
        Ok(Some(Draft {
            name: self.names.take(id.unwrap_or(&call.to_ascii_lowercase()), &call),
            title,
            description,
            input,
            output,
            annotations: annotations(operation.method),
            agent: "http",
            config,
            group: tags.first().copied().unwrap_or("other").to_owned(),
            call,
        }))
    }

    fn input(&self, arguments: &[Argument<'a>], remarks: &mut Vec<String>) -> Value {
        let mut broken = Vec::new();
        let (mut input, _) = schema::fitting(INPUT_BYTES_MAX, |depth| {
            let mut converter = Converter::new(self.document, Side::Request, depth);
            let properties =
                arguments.iter().map(|argument| (argument.name.clone(), argument.schema(&mut converter)));
            let properties = properties.collect();
            let required = arguments.iter().filter(|argument| argument.required);
            let required = required.map(|argument| argument.name.clone()).collect();
            broken = converter.broken;
            (schema::object(properties, required), converter.cut)
        });
        remarks.append(&mut broken);
        if !schema::serves(&input) {
            schema::without_patterns(&mut input);
            remarks
                .push("the patterns of its arguments are left out: not all of them can be read".to_owned());
        }
        input
    }

    /// What a call gives, if it is an object and all of it can be said.
    fn output(&self, operation: &'a Value) -> Option<Value> {
        let responses = operation["responses"].as_object()?;
        let success = |code: &str| code.len() == 3 && code.starts_with('2');
        // One schema stands for the answer only if there is one kind of answer.
        let mut good = responses.iter().filter(|(code, _)| success(code));
        let (_, response) = good.next().filter(|_| good.next().is_none())?;
        let response = self.document.resolve(response).ok()?;
        let content = response["content"].as_object()?;
        let is_json = |kind: &str| kind.starts_with("application/json") || kind.contains("+json");
        let media = content.iter().find(|(kind, _)| is_json(kind)).map(|(_, media)| media)?;
        let mut converter = Converter::new(self.document, Side::Response, schema::DEPTHS[0]);
        let mut output = converter.convert(&media["schema"]);
        schema::without_patterns(&mut output);
        let whole = output["type"] == "object"
            && !converter.cut
            && output.to_string().len() <= OUTPUT_BYTES_MAX
            && schema::serves(&output);
        whole.then_some(output)
    }
}

/// The title and the description.
fn words(operation: &Value) -> (String, String) {
    let text = |key: &str| operation[key].as_str().map(str::trim).unwrap_or_default();
    let (summary, description) = (text("summary"), text("description"));
    let title = if summary.chars().count() <= TITLE_CHARS_MAX {
        bounded(summary, TITLE_CHARS_MAX)
    } else {
        String::new()
    };
    let whole = match (summary, description) {
        ("", only) | (only, "") => only.to_owned(),
        (summary, description) if description.starts_with(summary) => description.to_owned(),
        (summary, description) => format!("{summary}\n\n{description}"),
    };
    (title.replace('\n', " "), bounded(&whole, TOOL_DESCRIPTION_CHARS_MAX))
}

fn annotations(method: &str) -> Map<String, Value> {
    let hints = match method {
        "GET" | "HEAD" | "OPTIONS" => json!({"readOnlyHint": true}),
        "DELETE" => json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": true}),
        "PUT" => json!({"readOnlyHint": false, "idempotentHint": true}),
        _ => json!({"readOnlyHint": false}),
    };
    match hints {
        Value::Object(hints) => hints,
        _ => Map::new(),
    }
}
