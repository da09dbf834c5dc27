//! The one form in which `mtctl` reports that something went wrong.
//!
//! Every failure says what failed, why, and what to try next; with `-o json`
//! the same facts as an object.

use std::fmt::{Display, Write as _};

use serde_json::json;

use super::{BAD, DIM, Exit, Format, STRONG, escape, escape::escape_block};

/// What went wrong, in the words and with the exit code that the user gets.
#[derive(Clone, Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    /// Apart, so that results stay small.
    details: Box<Details>,
}

#[derive(Clone, Debug, Default)]
struct Details {
    causes: Vec<String>,
    notes: Vec<String>,
    tries: Vec<String>,
    /// Diagnostics that are already rendered, with their places.
    report: String,
    /// The same diagnostics for programs.
    diagnostics: Vec<serde_json::Value>,
}

impl Failure {
    /// `message` is lower case, without a period.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Box::default() }
    }

    /// Adds why it happened.
    pub fn cause(mut self, cause: impl Display) -> Self {
        self.details.causes.push(cause.to_string());
        self
    }

    /// Adds an error and everything below it as causes, each said once.
    pub fn chain(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if !self.details.causes.iter().any(|said| said.contains(&text)) {
                self.details.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds what it means, or what it does not mean.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.details.notes.push(note.into());
        self
    }

    /// Adds something to try: a command, if it can be one.
    pub fn try_this(mut self, hint: impl Into<String>) -> Self {
        self.details.tries.push(hint.into());
        self
    }

    /// Adds diagnostics with their places, for people and for programs.
    pub fn report(mut self, rendered: String, diagnostics: Vec<serde_json::Value>) -> Self {
        self.details.report = rendered;
        self.details.diagnostics = diagnostics;
        self
    }

    /// The text for stderr, with styles.
    pub fn render(&self, format: Format) -> String {
        if format == Format::Json {
            let value = json!({"error": {
                "exit_code": self.exit as u8,
                "reason": self.exit.word(),
                "message": self.message,
                "causes": self.details.causes,
                "notes": self.details.notes,
                "try": self.details.tries,
                "diagnostics": self.details.diagnostics,
            }});
            return format!("{value:#}");
        }
        let mut text = String::new();
        if !self.details.report.is_empty() {
            let _ = writeln!(text, "{}\n", self.details.report.trim_end());
        }
        let _ = write!(text, "{BAD}error{BAD:#}{STRONG}: {}{STRONG:#}", escape(&self.message));
        let mut section = |label: &str, lines: &[String]| {
            for line in lines {
                let block = escape_block(line.trim());
                let indented = block.replace('\n', &format!("\n{:width$}", "", width = label.len() + 4));
                let _ = write!(text, "\n  {DIM}{label}:{DIM:#} {indented}");
            }
        };
        section("cause", &self.details.causes);
        section("note", &self.details.notes);
        section("try", &self.details.tries);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(failure: &Failure) -> String {
        anstream::adapter::strip_str(&failure.render(Format::Table)).to_string()
    }

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::new(Exit::Unreachable, "cannot reach it")
            .cause("connection refused")
            .note("nothing is lost")
            .try_this("mtctl up");
        insta::assert_snapshot!(plain(&failure), @r"
        error: cannot reach it
          cause: connection refused
          note: nothing is lost
          try: mtctl up
        ");
    }

    #[test]
    fn a_cause_that_is_already_said_is_not_repeated() {
        let error = std::io::Error::other("refused");
        let failure = Failure::new(Exit::Failed, "x").cause("connect: refused").chain(&error);
        assert_eq!(plain(&failure).matches("refused").count(), 1);
    }

    #[test]
    fn programs_get_the_same_facts() {
        let value: serde_json::Value =
            serde_json::from_str(&Failure::new(Exit::Conflict, "moved").render(Format::Json)).unwrap();
        assert_eq!(value["error"]["exit_code"], 6);
        assert_eq!(value["error"]["reason"], "conflict");
    }

    #[test]
    fn foreign_text_in_a_failure_is_escaped() {
        assert!(
            !plain(&Failure::new(Exit::Failed, "bad \u{1b}[2J").cause("\u{202e}"))
                .contains(['\u{1b}', '\u{202e}'])
        );
    }
}
