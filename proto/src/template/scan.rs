//! Splits a template into plain text and tags, with the white space around
//! tags settled. What stands in a tag is not read here.

use super::TemplateError;

/// Of one template.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Token<'t> {
    Text(String),
    Tag(Tag<'t>),
}

/// `{{...}}`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag<'t> {
    /// Of its first brace.
    pub at: usize,
    end: usize,
    pub kind: Kind,
    /// Without braces, the sign of its kind, and the space around.
    pub body: &'t str,
    pub body_at: usize,
    trim_before: bool,
    trim_after: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `{{x}}`, `{{{x}}}`, `{{&x}}`.
    Output,
    /// `{{#if x}}`.
    Open,
    /// `{{else}}`, `{{else if x}}`, `{{^}}`.
    Else,
    /// `{{/if}}`.
    Close,
    /// `{{! ... }}`, `{{!-- ... --}}`.
    Comment,
}

/// Splits a template.
///
/// # Errors
/// If it is too long, a tag is not closed, or is of a kind that does not exist
/// here.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, TemplateError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the template is longer than {TEXT_BYTES_MAX} bytes");
        return Err(TemplateError { offset: TEXT_BYTES_MAX, message, hint: None });
    }
    let mut tokens = Vec::new();
    let mut plain = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("{{") {
        let before = &text[at..at + found];
        let brace = at + found;
        if let Some(kept) = before.strip_suffix('\\') {
            plain.push_str(kept);
            if !kept.ends_with('\\') {
                let braces = text[brace..].bytes().take_while(|byte| *byte == b'{').count();
                plain.push_str(&text[brace..brace + braces]);
                at = brace + braces;
                continue;
            }
        } else {
            plain.push_str(before);
        }
        let tag = tag(text, brace)?;
        if !plain.is_empty() {
            tokens.push(Token::Text(std::mem::take(&mut plain)));
        }
        at = tag.end;
        tokens.push(Token::Tag(tag));
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        tokens.push(Token::Text(plain));
    }
    settle(text, &mut tokens);
    Ok(tokens)
}

fn refused(offset: usize, message: &str, hint: &str) -> TemplateError {
    TemplateError { offset, message: message.to_owned(), hint: Some(hint.to_owned()) }
}

/// Reads the tag that begins here.
fn tag(text: &str, at: usize) -> Result<Tag<'_>, TemplateError> {
    if text[at..].starts_with("{{{{") {
        return Err(refused(
            at,
            "raw blocks do not exist here",
            "write `\\{{` for braces that stay as they are",
        ));
    }
    let triple = text[at..].starts_with("{{{");
    let (braces, closing) = if triple { (3, "}}}") } else { (2, "}}") };
    let mut from = at + braces;
    let trim_before = text[from..].starts_with('~');
    from += usize::from(trim_before);

    let comment = text[from..].starts_with('!') && !triple;
    let long = comment && text[from..].starts_with("!--");
    let found = match (long, comment) {
        (true, _) => dashes(&text[from..]).or_else(|| plain_end(&text[from..])),
        (false, true) => plain_end(&text[from..]),
        // With a quote too many, what is wrong is said where the quote is.
        (false, false) => {
            end_of_expression(&text[from..], closing).or_else(|| nearest(&text[from..], closing))
        }
    };
    let Some((inside, whole)) = found else {
        let hint = format!("it ends with `{closing}`, and the quotes in it must be closed");
        return Err(TemplateError { offset: at, message: "the tag is not closed".into(), hint: Some(hint) });
    };
    let end = from + whole;
    let inner = &text[from..from + inside];
    let trim_after = inner.ends_with('~');
    let inner = inner.strip_suffix('~').unwrap_or(inner);
    let mut tag = Tag { at, end, kind: Kind::Output, body: "", body_at: at, trim_before, trim_after };
    if comment {
        tag.kind = Kind::Comment;
        return Ok(tag);
    }
    tag.set_body(text, from, inner);
    tag.sort(text, triple)?;
    Ok(tag)
}

impl<'t> Tag<'t> {
    fn set_body(&mut self, _: &'t str, from: usize, inner: &'t str) {
        self.body = inner.trim();
        self.body_at = from + (inner.len() - inner.trim_start().len());
    }

