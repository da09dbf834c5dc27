//! Settings of the LLM agent.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::super::{fields::Fields, text::Text};
use crate::{
    resource::check::{is_env_name, quoted},
    template::{Names, Scope, Template, Tree},
};

const MESSAGES_MAX: usize = 100;
const STOP_MAX: usize = 16;
const TOKENS_MAX: u64 = 10_000_000;
/// Of a request; what they hold no other setting may replace.
const OWN_MEMBERS: [&str; 4] = ["messages", "model", "stream", "system"];
/// The names of the providers, in the order of [`Provider`].
const PROVIDERS: [&str; 3] = ["openai", "anthropic", "ollama"];

/// A prompt for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Llm {
    pub provider: Provider,
    /// Where the provider is, if not where it usually is; no argument gets
    /// into it.
    pub base_url: Option<Template>,
    pub model: Template,
    pub api_key: Option<Text>,
    /// Further headers of each request.
    pub headers: Vec<(String, Text)>,
    pub system: Option<Template>,
    /// At least one.
    pub messages: Vec<(ChatRole, Template)>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub max_tokens: Option<u64>,
    pub stop: Vec<Template>,
    pub format: AnswerFormat,
    /// None: where the client wants to hear of progress.
    pub stream: Option<bool>,
    /// Further members of the request: an object.
    pub parameters: Option<Tree>,
}

/// Whose words are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// And everybody who speaks like it.
    OpenAi,
    Anthropic,
    Ollama,
}

impl Provider {
    /// As it is written in `provider`.
    pub fn as_str(self) -> &'static str {
        PROVIDERS[self as usize]
    }
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatRole {
    System,
    User,
    Assistant,
}

impl ChatRole {
    pub fn as_str(self) -> &'static str {
        match self {
            ChatRole::System => "system",
            ChatRole::User => "user",
            ChatRole::Assistant => "assistant",
        }
    }
}

/// What the model is to answer with.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFormat {
    Text,
    /// Any JSON.
    Json,
    /// JSON that meets this schema.
    Schema(Value),
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Llm> {
    let provider = match fields.choice("provider", &PROVIDERS, "openai") {
        "anthropic" => Provider::Anthropic,
        "ollama" => Provider::Ollama,
        _ => Provider::OpenAi,
    };
    let base_url = fields.fixed_template("baseUrl");
    if let Some(text) = base_url.as_ref().and_then(Template::literal) {
        let right = url::Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
        if !right {
            let hint = "for example `https://api.example.com/v1`";
            fields.problem("baseUrl", format!("{} is not a base URL", quoted(text)), Some(hint.into()));
        }
    }
    let model = fields.template("model");
    if model.is_none() {
        fields.missing("model", "for example `model: gpt-4o`");
    }
    let api_key = api_key(fields);
    let headers = fields.text_map("headers");
    if !headers.iter().map(|(_, text)| text).chain(&api_key).all(is_fixed) {
        let hint = "arguments belong in `prompt` or `messages`";
        let message = "neither headers nor the key may depend on the arguments of a call";
        fields.problem("headers", message, Some(hint.into()));
    }
    let system = fields.template("system");
    let messages = messages(fields);
    let temperature = number(fields, "temperature", 0.0..=2.0);
    let top_p = number(fields, "topP", 0.0..=1.0);
    let max_tokens = fields.count("maxTokens", 1..=TOKENS_MAX, 0);
    let stop = fields.templates("stop");
    if stop.len() > STOP_MAX {
        fields.problem("stop", format!("at most {STOP_MAX} texts can stop it"), None);
    }
    let format = format(fields);
    let stream = fields.bool("stream");
    let parameters = parameters(fields);
    Some(Llm {
        provider,
        base_url,
        model: model?,
        api_key,
        headers,
        system,
        messages,
        temperature,
        top_p,
        max_tokens: (max_tokens > 0).then_some(max_tokens),
        stop,
        format,
        stream,
        parameters,
    })
}

/// Whether no argument gets into it.
fn is_fixed(text: &Text) -> bool {
    let Text::Template(template) = text else { return true };
    let nothing = serde_json::Map::new();
    let scope = Scope { arguments: &nothing, env: &|_| Some(String::new()) };
    template.render(scope).is_ok_and(|pieces| pieces.is_literal())
}

