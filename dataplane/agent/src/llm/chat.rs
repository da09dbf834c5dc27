//! What is asked of a model and what it answers, in nobody's words.

use mt_proto::resource::{
    Llm,
    agent::llm::{AnswerFormat, ChatRole},
};
use serde_json::{Map, Value};

use crate::{Failure, Reason, Run};

/// A request with its templates filled in. What came as an argument is inside
/// the text of one message and can be nothing else.
pub struct Chat {
    pub model: String,
    /// All that is said by the system, in order.
    pub system: Option<String>,
    /// By the user and the assistant.
    pub messages: Vec<(ChatRole, String)>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub max_tokens: Option<u64>,
    pub stop: Vec<String>,
    pub format: AnswerFormat,
    pub stream: bool,
    /// Further members of the request.
    pub parameters: Map<String, Value>,
    /// It goes to the provider's own address.
    pub is_at_home: bool,
}

impl Chat {
    /// # Errors
    /// If an argument is missing.
    pub fn new(config: &Llm, run: &Run<'_>, stream: bool) -> Result<Self, Failure> {
        let scope = run.scope();
        let mut system = Vec::new();
        if let Some(template) = &config.system {
            system.push(template.render(scope)?.text());
        }
        let mut messages = Vec::with_capacity(config.messages.len());
        for (role, template) in &config.messages {
            let text = template.render(scope)?.text();
            match role {
                ChatRole::System => system.push(text),
                role => messages.push((*role, text)),
            }
        }
        let parameters = match config.parameters.as_ref().map(|tree| tree.render(scope)).transpose()? {
            Some(Value::Object(members)) => members,
            Some(_) => {
                return Err(Failure::new(Reason::Misconfigured, "the tool's `parameters` are no object"));
            }
            None => Map::new(),
        };
        Ok(Self {
            model: config.model.render(scope)?.text(),
            system: (!system.is_empty()).then(|| system.join("\n\n")),
            messages,
            temperature: config.temperature,
            top_p: config.top_p,
            max_tokens: config.max_tokens,
            stop: config
                .stop
                .iter()
                .map(|template| Ok(template.render(scope)?.text()))
                .collect::<Result<_, Failure>>()?,
            format: config.format.clone(),
            stream,
            parameters,
            is_at_home: config.base_url.is_none(),
        })
    }
}

/// What a model has answered so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    pub text: String,
    pub model: Option<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// Why it has ended, in the provider's words.
    pub stop_reason: Option<String>,
    /// It will not answer, and says why.
    pub refusal: Option<String>,
    /// The provider has said that this is all.
    pub is_whole: bool,
}

/// A provider's error, in its own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Complaint {
    pub kind: String,
    pub message: String,
}

impl Complaint {
    /// Reads `{"error": {"type", "message"}}` or `{"error": "message"}`.
    pub fn of(value: &Value) -> Option<Self> {
        let error = value.get("error").filter(|error| !error.is_null())?;
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(match error.as_str() {
            Some(message) => Self { kind: String::new(), message: message.to_owned() },
            None => Self { kind: text("type"), message: text("message") },
        })
    }
}

/// The text under a key, if it is one.
pub fn text_at<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The count under a key.
pub fn count_at(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}
