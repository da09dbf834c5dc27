//! Reads and writes configuration: YAML and JSON files of resources, and the
//! configurations of other programs.
//!
//! Everything is reported with its place, and reading never stops at the first
//! mistake. Only `load` and `library` touch the disk; nothing here talks to
//! anybody, reads the environment or runs what it reads.

mod alone;
mod check;
mod decode;
mod default;
mod diagnostic;
mod document;
mod duration;
mod emit;
pub mod generate;
mod import;
mod json;
mod library;
mod load;
mod names;
mod node;
mod places;
mod source;
mod write;
mod yaml;

pub use alone::{absent, check_alone};
pub use check::{check, check_onto, place};
pub use default::default_gateway;
pub use diagnostic::{Diagnostic, escaped, render};
pub use document::{API_VERSION, Document, FILE_BYTES_MAX, Located, parse};
pub use import::{Import, Note, Outcome, import};
pub use library::{Library, Pending, Touched};
pub use load::{LoadError, find::Wanted, load, load_all};
pub use places::Places;
pub use source::{Source, Span};
pub use write::{to_json, to_json_all, to_value, to_yaml, to_yaml_all};
