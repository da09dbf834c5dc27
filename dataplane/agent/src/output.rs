//! What a tool gives.

use serde_json::{Map, Value};

use crate::{Failure, Reason};

/// Of one result, as it goes to the client; agents stop reading at it.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;

/// What a tool gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    pub content: Vec<Content>,
    /// `structuredContent`.
    pub structured: Option<Value>,
    /// `_meta`, such as the tokens that a model has used.
    pub meta: Map<String, Value>,
}

/// One block of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Text(String),
    /// Base64.
    Image {
        data: String,
        mime_type: String,
    },
    Audio {
        data: String,
        mime_type: String,
    },
}

impl Output {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }

    /// A value: for programs as it is, for the others as its text.
    pub fn value(value: Value) -> Self {
        let text = match &value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Self { content: vec![Content::Text(text)], structured: Some(value), meta: Map::new() }
    }

    pub(crate) fn within_limits(&self) -> Result<(), Failure> {
        let bytes: usize = self
            .content
            .iter()
            .map(|block| match block {
                Content::Text(text) => text.len(),
                Content::Image { data, .. } | Content::Audio { data, .. } => data.len(),
            })
            .sum();
        if bytes > OUTPUT_BYTES_MAX {
            let message = format!("the result has {bytes} bytes, at most {OUTPUT_BYTES_MAX} are passed on");
            return Err(Failure::new(Reason::TooLarge, message));
        }
        Ok(())
    }
}
