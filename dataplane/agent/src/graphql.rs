//! The GraphQL agent: an operation whose text is fixed, with the arguments as
//! its variables.

mod answer;
mod subscription;

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, header};
use mt_proto::resource::{GraphQl, agent::graphql::Variables};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::{
    Failure, Output, Reason, Run,
    client::{self, Payload, Prepared, Tries},
    http::is_json,
};

/// What is understood, the newer first.
const ACCEPT: HeaderValue =
    HeaderValue::from_static("application/graphql-response+json, application/json;q=0.9");

/// What a tool of this kind keeps between calls: nothing, connections are of
/// the node.
pub struct Runner {
    config: Arc<GraphQl>,
}

impl Runner {
    pub fn new(config: &Arc<GraphQl>) -> Self {
        Self { config: config.clone() }
    }

    /// Dropping the future closes the connection.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let limit = self.config.timeout;
        let deadline = run.deadline.min(Instant::now() + limit);
        let limit: Duration = limit.min(deadline.saturating_duration_since(Instant::now()));
        let working = async {
            if self.config.subscription {
                subscription::follow(run, &self.config, self.operation(run)?, deadline, limit).await
            } else {
                self.ask(run, deadline).await
            }
        };
        timeout_at(deadline, Box::pin(working)).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
    }

    async fn ask(&self, run: &Run<'_>, deadline: Instant) -> Result<Output, Failure> {
        let config = &*self.config;
        let url = (&config.url, &["http", "https"][..]);
        let mut filled = client::fill(run, url, &config.headers, &[], config.auth.as_ref())?;
        filled.headers.entry(header::ACCEPT).or_insert(ACCEPT);
        filled.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let payload = Payload::Bytes(Value::Object(self.operation(run)?).to_string().into());
        let prepared = Prepared { method: Method::POST, filled, payload };
        let answer = client::send(run, &prepared, Tries::default(), deadline, |_| true).await?;
        let status = answer.response.status();
        if !answer.content_type().is_some_and(|kind| is_json(&kind)) {
            if !status.is_success() {
                return Err(answer.refused().await);
            }
            return Err(Failure::new(Reason::Broken, "the service's answer is not JSON"));
        }
        let body = answer.read(config.response_bytes_max).await?;
        answer::output(config, status, &body, &prepared.filled.secrets)
    }

    /// What is asked.
    fn operation(&self, run: &Run<'_>) -> Result<Map<String, Value>, Failure> {
        let config = &*self.config;
        let variables = match &config.variables {
            Variables::Tree(tree) => client::json_of(run, tree)?,
            Variables::Arguments(names) => {
                let known = run.arguments.iter().filter(|(name, _)| names.contains(name));
                Value::Object(known.map(|(name, value)| (name.clone(), value.clone())).collect())
            }
        };
        let mut operation = Map::from_iter([
            ("query".to_owned(), Value::from(config.query.as_str())),
            ("variables".to_owned(), variables),
        ]);
        operation.extend(
            config.operation_name.as_ref().map(|name| ("operationName".to_owned(), name.as_str().into())),
        );
        Ok(operation)
    }
}

#[cfg(test)]
mod tests;
