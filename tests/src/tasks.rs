//! Tools of the tasks extension: work that goes on after its call is answered.
//!
//! Whether a call becomes a task is ours to say, per call, and only where the
//! client has declared the extension. Otherwise the work is done while the client
//! waits, or refused if it has to ask questions on the way. State is in memory
//! and goes with the process.

use std::future::Future;
use std::time::Duration;

use rmcp::model::{CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult, ErrorData, Tool};
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use serde_json::{Value, json};

use crate::ask::{self, Asked, Script};
use crate::tools::{Answer, Call, plain_tool, said, tool};

/// The longest that `slow_compute` takes.
const SECONDS_MAX: f64 = 600.0;
/// The longest that a client waits for it when there is no task.
const WAITED_MAX: Duration = Duration::from_secs(1);
/// How long the work takes that is not about time.
const WORK: Duration = Duration::from_millis(200);
const POLL_INTERVAL_MS: u64 = 200;

const GREET: &str = "greet";
const COMPUTE: &str = "slow_compute";
const FAILING: &str = "failing_job";
const PROTOCOL_ERROR: &str = "protocol_error_job";
const CONFIRM: &str = "confirm_delete";
const MANY: &str = "multi_input";
const ESCALATING: &str = "test_tool_with_task";

/// These make no sense without a task.
const TASK_ONLY: [&str; 4] = [FAILING, CONFIRM, MANY, ESCALATING];

pub fn list() -> Vec<Tool> {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let compute = json!({
        "seconds": { "type": "number", "description": "How long to take.", "minimum": 0 },
        "label": text("What to call the result."),
    });
    vec![
        tool(GREET, "Greets at once, never as a task.", json!({ "name": text("Whom to greet.") }), &["name"]),
        tool(COMPUTE, "Takes its time; a task where the client knows tasks.", compute, &[]),
        plain_tool(FAILING, "A task that ends with a tool's error."),
        plain_tool(PROTOCOL_ERROR, "A task that fails."),
        tool(
            CONFIRM,
            "A task that asks before it deletes.",
            json!({ "filename": text("What to delete.") }),
            &[],
        ),
        plain_tool(MANY, "A task that asks two questions at once."),
        plain_tool(ESCALATING, "Asks for a name first, then goes on as a task."),
    ]
}

pub async fn call(call: &Call<'_>) -> Option<Answer> {
    let has_tasks = call.context.client_capabilities().is_some_and(|declared| declared.supports_tasks());
    if TASK_ONLY.contains(&call.name) && !has_tasks {
        let needed = ClientCapabilities::builder().enable_tasks().build();
        return Some(Err(ask::undeclared(call.context, needed)));
    }
    let tasks = &call.fixture.shared.tasks;
    Some(match call.name {
        GREET => Ok(said(format!("Hello, {}!", call.text("name").unwrap_or("stranger"))).into()),
        COMPUTE => compute(call, has_tasks.then_some(tasks)).await,
        PROTOCOL_ERROR if has_tasks => {
            as_task(tasks, |_| async { Err(TaskExit::Error(protocol_error().await)) })
        }
        PROTOCOL_ERROR => Err(protocol_error().await),
        FAILING => as_task(tasks, |_| async {
            tokio::time::sleep(WORK).await;
            Ok(CallToolResult::error(vec![ContentBlock::text("This job fails, as a tool fails")]))
        }),
        CONFIRM => {
            let file = call.text("filename").unwrap_or("nothing").to_owned();
            as_task(tasks, move |context| confirm(context, file))
        }
        MANY => as_task(tasks, ask_two),
        ESCALATING => escalate(call, tasks).await,
        _ => return None,
    })
}

fn as_task<F>(tasks: &TaskManager, work: impl FnOnce(TaskContext) -> F) -> Answer
where
    F: Future<Output = Result<CallToolResult, TaskExit>> + Send + 'static,
{
    let options = TaskOptions::default().with_poll_interval_ms(POLL_INTERVAL_MS);
    let task = tasks.spawn(options, |context| Box::pin(work(context)));
    Ok(CreateTaskResult::new(task).into())
}

async fn compute(call: &Call<'_>, tasks: Option<&TaskManager>) -> Answer {
    let seconds = call.arguments.get("seconds").and_then(Value::as_f64).unwrap_or(1.0);
    if !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(ErrorData::invalid_params(format!("seconds is not between 0 and {SECONDS_MAX}"), None));
    }
    let time = Duration::from_secs_f64(seconds);
    let done = said(format!("{} done after {seconds} s", call.text("label").unwrap_or("computation")));
    let Some(tasks) = tasks else {
        tokio::time::sleep(time.min(WAITED_MAX)).await;
        return Ok(done.into());
    };
    as_task(tasks, move |context| async move {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(done),
            () = context.cancelled() => Err(TaskExit::Cancelled),
        }
    })
}

async fn protocol_error() -> ErrorData {
    tokio::time::sleep(WORK).await;
    ErrorData::internal_error("this job fails, as a protocol fails", None)
}

async fn confirm(context: TaskContext, file: String) -> Result<CallToolResult, TaskExit> {
    let question = ask::form(&format!("Delete {file}?"), json!({ "confirm": { "type": "boolean" } }));
    let answer = context.request_input("confirm", question).await?;
    let confirmed = answer["content"]["confirm"].as_bool().unwrap_or(false);
    Ok(said(if confirmed { format!("deleted {file}") } else { format!("kept {file}") }))
}

async fn ask_two(context: TaskContext) -> Result<CallToolResult, TaskExit> {
    let question = |which: &str| {
        ask::form(&format!("Provide the {which} value"), json!({ "value": { "type": "string" } }))
    };
    let (first, second) = tokio::try_join!(
        context.request_input("first", question("first")),
        context.request_input("second", question("second")),
    )?;
    Ok(said(format!("first={}, second={}", first["content"]["value"], second["content"]["value"])))
}

/// The question is asked before there is a task, so the task knows the answer.
async fn escalate(call: &Call<'_>, tasks: &TaskManager) -> Answer {
    let question = ask::form("What is your name?", json!({ "name": { "type": "string" } }));
    match Script::new().ask("user_name", question).run(&call.asking()).await? {
        Asked::Required(required) => Ok(required.into()),
        Asked::Answered(answers) => {
            let name = ask::field(&answers, "user_name", "name").unwrap_or("stranger").to_owned();
            as_task(tasks, move |_| async move {
                tokio::time::sleep(WORK).await;
                Ok(said(format!("Hello, {name}, at last!")))
            })
        }
    }
}
