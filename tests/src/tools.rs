//! All tools, by group. Each group lists its tools and answers for them; here
//! they only become one list, and one call.

pub mod content;
mod notices;
mod probes;
mod questions;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, InputResponses,
    JsonObject, Tool,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use crate::ask::Asking;
use crate::server::{Fixture, Shared};
use crate::tasks;

/// One call of a tool.
pub struct Call<'a> {
    pub fixture: &'a Fixture,
    pub context: &'a RequestContext<RoleServer>,
    pub name: &'a str,
    pub arguments: JsonObject,
    responses: Option<InputResponses>,
    state: Option<String>,
}

pub type Answer = Result<CallToolResponse, ErrorData>;

impl Call<'_> {
    pub fn asking(&self) -> Asking<'_> {
        Asking {
            context: self.context,
            name: self.name,
            responses: self.responses.as_ref(),
            state: self.state.as_deref(),
            seal: &self.fixture.shared.seal,
        }
    }

    pub fn text(&self, argument: &str) -> Option<&str> {
        self.arguments.get(argument).and_then(Value::as_str)
    }
}

/// Always in the same order; the tool that comes and goes is the last one.
pub fn list(shared: &Shared) -> Vec<Tool> {
    let mut tools = content::list();
    tools.extend(notices::list());
    tools.extend(questions::list());
    tools.extend(tasks::list());
    tools.extend(probes::list(shared));
    tools.extend(notices::dynamic(shared));
    tools
}

pub async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Answer {
    let call = Call {
        fixture,
        context,
        name: &request.name,
        arguments: request.arguments.unwrap_or_default(),
        responses: request.input_responses,
        state: request.request_state,
    };
    if let Some(answer) = content::call(&call) {
        return answer;
    }
    if let Some(answer) = notices::call(&call).await {
        return answer;
    }
    if let Some(answer) = questions::call(&call).await {
        return answer;
    }
    if let Some(answer) = tasks::call(&call).await {
        return answer;
    }
    if let Some(answer) = probes::call(&call).await {
        return answer;
    }
    Err(ErrorData::invalid_params(format!("unknown tool {:?}", call.name), None))
}

/// A tool whose arguments are these properties.
pub fn tool(name: &'static str, description: &'static str, properties: Value, required: &[&str]) -> Tool {
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    tool_with_schema(name, description, schema)
}

/// A tool without arguments.
pub fn plain_tool(name: &'static str, description: &'static str) -> Tool {
    tool(name, description, json!({}), &[])
}

pub fn tool_with_schema(name: &'static str, description: &'static str, schema: Value) -> Tool {
    let Value::Object(schema) = schema else { unreachable!("schemas here are written as objects") };
    Tool::new(name, description, schema)
}

pub fn said(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}
