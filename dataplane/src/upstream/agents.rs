//! A tool set as a backend: what MCP asks of it, in the words of the modern
//! protocol. Agents know nothing of MCP; clients of the other era come here
//! over the bridge like to any modern backend.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics::counter;
use mt_agent::{Agents, Content, Failure, Invocation, Level, Output, Reporter};
use mt_proto::resource::{ResourceName, ToolSet};
use serde_json::{Map, Value, json};

use super::Secrets;
use crate::{
    gateway::call::{Answer, Call, CallError, Caller},
    mcp::{
        Key, Method, RawId,
        meta::{LogLevel, Meta},
        splice,
    },
};

/// In `_meta` of a result that is an error: what went wrong, for programs.
const ERROR_META: &str = "io.magictunnel/error";

/// The agents of one tool set.
pub struct ToolSetLeg {
    name: ResourceName,
    agents: Agents,
}

impl ToolSetLeg {
    pub fn new(name: ResourceName, tool_set: &Arc<ToolSet>, secrets: Secrets) -> Self {
        Self { name, agents: Agents::new(tool_set, secrets) }
    }

    /// Answers a call. Dropping the future cancels it.
    ///
    /// # Errors
    /// For what is no call of a tool, or wrong as a request. What an agent
    /// could not do is an answer.
    pub async fn call(&self, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        match &call.method {
            Method::ToolsCall => self.run(call, caller).await,
            other => Err(CallError::UnknownMethod { method: other.as_str().to_owned() }),
        }
    }

    async fn run(&self, call: &Call, caller: &Caller) -> Result<Answer, CallError> {
        let invalid = |reason: &str| CallError::InvalidParams { reason: reason.to_owned() };
        let name = call.params.name().ok_or_else(|| invalid("params.name must be a string"))?;
        let arguments: Map<String, Value> = match call.params.arguments() {
            None => Map::new(),
            Some(raw) => {
                serde_json::from_slice(&raw).map_err(|_| invalid("params.arguments must be an object"))?
            }
        };
        let reporter = ToClient::new(&name, call, caller);
        let invocation = Invocation { tool: &name, arguments, deadline: call.deadline, reporter: &reporter };
        let outcome = self.agents.call(invocation).await;
        let outcome = outcome.ok_or_else(|| CallError::UnknownTool { name: name.clone().into_owned() })?;
        let result = match outcome {
            Ok(output) => result(output),
            Err(failure) => {
                counter!("mt_agent_failures_total", "tool_set" => self.name.to_string(), "reason" => failure.reason.as_str())
                    .increment(1);
                tracing::debug!(tool_set = %self.name, tool = %name, %failure, detail = failure.detail, "tool failed");
                failed(&failure)
            }
        };
        Ok(Answer::Result(result.to_string().into()))
    }
}

fn result(output: Output) -> Value {
    let content: Vec<Value> = output.content.into_iter().map(block).collect();
    let mut result = Map::from_iter([
        ("resultType".to_owned(), "complete".into()),
        ("content".to_owned(), content.into()),
        ("isError".to_owned(), false.into()),
    ]);
    result.extend(output.structured.map(|value| ("structuredContent".to_owned(), value)));
    if !output.meta.is_empty() {
        result.insert("_meta".to_owned(), output.meta.into());
    }
    Value::Object(result)
}

fn failed(failure: &Failure) -> Value {
    let error = json!({"reason": failure.reason.as_str(), "retry_safe": failure.reason.is_safe_to_retry()});
    json!({
        "resultType": "complete",
        "content": [{"type": "text", "text": failure.message}],
        "isError": true,
        "_meta": {ERROR_META: error},
    })
}

fn block(content: Content) -> Value {
    match content {
        Content::Text(text) => json!({"type": "text", "text": text}),
        Content::Image { data, mime_type } => json!({"type": "image", "data": data, "mimeType": mime_type}),
        Content::Audio { data, mime_type } => json!({"type": "audio", "data": data, "mimeType": mime_type}),
    }
}

/// What a running tool tells, as notifications to the client that has called it.
struct ToClient<'a> {
    tool: String,
    caller: &'a Caller,
    progress_token: Option<RawId>,
    /// From this level on the client wants to hear.
    level: Option<LogLevel>,
}

impl<'a> ToClient<'a> {
    fn new(tool: &str, call: &Call, caller: &'a Caller) -> Self {
        let meta = Meta::of(&call.params).ok();
        let progress_token = meta.as_ref().and_then(Meta::progress_token);
        let level = meta.as_ref().and_then(Meta::log_level);
        Self { tool: tool.to_owned(), caller, progress_token, level }
    }
}

impl Reporter for ToClient<'_> {
    fn wants_progress(&self) -> bool {
        self.progress_token.is_some()
    }

    fn progress<'a>(
        &'a self,
        progress: f64,
        total: Option<f64>,
        message: Option<&'a str>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(token) = &self.progress_token else { return };
            let mut params = splice::Object::default()
                .set(Key::ProgressToken.as_str(), token.as_bytes())
                .set("progress", json!(progress).to_string().as_bytes());
            if let Some(total) = total {
                params = params.set("total", json!(total).to_string().as_bytes());
            }
            if let Some(message) = message {
                params = params.set_text("message", message);
            }
            self.caller.notify(splice::notification(&Method::Progress, Some(&params.finish()))).await;
        })
    }

    fn log(&self, level: Level, data: Value) {
        let level = log_level(level);
        if self.level.is_none_or(|least| level < least) {
            return;
        }
        let params: Bytes =
            json!({"level": level.as_str(), "logger": self.tool, "data": data}).to_string().into();
        if !self.caller.try_notify(splice::notification(&Method::LogMessage, Some(&params))) {
            counter!("mt_agent_logs_dropped_total").increment(1);
        }
    }
}

fn log_level(level: Level) -> LogLevel {
    match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Notice => LogLevel::Notice,
        Level::Warning => LogLevel::Warning,
        Level::Error => LogLevel::Error,
        Level::Critical => LogLevel::Critical,
        Level::Alert => LogLevel::Alert,
        Level::Emergency => LogLevel::Emergency,
    }
}
