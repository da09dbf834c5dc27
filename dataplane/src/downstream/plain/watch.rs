//! Changes at a gateway, for clients that are told of nothing by a session: a
//! `subscriptions/listen` of the modern era, and the logs of the caller's calls.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Talk, Wish, Word,
    kind::Failure,
    said::{List, Log, Said},
    tail::Following,
};
use crate::{
    downstream::door::Door,
    mcp::{Method, RpcError, meta::LogLevel, splice::Object},
};

/// What to be told of.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub lists: Vec<List>,
    pub uris: Vec<String>,
    /// From which level on; none: it may be set later.
    pub level: Option<LogLevel>,
}

/// Something to tell.
#[derive(Debug)]
pub enum Event {
    /// What is followed from now on; comes first.
    Connected {
        lists: Vec<List>,
        uris: Vec<String>,
    },
    ListChanged(List),
    ResourceUpdated(String),
    Log(Log),
    /// Nothing, for as long as was waited.
    Silence,
    /// Nothing follows: the gateway is gone, or the node stops.
    Ended(Result<(), Failure>),
}

/// A client that is told.
pub struct Watch {
    talk: Talk,
    following: Option<Following>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Honored {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: Vec<String>,
}

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// If there are too many who do, or the request is wrong.
    pub fn start(door: Door, wanted: &Wanted) -> Result<Self, Failure> {
        let follow = |whose| door.doors.tails.follow(whose, wanted.level);
        let following = door.tailed().map(follow).transpose();
        let following = following.map_err(|_| Failure::of(&RpcError::overloaded()))?;
        let talk = Talk::start(door, Wish::new(Method::Listen, filter(wanted)))?;
        Ok(Self { talk, following })
    }

    /// What comes next, within a time. Safe to drop while it waits.
    pub async fn next_within(&mut self, limit: Duration) -> Event {
        timeout(limit, self.next()).await.unwrap_or(Event::Silence)
    }

    async fn next(&mut self) -> Event {
        loop {
            let log = async {
                match &mut self.following {
                    Some(following) => following.next().await,
                    None => std::future::pending().await,
                }
            };
            let word = tokio::select! {
                biased;
                word = self.talk.next() => word,
                log = log => return Event::Log(log),
            };
            match word {
                Some(Word::Said(Said::Acknowledged(raw))) => return connected(&raw),
                Some(Word::Said(Said::ListChanged(list))) => return Event::ListChanged(list),
                Some(Word::Said(Said::ResourceUpdated(uri))) => return Event::ResourceUpdated(uri),
                Some(Word::Said(_)) => {}
                Some(Word::Ended(outcome)) => return Event::Ended(outcome.map(drop)),
                None => return Event::Ended(Ok(())),
            }
        }
    }
}

fn filter(wanted: &Wanted) -> Bytes {
    let mut notifications = Object::default();
    for list in &wanted.lists {
        notifications = notifications.set(list.filter(), &b"true"[..]);
    }
    if !wanted.uris.is_empty() {
        let uris = serde_json::Value::from(wanted.uris.clone()).to_string();
        notifications = notifications.set("resourceSubscriptions", uris.as_bytes());
    }
    Object::default().set("notifications", &notifications.finish()).finish()
}

fn connected(raw: &[u8]) -> Event {
    let honored: Honored = serde_json::from_slice(raw).unwrap_or_default();
    let flags = [honored.tools_list_changed, honored.prompts_list_changed, honored.resources_list_changed];
    let lists = List::ALL.into_iter().zip(flags).filter_map(|(list, on)| on.then_some(list)).collect();
    Event::Connected { lists, uris: honored.resource_subscriptions }
}

impl Event {
    /// As a JSON object; none for what is no event.
    pub fn to_json(&self) -> Option<Bytes> {
        let object = Object::default();
        Some(match self {
            Event::Connected { lists, uris } => {
                let lists: Vec<&str> = lists.iter().map(|list| list.as_str()).collect();
                object
                    .set_text("type", "connected")
                    .set("lists", serde_json::Value::from(lists).to_string().as_bytes())
                    .set("uris", serde_json::Value::from(uris.clone()).to_string().as_bytes())
                    .finish()
            }
            Event::ListChanged(list) => {
                object.set_text("type", "list_changed").set_text("list", list.as_str()).finish()
            }
            Event::ResourceUpdated(uri) => {
                object.set_text("type", "resource_updated").set_text("uri", uri).finish()
            }
            Event::Log(log) => log.to_json(),
            Event::Silence => return None,
            Event::Ended(Ok(())) => object.set_text("type", "disconnected").finish(),
            Event::Ended(Err(failure)) => {
                object.set_text("type", "disconnected").set("error", &failure.error).finish()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_asked_for_and_what_is_honored_is_told() {
        let wanted = Wanted { lists: vec![List::Tools], uris: vec!["a:\"b".into()], level: None };
        let asked = r#"{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:\"b"]}}"#;
        assert_eq!(filter(&wanted), asked);
        let event = connected(br#"{"promptsListChanged":true,"resourceSubscriptions":["x:y"]}"#);
        assert_eq!(event.to_json().unwrap(), r#"{"type":"connected","lists":["prompts"],"uris":["x:y"]}"#);
    }
}
