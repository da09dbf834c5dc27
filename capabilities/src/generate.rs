//! Writes capability files for services that describe themselves: OpenAPI
//! documents, GraphQL schemas, gRPC descriptors, and the tools of MCP servers.
//!
//! Pure: a description comes in, the text of files goes out, with a note for
//! everything that was left out or changed. Nothing is fetched here, and no
//! description, however odd, is worth more than a note: what is too deep, too
//! large or in circles is cut. What is handed back has been read and compiled
//! by the same code that nodes use.

mod credential;
mod file;
mod graphql;
mod grpc;
mod mcp;
mod names;
mod openapi;
mod read;
mod schema;

use serde_json::{Map, Value};

pub use self::{graphql::INTROSPECTION, names::Filter};
use crate::{Diagnostic, Note, Outcome, escaped};

/// A larger description is not read.
pub const SOURCE_BYTES_MAX: usize = 32 << 20;
/// Notes of one run; what is left out beyond is counted.
const NOTES_MAX: usize = 5_000;

/// What to make of a description.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The name of the tool set, and the stem of its file.
    pub name: String,
    /// What the description is known by, such as its path or address.
    pub source: String,
    /// Where the service is, if the description does not say it or says it
    /// wrong.
    pub base_url: Option<String>,
    /// Which operations to take.
    pub filter: Filter,
    /// What the name of every tool starts with.
    pub prefix: String,
    /// Operations that are deprecated too.
    pub deprecated: bool,
    /// No schemas of results.
    pub no_output_schema: bool,
    /// What to show to the service, instead of what the description says.
    pub auth: Option<Auth>,
}

/// What is shown to a service; the secret is a Secret that the file has too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    Bearer,
    Basic,
    Header(String),
    Query(String),
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// What it was made of: `GitHub v3 REST API 1.1.4 (OpenAPI 3.0.3)`.
    pub title: String,
    /// At least one, unless there are no tools. Several where one would be
    /// larger than a resource may be.
    pub files: Vec<File>,
    pub tools: Vec<Made>,
    /// What was left out or changed, in the order of the description.
    pub notes: Vec<Note>,
}

/// One capability file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Without an ending.
    pub stem: String,
    /// YAML.
    pub text: String,
}

/// A tool, for people who look before they take.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Made {
    pub name: String,
    /// What a call of it does: `GET /users/{id}`.
    pub call: String,
    /// The names of its arguments, the optional ones in brackets.
    pub arguments: Vec<String>,
    /// Whether it says what it is for.
    pub described: bool,
}

/// A description that nothing can be made of.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GenerateError {
    /// It is not YAML, JSON or what it should be.
    #[error("the description cannot be read")]
    Unreadable(Vec<Diagnostic>),
    #[error("{message}")]
    Unusable {
        message: String,
        /// What to try.
        hint: String,
    },
    /// What was made of it is not a capability file.
    #[error("what was made does not compile, which is a mistake of this program")]
    Broken(Vec<Diagnostic>),
}

/// Makes tools of the operations of an OpenAPI 3.0 or 3.1 document, which is
/// JSON or YAML.
///
/// # Errors
/// If it is no such document, or does not say where the service is.
pub fn openapi(file_name: &str, text: &str, options: &Options) -> Result<Generated, GenerateError> {
    file::assemble(openapi::draft(file_name, text, options)?, options)
}

/// Makes tools of the queries and mutations of a GraphQL schema, which is in
/// GraphQL's own language or the JSON that answers [`INTROSPECTION`].
///
/// # Errors
/// If it is no such schema, or nobody says where the service is.
pub fn graphql(file_name: &str, text: &str, options: &Options) -> Result<Generated, GenerateError> {
    file::assemble(graphql::draft(file_name, text, options)?, options)
}

/// Makes tools of the methods of gRPC services, from an encoded
/// `google.protobuf.FileDescriptorSet`.
///
/// # Errors
/// If it is no such set, or nobody says where the service is.
pub fn grpc(descriptors: &[u8], options: &Options) -> Result<Generated, GenerateError> {
    file::assemble(grpc::draft(descriptors, options)?, options)
}

/// Makes tools of the tools of a backend, which are definitions as MCP has
/// them.
///
/// # Errors
/// If what was made does not compile.
pub fn mcp(backend: &str, tools: &[Value], options: &Options) -> Result<Generated, GenerateError> {
    file::assemble(mcp::draft(backend, tools, options), options)
}

/// The nearest name that a tool set may have.
pub fn set_name(text: &str) -> String {
    crate::names::legal_name(text).unwrap_or_else(|| "tools".to_owned())
}

/// A tool that is being made.
#[derive(Debug)]
struct Draft {
    name: String,
    title: String,
    description: String,
    /// Input and output: JSON Schema.
    input: Value,
    output: Option<Value>,
    annotations: Map<String, Value>,
    /// The agent and its settings.
    agent: &'static str,
    config: Map<String, Value>,
    call: String,
    /// What it belongs to, where one file is not enough: a tag, a service.
    group: String,
}

/// A secret that tools refer to, read from a variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SecretDraft {
    name: String,
    variable: String,
}

/// All that was made of a description, before it becomes text.
#[derive(Debug, Default)]
struct Drafts {
    kind: &'static str,
    title: String,
    tools: Vec<Draft>,
    secrets: Vec<SecretDraft>,
    /// A backend that tools refer to, which is in the store and not in the file.
    backend: Option<String>,
    notes: Notes,
}

/// What is noted on the way.
#[derive(Debug, Default)]
struct Notes {
    notes: Vec<Note>,
    more: usize,
}

impl Notes {
    fn kept_out(&mut self, entry: &str, text: impl AsRef<str>) {
        self.push(entry, Outcome::KeptOut, text.as_ref());
    }

    fn changed(&mut self, entry: &str, text: impl AsRef<str>) {
        self.push(entry, Outcome::Changed, text.as_ref());
    }

    fn push(&mut self, entry: &str, outcome: Outcome, text: &str) {
        if self.notes.len() >= NOTES_MAX {
            self.more += 1;
            return;
        }
        let note = Note { entry: escaped(entry), outcome, text: escaped(text) };
        if self.notes.last() != Some(&note) {
            self.notes.push(note);
        }
    }

    fn into_notes(mut self) -> Vec<Note> {
        if self.more > 0 {
            let text = format!("{} more notes are left out", self.more);
            self.notes.push(Note { entry: String::new(), outcome: Outcome::Changed, text });
        }
        self.notes
    }
}

fn unusable(message: impl Into<String>, hint: impl Into<String>) -> GenerateError {
    GenerateError::Unusable { message: message.into(), hint: hint.into() }
}

/// A text of others, at most so many characters, without control characters
/// but line feeds.
fn bounded(text: &str, chars_max: usize) -> String {
    let text = text.trim();
    let clean = |c: &char| *c == '\n' || !c.is_control();
    let mut short: String = text.chars().filter(clean).take(chars_max + 1).collect();
    if short.chars().count() > chars_max {
        short.truncate(short.char_indices().nth(chars_max - 1).map_or(short.len(), |(at, _)| at));
        short.truncate(short.trim_end().len());
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(bounded("  äöü ", 3), "äöü");
        assert_eq!(bounded("äöüß", 3), "äö…");
        assert_eq!(bounded("a\u{1b}[2Jb\r\n", 9), "a[2Jb");
        assert_eq!(bounded("", 1), "");
    }
}
