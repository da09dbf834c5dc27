//! An argument of a tool, wherever in the request it goes.

use serde_json::{Value, json};

use super::schema::Converter;
use crate::generate::{bounded, schema::DESCRIPTION_CHARS_MAX};

/// An argument of a tool.
#[derive(Debug)]
pub struct Argument<'a> {
    pub name: String,
    schema: &'a Value,
    description: String,
    pub required: bool,
    /// It is a text, however it is described.
    text: bool,
}

impl<'a> Argument<'a> {
    pub fn new(name: &str, schema: &'a Value, description: &str, required: bool) -> Self {
        let description = bounded(description, DESCRIPTION_CHARS_MAX);
        Self { name: name.to_owned(), schema, description, required, text: false }
    }

    /// The same as a text, and how it is written.
    pub fn into_text(mut self, how: &str) -> Self {
        self.text = true;
        if !how.is_empty() {
            let gap = if self.description.is_empty() { "" } else { " " };
            self.description = format!("{}{gap}({how})", self.description);
        }
        self
    }

    /// What it may be.
    pub fn schema(&self, converter: &mut Converter<'a>) -> Value {
        let mut schema = match self.text {
            true => json!({"type": "string"}),
            false => converter.convert(self.schema),
        };
        if let (Value::Object(schema), false) = (&mut schema, self.description.is_empty()) {
            schema.insert("description".into(), self.description.clone().into());
        }
        schema
    }
}

/// A tag that stands for an argument.
pub fn tag(argument: &str) -> String {
    format!("{{{{{argument}}}}}")
}
