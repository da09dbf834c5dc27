//! Chats as Ollama has them.

use mt_proto::resource::agent::llm::AnswerFormat;
use serde_json::{Map, Value, json};

use super::chat::{Chat, Reply, count_at, text_at};

pub const BASE_URL: &str = "http://127.0.0.1:11434";
pub const PATH: &str = "/api/chat";

pub fn body(chat: &Chat) -> Value {
    let mut messages: Vec<Value> = Vec::with_capacity(chat.messages.len() + 1);
    messages.extend(chat.system.as_ref().map(|text| json!({"role": "system", "content": text})));
    messages.extend(chat.messages.iter().map(|(role, text)| json!({"role": role.as_str(), "content": text})));
    let mut options = Map::new();
    options.extend(chat.temperature.map(|value| ("temperature".to_owned(), value.into())));
    options.extend(chat.top_p.map(|value| ("top_p".to_owned(), value.into())));
    options.extend(chat.max_tokens.map(|value| ("num_predict".to_owned(), value.into())));
    if !chat.stop.is_empty() {
        options.insert("stop".to_owned(), chat.stop.clone().into());
    }
    let mut body = Map::from_iter([
        ("model".to_owned(), chat.model.clone().into()),
        ("messages".to_owned(), messages.into()),
        // It streams unless it is told not to.
        ("stream".to_owned(), chat.stream.into()),
    ]);
    let format = match &chat.format {
        AnswerFormat::Text => None,
        AnswerFormat::Json => Some(json!("json")),
        AnswerFormat::Schema(schema) => Some(schema.clone()),
    };
    body.extend(format.map(|format| ("format".to_owned(), format)));
    let mut parameters = chat.parameters.clone();
    if let Some(Value::Object(more)) = parameters.remove("options") {
        options.extend(more);
    }
    if !options.is_empty() {
        body.insert("options".to_owned(), options.into());
    }
    body.extend(parameters);
    Value::Object(body)
}

/// The answer to a request that does not stream.
pub fn answer(value: &Value) -> Option<Reply> {
    value.get("message")?;
    let mut reply = Reply::default();
    take(&mut reply, value);
    Some(reply)
}

/// One line of a stream.
pub fn line(reply: &mut Reply, line: &str) -> Result<(), serde_json::Error> {
    take(reply, &serde_json::from_str(line)?);
    Ok(())
}

fn take(reply: &mut Reply, value: &Value) {
    let text = |pointer| text_at(value, pointer).map(str::to_owned);
    reply.text.push_str(text_at(value, "/message/content").unwrap_or_default());
    reply.model = text("/model").or(reply.model.take());
    reply.stop_reason = text("/done_reason").or(reply.stop_reason.take());
    reply.input_tokens = count_at(value, "/prompt_eval_count").or(reply.input_tokens);
    reply.output_tokens = count_at(value, "/eval_count").or(reply.output_tokens);
    reply.is_whole |= value.get("done") == Some(&Value::Bool(true));
}
