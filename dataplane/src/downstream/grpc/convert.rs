//! Between the messages of the service and what the doors without MCP say.

use bytes::Bytes;
use mt_proto::pb::mcp as pb;

use crate::{
    downstream::plain::{
        kind::Failure,
        said::{Log, Progress},
    },
    mcp::{RpcError, meta::LogLevel, text},
};

/// An argument that is refused.
pub fn invalid(why: impl Into<String>) -> Failure {
    Failure::of(&RpcError::invalid_params(why.into()))
}

/// The log level that is wished for; none is none.
pub fn level(text: &str) -> Result<Option<LogLevel>, Failure> {
    match text {
        "" => Ok(None),
        text => LogLevel::parse(text).map(Some).ok_or_else(|| invalid(format!("{text:?} is no log level"))),
    }
}

/// What is said of progress.
pub fn progress(said: Progress) -> pb::Progress {
    pb::Progress { progress: said.progress, total: said.total, message: said.message.unwrap_or_default() }
}

/// What is logged.
pub fn log(said: Log) -> pb::LogMessage {
    pb::LogMessage {
        level: said.level.as_str().to_owned(),
        logger: said.logger.unwrap_or_default(),
        data: said.data,
    }
}

/// A text as JSON.
pub fn quoted(value: &str) -> Bytes {
    text::encode(value).into()
}
