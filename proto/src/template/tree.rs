//! A JSON value whose texts are templates.

use serde_json::Value;

use super::{Names, Piece, Pieces, RenderError, Scope, Template, TemplateError};
use crate::resource::key_path;

/// Lists and objects within each other.
const DEPTH_MAX: usize = 64;

/// A value of JSON with templates for texts. A text that is one `{{name}}` as a
/// whole becomes the argument itself, whatever its type; any other becomes a
/// text. An entry or an item whose template renders to nothing at all, as
/// `{{#if x}}{{x}}{{/if}}` does without `x`, is left out.
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
    /// the value itself), and what is wrong with it; the message has the place.
    pub fn compile(value: &Value, names: Names<'_>) -> Result<Self, (String, TemplateError)> {
        Self::compile_at(value, names, 0)
    }

    fn compile_at(value: &Value, names: Names<'_>, depth: usize) -> Result<Self, (String, TemplateError)> {
        if depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} lists and objects within each other");
            return Err((String::new(), TemplateError { offset: 0, message, hint: None }));
        }
        Ok(match value {
            Value::String(text) => {
                let placed = |error: TemplateError| TemplateError { message: error.placed(text), ..error };
                let template =
                    Template::compile(text, names).map_err(|error| (String::new(), placed(error)))?;
                match template.literal() {
                    Some(text) => Tree::Fixed(Value::from(text)),
                    None => Tree::Text(template),
                }
            }
            Value::Array(items) => {
                let item = |(i, item): (usize, &Value)| {
                    Self::compile_at(item, names, depth + 1)
                        .map_err(|(path, error)| (format!("[{i}]{path}"), error))
                };
                Tree::List(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            Value::Object(entries) => {
                let entry = |(key, value): (&String, &Value)| {
                    let tree = Self::compile_at(value, names, depth + 1)
                        .map_err(|(path, error)| (format!("{}{path}", step(key)), error))?;
                    Ok((key.clone(), tree))
                };
                Tree::Map(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            other => Tree::Fixed(other.clone()),
        })
    }

    /// Fills it in. A text that renders to nothing is an empty text if it is the
    /// whole tree.
    ///
    /// # Errors
    /// If a template in it reads what is not there.
    pub fn render(&self, scope: Scope<'_>) -> Result<Value, RenderError> {
        Ok(self.render_some(scope)?.unwrap_or_else(|| Value::String(String::new())))
    }

    fn render_some(&self, scope: Scope<'_>) -> Result<Option<Value>, RenderError> {
        let value = match self {
            Tree::Fixed(value) => value.clone(),
            Tree::Text(template) => return template.render(scope).map(whole),
            Tree::List(items) => {
                let items = items.iter().filter_map(|item| item.render_some(scope).transpose());
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Tree::Map(entries) => {
                let entry = |(key, tree): &(String, Tree)| {
                    tree.render_some(scope).map(|value| value.map(|value| (key.clone(), value))).transpose()
                };
                Value::Object(entries.iter().filter_map(entry).collect::<Result<_, _>>()?)
            }
        };
        Ok(Some(value))
    }
}

/// A key as it is written behind the path of its object.
fn step(key: &str) -> String {
    let whole = key_path("_", key);
    whole.strip_prefix('_').unwrap_or(&whole).to_owned()
}

fn whole(mut pieces: Pieces) -> Option<Value> {
    match pieces.0.as_mut_slice() {
        [] => None,
        [Piece::Value(value)] => Some(value.take()),
        _ => Some(Value::String(pieces.text())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(tree: Value, arguments: Value) -> Value {
        let tree = Tree::compile(&tree, Names::default()).unwrap();
        let Value::Object(arguments) = arguments else { panic!("an object") };
        tree.render(Scope { arguments: &arguments, env: &|_| None }).unwrap()
    }

    #[test]
    fn a_text_that_is_one_name_becomes_the_argument_itself() {
        let tree = json!({"a": "{{x}}", "b": "{{ x }}!", "c": [1, "{{y.z}}"], "d": null, "e": "{{json y}}"});
        let given = json!({"x": 7, "y": {"z": [true]}});
        let wanted = json!({"a": 7, "b": "7!", "c": [1, [true]], "d": null, "e": r#"{"z":[true]}"#});
        assert_eq!(render(tree, given), wanted);
    }

    #[test]
    fn what_renders_to_nothing_is_left_out() {
        let tree = json!({"a": "{{#if x}}{{x}}{{/if}}", "b": ["{{#if x}}{{x}}{{/if}}", ""], "c": "{{y}}"});
        assert_eq!(render(tree.clone(), json!({"y": ""})), json!({"b": [""], "c": ""}));
        assert_eq!(render(tree, json!({"x": 1, "y": 2})), json!({"a": 1, "b": [1, ""], "c": 2}));
    }

    #[test]
    fn a_problem_has_the_path_of_its_text() {
        let (path, error) = Tree::compile(&json!({"a": [{"b": "{{"}]}), Names::default()).unwrap_err();
        assert_eq!((path.as_str(), error.offset), (".a[0].b", 0));
        assert_eq!(error.to_string(), "the tag is not closed (at character 1)");
        let (path, _) = Tree::compile(&json!({"a b": "{{"}), Names::default()).unwrap_err();
        assert_eq!(path, r#"["a b"]"#);
    }

    #[test]
    fn a_tree_that_is_too_deep_is_refused() {
        let deep = (0..100).fold(json!("x"), |value, _| json!([value]));
        assert!(Tree::compile(&deep, Names::default()).is_err());
    }
}
