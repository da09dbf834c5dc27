//! Resources: static ones, a template, and one that changes and says so.

use std::sync::atomic::Ordering;

use rmcp::model::{
    ArgumentInfo, ErrorData, ReadResourceResult, Resource, ResourceContents, ResourceTemplate,
};
use serde_json::json;

use crate::folder;
use crate::server::Shared;
use crate::tools::content::PNG;

pub const WATCHED: &str = "test://watched-resource";

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const TEMPLATE_PREFIX: &str = "test://template/";
const TEMPLATE_SUFFIX: &str = "/data";

pub fn list() -> Vec<Resource> {
    vec![
        Resource::new(TEXT, "Static text")
            .with_description("A text that never changes.")
            .with_mime_type("text/plain"),
        Resource::new(BINARY, "Static binary")
            .with_description("An image of one pixel.")
            .with_mime_type("image/png"),
        Resource::new(WATCHED, "Watched")
            .with_description("A text that the tool test_trigger_resource_update changes.")
            .with_mime_type("text/plain"),
    ]
}

/// Files that tests write are there only where they have a folder.
pub fn templates(shared: &Shared) -> Vec<ResourceTemplate> {
    let mut templates = vec![
        ResourceTemplate::new(format!("{TEMPLATE_PREFIX}{{id}}{TEMPLATE_SUFFIX}"), "Data by id")
            .with_description("A small JSON document about the id.")
            .with_mime_type("application/json"),
    ];
    if shared.folder.exists() {
        templates.push(
            ResourceTemplate::new(format!("{}{{key}}", folder::URI_PREFIX), "Watched file")
                .with_description("A file that tests write, and that says when it has changed.")
                .with_mime_type("text/plain"),
        );
    }
    templates
}

pub fn read(shared: &Shared, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let contents = match uri {
        TEXT => ResourceContents::text("This is the content of the static text resource.", uri)
            .with_mime_type("text/plain"),
        BINARY => ResourceContents::blob(PNG, uri).with_mime_type("image/png"),
        WATCHED => {
            let revision = shared.watched_revision.load(Ordering::SeqCst);
            ResourceContents::text(format!("revision {revision}"), uri).with_mime_type("text/plain")
        }
        _ if uri.starts_with(folder::URI_PREFIX) => {
            let text = shared.folder.read(uri).ok_or_else(|| not_found(uri))?;
            ResourceContents::text(text, uri).with_mime_type("text/plain")
        }
        _ => {
            let id = uri.strip_prefix(TEMPLATE_PREFIX).and_then(|rest| rest.strip_suffix(TEMPLATE_SUFFIX));
            let id = id.ok_or_else(|| not_found(uri))?;
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            ResourceContents::text(data.to_string(), uri).with_mime_type("application/json")
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

fn not_found(uri: &str) -> ErrorData {
    ErrorData::resource_not_found(format!("no resource {uri}"), Some(json!({ "uri": uri })))
}

pub fn completions(argument: &ArgumentInfo) -> Vec<String> {
    let ids = if argument.name == "id" { &["1", "2", "12"][..] } else { &[] };
    ids.iter().filter(|id| id.starts_with(&argument.value)).map(|id| (*id).to_owned()).collect()
}
