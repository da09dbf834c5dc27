//! The validated model of the configuration: what `pb::resource` says, as types
//! that cannot be wrong.
//!
//! [`ResourceSet`] holds resources as they were written; [`ResourceSet::compile`]
//! is the only way to a [`Compiled`] set, and both planes use it: the control
//! plane to refuse, the node to serve. What compiles whole compiles in every
//! subset that is closed under references.

mod backend;
mod check;
mod gateway;
mod name;
mod policy;
mod principal;
mod problem;
mod route;
mod secret;
mod set;
mod template;
mod tool_set;
mod version;

pub use backend::{
    Backend, BackendAuth, ClientCredentials, Header, HttpTransport, Protocol, QueryParameter, Sharing,
    SingleSession, StdioTransport, Transport, Value, is_protocol_header,
};
pub use check::is_env_name;
pub use gateway::{Gateway, Member};
pub use name::{InvalidName, Key, Kind, ResourceName};
pub use policy::{Admission, Anonymous, Authn, JwtIssuer, KeySource, Policy, Rule};
pub use principal::{KeyHash, Principal, Principals};
pub use problem::{Problem, closest, key_path};
pub use secret::SecretSource;
pub use set::{Compiled, ResourceSet, references};
pub use template::{InvalidTemplate, NameTemplate};
pub use tool_set::{
    Address, Agent, BoundResource, Content, Credential, Database, GraphQl, Grpc, Http, Llm, Mcp, Prompt,
    PromptArgument, PromptContent, PromptMessage, Role, Sse, Subprocess, Text, Tool, ToolSet, WebSocket,
    agent,
};
pub use version::version_of;
