//! The resources of a tool set.

use crate::{
    pb::resource as pb,
    resource::check::Checker,
    template::{Names, Template},
};

const RESOURCES_MAX: usize = 10_000;

/// A resource, or a family of them.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundResource {
    pub address: Address,
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub mime_type: Option<String>,
    pub content: Content,
}

/// By what it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Uri(String),
    /// RFC 6570, level 1.
    UriTemplate(String),
}

/// What it holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The path of a file, beneath the node's directory of files.
    File(Template),
    Text(Template),
}

pub(in crate::resource) fn check(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    wire: &[pb::BoundResource],
) -> Vec<BoundResource> {
    if wire.len() > RESOURCES_MAX {
        let message = format!("{} resources are too many, at most {RESOURCES_MAX}", wire.len());
        checker.problem("spec.resources", message);
        return Vec::new();
    }
    let one = |(i, resource)| one(checker, names, &format!("spec.resources[{i}]"), resource);
    wire.iter().enumerate().filter_map(one).collect()
}

fn one(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    path: &str,
    resource: &pb::BoundResource,
) -> Option<BoundResource> {
    let address = match (resource.uri.as_str(), resource.uri_template.as_str()) {
        (uri, "") if !uri.is_empty() => Address::Uri(uri.to_owned()),
        ("", template) if !template.is_empty() => Address::UriTemplate(template.to_owned()),
        _ => {
            let hint = "for example `uri: docs://readme`";
            checker.problem_with_hint(path, "it needs either `uri` or `uriTemplate`", hint);
            return None;
        }
    };
    let compile = |checker: &mut Checker<'_>, field: &str, text: &str| {
        Template::compile(text, names)
            .map_err(|error| checker.report(&format!("{path}.{field}"), error.to_string(), error.hint))
            .ok()
    };
    let content = match &resource.content {
        Some(pb::bound_resource::Content::File(file)) => Content::File(compile(checker, "file", file)?),
        Some(pb::bound_resource::Content::Text(text)) => Content::Text(compile(checker, "text", text)?),
        None => {
            let hint = "add `file: PATH` or `text: ...`";
            checker.problem_with_hint(path, "nothing says what the resource holds", hint);
            return None;
        }
    };
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    Some(BoundResource {
        address,
        name: resource.name.clone(),
        title: some(&resource.title),
        description: some(&resource.description),
        mime_type: some(&resource.mime_type),
        content,
    })
}
