//! What the owners of a session tell each other.

use bytes::Bytes;
use mt_proto::resource::ResourceName;

/// What happens in a session that its next owner must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A backend holds something for it. An empty id: it can only be found from here.
    Upstream {
        backend: ResourceName,
        session_id: Bytes,
        protocol_version: String,
    },
    /// The raw JSON text of `params.level`.
    LogLevel(Bytes),
    /// By the URI that the client knows.
    Subscribed(String),
    Unsubscribed(String),
    Ended,
}
