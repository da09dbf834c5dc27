//! How long an agent listens to a stream of messages: until one of them says
//! so, until there are enough, or until nothing more comes.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{super::fields::Fields, path::JsonPath};
use crate::template::{Template, Tree};

/// Messages of one call.
const MESSAGES_DEFAULT: u64 = 1_000;
const MESSAGES_MAX: u64 = 100_000;
/// Conditions of one tool.
const CONDITIONS_MAX: usize = 16;
const IDLE_MIN: Duration = Duration::from_millis(10);
const IDLE_MAX: Duration = Duration::from_secs(300);

/// How much of a stream is a result.
#[derive(Clone, Debug, PartialEq)]
pub struct Collect {
    /// The first that is met ends it. None: the stream's own end does.
    pub until: Vec<Until>,
    /// So many end it too.
    pub messages_max: usize,
    pub on_timeout: OnTimeout,
    /// Of all messages together.
    pub bytes_max: usize,
}

/// What ends a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Until {
    /// An event of this name.
    Event(String),
    /// A message with this text in it.
    Contains(Template),
    /// A message that is this text; it is not part of the result.
    Data(Template),
    /// So many messages.
    Count(u64),
    /// Nothing for so long.
    Idle(Duration),
    /// A message with this value at that place.
    Equals { path: JsonPath, value: Tree },
}

/// What is done when the time is over before the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// What has come is the result, if anything has.
    Auto,
    /// What has come is the result, be it nothing.
    Return,
    Fail,
}

/// Reads `until`, `onTimeout` and the limit of that name.
pub(super) fn read(fields: &mut Fields<'_, '_>, limit: &'static str, bytes_max: usize) -> Collect {
    let until = conditions(fields, "until");
    let messages_max = fields.count(limit, 1..=MESSAGES_MAX, MESSAGES_DEFAULT);
    let on_timeout = match fields.choice("onTimeout", &["auto", "return", "fail"], "auto") {
        "return" => OnTimeout::Return,
        "fail" => OnTimeout::Fail,
        _ => OnTimeout::Auto,
    };
    Collect {
        until,
        messages_max: usize::try_from(messages_max).unwrap_or(usize::MAX),
        on_timeout,
        bytes_max,
    }
}

/// Conditions: an object, each entry of which is one, or a list of such.
pub(super) fn conditions(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<Until> {
    let path = fields.path(name);
    let items: Vec<(String, Value)> = match fields.take(name) {
        None => return Vec::new(),
        Some(Value::Array(items)) => {
            items.into_iter().enumerate().map(|(i, item)| (format!("{path}[{i}]"), item)).collect()
        }
        Some(item) => vec![(path.clone(), item)],
    };
    let mut found = Vec::new();
    for (path, item) in items {
        match item {
            Value::Object(item) => found.extend(condition(fields, path, item)),
            _ => {
                let hint = "for example `{event: done}` or `{idle: 2s}`";
                fields.checker.problem_with_hint(&path, "must be an object", hint);
            }
        }
    }
    if found.len() > CONDITIONS_MAX {
        fields.problem(name, format!("at most {CONDITIONS_MAX} conditions are watched for"), None);
    }
    found
}

fn condition(fields: &mut Fields<'_, '_>, path: String, item: Map<String, Value>) -> Vec<Until> {
    let nothing = item.is_empty();
    let mut fields = fields.object_at(path, item);
    let mut found = Vec::new();
    found.extend(fields.text("event").map(Until::Event));
    found.extend(fields.template("dataContains").map(Until::Contains));
    found.extend(fields.template("contains").map(Until::Contains));
    found.extend(fields.template("data").map(Until::Data));
    if fields.has("count") {
        found.push(Until::Count(fields.count("count", 1..=MESSAGES_MAX, 1)));
    }
    if fields.has("idle") {
        found.push(Until::Idle(fields.duration("idle", IDLE_MIN..=IDLE_MAX, IDLE_MAX)));
    }
    let at = json_path(&mut fields, "path");
    match (at, fields.tree("equals")) {
        (Some(path), Some(value)) => found.push(Until::Equals { path, value }),
        (None, None) => {}
        (Some(_), None) => fields.missing("equals", "what is to be there, for example `equals: done`"),
        (None, Some(_)) => fields.missing("path", "where it is, for example `path: /status`"),
    }
    if nothing {
        let hint = "for example `{event: done}` or `{idle: 2s}`";
        fields.problem("", "needs a condition", Some(hint.to_owned()));
    }
    fields.finish();
    found
}

/// A path into JSON.
pub(super) fn json_path(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<JsonPath> {
    let text = fields.text(name)?;
    match JsonPath::parse(&text) {
        Ok(path) => Some(path),
        Err(message) => {
            let hint = "for example `/items/0/name` or `$.items[*].name`";
            fields.problem(name, format!("this is no path into JSON: {message}"), Some(hint.to_owned()));
            None
        }
    }
}
