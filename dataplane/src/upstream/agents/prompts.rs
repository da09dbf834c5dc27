//! The prompt templates of a tool set. What a client fills in is a part of a
//! message's text and nothing else: it ends no message and changes no role.

use std::{collections::HashMap, sync::Arc};

use mt_proto::resource::{Prompt, PromptContent, Role, ToolSet};
use serde_json::{Map, Value, json};

use super::resources::{Resources, rendered};
use crate::{
    gateway::call::CallError,
    mcp::{RpcError, error::code},
};

/// Of all messages of one prompt, as it is told: each may hold a whole file, or
/// an argument many times.
const MESSAGES_BYTES_MAX: usize = 16 << 20;

/// The prompts of one tool set.
pub struct Prompts {
    tool_set: Arc<ToolSet>,
    by_name: HashMap<String, usize>,
}

impl Prompts {
    pub fn new(tool_set: &Arc<ToolSet>) -> Self {
        let by_name = tool_set.prompts.iter().enumerate().map(|(at, prompt)| (prompt.name.clone(), at));
        Self { by_name: by_name.collect(), tool_set: tool_set.clone() }
    }

    pub fn find(&self, name: &str) -> Option<&Prompt> {
        self.by_name.get(name).map(|at| &self.tool_set.prompts[*at])
    }

    /// The messages of a prompt, as the members of a result.
    ///
    /// # Errors
    /// If there is no such prompt, or the arguments are not its own.
    pub async fn get(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        resources: &Resources,
    ) -> Result<Map<String, Value>, CallError> {
        let prompt = self.find(name).ok_or_else(|| CallError::UnknownPrompt { name: name.to_owned() })?;
        let arguments = checked(prompt, arguments)?;
        let mut messages = Vec::with_capacity(prompt.messages.len());
        let mut bytes = 0;
        for message in &prompt.messages {
            let content = match &message.content {
                PromptContent::Text(template) => {
                    json!({"type": "text", "text": rendered(template, &arguments)?.text()})
                }
                PromptContent::Resource(uri) => {
                    json!({"type": "resource", "resource": resources.read(uri).await.map_err(not_there)?})
                }
            };
            bytes += length(&content) + length(&content["resource"]);
            if bytes > MESSAGES_BYTES_MAX {
                let message = format!("the prompt is longer than {MESSAGES_BYTES_MAX} bytes");
                return Err(CallError::Rpc(
                    RpcError::new(code::TOO_LARGE, message).with_text("prompt", name),
                ));
            }
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            messages.push(json!({"role": role, "content": content}));
        }
        let mut result = Map::new();
        result.extend(prompt.description.iter().map(|text| ("description".to_owned(), text.clone().into())));
        result.insert("messages".to_owned(), messages.into());
        Ok(result)
    }
}

/// Of what a block holds.
fn length(block: &Value) -> usize {
    ["text", "blob"].into_iter().filter_map(|key| block[key].as_str()).map(str::len).sum()
}

/// A file that is missing is not the fault of who asks for the prompt.
fn not_there(error: CallError) -> CallError {
    match error {
        CallError::UnknownResource { uri } => {
            let message = "a resource that the prompt holds is not there";
            CallError::Rpc(RpcError::new(code::INTERNAL, message).with_text("uri", &uri))
        }
        other => other,
    }
}

/// The arguments, and nothing in the place of those that may be missing.
fn checked(prompt: &Prompt, given: Map<String, Value>) -> Result<Map<String, Value>, CallError> {
    let invalid = |reason: String| Err(CallError::InvalidParams { reason });
    for (name, value) in &given {
        if !prompt.arguments.iter().any(|argument| argument.name == *name) {
            let known: Vec<&str> = prompt.arguments.iter().map(|argument| argument.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return invalid(format!("prompt {:?} has no argument {name:?}, it has {known}", prompt.name));
        }
        if !value.is_string() {
            return invalid(format!("argument {name:?} must be a string"));
        }
    }
    let missing = |name: &String| !given.contains_key(name);
    let required: Vec<&str> = prompt
        .arguments
        .iter()
        .filter(|argument| argument.required && missing(&argument.name))
        .map(|argument| argument.name.as_str())
        .collect();
    if !required.is_empty() {
        return invalid(format!("prompt {:?} needs {}", prompt.name, required.join(", ")));
    }
    let value = |name: &str| given.get(name).cloned().unwrap_or(Value::Null);
    Ok(prompt.arguments.iter().map(|argument| (argument.name.clone(), value(&argument.name))).collect())
}
