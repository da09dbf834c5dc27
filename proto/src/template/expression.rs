//! What stands in a tag: paths, calls of helpers, and the ternary.
//!
//! Paths alone, which most tags are, are read here; anything longer goes
//! through the grammar of the `handlebars` crate. The ternary is no Handlebars
//! and is split before.

use handlebars::{
    Path as RawPath,
    template::{Parameter, TemplateElement},
};
use serde_json::Value;

use super::{
    Names, TemplateError,
    helper::Helper,
    path::{self, Frames, Path},
};

/// Of the text in one tag: the grammar behind recurses.
const BODY_BYTES_MAX: usize = 8 * 1024;

/// Of `(`, `[` and `{` in one tag.
const NESTING_MAX: usize = 32;

/// Something that has a value.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Path(Path),
    Env(String),
    Literal(Value),
    Call(Helper, Vec<Expr>),
}

impl Expr {
    /// Whether nothing of it comes from a call: what it gives is the author's
    /// or the operator's.
    pub fn is_trusted(&self) -> bool {
        match self {
            Expr::Path(_) => false,
            Expr::Env(_) | Expr::Literal(_) => true,
            Expr::Call(_, operands) => operands.iter().all(Expr::is_trusted),
        }
    }
}

/// What reads expressions.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub names: Names<'r>,
    pub frames: &'r Frames,
}

/// What a tag with an output shows.
pub(super) enum Shown {
    One(Expr),
    /// `{{condition ? yes : no}}`
    Either(Box<[Expr; 3]>),
}

