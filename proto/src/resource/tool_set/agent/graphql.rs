//! Settings of the GraphQL agent.
//!
//! A query is literal: what a caller says goes to the server as variables, which
//! it never reads as GraphQL.

use std::time::Duration;

use super::{
    super::{fields::Fields, text::Text},
    collect::{self, Collect},
    credential::Credential,
    http::{TIMEOUT_MAX, TIMEOUT_MIN},
    path::JsonPath,
    request,
};
use crate::template::{Template, Tree};

const QUERY_BYTES_MAX: usize = 64 * 1024;

/// An operation of a GraphQL service.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphQl {
    pub url: Template,
    /// The document.
    pub query: String,
    pub variables: Variables,
    pub operation_name: Option<String>,
    /// The operation is a subscription.
    pub subscription: bool,
    pub headers: Vec<(String, Text)>,
    pub auth: Option<Credential>,
    pub timeout: Duration,
    pub response_bytes_max: usize,
    /// Data is a result though there are errors too.
    pub partial: bool,
    /// The part of `data` that is the result.
    pub extract: Option<JsonPath>,
    /// How much of a subscription is the result.
    pub collect: Collect,
}

/// What goes to the server beside the query.
#[derive(Clone, Debug, PartialEq)]
pub enum Variables {
    Tree(Tree),
    /// The arguments of these names.
    Arguments(Vec<String>),
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Query,
    Mutation,
    Subscription,
}

/// What stands in a document, as far as it is read.
#[derive(Debug, Default)]
struct Document {
    operations: Vec<(Does, Option<String>)>,
    /// The names after `$`, once each.
    variables: Vec<String>,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<GraphQl> {
    let url = request::url(fields, &["http", "https", "ws", "wss"], "https://api.example.com/graphql");
    let query = query(fields);
    let operation_name = fields.text("operationName");
    let document = query.as_deref().map(Document::read).unwrap_or_default();
    let subscription = chosen(fields, &document, operation_name.as_deref()) == Some(Does::Subscription);
    if url.as_ref().is_some_and(|url| url.text().starts_with("ws")) && !subscription {
        fields.problem("url", "queries go over http", Some("write `https://`".to_owned()));
    }
    let variables = match fields.tree("variables") {
        Some(tree) => Variables::Tree(tree),
        None => Variables::Arguments(document.variables),
    };
    let response_bytes_max = request::response_bytes_max(fields);
    Some(GraphQl {
        headers: request::headers(fields),
        auth: Credential::at(fields, "auth"),
        timeout: fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, TIMEOUT_MAX),
        partial: fields.bool("partial").unwrap_or(false),
        extract: collect::json_path(fields, "extract"),
        collect: collect::read(fields, "maxEvents", response_bytes_max),
        response_bytes_max,
        url: url?,
        query: query?,
        variables,
        operation_name,
        subscription,
    })
}

fn query(fields: &mut Fields<'_, '_>) -> Option<String> {
    if !fields.has("query") {
        fields.missing("query", "for example `query: \"query($id: ID!) { user(id: $id) { name } }\"`");
    }
    let query = fields.text("query")?;
    if query.len() > QUERY_BYTES_MAX {
        fields.problem("query", format!("`query` must be at most {QUERY_BYTES_MAX} bytes long"), None);
        return None;
    }
    if query.contains("{{") {
        let hint = "declare a variable: `query($id: ID!) { user(id: $id) { name } }`, and `variables: {id: \"{{id}}\"}`";
        fields.problem(
            "query",
            "a query holds no template: whatever stood there could change what is asked",
            Some(hint.to_owned()),
        );
        return None;
    }
    Some(query)
}

/// The operation that is meant.
fn chosen(fields: &mut Fields<'_, '_>, document: &Document, name: Option<&str>) -> Option<Does> {
    match (document.operations.as_slice(), name) {
        ([], _) => {
            fields.problem(
                "query",
                "there is no operation in it",
                Some("for example `query { me { name } }`".to_owned()),
            );
            None
        }
        ([(does, _)], None) => Some(*does),
        (_, None) => {
            let hint = "say which one with `operationName`";
            fields.problem("query", "there are several operations in it", Some(hint.to_owned()));
            None
        }
        (operations, Some(wanted)) => {
            let found = operations.iter().find(|(_, name)| name.as_deref() == Some(wanted));
            if found.is_none() {
                fields.problem(
                    "operationName",
                    format!("there is no operation {wanted:?} in the query"),
                    None,
                );
            }
            found.map(|(does, _)| *does)
        }
    }
}

