//! From the text of a template to something that renders: the blocks, and what
//! stands between them.

use serde_json::Value;

use super::{
    Names, Pieces, RenderError, Scope,
    expression::{Expr, Reader, Shown},
    node::{Node, Output},
    path::{Frame, Frames},
    render,
    scan::{self, Kind, Tag, Token},
};

/// Blocks within blocks; each `{{else if}}` counts as one.
const DEPTH_MAX: usize = 48;

/// A text with `{{...}}` in it, checked and ready to render.
#[derive(Clone, Debug)]
pub struct Template {
    text: String,
    pub(super) nodes: Vec<Node>,
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

impl TemplateError {
    /// What is wrong and where in the text of the template, for people.
    pub fn placed(&self, text: &str) -> String {
        let before = text.get(..self.offset).unwrap_or(text);
        format!("{} (at character {})", self.message, before.chars().count() + 1)
    }
}

impl Template {
    /// Reads a template. A text without `{{` is not parsed at all.
    ///
    /// # Errors
    /// If it is not well-formed, or reads a variable that it may not.
    pub fn compile(text: &str, names: Names<'_>) -> Result<Self, TemplateError> {
        let nodes = if text.contains("{{") {
            let tokens = scan::tokens(text)?.into_iter();
            let mut compiler = Compiler { tokens, names, frames: Frames::default(), depth: 0 };
            let (nodes, end) = compiler.body()?;
            if let Some(tag) = end {
                return Err(stray(&tag));
            }
            nodes
        } else if text.is_empty() {
            Vec::new()
        } else {
            vec![Node::Text(text.to_owned())]
        };
        Ok(Self { text: text.to_owned(), nodes })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text itself, if nothing in it is filled in.
    pub fn literal(&self) -> Option<&str> {
        match self.nodes.as_slice() {
            [] => Some(""),
            [Node::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether something of the arguments of a call may be in what it gives. If
    /// not, they at most choose between texts of the author's.
    pub fn shows_values(&self) -> bool {
        fn shows(nodes: &[Node]) -> bool {
            nodes.iter().any(|node| match node {
                Node::Text(_) => false,
                Node::Output(output) => !output.expr.is_trusted(),
                Node::If { then: body, otherwise, .. }
                | Node::Each { body, otherwise, .. }
                | Node::With { body, otherwise, .. } => shows(body) || shows(otherwise),
            })
        }
        shows(&self.nodes)
    }

    /// Fills it in. What it gives and how long it takes are bounded.
    ///
    /// # Errors
    /// If it reads what is not there, loops over what is no list, or grows
    /// beyond its bounds.
    pub fn render(&self, scope: Scope<'_>) -> Result<Pieces, RenderError> {
        render::render(&self.nodes, scope)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

struct Compiler<'t, 'n> {
    tokens: std::vec::IntoIter<Token<'t>>,
    names: Names<'n>,
    frames: Frames,
    depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    If,
    Unless,
    Each,
    With,
}

impl<'t> Compiler<'t, '_> {
    /// Reads up to the tag that ends or divides the block around, or to the end
    /// of the template.
    fn body(&mut self) -> Result<(Vec<Node>, Option<Tag<'t>>), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Text(text) => push_text(&mut nodes, text),
                Token::Tag(tag) => match tag.kind {
                    Kind::Comment => {}
                    Kind::Output => self.output(&tag, &mut nodes)?,
                    Kind::Open => {
                        let (node, end) = self.block(&tag)?;
                        let (name, _) = split_name(tag.body);
                        if end.body != name {
                            let message = format!("`{{{{/{}}}}}` closes `{{{{#{name}}}}}`", end.body);
                            let hint = Some(format!("write `{{{{/{name}}}}}`"));
                            return Err(TemplateError { offset: end.at, message, hint });
                        }
                        nodes.push(node);
                    }
                    Kind::Else | Kind::Close => return Ok((nodes, Some(tag))),
                },
            }
        }
        Ok((nodes, None))
    }

    fn output(&mut self, tag: &Tag<'_>, nodes: &mut Vec<Node>) -> Result<(), TemplateError> {
        let node = |expr| match expr {
            Expr::Literal(Value::String(text)) => Node::Text(text),
            expr => Node::Output(Output { at: tag.at, body: tag.body.to_owned(), expr }),
        };
        match self.reader().shown(tag.body, tag.body_at)? {
            Shown::One(expr) => nodes.push(node(expr)),
            Shown::Either(parts) => {
                let [condition, yes, no] = *parts;
                nodes.push(Node::If { condition, then: vec![node(yes)], otherwise: vec![node(no)] });
            }
        }
        Ok(())
    }

    /// Reads a block up to its end, whose tag it gives.
    fn block(&mut self, open: &Tag<'t>) -> Result<(Node, Tag<'t>), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} blocks within each other");
            return Err(TemplateError { offset: open.at, message, hint: None });
        }
        let (name, rest) = split_name(open.body);
        let kind = block_kind(name, open)?;
        let (rest, names) = split_names(rest, open)?;
        if !names.is_empty() && !matches!(kind, Block::Each | Block::With) {
            let message = format!("`{name}` gives no names");
            return Err(TemplateError {
                offset: open.at,
                message,
                hint: Some("leave out `as |...|`".into()),
            });
        }
        if rest.is_empty() {
            let message = format!("`{{{{#{name}}}}}` says of nothing");
            let hint = Some(format!("write `{{{{#{name} x}}}}...{{{{/{name}}}}}`"));
            return Err(TemplateError { offset: open.at, message, hint });
        }
        let rest_at = open.body_at + (rest.as_ptr() as usize - open.body.as_ptr() as usize);
        let expr = self.reader().expression(rest, rest_at)?;

        let framed = matches!(kind, Block::Each | Block::With);
        if framed {
            self.frames.0.push(Frame { each: kind == Block::Each, names });
        }
        let (body, end) = self.body()?;
        if framed {
            self.frames.0.pop();
        }
        let unclosed = || {
            let message = format!("`{{{{#{name}}}}}` is not closed");
            TemplateError { offset: open.at, message, hint: Some(format!("add `{{{{/{name}}}}}`")) }
        };
        let end = end.ok_or_else(unclosed)?;
        let (otherwise, end) = match end.kind {
            Kind::Else if end.body.is_empty() => {
                let (otherwise, end) = self.body()?;
                (otherwise, end.ok_or_else(unclosed)?)
            }
            Kind::Else => {
                let (node, end) = self.block(&end)?;
                (vec![node], end)
            }
            _ => (Vec::new(), end),
        };
        if end.kind != Kind::Close {
            return Err(stray(&end));
        }
        self.depth -= 1;
        let node = match kind {
            Block::If => Node::If { condition: expr, then: body, otherwise },
            Block::Unless => Node::If { condition: expr, then: otherwise, otherwise: body },
            Block::Each => Node::Each { list: expr, body, otherwise },
            Block::With => Node::With { value: expr, body, otherwise },
        };
        Ok((node, end))
    }