    /// Finds out its kind and takes the sign for it off the body.
    fn sort(&mut self, text: &'t str, triple: bool) -> Result<(), TemplateError> {
        let (kind, sign) = match self.body.as_bytes().first() {
            _ if triple => (Kind::Output, 0),
            Some(b'#') => (Kind::Open, 1),
            Some(b'/') => (Kind::Close, 1),
            Some(b'&') => (Kind::Output, 1),
            Some(b'^') => (Kind::Else, 1),
            Some(b'>') => return Err(refused(self.at, "partials do not exist here", PARTIAL_HINT)),
            Some(b'*') => return Err(refused(self.at, "decorators do not exist here", PARTIAL_HINT)),
            _ => match self.body.strip_prefix("else") {
                Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => (Kind::Else, 4),
                _ => (Kind::Output, 0),
            },
        };
        let inverse = kind == Kind::Else && sign == 1 && self.body.len() > 1;
        let (from, inner) = (self.body_at + sign, &self.body[sign..]);
        self.kind = kind;
        self.set_body(text, from, inner);
        if inverse {
            return Err(refused(self.at, "inverse blocks do not exist here", "write `{{#unless x}}`"));
        }
        if kind == Kind::Open && self.body.starts_with(['>', '*']) {
            let message = "partials and decorators do not exist here";
            return Err(refused(self.at, message, PARTIAL_HINT));
        }
        Ok(())
    }

    /// Those that may have a line of their own, which then goes with them.
    fn may_stand_alone(&self) -> bool {
        self.kind != Kind::Output
    }
}

const PARTIAL_HINT: &str = "a template cannot include another one: write its text here";

/// Where a `{{!-- --}}` ends: the length inside and with the braces.
fn dashes(rest: &str) -> Option<(usize, usize)> {
    let plain = rest.find("--}}").map(|i| (i, i + 4));
    let trimmed = rest.find("--~}}").map(|i| (i + 3, i + 5));
    match (plain, trimmed) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The next closing braces, if no other tag opens before them.
fn nearest(rest: &str, closing: &str) -> Option<(usize, usize)> {
    let end = rest.find(closing)?;
    (!rest[..end].contains("{{")).then_some((end, end + closing.len()))
}

fn plain_end(rest: &str) -> Option<(usize, usize)> {
    rest.find("}}").map(|i| (i, i + 2))
}

/// Where a tag ends. Braces in quotes, and quotes in `[...]`, are plain.
fn end_of_expression(rest: &str, closing: &str) -> Option<(usize, usize)> {
    let bytes = rest.as_bytes();
    let mut within = None;
    let mut i = 0;
    while i < bytes.len() {
        match (within, bytes[i]) {
            (Some(b'"' | b'\''), b'\\') => i += 1,
            (Some(end), byte) if byte == end => within = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => within = Some(bytes[i]),
            (None, b'[') => within = Some(b']'),
            (None, b'{') if bytes[i..].starts_with(b"{{") => return None,
            (None, b'}') if bytes[i..].starts_with(closing.as_bytes()) => {
                return Some((i, i + closing.len()));
            }
            (None, _) => {}
        }
        i += 1;
    }
    None
}

/// Takes away the white space that `~` says, and the lines that hold nothing
/// but a tag of a block or a comment.
fn settle(text: &str, tokens: &mut [Token<'_>]) {
    for i in 0..tokens.len() {
        let Token::Tag(tag) = &tokens[i] else { continue };
        let tag = *tag;
        let alone = tag.may_stand_alone() && stands_alone(text, &tag);
        if let Some(Token::Text(before)) = i.checked_sub(1).and_then(|i| tokens.get_mut(i)) {
            let kept = match (tag.trim_before, alone) {
                (true, _) => before.trim_end(),
                (false, true) => before.trim_end_matches([' ', '\t']),
                (false, false) => before,
            };
            before.truncate(kept.len());
        }
        if let Some(Token::Text(after)) = tokens.get_mut(i + 1) {
            let kept = match (tag.trim_after, alone) {
                (true, _) => after.trim_start(),
                (false, true) => without_newline(after.trim_start_matches([' ', '\t'])),
                (false, false) => after,
            };
            let cut = after.len() - kept.len();
            after.drain(..cut);
        }
    }
}

fn without_newline(text: &str) -> &str {
    text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(text)
}

fn stands_alone(text: &str, tag: &Tag<'_>) -> bool {
    let before = text[..tag.at].trim_end_matches([' ', '\t']);
    let after = text[tag.end..].trim_start_matches([' ', '\t']);
    let starts = before.is_empty() || before.ends_with('\n');
    let ends = after.is_empty() || after.starts_with('\n') || after.starts_with("\r\n");
    starts && ends
}
