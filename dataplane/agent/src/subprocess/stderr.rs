//! What a program says on stderr: lines for the client's log, and the last of
//! them for the error if it fails. Values of secrets are hidden in both.

use std::collections::VecDeque;

use bytes::BytesMut;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{Level, Reporter, hide::hide};

/// The longest line that is told.
const LINE_BYTES_MAX: usize = 2 * 1024;
/// What is kept for an error.
const LINES_MAX: usize = 20;
const WORDS_BYTES_MAX: usize = 2 * 1024;

/// The end of what a program has said.
pub struct LastWords {
    lines: Mutex<VecDeque<String>>,
    secrets: Vec<String>,
}

impl LastWords {
    /// Hides these values.
    pub fn hiding(secrets: Vec<String>) -> Self {
        Self { lines: Mutex::default(), secrets }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.lock().is_empty()
    }

    /// A message with them behind it.
    pub fn with(&self, message: String) -> String {
        let lines: Vec<String> = self.lines.lock().iter().cloned().collect();
        self.with_these(message, &lines.join("\n"))
    }

    /// A message with the end of a text behind it.
    pub fn with_these(&self, message: String, text: &str) -> String {
        // Before anything is cut off: half of a secret is not found any more.
        let text = self.hide(text.trim_end());
        let from = text.ceil_char_boundary(text.len().saturating_sub(WORDS_BYTES_MAX));
        if text[from..].is_empty() { message } else { format!("{message}: {}", &text[from..]) }
    }

    fn push(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// A text without the values that are hidden.
    pub fn hide(&self, text: &str) -> String {
        hide(text, &self.secrets)
    }
}

/// Reads to the end.
pub async fn tell(mut stderr: impl AsyncRead + Unpin, words: &LastWords, reporter: &dyn Reporter) {
    let mut chunk = BytesMut::with_capacity(8 * 1024);
    let mut line = Vec::new();
    while let Ok(1..) = stderr.read_buf(&mut chunk).await {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                tell_line(&mut line, words, reporter);
            }
        }
        chunk.clear();
    }
    tell_line(&mut line, words, reporter);
}

fn tell_line(line: &mut Vec<u8>, words: &LastWords, reporter: &dyn Reporter) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    if !text.is_empty() {
        let text = words.hide(text);
        words.push(&text);
        reporter.log(Level::Warning, Value::String(text));
    }
    line.clear();
}
