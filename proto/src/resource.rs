//! The validated model of the configuration: what `pb::resource` says, as types
//! that cannot be wrong.
//!
//! [`ResourceSet`] holds resources as they were written; [`ResourceSet::compile`]
//! is the only way to a [`Compiled`] set, and both planes use it: the control
//! plane to refuse, the node to serve. What compiles whole compiles in every
//! subset that is closed under references.

mod backend;
mod gateway;
mod name;
mod policy;
mod secret;
mod set;

pub use backend::{Backend, Header, HttpTransport, Protocol, Sharing, StdioTransport, Transport, Value};
pub use gateway::{Gateway, Member, NameTemplate};
pub use name::{Key, Kind, ResourceName};
pub use policy::{Policy, Rule};
pub use secret::SecretSource;
pub use set::{Compiled, Problem, ResourceSet};
