//! What rendered pieces become where they are put: one way for each place, so
//! that a value stays a value there.

use serde_json::Value;

use super::{Piece, Pieces};

/// A value may not stand where the template puts it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub message: String,
}

impl Pieces {
    /// Whether nothing in it comes from the caller.
    pub fn is_literal(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Literal(_)))
    }

    /// As a text for people or models, where no character means anything else.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Value(Value::String(value)) => text.push_str(value),
                Piece::Value(Value::Null) => {}
                Piece::Value(other) => text.push_str(&other.to_string()),
            }
        }
        text
    }
}
