//! URI templates of RFC 6570, level 1: what clients fill in to read one of a
//! family of resources, read backwards.
//!
//! A variable stands for a text of its own between the author's: its value may
//! hold no reserved character unless that is percent-encoded, so that no value
//! reaches beyond its place.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

const VARIABLES_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 64;

/// A URI with variables in it, such as `docs://{page}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(String),
}

/// Why a text is not a template that can be read backwards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {at})")]
pub struct InvalidUriTemplate {
    message: String,
    /// From 1.
    at: usize,
}

impl UriTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// If a brace is not closed, an expression is more than the name of a
    /// variable, a variable is named twice, or nothing stands between two.
    pub fn parse(text: &str) -> Result<Self, InvalidUriTemplate> {
        let invalid = |offset: usize, message: String| {
            Err(InvalidUriTemplate { message, at: text[..offset].chars().count() + 1 })
        };
        let (mut parts, mut names, mut offset) = (Vec::new(), BTreeSet::new(), 0);
        while let Some(found) = text[offset..].find(['{', '}']) {
            let at = offset + found;
            if text[at..].starts_with('}') {
                return invalid(at, "a '}' closes nothing".to_owned());
            }
            if found > 0 {
                parts.push(Part::Literal(text[offset..at].to_owned()));
            } else if matches!(parts.last(), Some(Part::Variable(_))) {
                return invalid(at, "between two variables there must be a text".to_owned());
            }
            let Some(length) = text[at + 1..].find('}') else {
                return invalid(at, "the '{' is not closed".to_owned());
            };
            let name = &text[at + 1..at + 1 + length];
            if !is_variable(name) {
                return invalid(at, why_no_variable(name));
            }
            if !names.insert(name) {
                return invalid(at, format!("the variable {name:?} is there twice"));
            }
            parts.push(Part::Variable(name.to_owned()));
            offset = at + length + 2;
        }
        if offset < text.len() {
            parts.push(Part::Literal(text[offset..].to_owned()));
        }
        if names.is_empty() {
            return invalid(0, "there is no variable in it".to_owned());
        }
        if names.len() > VARIABLES_MAX {
            return invalid(0, format!("{} variables are too many, at most {VARIABLES_MAX}", names.len()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The values with which the template becomes this URI. Where there are
    /// several ways, earlier variables are the shorter ones.
    pub fn matches(&self, uri: &str) -> Option<Map<String, Value>> {
        let mut values = Map::new();
        let mut rest = uri;
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Part::Variable(name) => {
                    let length = value_length(rest, |rest| match &self.parts[i + 1..] {
                        [Part::Literal(last)] => rest == last,
                        [Part::Literal(next), ..] => rest.starts_with(next.as_str()),
                        _ => rest.is_empty(),
                    })?;
                    values.insert(name.clone(), decode(&rest[..length])?.into());
                    rest = &rest[length..];
                }
            }
        }
        rest.is_empty().then_some(values)
    }
}

/// Letters, digits and `_`, not starting with a digit: what templates can name.
fn is_variable(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    matches!(name.len(), 1..=NAME_BYTES_MAX)
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(legal)
}

fn why_no_variable(expression: &str) -> String {
    let operator = expression.starts_with(['+', '#', '.', '/', ';', '?', '&', '=', ',', '!', '@', '|']);
    let modified = expression.contains([',', ':', '*']);
    match operator || modified {
        true => format!("{{{expression}}} is more than the name of a variable: only level 1 is served"),
        false => format!("{expression:?} is not the name of a variable: letters, digits and '_'"),
    }
}

/// How long the value at the beginning is: at least one character, each of
/// which may stand in a value, until `is_end`.
fn value_length(text: &str, is_end: impl Fn(&str) -> bool) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = text[at..].chars().next()?;
        at += match next {
            '%' => {
                let digits = text.as_bytes().get(at + 1..at + 3)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(3)?
            }
            // Reserved: it belongs to the author.
            ':' | '/' | '?' | '#' | '[' | ']' | '@' | '!' | '$' | '&' | '\'' | '(' | ')' | '*' | '+'
            | ',' | ';' | '=' => return None,
            other if other.is_control() => return None,
            other => other.len_utf8(),
        };
        if is_end(&text[at..]) {
            return Some(at);
        }
    }
}