impl Reader<'_> {
    /// Reads what `{{body}}` shows.
    pub fn shown(self, body: &str, at: usize) -> Result<Shown, TemplateError> {
        let Some(mark) = find_outside(body, b'?') else { return self.expression(body, at).map(Shown::One) };
        let condition = self.expression(body[..mark].trim_end(), at)?;
        let (yes, next) = self.choice(body, mark + 1, at)?;
        if !body[next..].starts_with(':') {
            return Err(ternary_error(at + next, "the ternary needs a `:` here"));
        }
        let (no, end) = self.choice(body, next + 1, at)?;
        if end != body.len() {
            return Err(ternary_error(at + end, "the ternary should end here"));
        }
        Ok(Shown::Either(Box::new([condition, yes, no])))
    }

    /// Reads a quoted text or a path of a ternary, and gives where what comes
    /// next begins.
    fn choice(self, body: &str, from: usize, at: usize) -> Result<(Expr, usize), TemplateError> {
        let skip = |i: usize| i + (body[i..].len() - body[i..].trim_start().len());
        let from = skip(from);
        let rest = &body[from..];
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let Some((text, length)) = quoted(rest, quote) else {
                return Err(ternary_error(at + from, "the quote is not closed"));
            };
            return Ok((Expr::Literal(Value::String(text)), skip(from + length)));
        }
        let length = rest.find(|c: char| c.is_whitespace() || matches!(c, ':' | '?')).unwrap_or(rest.len());
        let word = &rest[..length];
        if word.is_empty() {
            return Err(ternary_error(at + from, "a quoted text or a path is missing here"));
        }
        match self.word(word, at + from) {
            Some(read) => Ok((read?, skip(from + length))),
            None => Err(ternary_error(at + from, "this is neither a quoted text nor a path")),
        }
    }

    /// Reads a path, a literal or a call.
    pub fn expression(self, body: &str, at: usize) -> Result<Expr, TemplateError> {
        let wrong = |message: String, hint: &str| TemplateError {
            offset: at,
            message,
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        };
        if body.is_empty() {
            return Err(wrong("the tag says nothing".into(), "write the name of an argument in it"));
        }
        if let Some(read) = self.word(body, at) {
            return read;
        }
        let nesting = body.bytes().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count();
        if body.len() > BODY_BYTES_MAX || nesting > NESTING_MAX {
            return Err(wrong("the tag is too complex".into(), "split it"));
        }
        let single = matches!(body.as_bytes()[0], b'(' | b'"' | b'\'' | b'[' | b'{');
        let parsed = match Parameter::parse(body) {
            Ok(parsed) if single => Ok(parsed),
            _ => Parameter::parse(&format!("({body})")),
        };
        let parsed = parsed.map_err(|_| {
            let hint = "write `{{name}}`, `{{helper name \"text\"}}` or `{{name ? 'yes' : 'no'}}`";
            wrong(format!("`{body}` is not an expression"), hint)
        })?;
        self.convert(&parsed, at)
    }

    /// Reads what needs no grammar: a path or a bare literal.
    fn word(self, body: &str, at: usize) -> Option<Result<Expr, TemplateError>> {
        match body {
            "true" => return Some(Ok(Expr::Literal(Value::Bool(true)))),
            "false" => return Some(Ok(Expr::Literal(Value::Bool(false)))),
            "null" => return Some(Ok(Expr::Literal(Value::Null))),
            _ => {}
        }
        if body.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return match serde_json::from_str(body) {
                Ok(number @ Value::Number(_)) => Some(Ok(Expr::Literal(number))),
                _ if path::is_path(body) => Some(self.path(body, at)),
                _ => None,
            };
        }
        path::is_path(body).then(|| self.path(body, at))
    }

    fn path(self, raw: &str, at: usize) -> Result<Expr, TemplateError> {
        if let Some(variable) = path::variable(raw) {
            if !self.names.env.iter().any(|known| known == variable) {
                return Err(TemplateError {
                    offset: at,
                    message: format!("the template may not read the variable {variable}"),
                    hint: Some(format!("add it to `env: [{variable}]`")),
                });
            }
            return Ok(Expr::Env(variable.to_owned()));
        }
        Path::read(raw, self.frames).map(Expr::Path).map_err(|wrong| TemplateError {
            offset: at,
            message: wrong.message,
            hint: wrong.hint,
        })
    }

    fn convert(self, parsed: &Parameter, at: usize) -> Result<Expr, TemplateError> {
        let call = match parsed {
            Parameter::Literal(value) => return Ok(Expr::Literal(value.clone())),
            Parameter::Name(raw) => return self.path(raw, at),
            Parameter::Path(RawPath::Relative((_, raw)) | RawPath::Local((_, _, raw))) => {
                return self.path(raw, at);
            }
            Parameter::Subexpression(inner) => inner.as_element(),
            _ => return Err(not_an_expression(at)),
        };
        let TemplateElement::Expression(call) = call else { return Err(not_an_expression(at)) };
        if call.params.is_empty() && call.hash.is_empty() {
            return self.convert(&call.name, at);
        }
        let name = call.name.as_name().unwrap_or_default();
        let helper = Helper::named(name).map_err(|(message, hint)| TemplateError {
            offset: at,
            message,
            hint: Some(hint),
        })?;
        if let Some(key) = call.hash.keys().next() {
            let message = format!("`{name}` takes no `{key}=`");
            return Err(TemplateError { offset: at, message, hint: None });
        }
        if !helper.takes().contains(&call.params.len()) {
            let hint = format!("for example `{}`", helper.example());
            let message = format!("`{name}` does not take {} operands", call.params.len());
            return Err(TemplateError { offset: at, message, hint: Some(hint) });
        }
        let operands =
            call.params.iter().map(|operand| self.convert(operand, at)).collect::<Result<_, _>>()?;
        Ok(Expr::Call(helper, operands))
    }
}

fn not_an_expression(offset: usize) -> TemplateError {
    TemplateError { offset, message: "this is not an expression".to_owned(), hint: None }
}

fn ternary_error(offset: usize, message: &str) -> TemplateError {
    let hint = "write `{{name ? 'yes' : 'no'}}`; a quote within quotes is written `\\'`";
    TemplateError { offset, message: message.to_owned(), hint: Some(hint.to_owned()) }
}

/// Where a sign stands that is in no quotes, parentheses or brackets.
fn find_outside(body: &str, sign: u8) -> Option<usize> {
    let mut within = None;
    let mut depth = 0_usize;
    let mut escaped = false;
    for (i, byte) in body.bytes().enumerate() {
        match (within, byte) {
            _ if escaped => escaped = false,
            (Some(b'"' | b'\''), b'\\') => escaped = true,
            (Some(end), _) if byte == end => within = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => within = Some(byte),
            (None, b'[') => within = Some(b']'),
            (None, b'(') => depth += 1,
            (None, b')') => depth = depth.saturating_sub(1),
            (None, _) if byte == sign && depth == 0 => return Some(i),
            (None, _) => {}
        }
    }
    None
}

/// The text in quotes, and how many bytes it takes with them.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((text, i + c.len_utf8())),
            '\\' => match chars.next()?.1 {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                other => text.push(other),
            },
            _ => text.push(c),
        }
    }
    None
}
