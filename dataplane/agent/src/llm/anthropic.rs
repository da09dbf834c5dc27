//! Messages as Anthropic has them.

use mt_proto::resource::agent::llm::AnswerFormat;
use serde_json::{Map, Value, json};

use super::chat::{Chat, Reply, count_at, text_at};

pub const BASE_URL: &str = "https://api.anthropic.com";
pub const PATH: &str = "/v1/messages";
/// The revision of the interface that is spoken here.
pub const VERSION: &str = "2023-06-01";
/// Here a limit must be given.
const TOKENS_DEFAULT: u64 = 4_096;

pub fn body(chat: &Chat) -> Value {
    let messages = chat.messages.iter().map(|(role, text)| json!({"role": role.as_str(), "content": text}));
    let mut body = Map::from_iter([
        ("model".to_owned(), chat.model.clone().into()),
        ("max_tokens".to_owned(), chat.max_tokens.unwrap_or(TOKENS_DEFAULT).into()),
        ("messages".to_owned(), messages.collect()),
    ]);
    body.extend(chat.system.as_ref().map(|text| ("system".to_owned(), text.clone().into())));
    body.extend(chat.temperature.map(|value| ("temperature".to_owned(), value.into())));
    body.extend(chat.top_p.map(|value| ("top_p".to_owned(), value.into())));
    if !chat.stop.is_empty() {
        body.insert("stop_sequences".to_owned(), chat.stop.clone().into());
    }
    // Without a schema there is only the prompt to ask for JSON in.
    if let AnswerFormat::Schema(schema) = &chat.format {
        let format = json!({"format": {"type": "json_schema", "schema": schema}});
        body.insert("output_config".to_owned(), format);
    }
    if chat.stream {
        body.insert("stream".to_owned(), true.into());
    }
    body.extend(chat.parameters.clone());
    Value::Object(body)
}

/// The answer to a request that does not stream. Blocks of other kinds, such
/// as thoughts, are not the answer.
pub fn answer(value: &Value) -> Option<Reply> {
    let blocks = value.get("content")?.as_array()?;
    let mut reply = Reply { is_whole: true, ..Reply::default() };
    reply.text = blocks.iter().filter_map(|block| text_at(block, "/text")).collect();
    facts(&mut reply, value);
    refused(&mut reply);
    Some(reply)
}

/// One event of a stream.
pub fn event(reply: &mut Reply, data: &str) -> Result<(), serde_json::Error> {
    let value: Value = serde_json::from_str(data)?;
    match text_at(&value, "/type") {
        Some("message_start") => {
            if let Some(message) = value.get("message") {
                facts(reply, message);
            }
        }
        Some("content_block_delta") if text_at(&value, "/delta/type") == Some("text_delta") => {
            reply.text.push_str(text_at(&value, "/delta/text").unwrap_or_default());
        }
        Some("message_delta") => {
            let reason = text_at(&value, "/delta/stop_reason").map(str::to_owned);
            reply.stop_reason = reason.or(reply.stop_reason.take());
            facts(reply, &value);
        }
        Some("message_stop") => {
            reply.is_whole = true;
            refused(reply);
        }
        // `ping`, the borders of blocks, and what is still to be invented.
        _ => {}
    }
    Ok(())
}

fn facts(reply: &mut Reply, message: &Value) {
    let text = |pointer| text_at(message, pointer).map(str::to_owned);
    reply.model = text("/model").or(reply.model.take());
    reply.stop_reason = text("/stop_reason").or(reply.stop_reason.take());
    // What was read from or put into its cache was read too.
    let input: Vec<u64> = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"]
        .iter()
        .filter_map(|key| count_at(message, &format!("/usage/{key}")))
        .collect();
    if !input.is_empty() {
        reply.input_tokens = Some(input.iter().sum());
    }
    reply.output_tokens = count_at(message, "/usage/output_tokens").or(reply.output_tokens);
}

fn refused(reply: &mut Reply) {
    if reply.stop_reason.as_deref() == Some("refusal") {
        reply.refusal = Some(std::mem::take(&mut reply.text));
    }
}
