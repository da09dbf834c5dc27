//! Collects the messages of a stream into a result, and tells of each as it
//! comes. The agents bring the messages; here is decided when there are enough.

use std::time::Duration;

use mt_proto::resource::agent::{
    collect::{Collect, OnTimeout, Until},
    path::JsonPath,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{Failure, Output, Reason, Run};

/// Of a message as it is told; the result has all of it.
const PROGRESS_BYTES_MAX: usize = 8 * 1024;
/// How long before the deadline what has come is made a result, at most.
const MARGIN_MAX: Duration = Duration::from_millis(200);
/// In `_meta`: why the stream was left.
pub(crate) const ENDED_META: &str = "io.magictunnel/ended";

/// What has been collected, and what ends it.
pub(crate) struct Collected<'r> {
    config: &'r Collect,
    conditions: Vec<Condition>,
    run: &'r Run<'r>,
    /// When what has come must do.
    soft_deadline: Instant,
    last: Option<Instant>,
    /// All messages, also those that are not part of the result.
    seen: u64,
    bytes: usize,
    entries: Vec<Value>,
}

/// A condition, filled in with the arguments of the call.
#[derive(Debug)]
pub(crate) enum Condition {
    Event(String),
    Contains(String),
    Data(String),
    Count(u64),
    Idle(Duration),
    Equals { path: JsonPath, value: Value },
}

/// One message.
pub(crate) struct Message<'m> {
    pub event: Option<&'m str>,
    pub text: &'m str,
    /// The text as JSON, if it is that.
    pub json: Option<&'m Value>,
}

/// Why a stream is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Condition,
    Limit,
    Idle,
    Timeout,
    Closed,
}

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Ended::Condition => "condition",
            Ended::Limit => "limit",
            Ended::Idle => "idle",
            Ended::Timeout => "timeout",
            Ended::Closed => "closed",
        }
    }
}

impl<'r> Collected<'r> {
    /// # Errors
    /// If a condition reads an argument that is not there.
    pub fn new(config: &'r Collect, run: &'r Run<'r>, deadline: Instant) -> Result<Self, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(Self {
            config,
            conditions: fill(run, &config.until)?,
            run,
            soft_deadline: deadline - (left / 10).min(MARGIN_MAX),
            last: None,
            seen: 0,
            bytes: 0,
            entries: Vec::new(),
        })
    }

    /// How long to wait for the next message.
    pub fn wait_until(&self) -> Instant {
        let idle = self.conditions.iter().filter_map(|condition| match condition {
            Condition::Idle(idle) => self.last.map(|last| last + *idle),
            _ => None,
        });
        idle.fold(self.soft_deadline, Instant::min)
    }

    /// What it means that nothing has come until then.
    ///
    /// # Errors
    /// If the time is over, and that is a failure.
    pub fn waited(&self, limit: Duration) -> Result<Ended, Failure> {
        if Instant::now() < self.soft_deadline {
            return Ok(Ended::Idle);
        }
        let enough = match self.config.on_timeout {
            OnTimeout::Return => true,
            OnTimeout::Auto => !self.entries.is_empty(),
            OnTimeout::Fail => false,
        };
        if enough { Ok(Ended::Timeout) } else { Err(Failure::timeout(limit)) }
    }

    /// Takes a message; `entry` makes what stands for it in the result, or
    /// None if it is no part of that. Waits while the client is slow.
    ///
    /// # Errors
    /// If all together are too large.
    pub async fn take(
        &mut self,
        message: Message<'_>,
        entry: impl FnOnce() -> Option<Value>,
    ) -> Result<Option<Ended>, Failure> {
        self.seen += 1;
        self.last = Some(Instant::now());
        if meets(&self.conditions, &message, true) {
            return Ok(Some(Ended::Condition));
        }
        if let Some(entry) = entry() {
            self.bytes += message.text.len();
            if self.bytes > self.config.bytes_max {
                return Err(crate::client::too_large(self.config.bytes_max));
            }
            self.entries.push(entry);
            tell(self.run, self.entries.len(), message.text).await;
        }
        if meets(&self.conditions, &message, false) {
            return Ok(Some(Ended::Condition));
        }
        let count = self.conditions.iter().any(|condition| match condition {
            Condition::Count(count) => self.entries.len() as u64 >= *count,
            _ => false,
        });
        if count {
            return Ok(Some(Ended::Condition));
        }
        let full = self.entries.len() >= self.config.messages_max;
        // What is left out is bounded too: nobody would see that it goes on.
        let endless = self.seen >= (self.config.messages_max as u64).saturating_mul(100);
        Ok((full || endless).then_some(Ended::Limit))
    }

    /// The list of what has come, or the part of it that is asked for.
    ///
    /// # Errors
    /// If there is no such part.
    pub fn output(self, ended: Ended, extract: Option<&JsonPath>) -> Result<Output, Failure> {
        let all = Value::Array(self.entries);
        let mut output = Output::value(extracted(all, extract)?);
        output.meta = Map::from_iter([(ENDED_META.to_owned(), ended.as_str().into())]);
        Ok(output)
    }
}

