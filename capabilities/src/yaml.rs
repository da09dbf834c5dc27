//! From the text of YAML to trees, one for each document.
//!
//! The parser gives events; this keeps the places, undoes anchors and merge
//! keys, and bounds everything. A document that is not YAML is a diagnostic,
//! and the next one is read all the same.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, StrInput, Tag};

use crate::{
    Diagnostic,
    node::{Data, Entry, Node, Scalar},
    source::{Source, Span},
};

/// Lists and objects in each other.
pub const DEPTH_MAX: usize = 64;
/// Values in one file, where what an alias stands for counts each time.
pub const NODES_MAX: usize = 500_000;
/// After so many, a text is something else than what it was taken for.
const DIAGNOSTICS_MAX: usize = 1000;

/// The documents of a text that are there, and what is wrong with the others.
pub fn parse(source: &Source) -> (Vec<Node>, Vec<Diagnostic>) {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut parser = Parser::new_from_str_with_options(source.text(), options);
    let mut builder = Builder::new(source);
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => {
                let span = span.byte_range().unwrap_or_default();
                if builder.event(event, span).is_err() {
                    break;
                }
            }
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or_default().min(source.text().len());
                builder.syntax_error(at, &error.info());
                if !recover(&mut parser, &mut builder) {
                    break;
                }
            }
        }
    }
    (builder.documents, builder.diagnostics)
}

/// Goes on with the document after one that is broken.
fn recover<'t>(parser: &mut Parser<'t, StrInput<'t>>, builder: &mut Builder<'_>) -> bool {
    builder.abandon();
    builder.diagnostics.len() < DIAGNOSTICS_MAX && parser.proceed_next_document().unwrap_or(false)
}

/// A limit is reached; nothing more is read.
struct Full;

/// A list or an object that is still open.
struct Open {
    span: Span,
    anchor: usize,
    data: OpenData,
    /// All values in it, and itself.
    nodes: usize,
}

enum OpenData {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// The keys of the entries, and where each stands.
        seen: HashMap<String, usize>,
        key: Option<Key>,
        /// What `<<` brings, in order.
        merged: Vec<Entry>,
    },
}

struct Key {
    text: String,
    span: Span,
    /// `<<` without quotes; in quotes it is a key like any other.
    merges: bool,
}

struct Builder<'a> {
    source: &'a Source,
    open: Vec<Open>,
    /// What an alias may stand for, and how many values that is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source) -> Self {
        Self {
            source,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    fn abandon(&mut self) {
        self.open.clear();
        self.anchors.clear();
    }

    fn report(&mut self, span: &Span, message: impl Into<String>, hint: Option<&str>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            let hint = hint.map(str::to_owned);
            self.diagnostics.push(self.source.diagnostic(span, "", message, hint));
        }
    }

    fn syntax_error(&mut self, at: usize, info: &str) {
        let line_end = self.source.text()[at..].find('\n').map_or(self.source.text().len(), |i| at + i);
        let line = self.source.line(self.source.position(at).0);
        let hint = if line.contains('\t') {
            "indent with spaces: YAML takes no tabs there"
        } else if info.contains("mapping values are not allowed") || line.matches(": ").count() > 1 {
            "put a text that has `: ` in it in quotes, and check the indentation"
        } else {
            "check the indentation and the quotes of this line and the one before"
        };
        self.report(&(at..line_end.min(at + 1).max(at)), format!("this is not YAML: {info}"), Some(hint));
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Full> {
        match event {
            Event::DocumentStart(..) => self.abandon(),
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, &span)?;
                let plain = style == ScalarStyle::Plain && self.check_tag(tag.as_deref(), &span);
                let scalar = Scalar { text: text.into_owned(), plain };
                self.add(Node { span, data: Data::Scalar(scalar) }, anchor, 1);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.count(1, &span)?;
                self.check_tag(tag.as_deref(), &span);
                self.open.push(Open { span, anchor, data: OpenData::List(Vec::new()), nodes: 1 });
            }
            Event::MappingStart(_, anchor, tag) => {
                self.count(1, &span)?;
                self.check_tag(tag.as_deref(), &span);
                let (entries, seen, merged) = Default::default();
                let data = OpenData::Map { entries, seen, key: None, merged };
                self.open.push(Open { span, anchor, data, nodes: 1 });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((mut node, nodes)) => {
                    self.count(nodes, &span)?;
                    node.span = span;
                    self.add(node, 0, nodes);
                }
                None => {
                    self.report(&span, "the alias stands for something that it is part of", None);
                    self.add(null(span), 0, 1);
                }
            },
            Event::UnresolvedAlias(name) => {
                let message = format!("there is no anchor `&{name}` before this alias");
                self.report(&span, message, Some("put a text that starts with `*` in quotes"));
                self.add(null(span), 0, 1);
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Full> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message = format!("the file has more than {NODES_MAX} values");
            self.report(span, message, Some("use several files, and fewer aliases"));
            return Err(Full);
        }
        Ok(())
    }

    /// Whether a scalar with this tag still reads as what it looks like.
    fn check_tag(&mut self, tag: Option<&Tag>, span: &Span) -> bool {
        let Some(tag) = tag else { return true };
        if tag.is_custom() && tag.original() != "!" {
            self.report(
                span,
                format!("the tag `{}` means nothing here", tag.original()),
                Some("leave it out"),
            );
        }
        !(tag.is_yaml_core_schema_tag("str") || tag.original() == "!")
    }

    fn close(&mut self, end: Span) {
        let Some(open) = self.open.pop() else { return };
        let span = open.span.start..end.end.max(open.span.end);
        let data = match open.data {
            OpenData::List(items) => Data::List(items),
            OpenData::Map { mut entries, mut seen, merged, .. } => {
                for entry in merged {
                    if seen.insert(entry.key.clone(), entry.key_span.start).is_none() {
                        entries.push(entry);
                    }
                }
                Data::Map(entries)
            }
        };
        self.add(Node { span, data }, open.anchor, open.nodes);
    }

    /// Puts a value where it belongs.
    fn add(&mut self, node: Node, anchor: usize, nodes: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        match self.open.pop() {
            None => self.documents.push(node),
            Some(mut open) => {
                open.nodes += nodes;
                self.add_to(&mut open.data, node);
                self.open.push(open);
            }
        }
    }

    fn add_to(&mut self, open: &mut OpenData, node: Node) {
        let (entries, seen, key, merged) = match open {
            OpenData::List(items) => return items.push(node),
            OpenData::Map { entries, seen, key, merged } => (entries, seen, key, merged),
        };
        let Some(Key { text: name, span: key_span, merges }) = key.take() else {
            *key = Some(match node.data {
                Data::Scalar(Scalar { text, plain }) => {
                    Key { merges: plain && text == "<<", text, span: node.span }
                }
                Data::List(_) | Data::Map(_) => {
                    self.report(&node.span, "the key of an entry must be a text", Some("put it in quotes"));
                    Key { text: String::new(), span: node.span, merges: false }
                }
            });
            return;
        };
        if merges {
            let sources = match node.data {
                Data::List(items) => items,
                _ => vec![node],
            };
            for source in sources {
                match source.data {
                    Data::Map(entries) => merged.extend(entries),
                    _ => {
                        let hint = Some("write `<<: *anchor`");
                        return self.report(&key_span, "`<<` takes an object, or a list of objects", hint);
                    }
                }
            }
        } else if let Some(first) = seen.get(&name) {
            let line = self.source.position(*first).0;
            let hint = format!("keep one of them; the other is in line {line}");
            self.report(&key_span, format!("the key `{name}` is in this object twice"), Some(&hint));
        } else {
            seen.insert(name.clone(), key_span.start);
            entries.push(Entry { key: name, key_span, value: node });
        }
    }
}

