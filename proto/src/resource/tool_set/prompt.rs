//! The prompt templates of a tool set.

use std::collections::BTreeSet;

use super::super::{
    check::{Checker, is_tool_name, quoted},
    problem::closest,
};
use crate::{
    pb::resource as pb,
    template::{Names, Template},
};

const PROMPTS_MAX: usize = 1_000;

/// A prompt template.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub arguments: Vec<PromptArgument>,
    pub messages: Vec<PromptMessage>,
    /// Not listed.
    pub hidden: bool,
}

/// Something that a prompt takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptArgument {
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    pub required: bool,
    /// To suggest.
    pub values: Vec<String>,
}

/// One message that a prompt makes.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptMessage {
    pub role: Role,
    pub content: PromptContent,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
}

/// What a message holds.
#[derive(Clone, Debug, PartialEq)]
pub enum PromptContent {
    Text(Template),
    /// The URI of a resource of the same set.
    Resource(String),
}

pub(in crate::resource) fn check(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    wire: &pb::ToolSet,
) -> Vec<Prompt> {
    if wire.prompts.len() > PROMPTS_MAX {
        let message = format!("{} prompts are too many, at most {PROMPTS_MAX}", wire.prompts.len());
        checker.problem("spec.prompts", message);
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let mut prompts = Vec::with_capacity(wire.prompts.len());
    for (i, prompt) in wire.prompts.iter().enumerate() {
        let path = format!("spec.prompts[{i}]");
        if !is_tool_name(&prompt.name) {
            let message = format!(
                "{} is not the name of a prompt: 1 to 128 of A-Z, a-z, 0-9 and '_.-'",
                quoted(&prompt.name)
            );
            checker.problem(&format!("{path}.name"), message);
        } else if !seen.insert(&prompt.name) {
            let message = format!("the set has two prompts named {:?}", prompt.name);
            checker.problem(&format!("{path}.name"), message);
        }
        if prompt.messages.is_empty() {
            let hint = "add `messages: [{role: user, text: ...}]`";
            checker.problem_with_hint(&format!("{path}.messages"), "the prompt makes no message", hint);
        }
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let messages = prompt.messages.iter().enumerate();
        prompts.push(Prompt {
            name: prompt.name.clone(),
            title: some(&prompt.title),
            description: some(&prompt.description),
            arguments: prompt
                .arguments
                .iter()
                .map(|argument| PromptArgument {
                    name: argument.name.clone(),
                    title: some(&argument.title),
                    description: some(&argument.description),
                    required: argument.required,
                    values: argument.values.clone(),
                })
                .collect(),
            messages: messages
                .filter_map(|(i, message)| {
                    check_message(checker, names, &format!("{path}.messages[{i}]"), message)
                })
                .collect(),
            hidden: wire.hidden || prompt.hidden,
        });
    }
    prompts
}

fn check_message(
    checker: &mut Checker<'_>,
    names: Names<'_>,
    path: &str,
    message: &pb::PromptMessage,
) -> Option<PromptMessage> {
    let role = match message.role.as_str() {
        "" | "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let hint = closest(other, ["user", "assistant"]).unwrap_or("user");
            let hint = format!("did you mean {hint:?}?");
            checker.problem_with_hint(
                &format!("{path}.role"),
                format!("{} is not a role", quoted(other)),
                hint,
            );
            Role::User
        }
    };
    let content = match &message.content {
        Some(pb::prompt_message::Content::Text(text)) => match Template::compile(text, names) {
            Ok(template) => PromptContent::Text(template),
            Err(error) => {
                checker.report(&format!("{path}.text"), error.to_string(), error.hint);
                return None;
            }
        },
        Some(pb::prompt_message::Content::Resource(uri)) => PromptContent::Resource(uri.clone()),
        None => {
            checker.problem_with_hint(path, "the message says nothing", "add `text: ...`");
            return None;
        }
    };
    Some(PromptMessage { role, content })
}