impl Document {
    /// Reads as much as is needed; the server reads the rest.
    fn read(text: &str) -> Self {
        let mut document = Self::default();
        let mut tokens = Tokens { rest: text }.peekable();
        // Of braces and parentheses; and whether a definition has begun.
        let (mut depth, mut begun) = (0_usize, false);
        while let Some(token) = tokens.next() {
            match token {
                "{" | "(" => {
                    if depth == 0 && !begun && token == "{" {
                        document.operations.push((Does::Query, None));
                    }
                    begun = true;
                    depth += 1;
                }
                "}" | ")" => {
                    depth = depth.saturating_sub(1);
                    begun = begun && (depth > 0 || token == ")");
                }
                "$" => {
                    if let Some(name) = tokens.next_if(|next| is_name(next))
                        && !document.variables.iter().any(|known| known == name)
                    {
                        document.variables.push(name.to_owned());
                    }
                }
                word if depth == 0 && !begun => {
                    begun = true;
                    let does = match word {
                        "query" => Does::Query,
                        "mutation" => Does::Mutation,
                        "subscription" => Does::Subscription,
                        _ => continue,
                    };
                    let name = tokens.next_if(|next| is_name(next)).map(str::to_owned);
                    document.operations.push((does, name));
                }
                _ => {}
            }
        }
        document
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The names and signs of a document, without comments and texts.
struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        loop {
            let text =
                self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == '\u{feff}');
            let first = text.chars().next()?;
            if first == '#' {
                self.rest = text.find(['\n', '\r']).map_or("", |end| &text[end..]);
            } else if let Some(block) = text.strip_prefix("\"\"\"") {
                self.rest = after_block(block);
            } else if first == '"' {
                self.rest = after_string(&text[1..]);
            } else {
                let end = match is_name(text) {
                    true => text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()),
                    false => first.len_utf8(),
                };
                self.rest = &text[end..];
                return Some(&text[..end]);
            }
        }
    }
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => return &text[at + 1..],
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    ""
}

fn after_block(text: &str) -> &str {
    let mut from = 0;
    while let Some(at) = text[from..].find("\"\"\"").map(|at| from + at) {
        if !text[..at].ends_with('\\') {
            return &text[at + 3..];
        }
        from = at + 3;
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, operations: &[(Does, Option<&str>)], variables: &[&str]) {
        let document = Document::read(text);
        let found: Vec<_> = document.operations.iter().map(|(does, name)| (*does, name.as_deref())).collect();
        assert_eq!(found, operations, "{text}");
        assert_eq!(document.variables, variables, "{text}");
    }

    #[test]
    fn operations_and_their_variables_are_found() {
        check("{ me { name } }", &[(Does::Query, None)], &[]);
        check("query { me { name } }", &[(Does::Query, None)], &[]);
        check(
            "query User($id: ID!, $deep: In = {a: {b: 1}}) @live { user(id: $id, x: $deep) { name } }",
            &[(Does::Query, Some("User"))],
            &["id", "deep"],
        );
        check("mutation($text: String!) { add(text: $text) { id } }", &[(Does::Mutation, None)], &["text"]);
        check(
            "fragment F on User { name } query A { a { ...F } } subscription B { b }",
            &[(Does::Query, Some("A")), (Does::Subscription, Some("B"))],
            &[],
        );
    }

    #[test]
    fn comments_and_texts_are_not_read() {
        check("# subscription { x }\nquery { a(b: \"mutation { $c \\\" }\") }", &[(Does::Query, None)], &[]);
        check("query { a(b: \"\"\"one \\\"\"\" $two } \"\"\") } # end", &[(Does::Query, None)], &[]);
    }

    #[test]
    fn nonsense_ends_too() {
        for text in ["", "}", "\"", "\"\"\"", "$", "query", "((((", "é{"] {
            _ = Document::read(text);
        }
    }
}
