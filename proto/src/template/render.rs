//! Fills a template in: a walk over its parts that keeps values apart from the
//! text around them, within bounds.

use std::{borrow::Cow, cell::OnceCell};

use serde_json::Value;

use super::{
    Piece, Pieces, RenderError, Scope,
    expression::Expr,
    helper::{Helper, member, truthy},
    node::{Node, Output},
    path::{Base, Local, Path},
};

/// Of what one template gives, with [`PIECE_BYTES`] for each part.
const OUTPUT_BYTES_MAX: usize = 16 * 1024 * 1024;
const PIECE_BYTES: usize = 16;

/// Of all loops of one template together.
const ITERATIONS_MAX: usize = 100_000;

pub(super) fn render(nodes: &[Node], scope: Scope<'_>) -> Result<Pieces, RenderError> {
    let root = OnceCell::new();
    let mut renderer =
        Renderer { scope, root: &root, frames: Vec::new(), pieces: Vec::new(), bytes: 0, iterations: 0 };
    renderer.nodes(nodes)?;
    Ok(Pieces(renderer.pieces))
}

struct Renderer<'a> {
    scope: Scope<'a>,
    /// All arguments as one value, once something asks for that.
    root: &'a OnceCell<Value>,
    frames: Vec<Frame<'a>>,
    pieces: Vec<Piece>,
    bytes: usize,
    iterations: usize,
}

/// What a block stands for at the moment.
struct Frame<'a> {
    value: Cow<'a, Value>,
    index: usize,
    key: Option<&'a str>,
    last: bool,
}

impl<'a> Renderer<'a> {
    fn nodes(&mut self, nodes: &'a [Node]) -> Result<(), RenderError> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &'a Node) -> Result<(), RenderError> {
        match node {
            Node::Text(text) => self.literal(text),
            Node::Output(output) => self.output(output),
            Node::If { condition, then, otherwise } => {
                let holds = self.eval(condition).is_some_and(|value| truthy(&value));
                self.nodes(if holds { then } else { otherwise })
            }
            Node::With { value, body, otherwise } => match self.eval(value) {
                Some(value) if truthy(&value) => {
                    self.framed(body, Frame { value, index: 0, key: None, last: true })
                }
                _ => self.nodes(otherwise),
            },
            Node::Each { list, body, otherwise } => {
                let list = self.eval(list);
                self.each(list, body, otherwise)
            }
        }
    }

    fn each(
        &mut self,
        list: Option<Cow<'a, Value>>,
        body: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<(), RenderError> {
        match list {
            Some(Cow::Borrowed(Value::Array(items))) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    let last = index + 1 == items.len();
                    self.turn(body, Frame { value: Cow::Borrowed(item), index, key: None, last })?;
                }
                Ok(())
            }
            Some(Cow::Borrowed(Value::Object(entries))) if !entries.is_empty() => {
                for (index, (key, item)) in entries.iter().enumerate() {
                    let last = index + 1 == entries.len();
                    self.turn(body, Frame { value: Cow::Borrowed(item), index, key: Some(key), last })?;
                }
                Ok(())
            }
            Some(value) if truthy(&value) => {
                let message = "`each` needs a list or an object, and this argument is neither".to_owned();
                Err(RenderError::Other { message })
            }
            _ => self.nodes(otherwise),
        }
    }

    fn turn(&mut self, body: &'a [Node], frame: Frame<'a>) -> Result<(), RenderError> {
        self.iterations += 1;
        if self.iterations > ITERATIONS_MAX {
            let message = format!("the template goes through more than {ITERATIONS_MAX} elements");
            return Err(RenderError::Other { message });
        }
        self.framed(body, frame)
    }

    fn framed(&mut self, body: &'a [Node], frame: Frame<'a>) -> Result<(), RenderError> {
        self.frames.push(frame);
        let done = self.nodes(body);
        self.frames.pop();
        done
    }

    fn output(&mut self, output: &'a Output) -> Result<(), RenderError> {
        let (expr, json) = match &output.expr {
            Expr::Call(Helper::Json, operands) => (&operands[0], true),
            expr => (expr, false),
        };
        let Some(value) = self.eval(expr) else {
            return Err(match expr {
                Expr::Env(name) => RenderError::NoEnv { name: name.clone() },
                Expr::Path(path) => RenderError::Missing { name: path.raw.clone() },
                _ => RenderError::Missing { name: output.body.clone() },
            });
        };
        let piece = if json { Piece::Json(value.into_owned()) } else { Piece::Value(value.into_owned()) };
        if expr.is_trusted() {
            return self.literal(&piece.text());
        }
        match &piece {
            Piece::Json(value) | Piece::Value(value) => self.charge(weight(value))?,
            Piece::Literal(_) => {}
        }
        self.pieces.push(piece);
        Ok(())
    }

    fn literal(&mut self, text: &str) -> Result<(), RenderError> {
        if text.is_empty() {
            return Ok(());
        }
        self.charge(text.len())?;
        match self.pieces.last_mut() {
            Some(Piece::Literal(before)) => before.push_str(text),
            _ => self.pieces.push(Piece::Literal(text.to_owned())),
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), RenderError> {
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(PIECE_BYTES);
        if self.bytes > OUTPUT_BYTES_MAX {
            let message = format!("the template gives more than {OUTPUT_BYTES_MAX} bytes");
            return Err(RenderError::Other { message });
        }
        Ok(())
    }

    /// What an expression gives; none if there is no such thing.
    fn eval(&self, expr: &'a Expr) -> Option<Cow<'a, Value>> {
        match expr {
            Expr::Literal(value) => Some(Cow::Borrowed(value)),
            Expr::Env(name) => (self.scope.env)(name).map(|text| Cow::Owned(Value::String(text))),
            Expr::Path(path) => self.follow(path),
            Expr::Call(helper, operands) => {
                helper.call(operands.iter().map(|operand| self.eval(operand)).collect())
            }
        }
    }

    fn follow(&self, path: &'a Path) -> Option<Cow<'a, Value>> {
        let mut segments = path.segments.iter();
        let start = match path.base {
            Base::Root => match segments.next() {
                Some(name) => Cow::Borrowed(self.scope.arguments.get(name)?),
                None => Cow::Borrowed(self.root.get_or_init(|| Value::Object(self.scope.arguments.clone()))),
            },
            Base::Block(block) => self.frames.get(block)?.value.clone(),
            Base::Local(block, local) => {
                let frame = self.frames.get(block)?;
                Cow::Owned(match (local, frame.key) {
                    (Local::Key, Some(key)) => Value::String(key.to_owned()),
                    (Local::Key | Local::Index, _) => Value::from(frame.index),
                    (Local::First, _) => Value::Bool(frame.index == 0),
                    (Local::Last, _) => Value::Bool(frame.last),
                })
            }
        };
        segments.try_fold(start, |value, segment| member(value, segment))
    }
}

/// About how many bytes a value takes as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| weight(item) + PIECE_BYTES).sum(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| key.len() + weight(value) + PIECE_BYTES).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => PIECE_BYTES,
    }
}
