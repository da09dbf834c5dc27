//! A JSON value whose texts are templates.

use serde_json::Value;

use super::{Names, Piece, RenderError, Scope, Template, TemplateError};

/// A value of JSON with templates for texts. A text that is one `{{name}}` as a
/// whole becomes the argument itself, whatever its type; any other becomes a
/// text.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// Holds no template.
    Fixed(Value),
    Text(Template),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads a value.
    ///
    /// # Errors
    /// The path of the text that is not a template (`.user.names[2]`; empty for
    /// the value itself), and what is wrong with it.
    pub fn compile(value: &Value, names: Names<'_>) -> Result<Self, (String, TemplateError)> {
        match value {
            Value::String(text) => {
                Template::compile(text, names).map(Tree::Text).map_err(|error| (String::new(), error))
            }
            Value::Array(items) => {
                let item = |(i, item): (usize, &Value)| {
                    Self::compile(item, names).map_err(|(path, error)| (format!("[{i}]{path}"), error))
                };
                items.iter().enumerate().map(item).collect::<Result<_, _>>().map(Tree::List)
            }
            Value::Object(entries) => {
                let entry = |(key, value): (&String, &Value)| {
                    let tree = Self::compile(value, names)
                        .map_err(|(path, error)| (format!(".{key}{path}"), error))?;
                    Ok((key.clone(), tree))
                };
                entries.iter().map(entry).collect::<Result<_, _>>().map(Tree::Map)
            }
            other => Ok(Tree::Fixed(other.clone())),
        }
    }

    /// Fills it in.
    ///
    /// # Errors
    /// If a template in it reads what is not there.
    pub fn render(&self, scope: Scope<'_>) -> Result<Value, RenderError> {
        Ok(match self {
            Tree::Fixed(value) => value.clone(),
            Tree::Text(template) => {
                let pieces = template.render(scope)?;
                match pieces.0.as_slice() {
                    [Piece::Value(value)] => value.clone(),
                    _ => Value::String(pieces.text()),
                }
            }
            Tree::List(items) => {
                Value::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            Tree::Map(entries) => Value::Object(
                entries.iter().map(|(key, tree)| Ok((key.clone(), tree.render(scope)?))).collect::<Result<
                    _,
                    RenderError,
                >>(
                )?,
            ),
        })
    }
}