fn parameters(fields: &mut Fields<'_, '_>) -> Option<Tree> {
    let parameters = fields.map("parameters");
    if let Some(own) = OWN_MEMBERS.iter().find(|name| parameters.contains_key(**name)) {
        let message = format!("`{own}` has a setting of its own");
        fields.problem("parameters", message, Some("take it out of `parameters`".into()));
    }
    if parameters.is_empty() {
        return None;
    }
    fields.tree_of("parameters", &Value::Object(parameters))
}

/// The key itself, or the variable of the node that holds it.
fn api_key(fields: &mut Fields<'_, '_>) -> Option<Text> {
    let key = fields.text_or_secret("apiKey");
    let Some(variable) = fields.text("apiKeyEnv") else { return key };
    if key.is_some() {
        fields.problem("apiKeyEnv", "`apiKey` and `apiKeyEnv` are two keys", None);
        return key;
    }
    if !is_env_name(&variable) {
        let message = format!("{} is not the name of a variable", quoted(&variable));
        let hint = "the key itself belongs in a Secret: `apiKey: {secret: name}`";
        fields.problem("apiKeyEnv", message, Some(hint.into()));
        return None;
    }
    let template = format!("{{{{env.{variable}}}}}");
    // To name the variable here is to allow it.
    Template::compile(&template, Names { env: &[variable] }).ok().map(Text::Template)
}

fn messages(fields: &mut Fields<'_, '_>) -> Vec<(ChatRole, Template)> {
    let prompt = fields.template("prompt");
    let messages = fields.objects("messages", |message| {
        let role = match message.choice("role", &["user", "assistant", "system"], "user") {
            "assistant" => ChatRole::Assistant,
            "system" => ChatRole::System,
            _ => ChatRole::User,
        };
        let content = message.template("content");
        if content.is_none() {
            message.missing("content", "what is said: a template");
        }
        Some((role, content?))
    });
    if messages.len() > MESSAGES_MAX {
        fields.problem("messages", format!("at most {MESSAGES_MAX} messages are sent"), None);
    }
    match (prompt, messages.is_empty()) {
        (Some(prompt), true) => vec![(ChatRole::User, prompt)],
        (Some(_), false) => {
            let hint = "write the prompt as the last message";
            fields.problem("prompt", "`prompt` and `messages` exclude each other", Some(hint.into()));
            messages
        }
        (None, true) => {
            fields.missing("prompt", "for example `prompt: \"Summarize: {{text}}\"`");
            messages
        }
        (None, false) => messages,
    }
}

fn number(fields: &mut Fields<'_, '_>, name: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
    let value = fields.take(name)?;
    let number = value.as_f64().filter(|number| range.contains(number));
    if number.is_none() {
        let message = format!("`{name}` must be a number of {} to {}", range.start(), range.end());
        fields.problem(name, message, None);
    }
    number
}

/// `jsonSchema`, or `responseFormat` in a word or as OpenAI has it.
fn format(fields: &mut Fields<'_, '_>) -> AnswerFormat {
    let schema = fields.take("jsonSchema");
    let asked = match fields.take("responseFormat") {
        None => Some(AnswerFormat::Text),
        Some(Value::String(word)) => match word.as_str() {
            "text" => Some(AnswerFormat::Text),
            "json" | "json_object" => Some(AnswerFormat::Json),
            _ => None,
        },
        Some(Value::Object(object)) => match object.get("type").and_then(Value::as_str) {
            Some("text") => Some(AnswerFormat::Text),
            Some("json_object") => Some(AnswerFormat::Json),
            Some("json_schema") => object
                .get("json_schema")
                .and_then(|inner| inner.get("schema"))
                .map(|schema| AnswerFormat::Schema(schema.clone())),
            _ => None,
        },
        Some(_) => None,
    };
    let Some(asked) = asked else {
        let hint = "one of text, json; for a schema write `jsonSchema: {...}`";
        fields.problem("responseFormat", "this is not a format of answers", Some(hint.into()));
        return AnswerFormat::Text;
    };
    let (path, format) = match schema {
        None => ("responseFormat", asked),
        Some(schema) => ("jsonSchema", AnswerFormat::Schema(schema)),
    };
    if let AnswerFormat::Schema(schema) = &format {
        if !schema.is_object() {
            fields.problem(path, "a schema is an object", None);
        } else if let Err(error) = jsonschema::meta::validate(schema) {
            fields.problem(path, format!("this is not a JSON Schema: {error}"), None);
        }
    }
    format
}
