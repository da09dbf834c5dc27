//! Paths into the arguments: `user.name`, `items.[0]`, `../x`, `@index`.

/// A path, as it was written and as it is followed.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub raw: String,
    pub base: Base,
    pub segments: Vec<String>,
}

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// At the arguments.
    Root,
    /// At what the block with this number, from outside, stands for.
    Block(usize),
    /// At something that the block with this number counts or names.
    Local(usize, Local),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Index,
    Key,
    First,
    Last,
}

/// The blocks around a place that change what names mean.
#[derive(Debug, Default)]
pub(super) struct Frames(pub Vec<Frame>);

/// `{{#each}}` or `{{#with}}`.
#[derive(Debug)]
pub(super) struct Frame {
    pub each: bool,
    /// `as |item index|`.
    pub names: Vec<String>,
}

/// Why a text is no path here.
pub(super) struct WrongPath {
    pub message: String,
    pub hint: Option<String>,
}

fn wrong<T>(message: impl Into<String>, hint: &str) -> Result<T, WrongPath> {
    Err(WrongPath { message: message.into(), hint: (!hint.is_empty()).then(|| hint.to_owned()) })
}

/// Whether a text looks like a path: no space, no quote, no parenthesis, save
/// between brackets.
pub(super) fn is_path(text: &str) -> bool {
    let mut bracket = false;
    for c in text.chars() {
        match c {
            ']' if bracket => bracket = false,
            _ if bracket => {}
            '[' => bracket = true,
            '.' | '/' | '@' | '-' | '_' | '$' | ':' => {}
            _ if c.is_ascii_alphanumeric() || (!c.is_ascii() && !c.is_whitespace() && !c.is_control()) => {}
            _ => return false,
        }
    }
    !bracket && !text.is_empty()
}

/// The variable of the environment that it reads, if that is what it does.
pub(super) fn variable(raw: &str) -> Option<&str> {
    let name = raw.strip_prefix("env")?;
    let name = name.strip_prefix('.').or_else(|| name.strip_prefix('/'))?;
    Some(name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name))
}

impl Path {
    /// Reads a path at a place within these blocks.
    pub fn read(raw: &str, frames: &Frames) -> Result<Self, WrongPath> {
        let innermost = frames.0.len();
        let path = |base, segments| Ok(Path { raw: raw.to_owned(), base, segments });
        let at_level = |level: usize| if level == 0 { Base::Root } else { Base::Block(level - 1) };
        if let Some(rest) = raw.strip_prefix('@') {
            if rest == "root" {
                return path(Base::Root, Vec::new());
            }
            if let Some(rest) = rest.strip_prefix("root.").or_else(|| rest.strip_prefix("root/")) {
                return path(Base::Root, segments(rest)?);
            }
            return path(local(rest, frames)?, Vec::new());
        }
        let mut rest = raw;
        let mut level = innermost;
        while let Some(tail) = rest.strip_prefix("..") {
            if level == 0 {
                return wrong(
                    format!("`{raw}` leaves the template"),
                    "`..` stands for what is around a block",
                );
            }
            level -= 1;
            rest = match tail.strip_prefix(['/', '.']) {
                Some(tail) => tail,
                None if tail.is_empty() => "this",
                None => return wrong(format!("`{raw}` is not a path"), ""),
            };
        }
        if matches!(rest, "this" | "." | "./") {
            return path(at_level(level), Vec::new());
        }
        let here = ["this.", "this/", "./"].iter().find_map(|prefix| rest.strip_prefix(prefix));
        let mut names = segments(here.unwrap_or(rest))?;
        if here.is_none() && level == innermost {
            for (block, frame) in frames.0.iter().enumerate().rev() {
                let base = match frame.names.iter().position(|name| *name == names[0]) {
                    Some(0) => Base::Block(block),
                    Some(_) => Base::Local(block, Local::Key),
                    None => continue,
                };
                names.remove(0);
                return path(base, names);
            }
        }
        path(at_level(level), names)
    }
}

/// Reads what comes after `@`.
fn local(text: &str, frames: &Frames) -> Result<Base, WrongPath> {
    let mut rest = text;
    let mut level = frames.0.len();
    while let Some(tail) = rest.strip_prefix("../") {
        rest = tail;
        level = level.saturating_sub(1);
    }
    let local = match rest {
        "index" => Local::Index,
        "key" => Local::Key,
        "first" => Local::First,
        "last" => Local::Last,
        _ => {
            return wrong(
                format!("`@{text}` does not exist"),
                "here can be @index, @key, @first, @last, @root",
            );
        }
    };
    match frames.0[..level].iter().rposition(|frame| frame.each) {
        Some(block) => Ok(Base::Local(block, local)),
        None => {
            wrong(format!("`@{text}` stands outside of `each`"), "put it in `{{#each list}}...{{/each}}`")
        }
    }
}

/// Splits `a.b`, `a/b`, `a.[b c]`.
fn segments(text: &str) -> Result<Vec<String>, WrongPath> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let (segment, tail) = match rest.strip_prefix('[') {
            Some(inner) => match inner.split_once(']') {
                Some(split) => split,
                None => return wrong(format!("`{text}` has a bracket that is not closed"), ""),
            },
            None => {
                let end = rest.find(['.', '/', '[']).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        if segment.is_empty() || segment.contains(['@', ']']) {
            return wrong(format!("`{text}` is not a path"), "for example `user.name` or `items.[0]`");
        }
        found.push(segment.to_owned());
        if tail.is_empty() {
            return Ok(found);
        }
        rest = tail.strip_prefix(['.', '/']).unwrap_or(tail);
        if rest.len() == tail.len() && !tail.starts_with('[') {
            return wrong(format!("`{text}` is not a path"), "for example `user.name` or `items.[0]`");
        }
    }
}
