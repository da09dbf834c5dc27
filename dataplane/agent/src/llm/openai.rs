//! Chat completions as OpenAI has them, and everybody who is compatible.

use mt_proto::resource::agent::llm::AnswerFormat;
use serde_json::{Map, Value, json};

use super::chat::{Chat, Reply, count_at, text_at};

pub const BASE_URL: &str = "https://api.openai.com/v1";
pub const PATH: &str = "/chat/completions";
/// After the last event of a stream.
const END: &str = "[DONE]";

pub fn body(chat: &Chat) -> Value {
    let mut messages: Vec<Value> = Vec::with_capacity(chat.messages.len() + 1);
    messages.extend(chat.system.as_ref().map(|text| json!({"role": "system", "content": text})));
    messages.extend(chat.messages.iter().map(|(role, text)| json!({"role": role.as_str(), "content": text})));
    let mut body = Map::from_iter([
        ("model".to_owned(), chat.model.clone().into()),
        ("messages".to_owned(), messages.into()),
    ]);
    body.extend(chat.temperature.map(|value| ("temperature".to_owned(), value.into())));
    body.extend(chat.top_p.map(|value| ("top_p".to_owned(), value.into())));
    // OpenAI's newer models take only the newer name, and others only the older.
    let limit = if chat.is_at_home { "max_completion_tokens" } else { "max_tokens" };
    body.extend(chat.max_tokens.map(|value| (limit.to_owned(), value.into())));
    if !chat.stop.is_empty() {
        body.insert("stop".to_owned(), chat.stop.clone().into());
    }
    let format = match &chat.format {
        AnswerFormat::Text => None,
        AnswerFormat::Json => Some(json!({"type": "json_object"})),
        AnswerFormat::Schema(schema) => {
            // Strictness is refused for schemas that leave members open.
            let strict = schema.get("additionalProperties") == Some(&Value::Bool(false));
            let schema = json!({"name": "answer", "schema": schema, "strict": strict});
            Some(json!({"type": "json_schema", "json_schema": schema}))
        }
    };
    body.extend(format.map(|format| ("response_format".to_owned(), format)));
    if chat.stream {
        body.insert("stream".to_owned(), true.into());
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    body.extend(chat.parameters.clone());
    Value::Object(body)
}

/// The answer to a request that does not stream.
pub fn answer(value: &Value) -> Option<Reply> {
    let choice = value.pointer("/choices/0")?;
    let mut reply = Reply {
        text: text_at(choice, "/message/content").unwrap_or_default().to_owned(),
        refusal: text_at(choice, "/message/refusal").map(str::to_owned),
        is_whole: true,
        ..Reply::default()
    };
    facts(&mut reply, value);
    Some(reply)
}

/// One event of a stream.
pub fn event(reply: &mut Reply, data: &str) -> Result<(), serde_json::Error> {
    if data.trim() == END {
        reply.is_whole = true;
        return Ok(());
    }
    let value: Value = serde_json::from_str(data)?;
    if let Some(text) = text_at(&value, "/choices/0/delta/content") {
        reply.text.push_str(text);
    }
    if let Some(text) = text_at(&value, "/choices/0/delta/refusal") {
        reply.refusal.get_or_insert_default().push_str(text);
    }
    facts(reply, &value);
    Ok(())
}

fn facts(reply: &mut Reply, value: &Value) {
    let text = |pointer| text_at(value, pointer).map(str::to_owned);
    reply.model = text("/model").or(reply.model.take());
    reply.stop_reason = text("/choices/0/finish_reason").or(reply.stop_reason.take());
    reply.input_tokens = count_at(value, "/usage/prompt_tokens").or(reply.input_tokens);
    reply.output_tokens = count_at(value, "/usage/completion_tokens").or(reply.output_tokens);
}
