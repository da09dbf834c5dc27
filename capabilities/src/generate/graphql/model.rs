//! As much of a GraphQL schema as tools are made of.

use std::{collections::BTreeMap, fmt};

/// Types in one schema.
pub const TYPES_MAX: usize = 20_000;
/// Lists in lists.
pub const KIND_DEPTH_MAX: usize = 16;

/// A schema.
#[derive(Debug, Default)]
pub struct Schema {
    pub query: Option<String>,
    pub mutation: Option<String>,
    pub subscription: Option<String>,
    pub types: BTreeMap<String, Type>,
}

/// A named type.
#[derive(Debug)]
pub struct Type {
    pub shape: Shape,
}

/// What a type is.
#[derive(Debug)]
pub enum Shape {
    Scalar,
    Enum(Vec<String>),
    /// An object, or an interface that objects have.
    Object(Vec<Field>),
    Union(Vec<String>),
    Input(Vec<InputValue>),
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub description: String,
    pub arguments: Vec<InputValue>,
    pub kind: Kind,
    pub deprecated: bool,
}

/// An argument, or a field of an input.
#[derive(Debug)]
pub struct InputValue {
    pub name: String,
    pub description: String,
    pub kind: Kind,
    pub has_default: bool,
}

impl InputValue {
    /// The type of a variable for it: one that may be left out, where the schema
    /// says what is taken then.
    pub fn variable(&self) -> &Kind {
        match &self.kind {
            Kind::Required(inner) if self.has_default => inner,
            kind => kind,
        }
    }
}

/// How a type is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Named(String),
    List(Box<Kind>),
    Required(Box<Kind>),
}

impl Kind {
    pub fn is_required(&self) -> bool {
        matches!(self, Kind::Required(_))
    }

    /// The type that it is about in the end.
    pub fn name(&self) -> &str {
        match self {
            Kind::Named(name) => name,
            Kind::List(inner) | Kind::Required(inner) => inner.name(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Named(name) => f.write_str(name),
            Kind::List(inner) => write!(f, "[{inner}]"),
            Kind::Required(inner) => write!(f, "{inner}!"),
        }
    }
}

/// A name of GraphQL, and not one of its own.
pub fn is_name(text: &str) -> bool {
    matches!(text.len(), 1..=128)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.starts_with("__")
}
