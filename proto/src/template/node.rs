//! What a template is made of.

use super::expression::Expr;

/// A part of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Output(Output),
    If { condition: Expr, then: Vec<Node>, otherwise: Vec<Node> },
    Each { list: Expr, body: Vec<Node>, otherwise: Vec<Node> },
    With { value: Expr, body: Vec<Node>, otherwise: Vec<Node> },
}

/// `{{...}}` that shows something.
#[derive(Clone, Debug)]
pub(super) struct Output {
    /// Of the tag in the template.
    pub at: usize,
    pub body: String,
    pub expr: Expr,
}
