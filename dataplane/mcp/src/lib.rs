//! MCP as bytes and tables: everything the node knows of the protocol that
//! needs no socket, no clock and no task.
//!
//! Messages are scanned once, in place; what the gateway does not have to
//! understand stays the bytes that the peer sent. Eras and revisions are asked
//! by predicates ([`version::ProtocolVersion`]), never compared as dates, and
//! every error a client can see is made in [`error`].
//!
//! ```text
//!  sse, lines     frames on a stream or pipe
//!  envelope       a frame -> Request | Notification | Response   (scan, params, id, method)
//!  meta, headers  what a request says about itself, in its body and around it
//!  splice, patch  values and edits -> a new message
//! ```

pub mod envelope;
pub mod error;
pub mod headers;
pub mod id;
pub mod key;
pub mod lines;
pub mod meta;
pub mod method;
pub mod params;
pub mod patch;
pub mod raw;
pub mod reason;
pub mod scan;
pub mod splice;
pub mod sse;
pub mod text;
pub mod version;

pub use envelope::{Message, Notification, Outcome, Request, Response};
pub use error::RpcError;
pub use id::RawId;
pub use key::Key;
pub use method::Method;
pub use params::Params;
pub use scan::{BadMessage, Limits, ParseError, Reason};
pub use version::{Era, ProtocolVersion};
