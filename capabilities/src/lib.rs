//! Reads and writes configuration: YAML and JSON files of resources, and the
//! configurations of other programs.
//!
//! Everything is reported with its place, and reading never stops at the first
//! mistake. Only `load` touches the disk; nothing here talks to anybody, reads
//! the environment or runs what it reads.

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
mod load;
mod names;
mod node;
mod places;
mod source;
mod write;
mod yaml;

pub use check::{check, check_onto, place};
pub use default::default_gateway;
pub use diagnostic::{Diagnostic, escaped, render};
pub use document::{API_VERSION, Document, FILE_BYTES_MAX, Located, parse};
pub use import::{Import, Note, Outcome, import};
pub use load::{LoadError, load};
pub use places::Places;
pub use source::{Source, Span};
pub use write::{to_json, to_json_all, to_value, to_yaml, to_yaml_all};
