//! The resources of a tool set.

mod media;
mod uri_template;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

pub use self::uri_template::UriTemplate;
use crate::{
    pb::resource as pb,
    resource::check::{Checker, quoted},
    template::{Names, RenderError, Scope, Template},
};

const RESOURCES_MAX: usize = 10_000;
const NAME_CHARS_MAX: usize = 128;
const URI_BYTES_MAX: usize = 2_048;

/// A resource, or a family of them.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundResource {
    pub address: Address,
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    /// None: it is told by what is read.
    pub mime_type: Option<String>,
    pub content: Content,
}

/// By what it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Uri(String),
    UriTemplate(UriTemplate),
}

/// What it holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The path of a file, beneath the node's directory of files.
    File(Template),
    Text(Template),
}

impl BoundResource {
    /// What it is, if it is the file at this path.
    pub fn mime_type_at(&self, path: &str) -> Option<&str> {
        self.mime_type.as_deref().or_else(|| media::of_name(path))
    }
}

impl Address {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        match self {
            Address::Uri(uri) => uri,
            Address::UriTemplate(template) => template.as_str(),
        }
    }

    /// What the variables stand for if this is the URI; nothing, where there
    /// are none.
    pub fn matches(&self, uri: &str) -> Option<Map<String, Value>> {
        match self {
            Address::Uri(own) => (own == uri).then(Map::new),
            Address::UriTemplate(template) => template.matches(uri),
        }
    }
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
    let mut seen = BTreeSet::new();
    let mut resources = Vec::with_capacity(wire.len());
    for (i, resource) in wire.iter().enumerate() {
        let path = format!("spec.resources[{i}]");
        let Some(resource) = one(checker, names, &path, resource) else { continue };
        if !seen.insert(resource.address.as_str().to_owned()) {
            let (field, uri) = (field_of(&resource.address), quoted(resource.address.as_str()));
            checker.problem(&format!("{path}.{field}"), format!("the set has two resources at {uri}"));
        }
        resources.push(resource);
    }
    resources
}

fn field_of(address: &Address) -> &'static str {
    match address {
        Address::Uri(_) => "uri",
        Address::UriTemplate(_) => "uriTemplate",
    }
}

fn one(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    path: &str,
    resource: &pb::BoundResource,
) -> Option<BoundResource> {
    if !matches!(resource.name.chars().count(), 1..=NAME_CHARS_MAX) {
        let message = format!("a resource has a name of 1 to {NAME_CHARS_MAX} characters");
        checker.problem_with_hint(&format!("{path}.name"), message, "for example `name: readme`");
    }
    let address = address(checker, path, resource)?;
    let variables = match &address {
        Address::Uri(_) => Vec::new(),
        Address::UriTemplate(template) => template.variables().map(str::to_owned).collect(),
    };
    let mut compile = |field: &str, text: &str| {
        let path = format!("{path}.{field}");
        let template = compile(checker, names, &path, text)?;
        if let Some(name) = unknown_name(&template, &variables) {
            let hint = match variables.as_slice() {
                [] => {
                    "a resource with a `uri` has no variables; write `uriTemplate: docs://{page}`".to_owned()
                }
                _ => format!("the uriTemplate has {}", variables.join(", ")),
            };
            checker.problem_with_hint(&path, format!("there is no variable {name:?}"), hint);
        }
        Some(template)
    };
    let content = match &resource.content {
        Some(pb::bound_resource::Content::File(file)) => {
            let template = compile("file", file)?;
            if let Some(why) = why_no_path(file) {
                let hint = "the path is relative to the node's directory of files and stays inside it";
                checker.problem_with_hint(&format!("{path}.file"), why, hint);
            }
            Content::File(template)
        }
        Some(pb::bound_resource::Content::Text(text)) => Content::Text(compile("text", text)?),
        None => {
            let hint = "add `file: PATH` or `text: ...`";
            checker.problem_with_hint(path, "nothing says what the resource holds", hint);
            return None;
        }
    };
    let by_content = || match &content {
        Content::Text(_) => Some("text/plain"),
        Content::File(path) => media::of_name(path.text()),
    };
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    Some(BoundResource {
        address,
        name: resource.name.clone(),
        title: some(&resource.title),
        description: some(&resource.description),
        mime_type: some(&resource.mime_type).or_else(|| by_content().map(str::to_owned)),
        content,
    })
}

fn address(checker: &mut Checker<'_>, path: &str, resource: &pb::BoundResource) -> Option<Address> {
    let (field, text) = match (resource.uri.as_str(), resource.uri_template.as_str()) {
        (uri, "") if !uri.is_empty() => ("uri", uri),
        ("", template) if !template.is_empty() => ("uriTemplate", template),
        _ => {
            let hint = "for example `uri: docs://readme`";
            checker.problem_with_hint(path, "it needs either `uri` or `uriTemplate`", hint);
            return None;
        }
    };
    let path = format!("{path}.{field}");
    if let Some(why) = why_no_uri(text, field == "uriTemplate") {
        let hint = "for example `docs://readme`";
        checker.problem_with_hint(&path, format!("{} is not a URI: {why}", quoted(text)), hint);
        return None;
    }
    if field == "uri" {
        return Some(Address::Uri(text.to_owned()));
    }
    match UriTemplate::parse(text) {
        Ok(template) => Some(Address::UriTemplate(template)),
        Err(error) => {
            let hint = "for example `docs://{page}`";
            checker.problem_with_hint(
                &path,
                format!("{} is not a URI template: {error}", quoted(text)),
                hint,
            );
            None
        }
    }
}

