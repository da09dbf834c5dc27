//! The HTTP agent: one request, whose answer is the result.

mod output;
mod stream;

use std::sync::Arc;

use http::StatusCode;
use mt_proto::resource::Http;
use tokio::time::{Instant, timeout_at};

pub(crate) use self::output::is_json;
use crate::{
    Failure, Output, Run,
    client::{self, Prepared, Tries},
};

/// What a tool of this kind keeps between calls: nothing, connections are of
/// the node.
pub struct Runner {
    config: Arc<Http>,
}

impl Runner {
    pub fn new(config: &Arc<Http>) -> Self {
        Self { config: config.clone() }
    }

    /// Dropping the future closes the connection.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let limit = self.config.timeout;
        let deadline = Instant::now() + limit;
        if deadline >= run.deadline {
            // The tool's own limit comes first, and is what the caller is told.
            return self.ask(run, run.deadline).await;
        }
        timeout_at(deadline, self.ask(run, deadline)).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
    }

    async fn ask(&self, run: &Run<'_>, deadline: Instant) -> Result<Output, Failure> {
        let config = &*self.config;
        let prepared = Prepared::new(run, &config.request)?;
        let is_success =
            |status: StatusCode| config.success.iter().any(|range| range.contains(&status.as_u16()));
        let answer = client::send(run, &prepared, Tries::of(&config.request), deadline, is_success).await?;
        if config.stream {
            return stream::read(run, config, answer).await;
        }
        let headers = answer.response.headers();
        let kind = output::Kind::of(headers);
        let body = answer.read(config.request.response_bytes_max).await?;
        output::of(config, &kind, body)
    }
}

#[cfg(test)]
mod tests;
