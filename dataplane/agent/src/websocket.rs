//! The WebSocket agent: a conversation of its own for each call, of which one
//! answer or a stream of messages is the result.

mod conversation;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use mt_proto::resource::{
    WebSocket,
    agent::{
        collect::{Collect, Until},
        websocket::WebSocketMode,
    },
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

pub(crate) use self::conversation::{Conversation, Received};
use crate::{
    Failure, Output, Reason, Run, client,
    collect::{self, Collected, Ended, Message, extracted},
};

/// Messages that are no answer to a request.
const OTHERS_MAX: usize = 10_000;

/// What a tool of this kind keeps between calls: nothing.
pub struct Runner {
    config: Arc<WebSocket>,
}

impl Runner {
    pub fn new(config: &Arc<WebSocket>) -> Self {
        Self { config: config.clone() }
    }

    /// Dropping the future closes the connection.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let limit = self.config.timeout;
        let deadline = run.deadline.min(Instant::now() + limit);
        let limit = limit.min(deadline.saturating_duration_since(Instant::now()));
        let talking = Box::pin(self.talk(run, deadline, limit));
        timeout_at(deadline, talking).await.unwrap_or_else(|_| Err(Failure::timeout(limit)))
    }

    async fn talk(&self, run: &Run<'_>, deadline: Instant, limit: Duration) -> Result<Output, Failure> {
        let config = &*self.config;
        let filled =
            client::fill(run, (&config.url, &["ws", "wss"]), &config.headers, &[], config.auth.as_ref())?;
        let messages: Vec<String> = config
            .messages
            .iter()
            .map(|message| client::message_text(run, message))
            .collect::<Result<_, _>>()?;
        let mut conversation =
            Conversation::open(&filled, &config.subprotocols, config.message_bytes_max).await?;
        for message in messages {
            conversation.send(message).await?;
        }
        let output = match &config.mode {
            WebSocketMode::Request(wanted) => self.answer(run, &mut conversation, wanted).await?,
            WebSocketMode::Stream(collect) => {
                self.stream(run, &mut conversation, collect, deadline, limit).await?
            }
        };
        conversation.close().await;
        Ok(output)
    }

    /// The first message that is the answer.
    async fn answer(
        &self,
        run: &Run<'_>,
        conversation: &mut Conversation,
        wanted: &[Until],
    ) -> Result<Output, Failure> {
        let wanted = collect::fill(run, wanted)?;
        for _ in 0..OTHERS_MAX {
            let received = conversation.next().await?.ok_or_else(|| {
                Failure::new(Reason::Broken, "the service closed the conversation without an answer")
            })?;
            let (text, value) = read(&received);
            let message = Message { event: None, text, json: value.as_ref() };
            let is_it = [true, false].iter().any(|marks| collect::meets(&wanted, &message, *marks));
            if !wanted.is_empty() && !is_it {
                continue;
            }
            return match (value, &self.config.extract) {
                (Some(value), path) => extracted(value, path.as_ref()).map(Output::value),
                (None, None) => Ok(Output::text(text)),
                (None, Some(_)) => Err(Failure::new(Reason::Broken, "the service's answer is not JSON")),
            };
        }
        Err(Failure::new(Reason::Broken, format!("no answer among {OTHERS_MAX} messages")))
    }

    async fn stream(
        &self,
        run: &Run<'_>,
        conversation: &mut Conversation,
        collect: &Collect,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Output, Failure> {
        let mut collected = Collected::new(collect, run, deadline)?;
        let ended = loop {
            let received = match timeout_at(collected.wait_until(), conversation.next()).await {
                Err(_) => break collected.waited(limit)?,
                Ok(received) => received?,
            };
            let Some(received) = received else { break Ended::Closed };
            let (text, value) = read(&received);
            let entry = || Some(value.clone().unwrap_or_else(|| text.into()));
            let message = Message { event: None, text, json: value.as_ref() };
            if let Some(ended) = collected.take(message, entry).await? {
                break ended;
            }
        };
        collected.output(ended, self.config.extract.as_ref())
    }
}

/// A message as a text, and as JSON if it is that. Bytes are base64 in JSON.
fn read(received: &Received) -> (&str, Option<Value>) {
    match received {
        Received::Text(text) => (text, serde_json::from_str(text).ok()),
        Received::Binary(bytes) => ("", Some(json!({"base64": BASE64.encode(bytes)}))),
    }
}

#[cfg(test)]
mod tests;
