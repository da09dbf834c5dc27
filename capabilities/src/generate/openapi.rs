//! Tools from an OpenAPI document: one for each operation.

mod argument;
mod body;
mod document;
mod operation;
mod parameter;
mod schema;
mod security;
mod server;

use serde_json::Value;

use self::{document::Document, security::Security, server::Servers};
use super::{Drafts, GenerateError, Options, bounded, names::ToolNames, read, unusable};

/// As they stand in a path item, with what they say of themselves.
const METHODS: [(&str, &str); 7] = [
    ("get", "GET"),
    ("post", "POST"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
    ("head", "HEAD"),
    ("options", "OPTIONS"),
];
const OPERATIONS_MAX: usize = 10_000;
const TITLE_CHARS_MAX: usize = 120;

pub fn draft(file_name: &str, text: &str, options: &Options) -> Result<Drafts, GenerateError> {
    let root = read::value(file_name, text)?;
    let version = check_version(&root)?;
    let document = Document::new(&root);
    let mut drafts = Drafts { kind: "openapi", title: title(&root, &version), ..Drafts::default() };
    let servers = Servers::new(&root, options)?;
    let mut security = Security::new(&document, options);
    let mut names = ToolNames::new(&options.prefix);
    let nothing = serde_json::Map::new();
    let paths = root["paths"].as_object().unwrap_or(&nothing);
    let mut operations = 0;
    for (path, item) in paths {
        let item = match document.resolve(item) {
            Ok(item) => item,
            Err(why) => {
                drafts.notes.kept_out(path, why);
                continue;
            }
        };
        for (key, method) in METHODS {
            let Some(written) = item.get(key).filter(|operation| operation.is_object()) else { continue };
            operations += 1;
            if operations > OPERATIONS_MAX {
                let message = format!("the document has more than {OPERATIONS_MAX} operations");
                return Err(unusable(message, "take out what is not needed"));
            }
            let operation = operation::Operation { method, path, item, written };
            let mut maker = operation::Maker {
                document: &document,
                servers: &servers,
                security: &mut security,
                names: &mut names,
                notes: &mut drafts.notes,
                options,
            };
            match maker.make(&operation) {
                Ok(Some(tool)) => drafts.tools.push(tool),
                Ok(None) => {}
                Err(why) => drafts.notes.kept_out(&operation.call(), why),
            }
        }
    }
    if operations == 0 {
        return Err(unusable(
            "the document has no operations",
            "`paths` is empty; is it the right document?",
        ));
    }
    drafts.secrets = security.into_secrets(&mut drafts.notes);
    Ok(drafts)
}

fn check_version(root: &Value) -> Result<String, GenerateError> {
    if let Some(version) = root["openapi"].as_str() {
        if version.starts_with("3.") {
            return Ok(version.to_owned());
        }
        return Err(unusable(
            format!("OpenAPI {} is not read", bounded(version, 20)),
            "versions 3.0 and 3.1 are",
        ));
    }
    if !root["swagger"].is_null() {
        let hint = "convert it to OpenAPI 3 first; many editors and converters do that";
        return Err(unusable("this is a document of Swagger 2.0", hint));
    }
    Err(unusable("this is no OpenAPI document", "it starts with `openapi: 3.1.0` or such"))
}

fn title(root: &Value, version: &str) -> String {
    let info = &root["info"];
    let title = bounded(info["title"].as_str().unwrap_or("an API"), TITLE_CHARS_MAX);
    let number = match &info["version"] {
        Value::String(text) => bounded(text, 40),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let gap = if number.is_empty() { "" } else { " " };
    format!("{title}{gap}{number} (OpenAPI {})", bounded(version, 20))
}
