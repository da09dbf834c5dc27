//! `POST /mcp/tools/NAME/execute`: a tool as an operation of an API. The body is
//! its arguments; the answer is what the API's description (`openapi.rs`) says: the
//! structured result of a tool that has an output schema, the whole result of
//! any other. A tool that fails is a failed request.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Failure, Kind, body_of, checked, decoded};
use crate::{
    downstream::{
        body::Body,
        door::Door,
        openapi,
        plain::{Talk, Wish, unasked},
        reply,
    },
    mcp::{
        RpcError,
        error::{Side, code},
    },
};

/// Texts of a failed tool that are repeated as the message of the error.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

pub async fn run<B>(door: Door, name: &str, request: Request<B>) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let name = decoded(name)?;
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    let arguments = Some(body.trim_ascii()).filter(|body| !body.is_empty());
    let wish = Wish::tool(&name, checked(arguments)?);
    let backend = door.view.tools.get(&*name).map(|target| target.backend.to_string());
    let structured = openapi::is_structured(&door, &name).await;
    let (result, glance) = unasked(Talk::start(door, wish)?.end().await?)?;
    if glance.is_error {
        return Err(refused(&result, backend.unwrap_or_default()));
    }
    if !structured {
        return Ok(reply::json(StatusCode::OK, result));
    }
    let parts: Parts<'_> = serde_json::from_slice(&result).unwrap_or_default();
    match parts.structured_content {
        Some(value) => Ok(reply::json(StatusCode::OK, result.slice_ref(value.get().as_bytes()))),
        None => {
            let mut error = RpcError::upstream_invalid(&backend.unwrap_or_default());
            error.message = "the tool has an output schema, and answered without structured content".into();
            Err(Failure::of(&error.with("result", result)))
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Parts<'a> {
    #[serde(borrow)]
    structured_content: Option<&'a RawValue>,
    content: Vec<Block>,
    #[serde(rename = "_meta")]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Block {
    text: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    #[serde(rename = "io.magictunnel/error")]
    error: Reason,
}

/// What the agents of a tool set say of a failure.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
    retry_safe: bool,
}

/// A result that says that the tool has failed, as a failed request.
fn refused(result: &Bytes, backend: String) -> Failure {
    let parts: Parts<'_> = serde_json::from_slice(result).unwrap_or_default();
    let mut message = parts.content.into_iter().map(|block| block.text).collect::<Vec<_>>().join("\n");
    if message.len() > MESSAGE_BYTES_MAX {
        let cut = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(cut.unwrap_or_default());
    }
    if message.is_empty() {
        message.push_str("the tool has failed");
    }
    let Reason { reason, retry_safe } = parts.meta.error;
    let kind = match reason.as_str() {
        "invalid_arguments" => Kind::Invalid,
        "timeout" => Kind::Timeout,
        "unreachable" => Kind::Unreachable,
        "broken" | "too_large" | "invalid_result" | "misconfigured" => Kind::Backend,
        "overloaded" => Kind::Overloaded,
        // It was reached and has said no.
        _ => Kind::Refused,
    };
    let mut error = RpcError::new(code::TOOL_FAILED, message).with("result", result.clone());
    error.side = Side::Backend(backend);
    error.retry = retry_safe;
    if !reason.is_empty() {
        error = error.with_text("reason", &reason);
    }
    Failure { kind, ..Failure::of(&error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(result: &'static str) -> u16 {
        refused(&Bytes::from_static(result.as_bytes()), "b".into()).kind.status().as_u16()
    }

    #[test]
    fn a_tool_that_fails_is_a_request_that_fails() {
        let of = |reason: &str| {
            let result = format!(
                r#"{{"content":[{{"type":"text","text":"no"}}],"isError":true,"_meta":{{"io.magictunnel/error":{{"reason":"{reason}","retry_safe":true}}}}}}"#
            );
            let failure = refused(&result.into(), "b".into());
            assert!(failure.retry && failure.message == "no" && failure.side == "backend b");
            failure.kind.status().as_u16()
        };
        assert_eq!(of("invalid_arguments"), 400);
        assert_eq!(of("timeout"), 504);
        assert_eq!(of("refused"), 422);
        assert_eq!(of("overloaded"), 503);
        assert_eq!(of("broken"), 502);
        assert_eq!(status_of(r#"{"content":[],"isError":true}"#), 422);
        assert_eq!(status_of("{}"), 422);
    }
}
