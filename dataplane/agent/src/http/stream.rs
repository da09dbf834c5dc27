//! An answer that comes bit by bit: each line, event or piece of text is told
//! as it comes, and all of them are the result.

use futures_util::StreamExt as _;
use mt_proto::resource::{Http, agent::http::HttpOutput};
use serde_json::Value;

use super::output::{self, Kind};
use crate::{
    Failure, Output, Run,
    client::{self, Answer},
    collect::{extracted, tell},
    sse::{self, Event},
};

/// Reads an answer, and tells of it.
pub async fn read(run: &Run<'_>, config: &Http, answer: Answer) -> Result<Output, Failure> {
    let kind = Kind::of(answer.response.headers());
    match kind.content_type.as_str() {
        "text/event-stream" => events(run, config, answer).await,
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/jsonlines"
        | "application/stream+json" => pieces(run, config, &kind, answer, true).await,
        _ => pieces(run, config, &kind, answer, false).await,
    }
}

async fn events(run: &Run<'_>, config: &Http, answer: Answer) -> Result<Output, Failure> {
    let bytes_max = config.request.response_bytes_max;
    let mut events = Box::pin(sse::events(answer, bytes_max));
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(event) = events.next().await {
        let event: Event = event?;
        bytes += event.data.len();
        if bytes > bytes_max {
            return Err(client::too_large(bytes_max));
        }
        all.push(event.to_value());
        tell(run, all.len(), &event.data).await;
    }
    extracted(Value::Array(all), config.extract.as_ref()).map(Output::value)
}

/// Lines of JSON, or a text in whatever pieces it comes.
async fn pieces(
    run: &Run<'_>,
    config: &Http,
    kind: &Kind,
    mut answer: Answer,
    lines: bool,
) -> Result<Output, Failure> {
    let bytes_max = config.request.response_bytes_max;
    let (mut body, mut told, mut nth) = (Vec::new(), 0, 0);
    while let Some(chunk) = answer.response.chunk().await.map_err(client::failure_of)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(client::too_large(bytes_max));
        }
        body.extend_from_slice(&chunk);
        let end = told + complete(&body[told..], lines);
        let new = String::from_utf8_lossy(&body[told..end]);
        let parts: Vec<&str> = if lines { new.lines().collect() } else { vec![&new] };
        for part in parts.into_iter().filter(|part| !part.trim().is_empty()) {
            nth += 1;
            tell(run, nth, part).await;
        }
        told = end;
    }
    if told < body.len() {
        tell(run, nth + 1, &String::from_utf8_lossy(&body[told..])).await;
    }
    let as_values = lines && matches!(config.output, HttpOutput::Auto | HttpOutput::Json);
    let values = as_values.then(|| values(&body)).flatten();
    match values {
        Some(values) => extracted(Value::Array(values), config.extract.as_ref()).map(Output::value),
        None => output::of(config, kind, body),
    }
}

/// How much of it ends where a line or at least a character does.
fn complete(bytes: &[u8], lines: bool) -> usize {
    if lines {
        return bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    }
    match std::str::from_utf8(bytes) {
        // None: what follows could still complete it.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// None: a line is not JSON.
fn values(body: &[u8]) -> Option<Vec<Value>> {
    let lines = body.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(|line| serde_json::from_slice(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_piece_ends_where_a_character_does() {
        let text = "aä".as_bytes();
        assert_eq!(complete(text, false), 3);
        assert_eq!(complete(&text[..2], false), 1);
        assert_eq!(complete(b"\xff\xfe", false), 2);
    }

    #[test]
    fn a_line_is_told_when_it_is_whole() {
        assert_eq!(complete(b"{}\n{\"a\"", true), 3);
        assert_eq!(complete(b"{", true), 0);
    }

    #[test]
    fn lines_of_json_are_values() {
        assert_eq!(values(b"1\r\n\n{\"a\":2}"), Some(vec![json!(1), json!({"a": 2})]));
        assert_eq!(values(b"1\nx"), None);
    }
}
