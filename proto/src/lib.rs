//! The contract between the parts of MagicTunnel: the protobuf messages, and
//! the validated model of the configuration that both planes share.
//!
//! Nothing here does I/O. The bindings in `gen/` are made from the .proto files
//! by `tests/bindings.rs` and are checked in, so that no build needs protoc.

pub mod descriptors;
pub mod discovery;
pub mod pb;
pub mod resource;
pub mod template;
