//! What runs a tool: one file for each agent.

pub mod collect;
mod credential;
pub mod database;
pub mod graphql;
pub mod grpc;
mod header;
pub mod http;
pub mod llm;
pub mod mcp;
pub mod path;
pub mod request;
mod sse;
pub mod subprocess;
pub mod websocket;

use std::sync::Arc;

use prost_types::value::Kind as Json;

pub use self::{
    credential::Credential, database::Database, graphql::GraphQl, grpc::Grpc, http::Http, llm::Llm, mcp::Mcp,
    sse::Sse, subprocess::Subprocess, websocket::WebSocket,
};
use super::fields::{Fields, json_object};
use crate::{
    pb::resource as pb,
    resource::{
        Kind,
        check::{Checker, quoted},
        problem::closest,
    },
    template::Names,
};

/// The names of the agents, in the order of [`Agent`].
const NAMES: [&str; 9] =
    ["subprocess", "http", "grpc", "sse", "graphql", "llm", "websocket", "database", "mcp"];

/// What runs a tool, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Agent {
    Subprocess(Arc<Subprocess>),
    Http(Arc<Http>),
    Grpc(Arc<Grpc>),
    Sse(Arc<Sse>),
    GraphQl(Arc<GraphQl>),
    Llm(Arc<Llm>),
    WebSocket(Arc<WebSocket>),
    Database(Arc<Database>),
    /// A tool of a backend, which the gateway calls in its place.
    Mcp(Arc<Mcp>),
}

impl Agent {
    /// As it is written in `type`.
    pub fn name(&self) -> &'static str {
        let index = match self {
            Agent::Subprocess(_) => 0,
            Agent::Http(_) => 1,
            Agent::Grpc(_) => 2,
            Agent::Sse(_) => 3,
            Agent::GraphQl(_) => 4,
            Agent::Llm(_) => 5,
            Agent::WebSocket(_) => 6,
            Agent::Database(_) => 7,
            Agent::Mcp(_) => 8,
        };
        NAMES[index]
    }
}

pub(in crate::resource) fn check(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    path: &str,
    binding: &pb::Binding,
) -> Option<Agent> {
    let config = binding.config.as_ref().map(json_object).unwrap_or_default();
    let mut fields = Fields::new(checker, names, format!("{path}.config"), config);
    let fields_mut = &mut fields;
    let agent = match binding.r#type.as_str() {
        "subprocess" => subprocess::read(fields_mut).map(Arc::new).map(Agent::Subprocess),
        "http" => http::read(fields_mut).map(Arc::new).map(Agent::Http),
        "grpc" => grpc::read(fields_mut).map(Arc::new).map(Agent::Grpc),
        "sse" => sse::read(fields_mut).map(Arc::new).map(Agent::Sse),
        "graphql" => graphql::read(fields_mut).map(Arc::new).map(Agent::GraphQl),
        "llm" => llm::read(fields_mut).map(Arc::new).map(Agent::Llm),
        "websocket" => websocket::read(fields_mut).map(Arc::new).map(Agent::WebSocket),
        "database" => database::read(fields_mut).map(Arc::new).map(Agent::Database),
        "mcp" | "mcp_proxy" | "external_mcp" => mcp::read(fields_mut).map(Arc::new).map(Agent::Mcp),
        other => {
            let hint = match closest(other, NAMES) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("types are {}", NAMES.join(", ")),
            };
            let message = format!("{} is not something that runs tools", quoted(other));
            checker.problem_with_hint(&format!("{path}.type"), message, hint);
            return None;
        }
    };
    fields.finish();
    agent
}

/// Whether it stands for a tool of another backend.
pub(in crate::resource) fn is_alias(binding: &pb::Binding) -> bool {
    matches!(binding.r#type.as_str(), "mcp" | "mcp_proxy" | "external_mcp")
}

/// The secrets and backends that a binding names.
pub(in crate::resource) fn references(binding: &pb::Binding) -> Vec<(Kind, &str)> {
    let mut found = Vec::new();
    if let Some(config) = &binding.config {
        if is_alias(binding) {
            let backend = mcp::BACKEND.iter().find_map(|name| config.fields.get(*name));
            if let Some(Json::StringValue(name)) = backend.and_then(|value| value.kind.as_ref()) {
                found.push((Kind::Backend, name.as_str()));
            }
        }
        secrets(config, &mut found);
    }
    found
}

/// Every `{secret: name}`, however deep: the tree of a resource is bounded.
fn secrets<'a>(object: &'a prost_types::Struct, found: &mut Vec<(Kind, &'a str)>) {
    if let (1, Some(value)) = (object.fields.len(), object.fields.get("secret"))
        && let Some(Json::StringValue(name)) = &value.kind
    {
        found.push((Kind::Secret, name.as_str()));
        return;
    }
    object.fields.values().for_each(|value| secrets_of(value, found));
}

fn secrets_of<'a>(value: &'a prost_types::Value, found: &mut Vec<(Kind, &'a str)>) {
    match &value.kind {
        Some(Json::StructValue(object)) => secrets(object, found),
        Some(Json::ListValue(list)) => list.values.iter().for_each(|value| secrets_of(value, found)),
        _ => {}
    }
}