/// The part of a value that is asked for.
///
/// # Errors
/// If there is no such part.
pub(crate) fn extracted(value: Value, path: Option<&JsonPath>) -> Result<Value, Failure> {
    let Some(path) = path else { return Ok(value) };
    path.find(&value)
        .ok_or_else(|| Failure::new(Reason::Broken, format!("the answer holds nothing at {}", path.text())))
}

/// Tells the client of a message, if it wants to know.
pub(crate) async fn tell(run: &Run<'_>, nth: usize, text: &str) {
    if !run.reporter.wants_progress() {
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "nobody counts so far")]
    let progress = nth as f64;
    run.reporter.progress(progress, None, Some(&beginning(text))).await;
}

fn beginning(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= PROGRESS_BYTES_MAX {
        return text.into();
    }
    let mut end = PROGRESS_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

/// Fills conditions in with the arguments of a call.
///
/// # Errors
/// If one reads an argument that is not there.
pub(crate) fn fill(run: &Run<'_>, until: &[Until]) -> Result<Vec<Condition>, Failure> {
    let one = |until: &Until| {
        Ok(match until {
            Until::Event(name) => Condition::Event(name.clone()),
            Until::Contains(text) => Condition::Contains(text.render(run.scope())?.text()),
            Until::Data(text) => Condition::Data(text.render(run.scope())?.text()),
            Until::Count(count) => Condition::Count(*count),
            Until::Idle(idle) => Condition::Idle(*idle),
            Until::Equals { path, value } => {
                Condition::Equals { path: path.clone(), value: value.render(run.scope())? }
            }
        })
    };
    until.iter().map(one).collect()
}

/// Whether a message meets one of these; `marks`: those that only mark the end,
/// or those of a message that is part of the result.
pub(crate) fn meets(conditions: &[Condition], message: &Message<'_>, marks: bool) -> bool {
    conditions.iter().any(|condition| match condition {
        Condition::Data(text) => marks && message.text.trim() == text,
        _ if marks => false,
        Condition::Event(name) => message.event.unwrap_or("message") == name,
        Condition::Contains(text) => message.text.contains(text),
        Condition::Equals { path, value } => {
            message.json.and_then(|json| path.find(json)).is_some_and(|found| same(&found, value))
        }
        Condition::Count(_) | Condition::Idle(_) => false,
    })
}

/// Numbers are the same as each other whatever they are written as.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other).is_eq(),
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message<'m>(event: Option<&'m str>, text: &'m str, json: Option<&'m Value>) -> Message<'m> {
        Message { event, text, json }
    }

    #[test]
    fn conditions_are_met_by_what_they_say() {
        let json = json!({"status": "done", "left": 0});
        let text = json.to_string();
        let of = |condition: Condition, event, text: &str, json| {
            meets(&[condition], &message(event, text, json), false)
        };
        assert!(of(Condition::Event("end".into()), Some("end"), "", None));
        assert!(!of(Condition::Event("end".into()), None, "end", None));
        assert!(of(Condition::Event("message".into()), None, "", None));
        assert!(of(Condition::Contains("don".into()), None, &text, None));
        let equals =
            |path: &str, value: Value| Condition::Equals { path: JsonPath::parse(path).unwrap(), value };
        assert!(of(equals("/status", json!("done")), None, &text, Some(&json)));
        assert!(of(equals("$.left", json!(0.0)), None, &text, Some(&json)));
        assert!(!of(equals("/status", json!("do")), None, &text, Some(&json)));
        assert!(!of(equals("/status", json!("done")), None, "status", None));
    }

    #[test]
    fn a_mark_is_no_part_of_the_result() {
        let marks = [Condition::Data("[DONE]".into()), Condition::Contains("x".into())];
        assert!(meets(&marks, &message(None, " [DONE]\n", None), true));
        assert!(!meets(&marks, &message(None, "[DONE]!", None), true));
        assert!(!meets(&marks, &message(None, "x", None), true));
        assert!(meets(&marks, &message(None, "x", None), false));
    }

    #[test]
    fn what_is_told_is_bounded() {
        let long = "ä".repeat(PROGRESS_BYTES_MAX);
        let told = beginning(&long);
        assert!(told.len() <= PROGRESS_BYTES_MAX + '…'.len_utf8() && told.ends_with('…'));
    }
}
