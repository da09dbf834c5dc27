//! `POST /mcp/call/stream`: a call whose progress, log and result are lines of
//! JSON, as they come.
//!
//! The lines are read from the call one by one when the socket takes them: a
//! client that reads slowly holds the backend back, and one that goes away
//! cancels the call.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use tokio::time::timeout;

use super::{Failure, Named, Query, body_of, live};
use crate::{
    downstream::{
        body::Body,
        door::Door,
        ndjson::NDJSON,
        plain::{Talk, Wish, Word, said::Said, unasked},
        stream::KEEP_ALIVE_EVERY,
    },
    mcp::{lines, meta::LogLevel, splice::Object},
};

/// From which level on the log is told where the client does not say.
const LEVEL: LogLevel = LogLevel::Info;
/// An empty line, which readers skip.
const KEEP_ALIVE: &[u8] = b"\n";

pub async fn run<B>(door: Door, query: &Query, request: Request<B>) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let level = query.level()?.unwrap_or(LEVEL);
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    let wish = Wish { progress: true, level: Some(level), ..Named::wish(&body)? };
    let mut talk = Talk::start(door, wish)?;
    let first = talk.next().await;
    if let Some(Word::Ended(Err(failure))) = first {
        return Err(failure);
    }
    let body = stream::unfold((talk, first), |(mut talk, first)| async move {
        let word = match first {
            Some(word) => Some(word),
            None => match timeout(KEEP_ALIVE_EVERY, talk.next()).await {
                Ok(word) => Some(word?),
                Err(_) => None,
            },
        };
        let chunk = word.map_or(Bytes::from_static(KEEP_ALIVE), |word| line(&told(word)));
        Some((chunk, (talk, None)))
    });
    let mut response = Response::new(Body::stream(body));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    live(response.headers_mut());
    Ok(response)
}

fn told(word: Word) -> Bytes {
    let object = Object::default();
    match word {
        Word::Said(Said::Progress(progress)) => progress.to_json(),
        Word::Said(Said::Log(log)) => log.to_json(),
        Word::Said(Said::ListChanged(list)) => {
            object.set_text("type", "list_changed").set_text("list", list.as_str()).finish()
        }
        Word::Said(Said::ResourceUpdated(uri)) => {
            object.set_text("type", "resource_updated").set_text("uri", &uri).finish()
        }
        Word::Said(Said::Acknowledged(raw) | Said::Other(raw)) => {
            object.set_text("type", "notification").set("notification", &raw).finish()
        }
        Word::Ended(outcome) => match outcome.and_then(unasked) {
            Ok((result, _)) => object.set_text("type", "result").set("result", &result).finish(),
            Err(failure) => object.set_text("type", "error").set("error", &failure.error).finish(),
        },
    }
}

fn line(message: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(message.len() + 1);
    lines::encode(message, &mut line);
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::RpcError;

    #[test]
    fn the_last_line_is_the_result_or_the_error() {
        let result = Bytes::from_static(b"{\"content\":[\n]}");
        assert_eq!(
            line(&told(Word::Ended(Ok(result)))),
            "{\"type\":\"result\",\"result\":{\"content\":[ ]}}\n"
        );
        let error = told(Word::Ended(Err(Failure::of(&RpcError::overloaded()))));
        assert!(error.starts_with(br#"{"type":"error","error":{"code":-31007"#));
        let asks = told(Word::Ended(Ok(Bytes::from_static(br#"{"resultType":"input_required"}"#))));
        assert!(asks.starts_with(br#"{"type":"error","error":{"code":-31017"#));
    }
}