/// RFC 3986: a scheme, and only the characters of URIs; in a template also braces.
fn why_no_uri(text: &str, is_template: bool) -> Option<String> {
    if text.len() > URI_BYTES_MAX {
        return Some(format!("it has {} bytes, at most {URI_BYTES_MAX} are served", text.len()));
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(legal) {
        return Some("it does not begin with a scheme".to_owned());
    }
    if scheme.len() + 1 == text.len() {
        return Some("nothing follows the scheme".to_owned());
    }
    let legal = |c: char| {
        c.is_ascii_alphanumeric()
            || "-._~:/?#[]@!$&'()*+,;=%".contains(c)
            || (is_template && matches!(c, '{' | '}'))
    };
    if let Some(wrong) = text.chars().find(|c| !legal(*c)) {
        return Some(format!("{wrong:?} must be percent-encoded"));
    }
    let encoded = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    let lone = text.split('%').skip(1).any(|after| !encoded(after));
    lone.then(|| "after '%' come two hexadecimal digits".to_owned())
}

/// What the author has written of the path; values are looked at when a file is read.
fn why_no_path(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("the path is empty")
    } else if text.contains('\0') {
        Some("the path holds a NUL character")
    } else if text.starts_with('/') {
        Some("the path is absolute")
    } else if text.split('/').any(|segment| segment == "..") {
        Some("the path leads out of its directory")
    } else if text.ends_with('/') {
        Some("the path is that of a directory")
    } else {
        None
    }
}

pub(super) fn compile(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    path: &str,
    text: &str,
) -> Option<Template> {
    match Template::compile(text, names) {
        Ok(template) => Some(template),
        Err(error) => {
            let at = text.get(..error.offset).unwrap_or(text).chars().count() + 1;
            checker.report(path, format!("{error} (at character {at})"), error.hint);
            None
        }
    }
}

/// A name that a template reads and that is none of these, as far as it shows
/// when all of them are there, and when all of them are empty.
pub(super) fn unknown_name(template: &Template, known: &[String]) -> Option<String> {
    [Value::from("x"), Value::Null].into_iter().find_map(|value| {
        let arguments: Map<String, Value> = known.iter().map(|name| (name.clone(), value.clone())).collect();
        let env = |_: &str| Some(String::new());
        match template.render(Scope { arguments: &arguments, env: &env }) {
            Err(RenderError::Missing { name }) => Some(name),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::ResourceSet;

    fn problems(resource: pb::BoundResource) -> Vec<String> {
        problems_of(vec![resource])
    }

    fn problems_of(resources: Vec<pb::BoundResource>) -> Vec<String> {
        let set = ResourceSet::default();
        let mut checker = Checker::new(&set);
        check(&mut checker, Names::default(), &resources);
        let problems = checker.into_problems();
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    fn text(uri: &str, text: &str) -> pb::BoundResource {
        let (fixed, template) = if uri.contains('{') { ("", uri) } else { (uri, "") };
        pb::BoundResource {
            uri: fixed.to_owned(),
            uri_template: template.to_owned(),
            name: "r".to_owned(),
            content: Some(pb::bound_resource::Content::Text(text.to_owned())),
            ..Default::default()
        }
    }

    fn file(uri: &str, path: &str) -> pb::BoundResource {
        pb::BoundResource {
            content: Some(pb::bound_resource::Content::File(path.to_owned())),
            ..text(uri, "")
        }
    }

    #[test]
    fn resources_are_texts_and_files_beneath_the_nodes_directory() {
        assert_eq!(problems(text("docs://readme", "hello")), [""; 0]);
        assert_eq!(problems(file("docs://{page}", "docs/{{page}}.md")), [""; 0]);
        for path in ["/etc/passwd", "../x", "a/../b", "a/..", "", "a/"] {
            assert_eq!(problems(file("docs://x", path)).len(), 1, "{path}");
        }
        assert_eq!(problems(file("docs://x", "a..b/...")), [""; 0]);
    }

    #[test]
    fn what_is_no_uri_is_refused_with_its_place() {
        for uri in ["readme", ":x", "1a:x", "docs:", "docs://a b", "docs://ü", "a:%2", "a:%zz", "a:<x>"] {
            let found = problems(text(uri, "x"));
            assert!(found.len() == 1 && found[0].starts_with("spec.resources[0].uri: "), "{uri}: {found:?}");
        }
        let found = problems(text("docs://{+page}", "x"));
        assert!(found[0].starts_with("spec.resources[0].uriTemplate: "), "{found:?}");
    }

    #[test]
    fn a_template_reads_only_the_variables_of_its_uri() {
        assert_eq!(
            problems(text("docs://{page}", "{{name}}")),
            ["spec.resources[0].text: there is no variable \"name\""]
        );
        assert_eq!(problems(text("docs://a", "{{page}}")).len(), 1);
    }

    #[test]
    fn no_two_resources_have_one_uri() {
        let twice = problems_of(vec![text("docs://a", "1"), text("docs://b", "2"), text("docs://a", "3")]);
        assert_eq!(twice, ["spec.resources[2].uri: the set has two resources at \"docs://a\""]);
    }
}
