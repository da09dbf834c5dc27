//! From the text of a template to something that renders.

use serde_json::Value;

use super::{Names, Piece, Pieces, RenderError, Scope};

/// A text with `{{...}}` in it, checked and ready to render.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    Argument(String),
    Env(String),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// Of the byte in the text where it goes wrong.
    pub offset: usize,
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If it is not well-formed, or reads a variable that it may not.
    pub fn compile(text: &str, names: Names<'_>) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, tail)) = rest.split_once("{{") {
            let at = text.len() - tail.len() - 2;
            let unclosed =
                || TemplateError { offset: at, message: "the tag is not closed".into(), hint: None };
            let (name, tail) = tail.split_once("}}").ok_or_else(unclosed)?;
            if !before.is_empty() {
                parts.push(Part::Literal(before.to_owned()));
            }
            parts.push(match name.trim().strip_prefix("env.") {
                Some(variable) if names.env.iter().any(|known| known == variable) => {
                    Part::Env(variable.to_owned())
                }
                Some(variable) => {
                    return Err(TemplateError {
                        offset: at,
                        message: format!("the template may not read the variable {variable}"),
                        hint: Some(format!("add it to `env: [{variable}]`")),
                    });
                }
                None => Part::Argument(name.trim().to_owned()),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text itself, if nothing in it is filled in.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Fills it in.
    ///
    /// # Errors
    /// If it reads what is not there.
    pub fn render(&self, scope: Scope<'_>) -> Result<Pieces, RenderError> {
        let piece = |part: &Part| match part {
            Part::Literal(text) => Ok(Piece::Literal(text.clone())),
            Part::Env(name) => {
                (scope.env)(name).map(Piece::Literal).ok_or_else(|| RenderError::NoEnv { name: name.clone() })
            }
            Part::Argument(name) => match scope.arguments.get(name) {
                Some(value) => Ok(Piece::Value(Value::clone(value))),
                None => Err(RenderError::Missing { name: name.clone() }),
            },
        };
        self.parts.iter().map(piece).collect::<Result<_, _>>().map(Pieces)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
