//! Everything that is printed: data on stdout, words on stderr.
//!
//! Commands hand values here and print nothing themselves. A closed stdout is
//! not an error and never a panic: whoever reads has seen enough.

pub mod age;
pub mod diff;
mod escape;
mod exit;
mod failure;
mod table;

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
};

use clap::{ValueEnum, builder::styling};
use serde::Serialize;

pub use escape::{escape, escape_block, shorten};
pub use exit::Exit;
pub use failure::Failure;
pub use table::Table;

pub const GOOD: styling::Style = styling::AnsiColor::Green.on_default();
pub const WARN: styling::Style = styling::AnsiColor::Yellow.on_default();
pub const BAD: styling::Style = styling::AnsiColor::Red.on_default().bold();
pub const STRONG: styling::Style = styling::Style::new().bold();
pub const DIM: styling::Style = styling::Style::new().dimmed();

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    // For people. (Not doc comments: clap would spread its help over lines.)
    Table,
    // For files.
    Yaml,
    // For programs.
    Json,
    // Only names, one on a line.
    Name,
}

/// When to use color.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

impl ColorWhen {
    /// Makes it the choice of the whole process.
    pub fn install(self) {
        match self {
            ColorWhen::Auto => anstream::ColorChoice::Auto,
            ColorWhen::Always => anstream::ColorChoice::Always,
            ColorWhen::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Where a command's data and words go.
#[derive(Clone, Debug)]
pub struct Output {
    pub format: Format,
    /// Whether a question may be asked: stdin and stderr are a terminal and
    /// nobody has forbidden it.
    pub interactive: bool,
}

impl Output {
    pub fn new(format: Format, no_input: bool) -> Self {
        let interactive = !no_input && io::stdin().is_terminal() && io::stderr().is_terminal();
        Self { format, interactive }
    }

    /// Prints data on stdout as it is; a line feed is added if it ends without one.
    ///
    /// # Errors
    /// When stdout cannot be written, except that a closed pipe is fine.
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let mut stdout = anstream::stdout().lock();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(end.as_bytes()));
        match written.and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Failed, "cannot write to stdout").cause(error))
            }
            _ => Ok(()),
        }
    }

    /// Prints a value for programs, as JSON or YAML.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn value(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.data(&encode(self.format, value)?)
    }

    /// Says something to the person, on stderr.
    pub fn say(&self, words: impl Display) {
        // If stderr is gone there is nobody left to tell.
        let _ = writeln!(anstream::stderr().lock(), "{words}");
    }

    /// Asks yes or no; no is the default. Without a terminal the answer is
    /// `unasked`.
    pub fn confirm(&self, question: &str, unasked: bool) -> bool {
        if !self.interactive {
            return unasked;
        }
        let _ = write!(anstream::stderr().lock(), "{question} [y/N] ");
        let mut line = String::new();
        let read = io::Read::take(io::stdin().lock(), 1024);
        match io::BufRead::read_line(&mut io::BufReader::new(read), &mut line) {
            Ok(_) => matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
            Err(_) => false,
        }
    }
}

/// A value as text for programs: YAML when YAML is asked for, else JSON.
///
/// # Errors
/// When the value has no such form.
pub fn encode(format: Format, value: &impl Serialize) -> Result<String, Failure> {
    let failed = |error: String| Failure::new(Exit::Failed, "cannot write the answer as text").cause(error);
    if format == Format::Yaml {
        return serde_saphyr::to_string(value).map_err(|error| failed(error.to_string()));
    }
    serde_json::to_string_pretty(value).map_err(|error| failed(error.to_string()))
}

/// `1 tool`, `2 tools`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_agree_with_their_nouns() {
        assert_eq!(count(0, "tool"), "0 tools");
        assert_eq!(count(1, "tool"), "1 tool");
    }

    #[test]
    fn values_become_yaml_only_when_asked() {
        let value = serde_json::json!({"a": 1});
        assert_eq!(encode(Format::Yaml, &value).unwrap().trim(), "a: 1");
        assert_eq!(encode(Format::Table, &value).unwrap(), "{\n  \"a\": 1\n}");
    }
}
