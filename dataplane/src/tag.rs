//! Names a process in what travels through clients.

use std::sync::Arc;

/// The tag of a process: 16 characters that every node derives from what the
/// directory says of it, so that neither ids nor addresses reach clients.
pub fn tag_of(node_id: &str, boot_id: &str) -> Arc<str> {
    blake3::hash(format!("{node_id}/{boot_id}").as_bytes()).to_hex()[..16].into()
}
