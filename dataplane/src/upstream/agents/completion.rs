//! What could be filled in: the values that an argument of a prompt suggests,
//! and the files that there are for a variable of a URI.

use mt_proto::{
    resource::{Address, BoundResource, Content},
    template::{Piece, Pieces},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    files,
    prompts::Prompts,
    resources::{Resources, rendered},
};
use crate::{
    gateway::call::CallError,
    mcp::{Key, Params},
};

/// What MCP allows in one answer.
const VALUES_MAX: usize = 100;
/// Stands for what is asked for. No value of a URI is empty.
const ASKED: &str = "";

#[derive(Deserialize)]
struct Reference {
    name: Option<String>,
    uri: Option<String>,
}

#[derive(Deserialize)]
struct Argument {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
struct Context {
    #[serde(default)]
    arguments: Map<String, Value>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "ref")]
    reference: Reference,
    argument: Argument,
    #[serde(default)]
    context: Context,
}

/// Answers `completion/complete`, as the member of a result.
///
/// # Errors
/// If there is no such prompt, resource or argument.
pub async fn complete(params: &Params, prompts: &Prompts, resources: &Resources) -> Result<Value, CallError> {
    let request: Request = serde_json::from_slice(&params.object()).map_err(|_| {
        let reason = format!("params.{} and params.argument must say what is completed", Key::Ref.as_str());
        CallError::InvalidParams { reason }
    })?;
    let Request { reference, argument, context } = request;
    let known = match (reference.name, reference.uri) {
        (Some(name), _) => {
            let prompt = prompts.find(&name).ok_or(CallError::UnknownPrompt { name })?;
            let own = prompt.arguments.iter().find(|own| own.name == argument.name);
            own.ok_or_else(|| unknown(&argument.name))?.values.clone()
        }
        (None, Some(uri)) => {
            let resource = resources.written(&uri).ok_or(CallError::UnknownResource { uri })?;
            match &resource.address {
                Address::UriTemplate(template) if template.variables().any(|name| name == argument.name) => {
                    of_files(resource, &argument.name, context.arguments, resources).await
                }
                _ => return Err(unknown(&argument.name)),
            }
        }
        (None, None) => {
            return Err(CallError::InvalidParams { reason: "params.ref names nothing".to_owned() });
        }
    };
    Ok(suggested(known, &argument.value))
}

fn unknown(argument: &str) -> CallError {
    CallError::InvalidParams { reason: format!("there is no argument {argument:?} to complete") }
}

/// Those that begin as the client's, whatever its case.
fn suggested(known: Vec<String>, begun: &str) -> Value {
    let begun = begun.to_lowercase();
    let mut values: Vec<String> =
        known.into_iter().filter(|value| value.to_lowercase().starts_with(&begun)).collect();
    let total = values.len();
    values.truncate(VALUES_MAX);
    json!({"values": values, "total": total, "hasMore": total > VALUES_MAX})
}

/// The names that a variable can have, where it is a part of a file's name and
/// the directory is known.
async fn of_files(
    resource: &BoundResource,
    variable: &str,
    mut others: Map<String, Value>,
    resources: &Resources,
) -> Vec<String> {
    let Content::File(template) = &resource.content else { return Vec::new() };
    others.insert(variable.to_owned(), ASKED.into());
    let pattern = rendered(template, &others).ok().and_then(|pieces| Pattern::of(&pieces));
    let Some(pattern) = pattern else { return Vec::new() };
    let names = resources.files.names(pattern.directory.clone()).await;
    let value =
        |name: String| name.strip_prefix(&pattern.before)?.strip_suffix(&pattern.after).map(str::to_owned);
    names.into_iter().filter_map(value).filter(|value| !value.is_empty()).collect()
}

/// A path with one place that is open, in its last name.
#[derive(Debug, PartialEq, Eq)]
struct Pattern {
    directory: String,
    before: String,
    after: String,
}

impl Pattern {
    fn of(pieces: &Pieces) -> Option<Self> {
        let is_asked = |piece: &Piece| *piece == Piece::Value(ASKED.into());
        let at = pieces.0.iter().position(is_asked)?;
        let (before, after) = (&pieces.0[..at], &pieces.0[at + 1..]);
        if after.iter().any(is_asked) {
            return None;
        }
        // A name at the end makes of each part a path that can be checked.
        let whole = |parts: &[Piece]| {
            let parts = parts.iter().cloned().chain([Piece::Literal("x".to_owned())]).collect();
            let mut path = files::path(&Pieces(parts))?;
            path.pop();
            Some(path)
        };
        let before = whole(before)?;
        let after = whole(after).filter(|after| !after.contains('/'))?;
        let (directory, before) = before.rsplit_once('/').unwrap_or(("", &before));
        Some(Self { directory: directory.to_owned(), before: before.to_owned(), after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_a_hundred_are_suggested_and_the_rest_is_told_of() {
        let many: Vec<String> = (0..250).map(|i| format!("v{i}")).collect();
        let answer = suggested(many, "V1");
        assert_eq!(answer["values"].as_array().unwrap().len(), 100);
        assert_eq!((&answer["total"], &answer["hasMore"]), (&json!(111), &json!(true)));
        assert_eq!(
            suggested(vec!["one".into(), "two".into()], "t"),
            json!({"values": ["two"], "total": 1, "hasMore": false})
        );
    }

    #[test]
    fn the_open_place_of_a_path_is_found() {
        let asked = || Piece::Value(ASKED.into());
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let of = |pieces: Vec<Piece>| {
            let found = Pattern::of(&Pieces(pieces))?;
            Some((found.directory, found.before, found.after))
        };
        let some = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(of(vec![literal("docs/a-"), asked(), literal(".md")]), some("docs", "a-", ".md"));
        assert_eq!(of(vec![asked()]), some("", "", ""));
        assert_eq!(of(vec![Piece::Value("en".into()), literal("/"), asked()]), some("en", "", ""));
        assert_eq!(of(vec![Piece::Value("../x".into()), literal("/"), asked()]), None);
        assert_eq!(of(vec![asked(), literal("/index.md")]), None);
        assert_eq!(of(vec![literal("../"), asked()]), None);
        assert_eq!(of(vec![literal("docs")]), None);
    }
}
