//! What a door hears of a call that runs.

use bytes::Bytes;
use http::StatusCode;

use super::pieces::Pieces;

/// What comes of a call next.
#[derive(Debug)]
pub enum Step {
    /// A notification, a whole message.
    Said(Bytes),
    /// The answer, a whole message; nothing follows. The status is for doors
    /// that have one.
    Ended { message: Pieces, status: StatusCode },
}