fn null(span: Span) -> Node {
    Node { span, data: Data::Scalar(Scalar { text: String::new(), plain: true }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let (_, diagnostics) = parse(&Source::new("f", text));
        diagnostics.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect()
    }

    #[test]
    fn values_know_their_places() {
        let text = "a: 1\nb:\n  - x\n  - {c: \"y\"}\n";
        let (documents, diagnostics) = parse(&Source::new("f", text));
        assert_eq!(diagnostics, []);
        let b = documents[0].get("b").unwrap().as_list().unwrap();
        assert_eq!(&text[b[0].span.clone()], "x");
        assert_eq!(&text[b[1].get("c").unwrap().span.clone()], "\"y\"");
        assert_eq!(&text[b[1].span.clone()], "{c: \"y\"}");
    }

    #[test]
    fn a_broken_document_does_not_hide_the_next() {
        let (documents, diagnostics) = parse(&Source::new("f", "a: [1\n---\nb: 2\n---\nc: \"\n---\nd: 4\n"));
        assert_eq!(diagnostics.len(), 2, "{diagnostics:#?}");
        assert!(documents.iter().any(|d| d.get("b").is_some()));
    }

    #[test]
    fn what_yaml_allows_but_nobody_means_is_refused() {
        assert_eq!(messages("a: 1\nb: 2\na: 3\n"), ["3:1 the key `a` is in this object twice"]);
        assert_eq!(messages("a: *nowhere\n"), ["1:4 there is no anchor `&nowhere` before this alias"]);
        assert_eq!(messages("a: !thing 1\n"), ["1:11 the tag `!thing` means nothing here"]);
        assert_eq!(messages("[1]: 2\n"), ["1:1 the key of an entry must be a text"]);
        assert_eq!(messages("<<: 1\n"), ["1:1 `<<` takes an object, or a list of objects"]);
    }

    #[test]
    fn merge_keys_bring_what_is_not_there() {
        let (documents, diagnostics) = parse(&Source::new("f", "x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\n"));
        assert_eq!(diagnostics, []);
        let y = documents[0].get("y").unwrap();
        assert_eq!((y.get("a").unwrap().as_text(), y.get("b").unwrap().as_text()), (Some("3"), Some("2")));
    }

    #[test]
    fn aliases_cannot_blow_a_file_up() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let list = vec![format!("*a{}", i - 1); 10].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
        }
        let found = messages(&text);
        assert!(found.len() == 1 && found[0].contains("more than 500000 values"), "{found:?}");
    }

    #[test]
    fn depth_is_bounded() {
        for text in ["[".repeat(10_000), "- ".repeat(10_000), "{a: ".repeat(10_000)] {
            assert!(!messages(&text).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>(), yaml in "([a-c&*<:!\\[\\]{}\"'|>#-]|: |, |\n|  ){0,60}") {
            for text in [text, yaml] {
                for d in parse(&Source::new("f", &text)).1 {
                    prop_assert!(!d.to_string().is_empty());
                }
            }
        }
    }
}