    fn reader(&self) -> Reader<'_> {
        Reader { names: self.names, frames: &self.frames }
    }
}

fn push_text(nodes: &mut Vec<Node>, text: String) {
    match nodes.last_mut() {
        _ if text.is_empty() => {}
        Some(Node::Text(before)) => before.push_str(&text),
        _ => nodes.push(Node::Text(text)),
    }
}

fn stray(tag: &Tag<'_>) -> TemplateError {
    let (message, hint) = match tag.kind {
        Kind::Else => {
            ("`{{else}}` belongs to no block".to_owned(), "it stands once, between `{{#if x}}` and `{{/if}}`")
        }
        _ => (format!("`{{{{/{}}}}}` closes nothing", tag.body), "take it away, or open the block before it"),
    };
    TemplateError { offset: tag.at, message, hint: Some(hint.to_owned()) }
}

fn split_name(body: &str) -> (&str, &str) {
    let end = body.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(body.len());
    (&body[..end], body[end..].trim_start())
}

fn block_kind(name: &str, open: &Tag<'_>) -> Result<Block, TemplateError> {
    let kind = match name {
        "if" => Block::If,
        "unless" => Block::Unless,
        "each" => Block::Each,
        "with" => Block::With,
        _ => {
            let message = format!("there is no block `{name}`");
            let hint = match name {
                "" => "write `{{#if x}}`".to_owned(),
                _ => format!(
                    "blocks are if, unless, each and with: `{{{{#if {name}}}}}`, `{{{{#each {name}}}}}`"
                ),
            };
            return Err(TemplateError { offset: open.at, message, hint: Some(hint) });
        }
    };
    Ok(kind)
}

/// Takes `as |item index|` off the end of a block's tag.
fn split_names<'t>(rest: &'t str, open: &Tag<'_>) -> Result<(&'t str, Vec<String>), TemplateError> {
    let Some(inner) = rest.strip_suffix('|') else { return Ok((rest, Vec::new())) };
    let split = inner.rsplit_once('|').and_then(|(before, names)| {
        let before = before.trim_end().strip_suffix("as")?;
        let names: Vec<_> = names.split_whitespace().map(str::to_owned).collect();
        (before.ends_with(char::is_whitespace) && matches!(names.len(), 1 | 2))
            .then(|| (before.trim_end(), names))
    });
    split.ok_or_else(|| TemplateError {
        offset: open.at,
        message: "the names between `|` are not as they should be".to_owned(),
        hint: Some("write `{{#each items as |item index|}}`".to_owned()),
    })
}
