//! For the tests of agents: tools as a file says them, and a client that notes
//! what it is told.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use mt_proto::{
    pb::resource as pb,
    resource::{Key, Kind, ResourceSet, Transport},
};
use parking_lot::Mutex;
use prost_reflect::prost_types::{ListValue, Struct, Value as Wire, value::Kind as Json};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{Agents, Failure, Invocation, Level, Output, Reporter};

/// What the secret `key` holds; there is no other.
pub const SECRET: &str = "s3cret-value";
const CALL_MAX: Duration = Duration::from_secs(20);

fn wire(value: &Value) -> Wire {
    let kind = match value {
        Value::Null => Json::NullValue(0),
        Value::Bool(value) => Json::BoolValue(*value),
        Value::Number(number) => Json::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Json::StringValue(text.clone()),
        Value::Array(items) => Json::ListValue(ListValue { values: items.iter().map(wire).collect() }),
        Value::Object(members) => Json::StructValue(object(members)),
    };
    Wire { kind: Some(kind) }
}

fn object(members: &Map<String, Value>) -> Struct {
    Struct { fields: members.iter().map(|(key, value)| (key.clone(), wire(value))).collect() }
}

/// The tools `name: settings`, all of one agent; a setting `timeoutMs` is the
/// tool's own.
fn compiled(agent: &str, tools: &Value) -> Result<Agents, Vec<String>> {
    let bound = tools.as_object().unwrap().iter().map(|(name, config)| {
        let mut config = config.as_object().unwrap().clone();
        let timeout = config.remove("timeoutMs").and_then(|value| value.as_i64());
        let timeout = timeout.map(|ms| prost_reflect::prost_types::Duration {
            seconds: ms / 1_000,
            nanos: i32::try_from(ms % 1_000).unwrap() * 1_000_000,
        });
        let routing = Some(pb::Binding { r#type: agent.to_owned(), config: Some(object(&config)) });
        pb::BoundTool { name: name.clone(), routing, timeout, ..Default::default() }
    });
    let tools = pb::ToolSet { tools: bound.collect(), env: vec!["PATH".to_owned()], ..Default::default() };
    let mut set = ResourceSet::default();
    let mut put = |kind, name: &str, spec| {
        let metadata = Some(pb::Metadata { name: name.into(), ..Default::default() });
        let resource = pb::Resource { metadata, spec: Some(spec) };
        set.insert(Key::new(kind, name.parse().unwrap()), Arc::new(resource));
    };
    put(Kind::ToolSet, "set", pb::resource::Spec::ToolSet(tools));
    let secret = pb::Secret { source: Some(pb::secret::Source::Env("KEY".into())) };
    put(Kind::Secret, "key", pb::resource::Spec::Secret(secret));
    let compiled = set.compile().map_err(|problems| {
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect::<Vec<_>>()
    })?;
    let Transport::Agents(tool_set) = &compiled.backends["set"].transport else { panic!("no tool set") };
    Ok(Agents::new(tool_set, Arc::new(|_| Ok(SECRET.to_owned()))))
}

/// The tools `name: settings`, all of one agent.
pub fn agents(agent: &str, tools: &Value) -> Agents {
    compiled(agent, tools).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// What is wrong with a tool of these settings, one line for each problem.
pub fn problems(agent: &str, config: &Value) -> String {
    match compiled(agent, &serde_json::json!({"tool": config})) {
        Ok(_) => String::new(),
        Err(problems) => problems.join("\n"),
    }
}

/// A client that notes what it is told.
#[derive(Default)]
pub struct Told {
    /// It does not want to hear of progress.
    pub deaf: bool,
    progress: Mutex<Vec<(f64, String)>>,
}

impl Told {
    pub fn deaf() -> Self {
        Self { deaf: true, ..Self::default() }
    }

    pub fn progress(&self) -> Vec<(f64, String)> {
        self.progress.lock().clone()
    }
}

impl Reporter for Told {
    fn wants_progress(&self) -> bool {
        !self.deaf
    }

    fn progress<'a>(
        &'a self,
        progress: f64,
        _total: Option<f64>,
        message: Option<&'a str>,
    ) -> BoxFuture<'a, ()> {
        self.progress.lock().push((progress, message.unwrap_or_default().to_owned()));
        Box::pin(async {})
    }

    fn log(&self, _level: Level, _data: Value) {}
}

/// Calls a tool.
pub async fn call(
    agents: &Agents,
    tool: &str,
    arguments: Value,
    reporter: &dyn Reporter,
) -> Result<Output, Failure> {
    let Value::Object(arguments) = arguments else { panic!("no object") };
    let invocation = Invocation { tool, arguments, deadline: Instant::now() + CALL_MAX, reporter };
    agents.call(invocation).await.expect("there is the tool")
}
