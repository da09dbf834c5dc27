//! A subscription, over a WebSocket that speaks `graphql-transport-ws`.

use std::time::Duration;

use mt_proto::resource::GraphQl;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::answer;
use crate::{
    Failure, Output, Reason, Run,
    client::{self, Filled},
    collect::{Collected, Ended, Message},
    websocket::{Conversation, Received},
};

const SUBPROTOCOL: &str = "graphql-transport-ws";
/// The only operation of a conversation.
const ID: &str = "1";

/// Listens until there is enough. Dropping the future closes the connection.
pub async fn follow(
    run: &Run<'_>,
    config: &GraphQl,
    operation: Map<String, Value>,
    deadline: Instant,
    limit: Duration,
) -> Result<Output, Failure> {
    let url = (&config.url, &["http", "https", "ws", "wss"][..]);
    let mut filled = client::fill(run, url, &config.headers, &[], config.auth.as_ref())?;
    let scheme = if matches!(filled.url.scheme(), "https" | "wss") { "wss" } else { "ws" };
    filled.url.set_scheme(scheme).expect("all four schemes may become each other");
    let mut collected = Collected::new(&config.collect, run, deadline)?;
    let opening = Box::pin(open(&filled, config.response_bytes_max, operation));
    let mut conversation = match timeout_at(collected.wait_until(), opening).await {
        Ok(conversation) => conversation?,
        Err(_) => return collected.waited(limit).and_then(|ended| collected.output(ended, None)),
    };
    let ended = loop {
        let next = async { told(&mut conversation).await };
        let event = match timeout_at(collected.wait_until(), next).await {
            Err(_) => break collected.waited(limit)?,
            Ok(event) => event?,
        };
        let mut payload = match event {
            None | Some(Event::Complete) => break Ended::Closed,
            Some(Event::Error(errors)) => return Err(answer::refused(&errors, &filled.secrets)),
            Some(Event::Next(payload)) => payload,
        };
        let (data, errors) = answer::split(&mut payload);
        let data = data.unwrap_or_default();
        if !(errors.is_empty() || config.partial && !data.is_null()) {
            return Err(answer::refused(&errors, &filled.secrets));
        }
        let text = data.to_string();
        let message = Message { event: None, text: &text, json: Some(&data) };
        if let Some(ended) = collected.take(message, || Some(data.clone())).await? {
            break ended;
        }
    };
    if ended != Ended::Closed {
        // The service may stop before it sees that the connection is closed.
        _ = conversation.send(json!({"id": ID, "type": "complete"}).to_string()).await;
    }
    conversation.close().await;
    collected.output(ended, config.extract.as_ref())
}

async fn open(
    filled: &Filled,
    message_bytes_max: usize,
    operation: Map<String, Value>,
) -> Result<Conversation, Failure> {
    let subprotocols = [SUBPROTOCOL.to_owned()];
    let mut conversation = Conversation::open(filled, &subprotocols, message_bytes_max).await?;
    conversation.send(json!({"type": "connection_init"}).to_string()).await?;
    loop {
        let message = received(&mut conversation).await?.ok_or_else(|| {
            Failure::new(Reason::Refused, "the service closed the conversation before it began")
        })?;
        match message["type"].as_str() {
            Some("connection_ack") => break,
            Some("ping") => conversation.send(json!({"type": "pong"}).to_string()).await?,
            _ => {}
        }
    }
    let subscribe = json!({"id": ID, "type": "subscribe", "payload": operation});
    conversation.send(subscribe.to_string()).await?;
    Ok(conversation)
}

enum Event {
    Next(Map<String, Value>),
    Error(Vec<Value>),
    Complete,
}

/// What is told of the subscription next. None: the service is gone.
async fn told(conversation: &mut Conversation) -> Result<Option<Event>, Failure> {
    while let Some(mut message) = received(conversation).await? {
        let payload = message.get_mut("payload").map(Value::take);
        match message["type"].as_str() {
            Some("ping") => conversation.send(json!({"type": "pong"}).to_string()).await?,
            Some("complete") => return Ok(Some(Event::Complete)),
            Some("next") => match payload {
                Some(Value::Object(payload)) => return Ok(Some(Event::Next(payload))),
                _ => return Err(nonsense()),
            },
            Some("error") => match payload {
                Some(Value::Array(errors)) => return Ok(Some(Event::Error(errors))),
                other => return Ok(Some(Event::Error(other.into_iter().collect()))),
            },
            _ => {}
        }
    }
    Ok(None)
}

async fn received(conversation: &mut Conversation) -> Result<Option<Value>, Failure> {
    match conversation.next().await? {
        None => Ok(None),
        Some(Received::Text(text)) => serde_json::from_str(&text).map(Some).map_err(|_| nonsense()),
        Some(Received::Binary(_)) => Err(nonsense()),
    }
}

fn nonsense() -> Failure {
    Failure::new(Reason::Broken, "the service says what is no message of graphql-transport-ws")
}
