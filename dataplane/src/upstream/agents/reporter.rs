//! What a running tool tells, as notifications to the client that has called it.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use metrics::counter;
use mt_agent::{Level, Reporter};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::progress::Pace;
use crate::{
    gateway::call::{Call, Caller},
    mcp::{
        Key, Method, RawId,
        meta::{LogLevel, Meta},
        splice,
    },
};

/// The client of one call.
pub struct ToClient<'a> {
    tool: &'a str,
    caller: &'a Caller,
    progress_token: Option<RawId>,
    /// From this level on the client wants to hear.
    level: Option<LogLevel>,
    steps: Mutex<Steps>,
    /// A step is held.
    held: Notify,
}

#[derive(Default)]
struct Steps {
    pace: Pace<Bytes>,
    /// How far the tool was.
    highest: Option<f64>,
}

impl<'a> ToClient<'a> {
    pub fn new(tool: &'a str, call: &Call, caller: &'a Caller) -> Self {
        let meta = Meta::of(&call.params).ok();
        let progress_token = meta.as_ref().and_then(Meta::progress_token);
        let level = meta.as_ref().and_then(Meta::log_level);
        Self { tool, caller, progress_token, level, steps: Mutex::default(), held: Notify::new() }
    }

    /// Tells what is held when its time comes, beside the tool.
    pub async fn tell_held(&self) -> Infallible {
        loop {
            let due = self.steps.lock().pace.due();
            match due {
                None => self.held.notified().await,
                Some(due) => {
                    sleep_until(due).await;
                    let step = self.steps.lock().pace.take_due(Instant::now());
                    self.tell(step).await;
                }
            }
        }
    }

    /// Tells what is still held: the tool has ended.
    pub async fn finish(&self) {
        let last = self.steps.lock().pace.finish();
        self.tell(last).await;
    }

    async fn tell(&self, step: Option<Bytes>) {
        if let Some(params) = step {
            self.caller.notify(splice::notification(&Method::Progress, Some(&params))).await;
        }
    }
}

impl Reporter for ToClient<'_> {
    fn wants_progress(&self) -> bool {
        self.progress_token.is_some()
    }

    fn progress<'a>(
        &'a self,
        progress: f64,
        total: Option<f64>,
        message: Option<&'a str>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(token) = &self.progress_token else { return };
            let mut params = splice::Object::default()
                .set(Key::ProgressToken.as_str(), token.as_bytes())
                .set("progress", json!(progress).to_string().as_bytes());
            if let Some(total) = total {
                params = params.set("total", json!(total).to_string().as_bytes());
            }
            if let Some(message) = message {
                params = params.set_text("message", message);
            }
            let now = {
                let mut steps = self.steps.lock();
                // MCP: it grows with each notification.
                if steps.highest.is_some_and(|highest| progress <= highest) {
                    return;
                }
                steps.highest = Some(progress);
                steps.pace.offer(params.finish(), Instant::now())
            };
            if now.is_none() {
                self.held.notify_one();
            }
            self.tell(now).await;
        })
    }

    fn log(&self, level: Level, data: Value) {
        let level = log_level(level);
        if self.level.is_none_or(|least| level < least) {
            return;
        }
        let params: Bytes =
            json!({"level": level.as_str(), "logger": self.tool, "data": data}).to_string().into();
        if !self.caller.try_notify(splice::notification(&Method::LogMessage, Some(&params))) {
            counter!("mt_agent_logs_dropped_total").increment(1);
        }
    }
}

fn log_level(level: Level) -> LogLevel {
    match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Notice => LogLevel::Notice,
        Level::Warning => LogLevel::Warning,
        Level::Error => LogLevel::Error,
        Level::Critical => LogLevel::Critical,
        Level::Alert => LogLevel::Alert,
        Level::Emergency => LogLevel::Emergency,
    }
}
