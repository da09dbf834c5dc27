//! What is posted to the event streams of clients.

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::mpsc;

use crate::mcp::Message;

/// The streams that are open on this node, by their id.
pub type Streams = DashMap<Box<str>, mpsc::Sender<Posted>>;

/// A message that was posted.
pub struct Posted {
    /// Parsed, unless it is a batch.
    pub message: Option<Message>,
    pub body: Bytes,
}
