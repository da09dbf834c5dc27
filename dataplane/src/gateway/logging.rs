//! How many log messages of a backend's logger reach a client in a minute.
//!
//! Counts and decides, with the time as an argument. What is too much is dropped
//! and counted, and the client is told how much that was: once a minute, before
//! the next message of that logger or before the answer of the call, whichever
//! is first. It looks into no text and knows nothing of levels that clients ask
//! for: what comes here is wanted.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::mcp::{Limits, Message, Method, meta::LogLevel, splice};

/// Of one logger towards one client, unless the node is told otherwise.
pub const MESSAGES_PER_MINUTE: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);
/// Loggers that are counted apart for one client; all others count as one.
const LOGGERS_MAX: usize = 64;
/// What is looked at of a logger's name.
const LOGGER_BYTES_MAX: usize = 128;

/// What one client has been sent lately.
#[derive(Debug, Default)]
pub struct Counts {
    windows: Mutex<HashMap<Key, Window>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    backend: ResourceName,
    logger: Logger,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Logger {
    Named(Box<str>),
    Unnamed,
    /// Those that there was no room for.
    Others,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    passed: u32,
    /// Whether the client was told in this window.
    told: bool,
    /// What it has not been told of.
    untold: Option<Untold>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Untold {
    count: u64,
    /// The least of them.
    level: LogLevel,
}

/// What is sent of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// How much was dropped before: a message of its own.
    pub notice: Option<Bytes>,
    pub is_dropped: bool,
}

/// What a log message says of itself.
#[derive(Debug, Deserialize)]
pub struct LogLine {
    logger: Option<String>,
    level: String,
}

impl LogLine {
    /// None: the notification is no log message.
    pub fn of(message: &Bytes) -> Option<Self> {
        // Most notifications are progress: those are not read again. A method
        // that is written with escapes is still the same method.
        let names = |word: &[u8]| memchr::memmem::find(message, word).is_some();
        if !names(b"/message\"") && !names(b"\\u00") {
            return None;
        }
        match Message::parse(message.clone(), Limits::BACKEND) {
            Ok(Message::Notification(told)) if told.method == Method::LogMessage => {
                serde_json::from_slice(&told.params.object()).ok()
            }
            _ => None,
        }
    }

    fn level(&self) -> LogLevel {
        LogLevel::parse(&self.level).unwrap_or(LogLevel::Warning)
    }

    fn logger(&self) -> Logger {
        match &self.logger {
            Some(name) => {
                let end = name.floor_char_boundary(LOGGER_BYTES_MAX);
                Logger::Named(name[..end].into())
            }
            None => Logger::Unnamed,
        }
    }
}

impl Counts {
    /// Counts a message of a backend, which has at most so many a minute.
    pub fn admit(
        &self,
        backend: &ResourceName,
        line: &LogLine,
        per_minute: NonZeroU32,
        now: Instant,
    ) -> Admitted {
        let mut windows = self.windows.lock();
        let key = key(&mut windows, backend, line.logger(), now);
        let window = windows.entry(key.clone()).or_insert_with(|| Window::new(now));
        window.turn(now);
        if window.passed >= per_minute.get() {
            let level = line.level();
            let before = window.untold.unwrap_or(Untold { count: 0, level });
            window.untold = Some(Untold { count: before.count + 1, level: before.level.min(level) });
            return Admitted { notice: None, is_dropped: true };
        }
        window.passed += 1;
        Admitted { notice: window.tell().map(|untold| notice(&key.logger, untold)), is_dropped: false }
    }

    /// What the client has to be told of a backend now: a call is about to end,
    /// and nobody knows when the next message comes.
    pub fn untold(&self, backend: &ResourceName, now: Instant) -> Vec<Bytes> {
        let mut windows = self.windows.lock();
        let own = windows.iter_mut().filter(|(key, _)| key.backend == *backend);
        own.filter_map(|(key, window)| {
            window.turn(now);
            window.tell().map(|untold| notice(&key.logger, untold))
        })
        .collect()
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, passed: 0, told: false, untold: None }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= WINDOW
    }

    fn turn(&mut self, now: Instant) {
        if self.is_over(now) {
            *self = Self { untold: self.untold, ..Self::new(now) };
        }
    }

    /// Once in a window.
    fn tell(&mut self) -> Option<Untold> {
        if self.told {
            return None;
        }
        let untold = self.untold.take()?;
        self.told = true;
        Some(untold)
    }
}

/// Where a logger is counted: by its name, as long as there is room.
fn key(windows: &mut HashMap<Key, Window>, backend: &ResourceName, logger: Logger, now: Instant) -> Key {
    let key = Key { backend: backend.clone(), logger };
    if windows.len() < LOGGERS_MAX || windows.contains_key(&key) {
        return key;
    }
    windows.retain(|_, window| !window.is_over(now) || window.untold.is_some());
    if windows.len() < LOGGERS_MAX { key } else { Key { logger: Logger::Others, ..key } }
}

