//! What rendered pieces become where they are put: one way for each place, so
//! that a value stays a value there.
//!
//! Each function is pure, and either gives exactly what was meant or refuses.
//! Those that have to read the text around the values have files of their own:
//! url.rs, json_text.rs, shell.rs.

use std::borrow::Cow;

use serde_json::Value;

use super::{Piece, Pieces};

/// A value may not stand where the template puts it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub message: String,
}

pub(super) fn refused<T>(message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { message: message.into() })
}

impl Piece {
    /// As a plain text: lists and objects as compact JSON, null as nothing.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Piece::Literal(text) => Cow::Borrowed(text),
            Piece::Value(value) => plain(value),
            Piece::Json(value) => Cow::Owned(value.to_string()),
        }
    }

    fn is_literal(&self) -> bool {
        matches!(self, Piece::Literal(_))
    }
}

pub(super) fn plain(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null => Cow::Borrowed(""),
        other => Cow::Owned(other.to_string()),
    }
}

impl Pieces {
    /// Whether the template gave nothing at all, as `{{#if x}}...{{/if}}` does
    /// without `x`. A value that is an empty text is something.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no value is in it: all of it is the author's or the operator's.
    pub fn is_literal(&self) -> bool {
        self.0.iter().all(Piece::is_literal)
    }

    /// As a text for people or models, where no character means anything else.
    pub fn text(&self) -> String {
        self.0.iter().map(Piece::text).collect()
    }

