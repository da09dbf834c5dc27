//! What a call says while it runs, read once for the doors that put it in words
//! of their own. Pure.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mcp::{Key, Limits, Message, Method, Notification, meta::LogLevel, splice::Object};

/// A notification of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Progress(Progress),
    Log(Log),
    ListChanged(List),
    ResourceUpdated(String),
    /// What a subscription follows, as raw JSON.
    Acknowledged(Bytes),
    /// Another one, a whole message.
    Other(Bytes),
}

/// How far a call is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Progress {
    pub progress: f64,
    #[serde(default)]
    pub total: Option<f64>,
    #[serde(default)]
    pub message: Option<String>,
}

/// A message of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: LogLevel,
    pub logger: Option<String>,
    /// Raw JSON.
    pub data: Bytes,
}

/// A list of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Tools,
    Prompts,
    Resources,
}

impl List {
    pub const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
        }
    }

    /// As subscriptions name it.
    pub const fn filter(self) -> &'static str {
        match self {
            Self::Tools => "toolsListChanged",
            Self::Prompts => "promptsListChanged",
            Self::Resources => "resourcesListChanged",
        }
    }
}

#[derive(Deserialize)]
struct RawLog<'a> {
    level: String,
    #[serde(default)]
    logger: Option<String>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl Said {
    /// Reads a notification.
    pub fn read(message: Bytes) -> Self {
        let Ok(Message::Notification(Notification { method, params })) =
            Message::parse(message.clone(), Limits::BACKEND)
        else {
            return Self::Other(message);
        };
        let object = params.object();
        let read = match method {
            Method::Progress => serde_json::from_slice(&object).ok().map(Self::Progress),
            Method::LogMessage => Log::read(&object).map(Self::Log),
            Method::ToolsListChanged => Some(Self::ListChanged(List::Tools)),
            Method::PromptsListChanged => Some(Self::ListChanged(List::Prompts)),
            Method::ResourcesListChanged => Some(Self::ListChanged(List::Resources)),
            Method::ResourcesUpdated => params.uri().map(|uri| Self::ResourceUpdated(uri.into_owned())),
            Method::SubscriptionsAcknowledged => params.get(Key::Notifications).map(Self::Acknowledged),
            _ => None,
        };
        read.unwrap_or(Self::Other(message))
    }
}

impl Log {
    fn read(params: &[u8]) -> Option<Self> {
        let raw: RawLog<'_> = serde_json::from_slice(params).ok()?;
        let data = raw
            .data
            .map_or(Bytes::from_static(b"null"), |data| Bytes::copy_from_slice(data.get().as_bytes()));
        Some(Self { level: LogLevel::parse(&raw.level)?, logger: raw.logger, data })
    }

    /// As a JSON object for clients without MCP.
    pub fn to_json(&self) -> Bytes {
        let mut object = Object::default().set_text("type", "log").set_text("level", self.level.as_str());
        if let Some(logger) = &self.logger {
            object = object.set_text("logger", logger);
        }
        object.set("data", &self.data).finish()
    }
}

impl Progress {
    /// As a JSON object for clients without MCP.
    pub fn to_json(&self) -> Bytes {
        let number = |number: f64| serde_json::Value::from(number).to_string();
        let mut object =
            Object::default().set_text("type", "progress").set("progress", number(self.progress).as_bytes());
        if let Some(total) = self.total {
            object = object.set("total", number(total).as_bytes());
        }
        if let Some(message) = &self.message {
            object = object.set_text("message", message);
        }
        object.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &'static str) -> Said {
        Said::read(Bytes::from_static(message.as_bytes()))
    }

    #[test]
    fn progress_and_logs_are_told_in_plain_words() {
        let said = read(
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1,"total":2.5,"message":"ü"}}"#,
        );
        let Said::Progress(progress) = said else { panic!("{said:?}") };
        assert_eq!(progress.to_json(), r#"{"type":"progress","progress":1.0,"total":2.5,"message":"ü"}"#);
        let said = read(
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","logger":"l","data":{"a":1.0}}}"#,
        );
        let Said::Log(log) = said else { panic!("{said:?}") };
        assert_eq!(log.to_json(), r#"{"type":"log","level":"error","logger":"l","data":{"a":1.0}}"#);
    }

    #[test]
    fn changes_are_named_and_what_is_not_known_stays_whole() {
        let said = read(r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#);
        assert_eq!(said, Said::ListChanged(List::Prompts));
        let said =
            read(r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#);
        assert_eq!(said, Said::ResourceUpdated("a:b".into()));
        for other in [
            r#"{"jsonrpc":"2.0","method":"notifications/x"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"loud","data":1}}"#,
        ] {
            assert_eq!(read(other), Said::Other(Bytes::from_static(other.as_bytes())));
        }
    }
}