/// What the client is told. It is a warning, but for a client that has asked
/// for worse only, as what was dropped shows.
fn notice(logger: &Logger, untold: Untold) -> Bytes {
    let name = match logger {
        Logger::Named(name) => Some(name.as_ref()),
        Logger::Unnamed => None,
        Logger::Others => Some("others"),
    };
    let messages = if untold.count == 1 { "message" } else { "messages" };
    let mut params = json!({
        "level": untold.level.max(LogLevel::Warning).as_str(),
        "data": format!("{} {messages} dropped", untold.count),
    });
    if let Some(name) = name {
        params["logger"] = name.into();
    }
    splice::notification(&Method::LogMessage, Some(&Bytes::from(params.to_string())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(logger: Option<&str>, level: LogLevel) -> LogLine {
        LogLine { logger: logger.map(str::to_owned), level: level.as_str().to_owned() }
    }

    fn backend() -> ResourceName {
        "b".parse().unwrap()
    }

    fn read(notice: &Bytes) -> (String, String, Value) {
        let message: Value = serde_json::from_slice(notice).unwrap();
        assert_eq!(message["method"], "notifications/message");
        let text = |name: &str| message["params"][name].as_str().unwrap().to_owned();
        (text("level"), text("data"), message["params"]["logger"].clone())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_in_a_minute_is_dropped_and_told_of_in_the_next() {
        let (counts, three) = (Counts::default(), NonZeroU32::new(3).unwrap());
        let admit = || counts.admit(&backend(), &line(Some("db"), LogLevel::Info), three, Instant::now());
        for _ in 0..3 {
            assert_eq!(admit(), Admitted::default());
        }
        for _ in 0..5 {
            assert!(admit().is_dropped);
        }
        tokio::time::advance(WINDOW).await;
        let told = admit();
        assert_eq!(read(&told.notice.unwrap()), ("warning".into(), "5 messages dropped".into(), "db".into()));
        assert!(!told.is_dropped);
        assert_eq!(admit(), Admitted::default());
        assert_eq!(counts.untold(&backend(), Instant::now()), Vec::<Bytes>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_call_tells_once_in_a_minute() {
        let (counts, one) = (Counts::default(), NonZeroU32::MIN);
        let admit = || counts.admit(&backend(), &line(None, LogLevel::Error), one, Instant::now()).is_dropped;
        assert_eq!([admit(), admit()], [false, true]);
        assert!(counts.untold(&"other".parse().unwrap(), Instant::now()).is_empty());
        let told = counts.untold(&backend(), Instant::now());
        assert_eq!(read(&told[0]), ("error".into(), "1 message dropped".into(), Value::Null));
        assert!(admit());
        assert!(counts.untold(&backend(), Instant::now()).is_empty(), "once");
        tokio::time::advance(WINDOW).await;
        assert_eq!(counts.untold(&backend(), Instant::now()).len(), 1, "but nothing is forgotten");
    }

    #[tokio::test]
    async fn loggers_and_backends_count_apart_as_far_as_there_is_room() {
        let (counts, one, now) = (Counts::default(), NonZeroU32::MIN, Instant::now());
        let drops =
            |logger: &str| counts.admit(&backend(), &line(Some(logger), LogLevel::Info), one, now).is_dropped;
        for i in 0..LOGGERS_MAX {
            assert!(!drops(&i.to_string()));
        }
        assert!(!drops("one more"));
        assert!(drops("and another"), "those beyond count as one");
        assert!(drops("0"));
        assert!(counts.windows.lock().len() <= LOGGERS_MAX + 1);
    }

    #[test]
    fn log_messages_are_known_however_they_are_written() {
        let read = |text: &'static str| LogLine::of(&Bytes::from_static(text.as_bytes()));
        let plain = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"a","data":1}}"#;
        assert_eq!(read(plain).unwrap().logger(), Logger::Named("a".into()));
        let escaped = r#"{"jsonrpc":"2.0","method":"notifications\u002fm\u0065ssage","params":{"level":"info","data":1}}"#;
        assert_eq!(read(escaped).unwrap().logger(), Logger::Unnamed);
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1,"message":"a/message"}}"#;
        assert!(read(progress).is_none());
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_the_limit_and_no_message_is_lost_unsaid(
            steps in prop::collection::vec((0_u64..30_000, any::<bool>()), 1..200),
            limit in 1_u32..5,
        ) {
            let (counts, limit) = (Counts::default(), NonZeroU32::new(limit).unwrap());
            let mut now = Instant::now();
            let (mut passed, mut dropped, mut said) = (Vec::new(), 0_u64, 0_u64);
            let count = |notice: &Bytes| read(notice).1.split(' ').next().unwrap().parse::<u64>().unwrap();
            for (wait, call_ends) in steps {
                now += Duration::from_millis(wait);
                let admitted = counts.admit(&backend(), &line(Some("x"), LogLevel::Debug), limit, now);
                said += admitted.notice.as_ref().map_or(0, count);
                if admitted.is_dropped { dropped += 1 } else { passed.push(now) }
                if call_ends {
                    said += counts.untold(&backend(), now).iter().map(count).sum::<u64>();
                }
            }
            now += WINDOW;
            said += counts.untold(&backend(), now).iter().map(count).sum::<u64>();
            prop_assert_eq!(said, dropped);
            // Of two windows that follow each other, the second begins where it is first used.
            for at in &passed {
                let near = passed.iter().filter(|other| **other >= *at && **other < *at + WINDOW).count();
                prop_assert!(near <= 2 * limit.get() as usize);
            }
        }
    }
}