    /// As an element of a program's arguments; `operand` says that it stands
    /// after a literal `--`, where nothing is an option any more.
    ///
    /// - A list that is the whole element becomes one element for each item.
    /// - An element that renders to nothing at all is left out; an empty value
    ///   is an empty element.
    /// - A value cannot make an element begin with `-`, save a JSON number or an
    ///   operand.
    ///
    /// # Errors
    /// For such a `-`, and for a NUL, which no argument can hold.
    pub fn argv(&self, operand: bool) -> Result<Vec<String>, Refused> {
        if let [Piece::Value(Value::Array(items))] = self.0.as_slice() {
            let element = |item: &Value| Pieces(vec![Piece::Value(item.clone())]).element(operand);
            return items.iter().map(element).collect();
        }
        if self.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![self.element(operand)?])
    }

    fn element(&self, operand: bool) -> Result<String, Refused> {
        let text = self.text();
        if text.contains('\0') {
            return refused("an argument of a program cannot hold a NUL character");
        }
        let authored = matches!(self.0.first(), Some(Piece::Literal(_)));
        let number = matches!(self.0.first(), Some(Piece::Value(Value::Number(_))));
        if text.starts_with('-') && !operand && !authored && !number {
            return refused(
                "a value that begins with `-` would be taken for an option; \
                 send another value, or let the tool put `--` before it",
            );
        }
        Ok(text)
    }

    /// As the value of a header: visible ASCII and spaces.
    ///
    /// # Errors
    /// For anything else, control characters above all, and for a value that
    /// begins or ends the header with a space, which would not arrive.
    pub fn header(&self) -> Result<String, Refused> {
        let text = self.text();
        if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
            return refused(format!("a header cannot hold the character {c:?}"));
        }
        let bare = |piece: Option<&Piece>| piece.is_some_and(|piece| !piece.is_literal());
        let before = text.starts_with(' ') && bare(self.0.first());
        let after = text.ends_with(' ') && bare(self.0.last());
        if before || after {
            return refused("a header cannot begin or end with a space");
        }
        Ok(text)
    }

    /// As a statement of SQL and the values bound to it, in order. `placeholder`
    /// makes the mark for a value from its number, which begins at 1. No value
    /// is ever part of the statement.
    pub fn sql(&self, placeholder: impl Fn(usize) -> String) -> (String, Vec<Value>) {
        let mut statement = String::new();
        let mut values = Vec::new();
        for piece in &self.0 {
            let value = match piece {
                Piece::Literal(text) => {
                    statement.push_str(text);
                    continue;
                }
                Piece::Value(value) => value.clone(),
                Piece::Json(value) => Value::String(value.to_string()),
            };
            values.push(value);
            statement.push_str(&placeholder(values.len()));
        }
        (statement, values)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::render, *};

    fn argv(text: &str, arguments: Value) -> Result<Vec<String>, Refused> {
        render(text, arguments).argv(false)
    }

    fn elements(text: &str, arguments: Value) -> Vec<String> {
        argv(text, arguments).unwrap()
    }

    #[test]
    fn an_element_is_one_element_whatever_the_value() {
        assert_eq!(elements("{{x}}", json!({"x": "a b\n'c' \"d\" $e `f`"})), ["a b\n'c' \"d\" $e `f`"]);
        assert_eq!(elements("--x={{x}}", json!({"x": "-rf"})), ["--x=-rf"]);
        assert_eq!(elements("{{x}}", json!({"x": ""})), [""]);
        assert_eq!(elements("{{x}}", json!({"x": {"a": 1}})), [r#"{"a":1}"#]);
        assert_eq!(elements("{{x}}", json!({"x": true})), ["true"]);
    }

    #[test]
    fn a_list_alone_becomes_elements() {
        assert_eq!(elements("{{x}}", json!({"x": ["a", 1, "b c"]})), ["a", "1", "b c"]);
        assert_eq!(elements("{{x}}", json!({"x": []})), [""; 0]);
        assert_eq!(elements("-f={{x}}", json!({"x": ["a", 1]})), [r#"-f=["a",1]"#]);
        assert!(argv("{{x}}", json!({"x": ["a", "-b"]})).is_err());
    }

    #[test]
    fn what_renders_to_nothing_is_no_element() {
        assert_eq!(elements("{{#if x}}-v{{/if}}", json!({})), [""; 0]);
        assert_eq!(elements("{{#if x}}-v{{/if}}", json!({"x": 1})), ["-v"]);
        assert_eq!(elements("{{x ? '' : '-i'}}", json!({"x": 1})), [""; 0]);
        assert_eq!(elements("{{x ? '' : '-i'}}", json!({})), ["-i"]);
    }

    #[test]
    fn a_value_is_no_option() {
        for (text, given) in [
            ("{{x}}", json!({"x": "-rf"})),
            ("{{x}}", json!({"x": "--output=/etc/passwd"})),
            ("{{x}}", json!({"x": "-"})),
            ("{{x}}{{y}}", json!({"x": "", "y": "-e"})),
            ("{{x}}-e", json!({"x": ""})),
            ("{{x}}-e", json!({"x": null})),
            ("{{default x \"a\"}}", json!({"x": "-e"})),
            ("{{#each x}}{{this}}{{/each}}", json!({"x": ["-e"]})),
        ] {
            assert!(argv(text, given.clone()).is_err(), "{text} {given}");
            assert!(render(text, given).argv(true).is_ok(), "{text}");
        }
        assert_eq!(elements("{{x}}", json!({"x": -5})), ["-5"]);
        assert!(argv("{{x}}", json!({"x": "-5"})).is_err());
    }

    #[test]
    fn no_nul_reaches_a_program() {
        assert!(render("{{x}}", json!({"x": "a\0b"})).argv(true).is_err());
        assert!(render("{{x}}", json!({"x": ["a\0b"]})).argv(true).is_err());
    }

    #[test]
    fn a_header_is_one_line_of_visible_characters() {
        let header = |value: &str| render("v={{x}}", json!({"x": value})).header();
        assert_eq!(header("a b; \"c\"").unwrap(), "v=a b; \"c\"");
        for bad in ["a\r\nX-Admin: 1", "a\n", "\0", "\t", "\u{7f}", "é", "\u{2028}", "a "] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
        assert!(render("{{x}}", json!({"x": " a"})).header().is_err());
        assert_eq!(render(" a ", json!({})).header().unwrap(), " a ");
    }

    #[test]
    fn values_are_bound_in_order() {
        let pieces =
            render("SELECT * FROM t WHERE a = {{x}} AND b = {{y}}", json!({"x": "' OR 1=1", "y": [1]}));
        let (statement, values) = pieces.sql(|number| format!("${number}"));
        assert_eq!(statement, "SELECT * FROM t WHERE a = $1 AND b = $2");
        assert_eq!(values, [json!("' OR 1=1"), json!([1])]);
    }
}
