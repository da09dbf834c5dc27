//! What is wrong with a text, as people are told.

use std::fmt::{self, Write};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// What was read; empty if the problem is in no text.
    pub file: String,
    /// From 1; 0 if there is no place.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The column after the last one.
    pub end_column: usize,
    /// The field, such as `spec.members[1].backend`.
    pub path: String,
    /// Lower case, without a period.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
    /// The line of the place, or the part around it where the line is long.
    pub source_line: String,
    /// How many characters of `source_line` stand before the place.
    pub source_offset: usize,
}

impl fmt::Display for Diagnostic {
    /// In the manner of rustc, as plain text. No character of what was read
    /// can move the cursor or turn the direction of the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", escaped(&self.message))?;
        let number = if self.line == 0 { String::new() } else { self.line.to_string() };
        let margin = " ".repeat(number.len());
        if self.line != 0 {
            let file = escaped(&self.file);
            writeln!(f, "{margin}--> {file}:{}:{}", self.line, self.column)?;
            let line = escaped(&self.source_line);
            let after = line.chars().count().saturating_sub(self.source_offset);
            let width = self.end_column.saturating_sub(self.column).clamp(1, after.max(1));
            writeln!(f, "{margin} |\n{number} | {line}")?;
            writeln!(f, "{margin} | {}{}", " ".repeat(self.source_offset), "^".repeat(width))?;
        } else if !self.file.is_empty() {
            writeln!(f, "{margin}--> {}", escaped(&self.file))?;
        }
        if let Some(hint) = &self.hint {
            if self.line != 0 {
                writeln!(f, "{margin} |")?;
            }
            writeln!(f, "{margin} = help: {}", escaped(hint))?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// Something that is wrong at no place.
    pub(crate) fn without_place(file: &str, path: &str, message: String, hint: Option<String>) -> Self {
        let (file, path) = (file.to_owned(), path.to_owned());
        let (line, column, end_column, source_line, source_offset) = Default::default();
        Self { file, line, column, end_column, path, message, hint, source_line, source_offset }
    }
}

/// All of them, with an empty line between.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for (i, diagnostic) in diagnostics.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        write!(text, "{gap}{diagnostic}").expect("writing to a string cannot fail");
    }
    text
}

/// A text of others for a terminal.
pub fn escaped(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        // What reorders the text around it, or is not seen at all.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    #[test]
    fn a_diagnostic_shows_the_line_and_points_at_the_place() {
        let text = "a: 1\npolicies:\n      redcat: [\"email\"]\n";
        let source = Source::new("policies/pii.yaml", text);
        let at = text.find("redcat").unwrap();
        let d = source.diagnostic(
            &(at..at + 6),
            "spec.redcat",
            "unknown field `redcat`",
            Some("did you mean `redact`?".into()),
        );
        insta::assert_snapshot!(d, @r#"
        error: unknown field `redcat`
         --> policies/pii.yaml:3:7
          |
        3 |       redcat: ["email"]
          |       ^^^^^^
          |
          = help: did you mean `redact`?
        "#);
    }

    #[test]
    fn nothing_that_was_read_reaches_the_terminal_as_a_command() {
        let text = "a\u{1b}[31m: \u{202e}b\tc\n";
        let d = Source::new("x\u{7}.yaml", text).diagnostic(&(0..2), "", "bad \u{1b}[0m\r\nkey", None);
        insta::assert_snapshot!(d, @"
        error: bad �[0m��key
         --> x�.yaml:1:1
          |
        1 | a�[31m: �b c
          | ^^
        ");
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let text = format!("{}BAD{}", "x".repeat(500), "y".repeat(500));
        let d = Source::new("f", &text).diagnostic(&(500..503), "", "m", None);
        let shown = d.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 140));
        assert_eq!(lines[3].find("BAD").map(|i| lines[3][..i].chars().count()), lines[4].find("^^^"));
    }

    #[test]
    fn a_problem_without_a_place_names_only_the_file() {
        let d = Diagnostic::without_place(
            "a.yaml",
            "",
            "the file is empty".into(),
            Some("write something".into()),
        );
        assert_eq!(d.to_string(), "error: the file is empty\n--> a.yaml\n = help: write something\n");
    }
}
