//! Tools that only our own tests use: to send bytes around, to be cancelled, and
//! to bring the process down.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::model::{CallToolResult, ErrorData, Tool};
use serde_json::{Value, json};

use super::{Answer, Call, plain_tool, said, tool};
use crate::server::SlowCalls;

/// The longest that `slow` takes, so that a lost call does not live forever.
const SLOW_MS_MAX: u64 = 600_000;
/// What the process exits with when it is told to crash.
const CRASH_CODE: i32 = 70;

const ECHO: &str = "echo";
const SLOW: &str = "slow";
const CANCELLED_COUNT: &str = "cancelled_count";
const CRASH: &str = "crash";

pub fn list() -> Vec<Tool> {
    let echo = json!({ "text": { "type": "string", "description": "Comes back as the content." } });
    let slow = json!({ "ms": { "type": "integer", "description": "How long to take.", "minimum": 0 } });
    vec![
        tool(ECHO, "Answers with its text, and with any other arguments as structured content.", echo, &[]),
        tool(SLOW, "Answers after a while, unless the call is cancelled.", slow, &["ms"]),
        plain_tool(CANCELLED_COUNT, "Counts the calls of slow by how they ended."),
        plain_tool(CRASH, "Ends the process without an answer."),
    ]
}

pub async fn call(call: &Call<'_>) -> Option<Answer> {
    let slow_calls = &call.fixture.shared.slow_calls;
    let result = match call.name {
        ECHO => echo(call),
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

async fn slow(call: &Call<'_>, slow_calls: &SlowCalls) -> Answer {
    let ms = call.arguments.get("ms").and_then(Value::as_u64).filter(|ms| *ms <= SLOW_MS_MAX);
    let ms =
        ms.ok_or_else(|| ErrorData::invalid_params(format!("ms is not between 0 and {SLOW_MS_MAX}"), None))?;
    slow_calls.started.fetch_add(1, Ordering::SeqCst);
    let mut end = End { slow_calls, finished: false };
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
    finished: bool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let count = if self.finished { &self.slow_calls.finished } else { &self.slow_calls.cancelled };
        count.fetch_add(1, Ordering::SeqCst);
    }
}
