//! A text with a name, and places in it.

use std::ops::Range;

use crate::Diagnostic;

/// A place in a source: bytes, from and to.
pub type Span = Range<usize>;

/// A text that was read, and where its lines begin.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

impl Source {
    /// `name` is what people know the text by, such as its path.
    pub fn new(name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let after = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(after).collect();
        Self { name: name.to_owned(), text, line_starts }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line and the column of a byte, both from 1; the column counts
    /// characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }

    /// One line, without its end.
    pub fn line(&self, number: usize) -> &str {
        let Some(start) = number.checked_sub(1).and_then(|i| self.line_starts.get(i)) else { return "" };
        let end = self.line_starts.get(number).map_or(self.text.len(), |next| next - 1);
        self.text.get(*start..end).unwrap_or_default().trim_end_matches('\r')
    }

    /// Something that is wrong at a place. A place of several lines counts up
    /// to the end of its first.
    pub fn diagnostic(
        &self,
        span: &Span,
        path: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Diagnostic {
        let (line, column) = self.position(span.start);
        let (end_line, end) = self.position(span.end);
        let before = span.start - self.line_starts[line - 1];
        let (source_line, source_offset) = excerpt(self.line(line), before);
        let end = if end_line == line { end } else { column + source_line.chars().count() - source_offset };
        Diagnostic {
            file: self.name.clone(),
            line,
            column,
            end_column: end.max(column + 1),
            path: path.to_owned(),
            message: message.into(),
            hint,
            source_line,
            source_offset,
        }
    }
}

/// Longer lines are shown in part.
const LINE_CHARS_MAX: usize = 120;
/// What is shown before the place in a line that is shown in part.
const LINE_CHARS_BEFORE: usize = 40;

/// What is shown of a line, and how many characters of it stand before the
/// place, which is `at` bytes into the line. Takes no longer for a long line.
fn excerpt(line: &str, at: usize) -> (String, usize) {
    let (before, after) = line.split_at_checked(at).unwrap_or((line, ""));
    if line.len() <= LINE_CHARS_MAX {
        return (line.to_owned(), before.chars().count());
    }
    let from = before.char_indices().rev().nth(LINE_CHARS_BEFORE - 1).map_or(0, |(i, _)| i);
    let to = after.char_indices().nth(LINE_CHARS_MAX - LINE_CHARS_BEFORE).map_or(after.len(), |(i, _)| i);
    let (lead, tail) = (if from > 0 { "…" } else { "" }, if to < after.len() { "…" } else { "" });
    let (before, after) = (&before[from..], &after[..to]);
    (format!("{lead}{before}{after}{tail}"), lead.chars().count() + before.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("f", "\u{feff}a\r\néx: 1\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(5), (2, 2));
        assert_eq!(source.position(10), (3, 1));
        assert_eq!((source.line(1), source.line(2), source.line(3), source.line(9)), ("a", "éx: 1", "", ""));
    }

    #[test]
    fn a_place_of_several_lines_ends_with_its_first() {
        let source = Source::new("f", "spec:\n  a: 1\n");
        let d = source.diagnostic(&(0..12), "", "m", None);
        assert_eq!((d.line, d.column, d.end_column), (1, 1, 6));
    }
}
