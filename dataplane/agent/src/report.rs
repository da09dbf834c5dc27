//! What a running tool tells its caller.

use futures_util::future::BoxFuture;
use serde_json::Value;

/// How important a log line is (RFC 5424).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

/// Takes what a running tool tells.
pub trait Reporter: Send + Sync {
    /// Whether the client has asked for progress: if not, none need be made.
    fn wants_progress(&self) -> bool;

    /// How far it is; `progress` grows from one to the next. Waits while the
    /// client is slow, so that a fast tool is held back.
    fn progress<'a>(
        &'a self,
        progress: f64,
        total: Option<f64>,
        message: Option<&'a str>,
    ) -> BoxFuture<'a, ()>;

    /// A line for the log. Never waits: what is too much is dropped.
    fn log(&self, level: Level, data: Value);
}
