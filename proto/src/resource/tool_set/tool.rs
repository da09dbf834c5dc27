//! The tools of a tool set.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    agent::{self, Agent},
    fields::json_object,
    schema::{self, Flaw},
};
use crate::{
    pb::resource as pb,
    resource::{
        check::{Checker, is_tool_name, quoted},
        problem::closest,
    },
    template::Names,
};

const TOOLS_MAX: usize = 10_000;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// What `samplingStrategy` and `elicitationStrategy` may be, and the names that
/// stood for them before.
const STRATEGIES: [&str; 8] = [
    "gateway_handled",
    "client_forwarded",
    "gateway_first",
    "client_first",
    "parallel",
    "hybrid",
    "magictunnel_handled",
    "magictunnel_first",
];

/// A tool that an agent runs.
#[derive(Clone, Debug)]
pub struct Tool {
    pub name: String,
    /// As clients see it in a list: a JSON object. Of a tool of another backend
    /// it holds only what was written; the rest is as that backend says.
    pub definition: Bytes,
    /// Not listed.
    pub hidden: bool,
    /// The JSON Schema of the arguments.
    pub input_schema: Value,
    /// The JSON Schema of the structured result.
    pub output_schema: Option<Value>,
    pub timeout: Duration,
    pub agent: Agent,
}

/// The tools that are switched on and have something that runs them.
pub(in crate::resource) fn check(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    wire: &pb::ToolSet,
) -> Vec<Tool> {
    if wire.tools.len() > TOOLS_MAX {
        checker
            .problem("spec.tools", format!("{} tools are too many, at most {TOOLS_MAX}", wire.tools.len()));
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut tools = Vec::with_capacity(wire.tools.len());
    for (i, tool) in wire.tools.iter().enumerate() {
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
        check_strategy(checker, &format!("{path}.samplingStrategy"), &tool.sampling_strategy);
        check_strategy(checker, &format!("{path}.elicitationStrategy"), &tool.elicitation_strategy);
        let checked = one(checker, names, &path, tool, wire.hidden);
        tools.extend(checked.filter(|_| tool.enabled.unwrap_or(true)));
    }
    tools
}

fn one(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    path: &str,
    tool: &pb::BoundTool,
    hidden: bool,
) -> Option<Tool> {
    let input_schema = match &tool.input_schema {
        Some(schema) => json_object(schema),
        None => Map::from_iter([("type".to_owned(), Value::from("object"))]),
    };
    let input_schema = check_schema(checker, &format!("{path}.inputSchema"), input_schema, true);
    let output = tool.output_schema.as_ref();
    let output_schema = output
        .map(|schema| check_schema(checker, &format!("{path}.outputSchema"), json_object(schema), false));
    let routing = tool.routing.as_ref();
    // What another backend's tool takes and how long, that backend knows.
    let is_alias = routing.is_some_and(agent::is_alias);
    let timeout = checker.duration(
        &format!("{path}.timeout"),
        tool.timeout.as_ref(),
        TIMEOUT_MIN..=TIMEOUT_MAX,
        if is_alias { TIMEOUT_MAX } else { TIMEOUT_DEFAULT },
    );
    let agent = agent::check(checker, names, &format!("{path}.routing"), routing?)?;
    let mut definition = Map::new();
    definition.insert("name".into(), tool.name.clone().into());
    for (key, text) in [("title", &tool.title), ("description", &tool.description)] {
        if !text.is_empty() {
            definition.insert(key.into(), text.clone().into());
        }
    }
    if tool.input_schema.is_some() || !is_alias {
        definition.insert("inputSchema".into(), input_schema.clone());
    }
    definition.extend(output_schema.clone().map(|schema| ("outputSchema".into(), schema)));
    let annotations = tool.annotations.as_ref().map(|hints| Value::Object(json_object(hints)));
    definition.extend(annotations.map(|hints| ("annotations".into(), hints)));
    Some(Tool {
        name: tool.name.clone(),
        definition: Value::Object(definition).to_string().into(),
        hidden: hidden || tool.hidden,
        input_schema,
        output_schema,
        timeout,
        agent,
    })
}

fn check_schema(
    checker: &mut Checker<'_>,
    path: &str,
    mut schema: Map<String, Value>,
    arguments: bool,
) -> Value {
    match schema.get("type") {
        None if arguments => _ = schema.shift_insert(0, "type".into(), json!("object")),
        Some(Value::String(kind)) if kind != "object" && arguments => {
            let hint = "write `type: object`";
            checker.problem_with_hint(&format!("{path}.type"), "the arguments of a tool are an object", hint);
        }
        _ => {}
    }
    let schema = Value::Object(schema);
    if let Err(Flaw { path: below, message, hint }) = schema::check(&schema) {
        checker.report(&format!("{path}{below}"), message, hint.map(str::to_owned));
    }
    schema
}

fn check_strategy(checker: &mut Checker<'_>, path: &str, strategy: &str) {
    if strategy.is_empty() || STRATEGIES.contains(&strategy) {
        return;
    }
    let hint = match closest(strategy, STRATEGIES) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("one of {}", STRATEGIES[..6].join(", ")),
    };
    checker.problem_with_hint(path, format!("{} is not a strategy", quoted(strategy)), hint);
}
