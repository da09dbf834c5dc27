//! Tools that say something before they answer: progress, log lines, and that a
//! list or a resource has changed. The change is real: what a client reads after
//! the notification differs from what it read before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, Tool};
use serde_json::json;

use super::{Answer, Call, plain_tool, said};
use crate::ask::is_modern;
use crate::audience::Change;
use crate::resources;
use crate::server::{Shared, toggle};

/// Between two notifications, so that they can be seen to arrive one by one.
const PAUSE: Duration = Duration::from_millis(50);

const PROGRESS: &str = "test_tool_with_progress";
const LOGGING: &str = "test_tool_with_logging";
const LOG_ON_REQUEST: &str = "test_logging_tool";
const RECONNECTION: &str = "test_reconnection";
const CHANGE_TOOLS: &str = "test_trigger_tool_change";
const CHANGE_PROMPTS: &str = "test_trigger_prompt_change";
const CHANGE_RESOURCE: &str = "test_trigger_resource_update";
const DYNAMIC: &str = "dynamic_tool";

pub fn list() -> Vec<Tool> {
    vec![
        plain_tool(PROGRESS, "Reports progress three times, then answers."),
        plain_tool(LOGGING, "Logs three lines, then answers."),
        plain_tool(LOG_ON_REQUEST, "Logs one line where the request permits it."),
        plain_tool(RECONNECTION, "Answers after a moment, in which a stream may be cut and resumed."),
        plain_tool(CHANGE_TOOLS, "Adds the tool dynamic_tool, or removes it, and says so."),
        plain_tool(CHANGE_PROMPTS, "Adds the prompt dynamic_prompt, or removes it, and says so."),
        plain_tool(CHANGE_RESOURCE, "Changes the resource test://watched-resource and says so."),
    ]
}

/// The tool that is there only every other time.
pub fn dynamic(shared: &Shared) -> Option<Tool> {
    shared.dynamic_tool.load(Ordering::SeqCst).then(|| plain_tool(DYNAMIC, "Comes and goes."))
}

pub async fn call(call: &Call<'_>) -> Option<Answer> {
    let shared = &call.fixture.shared;
    let text = match call.name {
        PROGRESS => {
            report_progress(call).await;
            "Progress reported".to_owned()
        }
        LOGGING => {
            for line in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                log(call, LoggingLevel::Info, line).await;
                tokio::time::sleep(PAUSE).await;
            }
            "Three lines logged".to_owned()
        }
        LOG_ON_REQUEST => {
            log(call, LoggingLevel::Emergency, "This request permits log lines").await;
            "Logged what was permitted".to_owned()
        }
        RECONNECTION => {
            tokio::time::sleep(PAUSE * 2).await;
            "Reconnection test completed".to_owned()
        }
        CHANGE_TOOLS => {
            let there = toggle(&shared.dynamic_tool);
            shared.audience.tell(Change::Tools).await;
            format!("{DYNAMIC} listed: {there}")
        }
        CHANGE_PROMPTS => {
            let there = toggle(&shared.dynamic_prompt);
            shared.audience.tell(Change::Prompts).await;
            format!("dynamic_prompt listed: {there}")
        }
        CHANGE_RESOURCE => {
            let revision = shared.watched_revision.fetch_add(1, Ordering::SeqCst) + 1;
            shared.audience.tell(Change::Resource(resources::WATCHED)).await;
            format!("revision {revision}")
        }
        DYNAMIC if shared.dynamic_tool.load(Ordering::SeqCst) => "This tool comes and goes.".to_owned(),
        _ => return None,
    };
    Some(Ok(said(text).into()))
}

/// Without a token nobody has asked for progress.
async fn report_progress(call: &Call<'_>) {
    let Some(token) = call.context.meta.get_progress_token() else { return };
    for (progress, message) in [(0.0, "Starting"), (50.0, "Halfway"), (100.0, "Done")] {
        let report =
            ProgressNotificationParam::new(token.clone(), progress).with_total(100.0).with_message(message);
        // A client that went away is noticed when the answer is sent.
        _ = call.context.peer.notify_progress(report).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// A modern request permits log lines by naming a level, a legacy session by
/// default; either way only from that level up.
async fn log(call: &Call<'_>, level: LoggingLevel, line: &str) {
    let context = call.context;
    let lowest =
        if is_modern(context) { context.meta.log_level() } else { Some(call.fixture.session.log_level()) };
    // By position: the levels are declared from the least to the most severe.
    if lowest.is_none_or(|lowest| (level as u8) < lowest as u8) {
        return;
    }
    let message = LoggingMessageNotificationParam::new(level, json!(line)).with_logger("mt-fixture");
    _ = context.peer.notify_logging_message(message).await;
}
