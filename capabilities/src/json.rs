//! From the text of JSON to a tree, with the comments and trailing commas that
//! people and editors put into configuration files.
//!
//! YAML's parser would read most JSON, but neither `//` comments nor all
//! escapes, and its messages speak of YAML.

use crate::{
    Diagnostic,
    node::{Data, Entry, Node, Scalar},
    source::{Source, Span},
    yaml::{DEPTH_MAX, NODES_MAX},
};

/// Whether a text is JSON: by the file's name, or because it opens like it.
pub fn is_json(source: &Source) -> bool {
    let name = source.name().to_ascii_lowercase();
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        return false;
    }
    let opens =
        source.text().trim_start().starts_with(['{', '[']) || source.text().trim_start().starts_with("//");
    opens || name.ends_with(".json") || name.ends_with(".jsonc")
}

/// The value of a text, and what is wrong with it. What is wrong beyond a
/// duplicate key ends the reading, and then there is no value.
pub fn parse(source: &Source) -> (Option<Node>, Vec<Diagnostic>) {
    let mut reader = Reader { source, at: 0, nodes: 0, diagnostics: Vec::new() };
    let node = reader.document();
    let node = match node {
        Ok(node) => Some(node),
        Err(Wrong { span, message, hint }) => {
            let diagnostic = source.diagnostic(&span, "", message, Some(hint.to_owned()));
            reader.diagnostics.push(diagnostic);
            None
        }
    };
    (node, reader.diagnostics)
}

struct Wrong {
    span: Span,
    message: String,
    hint: &'static str,
}

