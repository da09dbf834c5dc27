//! Which response answers a request.

use crate::mcp::{Outcome, RawId, Response};

/// Whether a response is the one to this request. An error without an id is
/// about the only request that there was.
pub fn is_answer(response: &Response, id: &RawId) -> bool {
    match &response.id {
        Some(answered) => answered.same_value(id),
        None => matches!(response.outcome, Outcome::Error(_)),
    }
}
