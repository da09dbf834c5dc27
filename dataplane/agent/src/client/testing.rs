//! For the tests of the agents that ask services: one tool, as its settings are
//! written, against a service of the test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use futures_util::future::BoxFuture;
use mt_proto::{
    pb::resource as pb,
    resource::{ResourceSet, Transport},
};
use parking_lot::Mutex;
use prost_reflect::prost_types::{ListValue, Struct, Value as Wire, value::Kind as Json};
use serde_json::{Map, Value};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::{Agents, Failure, Invocation, Level, Output, Reporter};

/// What `{secret: token}` stands for.
pub const SECRET: &str = "s3cret-of-the-operator";
const CALL_MAX: Duration = Duration::from_secs(20);

/// A service on loopback, until it is dropped.
pub struct Service {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Service {
    pub async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}

/// Takes down what a tool tells.
#[derive(Default)]
pub struct Told {
    pub progress: Mutex<Vec<String>>,
    pub logs: Mutex<Vec<Value>>,
}

impl Reporter for Told {
    fn wants_progress(&self) -> bool {
        true
    }

    fn progress<'a>(&'a self, at: f64, _: Option<f64>, message: Option<&'a str>) -> BoxFuture<'a, ()> {
        let mut told = self.progress.lock();
        told.push(message.unwrap_or_default().to_owned());
        assert!((at - told.len() as f64).abs() < 0.5, "progress grows by one");
        Box::pin(std::future::ready(()))
    }

    fn log(&self, _: Level, data: Value) {
        self.logs.lock().push(data);
    }
}

/// What is wrong with these settings.
pub fn problems(agent: &str, config: Value) -> Vec<String> {
    match compile(agent, config) {
        Ok(_) => Vec::new(),
        Err(problems) => problems,
    }
}

fn compile(agent: &str, config: Value) -> Result<Agents, Vec<String>> {
    let metadata = |name: &str| Some(pb::Metadata { name: name.to_owned(), ..Default::default() });
    let Wire { kind: Some(Json::StructValue(config)) } = wire(config) else {
        panic!("settings are an object")
    };
    let routing = pb::Binding { r#type: agent.to_owned(), config: Some(config) };
    let tool = pb::BoundTool { name: "it".to_owned(), routing: Some(routing), ..Default::default() };
    let tool_set = pb::ToolSet { tools: vec![tool], ..Default::default() };
    let source = pb::secret::Source::Env("NOBODY_READS_IT".to_owned());
    let secret = pb::Secret { source: Some(source) };
    let (set, wrong) = ResourceSet::gather([
        pb::Resource { metadata: metadata("set"), spec: Some(pb::resource::Spec::ToolSet(tool_set)) },
        pb::Resource { metadata: metadata("token"), spec: Some(pb::resource::Spec::Secret(secret)) },
    ]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let compiled = set.compile().map_err(|problems| {
        problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect::<Vec<_>>()
    })?;
    let backend = compiled.backends.values().next().unwrap();
    let Transport::Agents(tool_set) = &backend.transport else { panic!("a tool set") };
    Ok(Agents::new(tool_set, Arc::new(|_| Ok(SECRET.to_owned()))))
}

/// Calls a tool that has these settings.
pub async fn call(agent: &str, config: Value, arguments: Value) -> Result<Output, Failure> {
    call_and_tell(agent, config, arguments).await.0
}

/// The same, with what it tells.
pub async fn call_and_tell(agent: &str, config: Value, arguments: Value) -> (Result<Output, Failure>, Told) {
    let agents = compile(agent, config).unwrap_or_else(|problems| panic!("{problems:?}"));
    let told = Told::default();
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let deadline = Instant::now() + CALL_MAX;
    let invocation = Invocation { tool: "it", arguments, deadline, reporter: &told };
    let outcome = agents.call(invocation).await.expect("there is such a tool");
    (outcome, told)
}

fn wire(value: Value) -> Wire {
    let kind = match value {
        Value::Null => Json::NullValue(0),
        Value::Bool(value) => Json::BoolValue(value),
        Value::Number(number) => Json::NumberValue(number.as_f64().unwrap()),
        Value::String(text) => Json::StringValue(text),
        Value::Array(items) => Json::ListValue(ListValue { values: items.into_iter().map(wire).collect() }),
        Value::Object(entries) => Json::StructValue(fields(entries)),
    };
    Wire { kind: Some(kind) }
}

fn fields(entries: Map<String, Value>) -> Struct {
    Struct { fields: entries.into_iter().map(|(key, value)| (key, wire(value))).collect() }
}