struct Reader<'a> {
    source: &'a Source,
    at: usize,
    nodes: usize,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Node, Wrong> {
        let node = self.value(0)?;
        self.space()?;
        if self.at < self.source.text().len() {
            return Err(
                self.wrong("there is more after the end of the value", "wrap several values in one list")
            );
        }
        Ok(node)
    }

    fn rest(&self) -> &str {
        &self.source.text()[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn wrong(&self, message: &str, hint: &'static str) -> Wrong {
        let width = self.peek().map_or(0, char::len_utf8);
        Wrong { span: self.at..self.at + width, message: message.to_owned(), hint }
    }

    /// Skips spaces and comments.
    fn space(&mut self) -> Result<(), Wrong> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let skipped = rest.len() - trimmed.len();
            if trimmed.starts_with("//") {
                let line = trimmed.find('\n').unwrap_or(trimmed.len());
                self.at += skipped + line;
            } else if trimmed.starts_with("/*") {
                let end = trimmed.find("*/");
                self.at += skipped;
                match end {
                    Some(end) => self.at += end + 2,
                    None => return Err(self.wrong("the comment has no end", "close it with `*/`")),
                }
            } else {
                self.at += skipped;
                return Ok(());
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Wrong> {
        self.space()?;
        self.nodes += 1;
        if depth > DEPTH_MAX {
            return Err(self.wrong("lists and objects are nested too deeply", "64 levels are the most"));
        }
        if self.nodes > NODES_MAX {
            return Err(self.wrong("the file has too many values", "use several files"));
        }
        let start = self.at;
        let data = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Data::Scalar(Scalar { text: self.string()?, plain: false }),
            Some(c) if c.is_ascii_alphanumeric() || c == '-' => self.word()?,
            Some(_) => return Err(self.wrong("a value is missing here", "texts stand in \"double quotes\"")),
            None => {
                return Err(self.wrong(
                    "the text ends where a value should be",
                    "a bracket or a quote may be missing before",
                ));
            }
        };
        Ok(Node { span: start..self.at, data })
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Data, Wrong> {
        let word_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        let length = self.rest().find(word_end).unwrap_or(self.rest().len());
        let text = self.rest()[..length].to_owned();
        let number = serde_json::from_str::<serde_json::Number>(&text).is_ok();
        if !number && !matches!(text.as_str(), "true" | "false" | "null") {
            let message = format!("`{text}` is not a value of JSON");
            return Err(Wrong {
                span: self.at..self.at + length,
                message,
                hint: "texts stand in \"double quotes\"",
            });
        }
        self.at += length;
        Ok(Data::Scalar(Scalar { text, plain: true }))
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find_map(|(i, c)| match c {
            '"' if !escaped => Some(i),
            _ => {
                escaped = c == '\\' && !escaped;
                None
            }
        });
        let Some(end) = end else {
            return Err(self.wrong("the text has no end", "close it with a double quote"));
        };
        let token = &self.rest()[..=end];
        let text = serde_json::from_str(token).map_err(|_| Wrong {
            span: self.at..self.at + end + 1,
            message: "the text has a line break or an escape that JSON does not know".into(),
            hint: "write `\\n` for a line break and `\\\\` for a backslash",
        })?;
        self.at += end + 1;
        Ok(text)
    }

    fn list(&mut self, depth: usize) -> Result<Data, Wrong> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.space()?;
            if self.peek() == Some(']') {
                self.at += 1;
                return Ok(Data::List(items));
            }
            items.push(self.value(depth + 1)?);
            self.separator(']')?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Data, Wrong> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        self.at += 1;
        loop {
            self.space()?;
            match self.peek() {
                Some('}') => {
                    self.at += 1;
                    return Ok(Data::Map(entries));
                }
                Some('"') => {}
                _ => {
                    return Err(self.wrong("a key or `}` is missing here", "keys stand in \"double quotes\""));
                }
            }
            let start = self.at;
            let key = self.string()?;
            let key_span = start..self.at;
            self.space()?;
            if self.peek() != Some(':') {
                return Err(self.wrong("`:` is missing after the key", "write `\"key\": value`"));
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            match seen.get(&key) {
                Some(first) => {
                    let line = self.source.position(*first).0;
                    let message = format!("the key `{key}` is in this object twice");
                    let hint = format!("keep one of them; the other is in line {line}");
                    self.diagnostics.push(self.source.diagnostic(&key_span, "", message, Some(hint)));
                }
                None => {
                    seen.insert(key.clone(), start);
                    entries.push(Entry { key, key_span, value });
                }
            }
            self.separator('}')?;
        }
    }

    /// A comma, or the bracket that ends the list and is not taken.
    fn separator(&mut self, end: char) -> Result<(), Wrong> {
        self.space()?;
        match self.peek() {
            Some(',') => self.at += 1,
            Some(c) if c == end => {}
            _ => {
                let message = format!("`,` or `{end}` is missing here");
                return Err(self.wrong(&message, "a comma may be missing at the end of the line before"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(text: &str) -> String {
        let (_, diagnostics) = parse(&Source::new("f.json", text));
        diagnostics
            .iter()
            .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn comments_and_trailing_commas_are_taken() {
        let text = "// top\n{\"a\": [1, 2,], /* b */ \"b\": \"\\ud83d\\ude00\\/\", // end\n}\n";
        let (node, diagnostics) = parse(&Source::new("f.json", text));
        assert_eq!(diagnostics, []);
        let node = node.unwrap();
        assert_eq!(node.get("a").unwrap().as_list().unwrap().len(), 2);
        assert_eq!(node.get("b").unwrap().as_text(), Some("😀/"));
    }

    #[test]
    fn a_mistake_is_found_where_it_is() {
        assert_eq!(message("{\"a\": 1 \"b\": 2}"), "1:9 `,` or `}` is missing here");
        assert_eq!(message("{a: 1}"), "1:2 a key or `}` is missing here");
        assert_eq!(message("{\"a\": yes}"), "1:7 `yes` is not a value of JSON");
        assert_eq!(message("{\"a\": \"x}"), "1:7 the text has no end");
        assert_eq!(message("{\"a\": 1}\n{}"), "2:1 there is more after the end of the value");
        assert_eq!(message("[1, /* "), "1:5 the comment has no end");
        assert_eq!(message("{\"a\": 1, \"a\": 2}"), "1:10 the key `a` is in this object twice");
        assert_eq!(message(""), "1:1 the text ends where a value should be");
        assert!(message(&"[".repeat(10_000)).contains("too deeply"));
    }

    proptest! {
        #[test]
        fn what_serde_reads_is_read_and_nothing_panics(text in any::<String>(), json in "([a-z\\[\\]{},:/*\\\\ 0-9.-]|\"|true){0,40}") {
            for text in [text, json] {
                let (node, diagnostics) = parse(&Source::new("f.json", &text));
                prop_assert!(node.is_some() || !diagnostics.is_empty());
                if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                    prop_assert!(node.is_some());
                }
            }
        }
    }
}
