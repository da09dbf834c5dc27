//! Text templates: Handlebars, with every value kept apart from the text
//! around it until the place that it goes to is known.
//!
//! ```text
//!  text ─ compile ─► Template ─ render(scope) ─► Pieces ─► argv, url, header, json, sql, text
//!                    (at apply)                 (literal | value)    (target.rs: one way for each place)
//! ```
//!
//! What the author wrote, and what `{{env.NAME}}` stands for, is literal; what
//! comes from the arguments of a call is a value. No value can become anything
//! but a value where it ends up: not an option, a header, a path segment, a
//! part of a query. Values never pass through text on the way, and are never
//! read as templates.
//!
//! `scan.rs` finds the tags, `expression.rs` reads what stands in them (with the
//! grammar of the `handlebars` crate), `compile.rs` makes the tree of blocks
//! (`node.rs`), and `render.rs` walks it. `check.rs` says at apply time what a place would refuse
//! whatever the arguments. Syntax and rules for users: docs/templates.md.

mod check;
mod compile;
mod expression;
mod helper;
mod json_text;
mod node;
mod path;
#[cfg(test)]
mod properties;
mod render;
mod scan;
mod shell;
mod target;
#[cfg(test)]
mod tests;
mod tree;
mod url;

use serde_json::{Map, Value};

pub use self::{
    compile::{Template, TemplateError},
    target::Refused,
    tree::Tree,
};

/// What a template may read of its surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// The variables of the environment, as `{{env.NAME}}`.
    pub env: &'a [String],
}

/// What templates are filled in with.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The arguments of the call, by name.
    pub arguments: &'a Map<String, Value>,
    /// The value of a variable of the node's environment.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// A rendered template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pieces(pub Vec<Piece>);

/// A part of a rendered template.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// The author's, or the operator's.
    Literal(String),
    /// The caller's. A value of any type of JSON.
    Value(Value),
    /// The caller's, as the text of its JSON: `{{json x}}`. In a JSON text, the
    /// value itself.
    Json(Value),
}

/// A template that cannot be filled in with these arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// It reads an argument that is not there.
    #[error("argument {name:?} is missing")]
    Missing { name: String },
    #[error("the node has no environment variable {name}")]
    NoEnv { name: String },
    #[error("{message}")]
    Other { message: String },
}
