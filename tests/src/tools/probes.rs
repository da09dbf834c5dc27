//! Tools that only our own tests use: to send bytes around, to be cancelled, to
//! tell sessions apart, and to bring the process down.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::model::{CallToolResult, ErrorCode, ErrorData, Tool};
use serde_json::{Value, json};

use super::{Answer, Call, plain_tool, said, tool};
use crate::folder::Folder;
use crate::server::{Shared, SlowCalls};

/// The longest that `slow` takes, so that a lost call does not live forever.
const SLOW_MS_MAX: u64 = 600_000;
/// What the process exits with when it is told to crash.
const CRASH_CODE: i32 = 70;

/// The most that `payload` answers with.
const PAYLOAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

const ECHO: &str = "echo";
const SLOW: &str = "slow";
const CANCELLED_COUNT: &str = "cancelled_count";
const PAYLOAD: &str = "payload";
const SESSION: &str = "session";
const FAIL: &str = "fail";
/// Legal before 2025-11-25 recommended ASCII, so servers have such names.
const UNICODE: &str = "grüße_世界";
const CRASH: &str = "crash";

pub fn list(shared: &Shared) -> Vec<Tool> {
    let echo = json!({ "text": { "type": "string", "description": "Comes back as the content." } });
    let slow = json!({
        "ms": { "type": "integer", "description": "How long to take.", "minimum": 0 },
        "key": { "type": "string", "description": "Under which to note its start and end in the folder." },
    });
    let payload =
        json!({ "bytes": { "type": "integer", "description": "How many to answer with.", "minimum": 0 } });
    let fail = json!({
        "code": { "type": "integer", "description": "The code of the error." },
        "message": { "type": "string", "description": "Its message." },
        "data": { "description": "Its data." },
    });
    let mut tools = vec![
        tool(ECHO, "Answers with its text, and with any other arguments as structured content.", echo, &[]),
        tool(SLOW, "Answers after a while, unless the call is cancelled.", slow, &["ms"]),
        plain_tool(CANCELLED_COUNT, "Counts the calls of slow by how they ended."),
        tool(PAYLOAD, "Answers with a text of so many bytes.", payload, &["bytes"]),
        plain_tool(SESSION, "Tells process and session, and counts the calls of it in this session."),
        tool(FAIL, "Fails, as a protocol fails.", fail, &["code", "message"]),
        plain_tool(CRASH, "Ends the process without an answer."),
    ];
    if shared.unicode_names {
        tools.push(plain_tool(UNICODE, "Answers with its arguments; its name is not of ASCII."));
    }
    tools
}

pub async fn call(call: &Call<'_>) -> Option<Answer> {
    let slow_calls = &call.fixture.shared.slow_calls;
    let result = match call.name {
        ECHO => echo(call),
        UNICODE => {
            let mut result = said(UNICODE);
            result.structured_content = Some(Value::Object(call.arguments.clone()));
            result
        }
        PAYLOAD => return Some(payload(call)),
        SESSION => session(call),
        FAIL => return Some(Err(failure(call))),
        SLOW => return Some(slow(call, slow_calls).await),
        CANCELLED_COUNT => counts(slow_calls),
        CRASH => std::process::exit(CRASH_CODE),
        _ => return None,
    };
    Some(Ok(result.into()))
}

fn echo(call: &Call<'_>) -> CallToolResult {
    let mut others = call.arguments.clone();
    let text = others.shift_remove("text");
    let mut result = said(text.as_ref().and_then(Value::as_str).unwrap_or_default());
    if !others.is_empty() {
        result.structured_content = Some(Value::Object(others));
    }
    result
}

fn payload(call: &Call<'_>) -> Answer {
    let bytes =
        call.arguments.get("bytes").and_then(Value::as_u64).filter(|bytes| *bytes <= PAYLOAD_BYTES_MAX);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
        ErrorData::invalid_params(format!("bytes is not between 0 and {PAYLOAD_BYTES_MAX}"), None)
    })?;
    Ok(said("x".repeat(bytes)).into())
}

fn session(call: &Call<'_>) -> CallToolResult {
    let (process, session) = (std::process::id(), &call.fixture.session);
    let count = session.counted.fetch_add(1, Ordering::SeqCst) + 1;
    let mut result = said(format!("{process}/{}/{count}", session.number));
    result.structured_content =
        Some(json!({ "process": process, "session": session.number, "count": count }));
    result
}

fn failure(call: &Call<'_>) -> ErrorData {
    let code = call.arguments.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
    let Some(code) = code else { return ErrorData::invalid_params("code is not a small integer", None) };
    let message = call.text("message").unwrap_or_default().to_owned();
    ErrorData::new(ErrorCode(code), message, call.arguments.get("data").cloned())
}

async fn slow(call: &Call<'_>, slow_calls: &SlowCalls) -> Answer {
    let ms = call.arguments.get("ms").and_then(Value::as_u64).filter(|ms| *ms <= SLOW_MS_MAX);
    let ms =
        ms.ok_or_else(|| ErrorData::invalid_params(format!("ms is not between 0 and {SLOW_MS_MAX}"), None))?;
    slow_calls.started.fetch_add(1, Ordering::SeqCst);
    let key = call.text("key").unwrap_or_default();
    call.fixture.shared.folder.note(key, "started");
    let mut end = End { slow_calls, folder: &call.fixture.shared.folder, key, finished: false };
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(ms)) => {
            end.finished = true;
            Ok(said(format!("slept {ms} ms")).into())
        }
        () = call.context.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
    }
}

fn counts(slow_calls: &SlowCalls) -> CallToolResult {
    let cancelled = slow_calls.cancelled.load(Ordering::SeqCst);
    let mut result = said(cancelled.to_string());
    result.structured_content = Some(json!({
        "started": slow_calls.started.load(Ordering::SeqCst),
        "finished": slow_calls.finished.load(Ordering::SeqCst),
        "cancelled": cancelled,
    }));
    result
}

/// Counts how a slow call ended, also when its future is just dropped.
struct End<'a> {
    slow_calls: &'a SlowCalls,
    folder: &'a Folder,
    key: &'a str,
    finished: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let count = if self.finished { &self.slow_calls.finished } else { &self.slow_calls.cancelled };
        count.fetch_add(1, Ordering::SeqCst);
        self.folder.note(self.key, if self.finished { "finished" } else { "cancelled" });
    }
}
