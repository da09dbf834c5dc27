//! References in texts: `${VAR}`, `${env:VAR}`, `${VAR:-default}`, `${input:id}`.

use mt_proto::{pb::resource as pb, resource::is_env_name};

use super::{Importer, Outcome};

/// One `${...}` of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A variable of the environment, and whether a default stands beside it.
    Variable { name: &'a str, default: bool },
    /// Something that an editor asks its user for.
    Input(&'a str),
    /// Something of an editor's, such as `${workspaceFolder}`.
    Other(&'a str),
}

/// All references of a text, in order.
pub fn references(text: &str) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once("${") {
        let Some((inner, tail)) = tail.split_once('}') else { break };
        rest = tail;
        found.push(match inner.split_once(':') {
            Some(("env", name)) if is_env_name(name) => Reference::Variable { name, default: false },
            Some(("input", id)) if !id.is_empty() => Reference::Input(id),
            Some((name, default)) if is_env_name(name) && default.starts_with('-') => {
                Reference::Variable { name, default: true }
            }
            // Editors' own words are in camel case, variables are not.
            None if is_env_name(inner) && (inner.contains('_') || inner == inner.to_ascii_uppercase()) => {
                Reference::Variable { name: inner, default: false }
            }
            _ => Reference::Other(inner),
        });
    }
    found
}

/// The variable that stands for something without one: `MT_SECRET_GITHUB_TOKEN`.
pub fn variable_for(text: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("MT_SECRET_{}", text.chars().take(100).map(word).collect::<String>())
}

impl Importer {
    /// The value of a header or a variable: a text, or a reference to a Secret
    /// that is made for it.
    ///
    /// `what` is the name of the header or variable.
    pub(super) fn value(&mut self, entry: &str, what: &str, text: &str) -> pb::Value {
        let found = references(text);
        let whole = text.starts_with("${") && text.find('}') == Some(text.len().saturating_sub(1));
        let secret = match found.as_slice() {
            [Reference::Variable { name, default }] if whole => {
                let secret = self.secret(name, name);
                let lost = if *default { "; the default beside it is left out" } else { "" };
                let text = format!(
                    "the value of {what} is read from the variable {name} of the node, as secret/{secret}{lost}"
                );
                self.note(entry, Outcome::Changed, text);
                Some(secret)
            }
            [Reference::Input(id)] if whole => {
                let variable = variable_for(id);
                let secret = self.secret(id, &variable);
                let text = format!(
                    "the value of {what} was asked for as `{id}`: set the variable {variable} of the node, which secret/{secret} reads"
                );
                self.note(entry, Outcome::Changed, text);
                Some(secret)
            }
            found if found.iter().any(|r| !matches!(r, Reference::Other(_))) => {
                let near = format!("{entry}-{what}");
                let variable = variable_for(&near);
                let secret = self.secret(&near, &variable);
                let text = format!(
                    "the value of {what} is a text with references in it: set the variable {variable} of the node to the whole text, which secret/{secret} reads"
                );
                self.note(entry, Outcome::Changed, text);
                Some(secret)
            }
            found => {
                if let Some(Reference::Other(name)) = found.first() {
                    let text = format!("`${{{name}}}` in the value of {what} is not filled in");
                    self.note(entry, Outcome::Changed, text);
                } else if looks_secret(what) && !text.is_empty() {
                    let text = format!(
                        "the value of {what} looks secret and stays as text, which everybody who reads the configuration can see; a Secret and `value: {{secret: name}}` hide it"
                    );
                    self.note(entry, Outcome::Changed, text);
                }
                None
            }
        };
        let source = match secret {
            Some(name) => pb::value::Source::Secret(name),
            None => pb::value::Source::Text(text.to_owned()),
        };
        pb::Value { source: Some(source) }
    }
}

/// By the name alone; the value is never looked at.
fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "AUTHORIZATION", "CREDENTIAL", "COOKIE"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_apart() {
        let variable = |name, default| Reference::Variable { name, default };
        assert_eq!(references("${API_KEY}"), [variable("API_KEY", false)]);
        assert_eq!(references("${api_key}"), [variable("api_key", false)]);
        assert_eq!(references("${env:HOME}/x"), [variable("HOME", false)]);
        assert_eq!(references("${PORT:-8080}"), [variable("PORT", true)]);
        assert_eq!(references("Bearer ${input:gh-token}"), [Reference::Input("gh-token")]);
        assert_eq!(references("${workspaceFolder}/a"), [Reference::Other("workspaceFolder")]);
        assert_eq!(references("${A}${B}"), [variable("A", false), variable("B", false)]);
        assert_eq!(references("$A {B} ${"), []);
        assert_eq!(variable_for("gh-token"), "MT_SECRET_GH_TOKEN");
    }
}
