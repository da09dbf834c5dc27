//! A tool set as a backend: what MCP asks of it, in the words of the modern
//! protocol. Agents know nothing of MCP; clients of the other era come here
//! over the bridge like to any modern backend.
//!
//! ```text
//!  call ─┬─ tools/call            mt_agent::Agents     reporter, progress: what it tells meanwhile
//!        ├─ prompts/get           prompts ─► resources
//!        ├─ resources/read        resources ─► files
//!        ├─ completion/complete   completion ─► files
//!        └─ subscriptions/listen  listen ─► files, watch
//! ```

mod completion;
mod files;
mod listen;
mod meters;
mod progress;
mod prompts;
mod reporter;
mod resources;
mod watch;

use std::sync::Arc;

use mt_agent::{Agents, Content, Failure, Invocation, Output};
use mt_proto::resource::{ResourceName, ToolSet};
use serde_json::{Map, Value, json};

pub use self::files::Files;
use self::{listen::Followers, meters::Meters, prompts::Prompts, reporter::ToClient, resources::Resources};
use super::secrets::Secrets;
use crate::{
    gateway::call::{Answer, Call, CallError, Caller},
    mcp::{
        Method,
        meta::{CacheScope, key},
    },
};

/// In `_meta` of a result that is an error: what went wrong, for programs.
const ERROR_META: &str = "io.magictunnel/error";

/// The tools, prompts and resources of one tool set.
pub struct ToolSetLeg {
    name: ResourceName,
    agents: Agents,
    prompts: Prompts,
    resources: Resources,
    followers: Followers,
    meters: Meters,
}

impl ToolSetLeg {
    pub fn new(name: ResourceName, tool_set: &Arc<ToolSet>, secrets: Secrets, files: Arc<Files>) -> Self {
        Self {
            agents: Agents::new(tool_set, secrets),
            prompts: Prompts::new(tool_set),
            resources: Resources::new(tool_set, files),
            followers: Followers::new(&name),
            meters: Meters::new(tool_set),
            name,
        }
    }

    /// Answers a call. Dropping the future cancels it.
    ///
    /// # Errors
    /// For what is no call of a tool, or wrong as a request. What an agent
    /// could not do is an answer.
    pub async fn call(&self, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        let result = match &call.method {
            Method::ToolsCall => self.run(call, caller).await?,
            Method::PromptsGet => self.prompts.get(&name(call)?, arguments(call)?, &self.resources).await?,
            Method::ResourcesRead => self.read(call).await?,
            Method::Complete => {
                let completion = completion::complete(&call.params, &self.prompts, &self.resources).await?;
                Map::from_iter([("completion".to_owned(), completion)])
            }
            Method::Listen => {
                match Box::pin(listen::listen(&self.resources, &self.followers, call, caller)).await? {}
            }
            other => return Err(CallError::UnknownMethod { method: other.as_str().to_owned() }),
        };
        Ok(Answer::Result(Value::Object(self.complete(result)).to_string().into()))
    }

    /// What every result says.
    fn complete(&self, mut result: Map<String, Value>) -> Map<String, Value> {
        result.insert("resultType".to_owned(), "complete".into());
        let meta = result.entry("_meta").or_insert_with(|| json!({}));
        meta[key::SERVER_INFO] = json!({"name": self.name.as_str(), "version": env!("CARGO_PKG_VERSION")});
        result
    }

    async fn read(&self, call: &Call) -> Result<Map<String, Value>, CallError> {
        let uri = call.params.uri();
        let uri = uri.ok_or_else(|| invalid("params.uri must be a string"))?;
        let contents = self.resources.read(&uri).await?;
        Ok(Map::from_iter([
            ("contents".to_owned(), json!([contents])),
            // A file changes when it changes, and a text with its tool set.
            ("ttlMs".to_owned(), 0.into()),
            ("cacheScope".to_owned(), CacheScope::Private.as_str().into()),
        ]))
    }

    async fn run(&self, call: &Call, caller: &Caller) -> Result<Map<String, Value>, CallError> {
        let (name, arguments) = (name(call)?, arguments(call)?);
        let unknown = || CallError::UnknownTool { name: name.clone() };
        let running = self.meters.begin(&name).ok_or_else(unknown)?;
        let reporter = ToClient::new(&name, call, caller);
        let invocation = Invocation { tool: &name, arguments, deadline: call.deadline, reporter: &reporter };
        let outcome = tokio::select! {
            biased;
            outcome = self.agents.call(invocation) => outcome.ok_or_else(unknown)?,
            never = reporter.tell_held() => match never {},
        };
        reporter.finish().await;
        running.end(outcome.is_ok());
        Ok(match outcome {
            Ok(output) => result(output),
            Err(failure) => {
                self.meters.failed(&failure);
                tracing::debug!(tool_set = %self.name, tool = %name, %failure, detail = failure.detail, "tool failed");
                failed(&failure)
            }
        })
    }
}

fn invalid(reason: &str) -> CallError {
    CallError::InvalidParams { reason: reason.to_owned() }
}

fn name(call: &Call) -> Result<String, CallError> {
    let name = call.params.name().ok_or_else(|| invalid("params.name must be a string"))?;
    Ok(name.into_owned())
}

fn arguments(call: &Call) -> Result<Map<String, Value>, CallError> {
    match call.params.arguments() {
        None => Ok(Map::new()),
        Some(raw) => serde_json::from_slice(&raw).map_err(|_| invalid("params.arguments must be an object")),
    }
}

fn result(output: Output) -> Map<String, Value> {
    let content: Vec<Value> = output.content.into_iter().map(block).collect();
    let mut result =
        Map::from_iter([("content".to_owned(), content.into()), ("isError".to_owned(), false.into())]);
    result.extend(output.structured.map(|value| ("structuredContent".to_owned(), value)));
    result.insert("_meta".to_owned(), output.meta.into());
    result
}

fn failed(failure: &Failure) -> Map<String, Value> {
    let error = json!({"reason": failure.reason.as_str(), "retry_safe": failure.reason.is_safe_to_retry()});
    let content = json!([{"type": "text", "text": failure.message}]);
    Map::from_iter([
        ("content".to_owned(), content),
        ("isError".to_owned(), true.into()),
        ("_meta".to_owned(), json!({ERROR_META: error})),
    ])
}

fn block(content: Content) -> Value {
    match content {
        Content::Text(text) => json!({"type": "text", "text": text}),
        Content::Image { data, mime_type } => json!({"type": "image", "data": data, "mimeType": mime_type}),
        Content::Audio { data, mime_type } => json!({"type": "audio", "data": data, "mimeType": mime_type}),
    }
}