/// Without percent-encoding; none if that is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                bytes.push(digit(*high)? * 16 + digit(*low)?);
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(template: &str, uri: &str, expected: Option<&[(&str, &str)]>) {
        let template = UriTemplate::parse(template).unwrap();
        let expected = expected.map(|values| {
            values.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
        });
        assert_eq!(template.matches(uri), expected, "{uri}");
    }

    #[test]
    fn a_uri_is_read_back_into_its_values() {
        check("docs://{page}", "docs://intro", Some(&[("page", "intro")]));
        check("docs://{page}", "docs://a%20b%2Fc", Some(&[("page", "a b/c")]));
        check("docs://{page}", "docs://Gr%C3%BC%C3%9Fe", Some(&[("page", "Grüße")]));
        check("docs://{page}", "docs://Grüße", Some(&[("page", "Grüße")]));
        check("a:{x}-{y}.md", "a:1-2-3.md.md", Some(&[("x", "1"), ("y", "2-3.md")]));
        check("a:{x}2{y}", "a:%222z", Some(&[("x", "\""), ("y", "z")]));
    }

    #[test]
    fn a_value_does_not_reach_beyond_its_place() {
        for uri in [
            "docs://",
            "docs://a/b",
            "docs://a?b",
            "docs://a#b",
            "docs://../a",
            "docs://a:b",
            "docs:/a",
            "docs://%",
            "docs://%2",
            "docs://%zz",
            "docs://%FF",
            "docs://a\n",
            "xdocs://a",
            "docs://a&b",
        ] {
            check("docs://{page}", uri, None);
        }
        check("docs://{page}.md", "docs://.md", None);
        check("docs://{page}.md", "docs://a.mdx", None);
    }

    #[test]
    fn what_is_no_template_of_level_1_is_refused_with_its_place() {
        let refused = |text: &str| UriTemplate::parse(text).unwrap_err().to_string();
        assert_eq!(refused("ü:{a"), "the '{' is not closed (at character 3)");
        assert_eq!(refused("a:}b"), "a '}' closes nothing (at character 3)");
        assert_eq!(refused("a:{b}{c}"), "between two variables there must be a text (at character 6)");
        assert_eq!(refused("a:{b}/{b}"), "the variable \"b\" is there twice (at character 7)");
        assert_eq!(refused("a:b"), "there is no variable in it (at character 1)");
        for text in ["a:{+b}", "a:{#b}", "a:{/b}", "a:{?b}", "a:{b,c}", "a:{b*}", "a:{b:3}"] {
            assert!(refused(text).contains("only level 1"), "{text}");
        }
        for text in ["a:{}", "a:{1}", "a:{a b}", "a:{a.b}", "a:{{b}}"] {
            assert!(UriTemplate::parse(text).is_err(), "{text}");
        }
    }

    fn encode(value: &str) -> String {
        let escaped = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        };
        value.bytes().map(escaped).collect()
    }

    proptest! {
        #[test]
        fn what_a_client_fills_in_comes_back(one in "\\PC{1,20}", two in "\\PC{1,20}") {
            let template = UriTemplate::parse("docs://{one}/{two}?x").unwrap();
            let uri = format!("docs://{}/{}?x", encode(&one), encode(&two));
            let values = template.matches(&uri).unwrap();
            prop_assert_eq!((&values["one"], &values["two"]), (&Value::from(one), &Value::from(two)));
        }

        #[test]
        fn nothing_makes_it_panic(template in "[a{}:%x]{0,12}", uri in "[a%2Fx:é/]{0,16}") {
            if let Ok(template) = UriTemplate::parse(&template) {
                template.matches(&uri);
            }
        }
    }
}
