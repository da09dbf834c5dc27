//! A tool set, validated: tools with their agents, resources and prompts.
//!
//! What runs tools is one file each below `agent/`; its texts are compiled
//! templates, so that a node meets no template that does not parse.

pub mod agent;
mod fields;
mod prompt;
mod resource;
mod schema;
mod text;
mod tool;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message;

pub use self::{
    agent::{Agent, Credential, Database, GraphQl, Grpc, Http, Llm, Mcp, Sse, Subprocess, WebSocket},
    prompt::{Prompt, PromptArgument, PromptContent, PromptMessage, Role},
    resource::{Address, BoundResource, Content},
    text::Text,
    tool::Tool,
};
use super::{
    Backend, Key, Kind, Protocol, ResourceName, Transport,
    check::{Checker, is_env_name, quoted},
};
use crate::{pb::resource as pb, template::Names};

const CONCURRENT_CALLS_DEFAULT: u64 = 256;
const CONCURRENT_CALLS_MAX: u64 = 65_536;
const ENV_MAX: usize = 64;
/// Of one call, whatever its tool says.
const CALL_TIME_MAX: Duration = Duration::from_secs(300);

/// Tools, resources and prompts that agents serve.
#[derive(Clone, Debug)]
pub struct ToolSet {
    pub name: ResourceName,
    pub tools: Vec<Tool>,
    pub resources: Vec<BoundResource>,
    pub prompts: Vec<Prompt>,
    /// Of what was written: what is equal here is equal in all.
    digest: [u8; 32],
}

impl PartialEq for ToolSet {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.digest == other.digest
    }
}

/// The backend that a tool set is to the rest of a node.
pub(super) fn check(
    checker: &mut Checker<'_>,
    name: &ResourceName,
    labels: &BTreeMap<String, String>,
    wire: &pb::ToolSet,
) -> Backend {
    if checker.set().get(&Key::new(Kind::Backend, name.clone())).is_some() {
        let hint = "give one of them another name";
        checker.problem_with_hint("metadata.name", format!("there is a backend {name} too"), hint);
    }
    check_env(checker, &wire.env);
    let names = Names { env: &wire.env };
    let tool_set = ToolSet {
        name: name.clone(),
        tools: tool::check(checker, names, wire),
        resources: resource::check(checker, names, &wire.resources),
        prompts: prompt::check(checker, names, wire),
        digest: *blake3::hash(&wire.encode_to_vec()).as_bytes(),
    };
    Backend {
        name: name.clone(),
        labels: labels.clone(),
        transport: Transport::Agents(Arc::new(tool_set)),
        protocol: Protocol::Auto,
        call_timeout: CALL_TIME_MAX,
        concurrent_calls_max: checker.count(
            "spec.concurrentCallsMax",
            wire.concurrent_calls_max.into(),
            1..=CONCURRENT_CALLS_MAX,
            CONCURRENT_CALLS_DEFAULT,
        ),
        disabled: wire.disabled,
        trust_hints: true,
        single_session: None,
        probe_max_age: CALL_TIME_MAX,
    }
}

/// What a tool set refers to, as far as it can be read: secrets, and the
/// backends whose tools it has under other names.
pub(super) fn references(wire: &pb::ToolSet) -> Vec<(Kind, &str)> {
    let configs = wire.tools.iter().filter_map(|tool| tool.routing.as_ref());
    configs.flat_map(agent::references).collect()
}

fn check_env(checker: &mut Checker<'_>, names: &[String]) {
    if names.len() > ENV_MAX {
        checker.problem("spec.env", format!("{} variables are too many, at most {ENV_MAX}", names.len()));
    }
    for (i, name) in names.iter().enumerate() {
        if !is_env_name(name) {
            let message = format!("{} is not the name of a variable", quoted(name));
            checker.problem(&format!("spec.env[{i}]"), message);
        }
    }
}
