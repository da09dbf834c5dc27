//! The checks on tool sets, which no node runs yet.

use std::collections::BTreeSet;

use prost_types::value::Kind as Json;

use super::{
    check::{Checker, is_tool_name, quoted},
    problem::closest,
};
use crate::pb::resource as pb;

/// What can run a tool.
const AGENTS: [&str; 9] =
    ["subprocess", "http", "grpc", "sse", "graphql", "llm", "websocket", "database", "mcp"];

pub(super) fn check(checker: &mut Checker<'_>, tool_set: &pb::ToolSet) {
    let mut seen = BTreeSet::new();
    for (i, tool) in tool_set.tools.iter().enumerate() {
        let path = format!("spec.tools[{i}]");
        let name = format!("{path}.name");
        if !is_tool_name(&tool.name) {
            let message = format!(
                "{} is not the name of a tool: 1 to 128 of A-Z, a-z, 0-9 and '_.-'",
                quoted(&tool.name)
            );
            checker.problem(&name, message);
        } else if !seen.insert(&tool.name) {
            checker.problem(&name, format!("the set has two tools named {:?}", tool.name));
        }
        if let Some(schema) = &tool.input_schema {
            match schema.fields.get("type").map(|v| v.kind.as_ref()) {
                None => {}
                Some(Some(Json::StringValue(kind))) if kind == "object" => {}
                Some(_) => {
                    let path = format!("{path}.inputSchema.type");
                    checker.problem_with_hint(
                        &path,
                        "the arguments of a tool are an object",
                        "write `type: object`",
                    );
                }
            }
        }
        match &tool.routing {
            None => {
                let hint = format!(
                    "add `routing: {{type: subprocess, config: {{...}}}}`; types are {}",
                    AGENTS.join(", ")
                );
                checker.problem_with_hint(
                    &format!("{path}.routing"),
                    "nothing says what runs the tool",
                    hint,
                );
            }
            Some(binding) if !AGENTS.contains(&binding.r#type.as_str()) => {
                let hint = match closest(&binding.r#type, AGENTS) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("types are {}", AGENTS.join(", ")),
                };
                let message = format!("{} is not something that runs tools", quoted(&binding.r#type));
                checker.problem_with_hint(&format!("{path}.routing.type"), message, hint);
            }
            Some(_) => {}
        }
    }
}
