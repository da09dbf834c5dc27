//! Tells the client what the model has said so far, not more often than it can
//! be read.

use std::time::Duration;

use tokio::time::Instant;

use crate::Reporter;

/// Between two messages to the client.
const INTERVAL: Duration = Duration::from_millis(100);
/// Of one message.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Each message is what has come since the one before: together they are the
/// whole text, as long as it does not come faster than can be told.
pub struct Telling<'a> {
    reporter: &'a dyn Reporter,
    /// Of the text, in bytes.
    told: usize,
    next: Instant,
}

impl<'a> Telling<'a> {
    pub fn new(reporter: &'a dyn Reporter) -> Self {
        Self { reporter, told: 0, next: Instant::now() }
    }

    /// When what is new in the text should be told; None: there is nothing.
    pub fn due(&self, text: &str) -> Option<Instant> {
        (self.reporter.wants_progress() && text.len() > self.told).then_some(self.next)
    }

    /// Tells what is new. Progress is counted in bytes of text.
    pub async fn tell(&mut self, text: &str) {
        if self.due(text).is_none() {
            return;
        }
        let new = &text[self.told..];
        let (start, _) = new.split_at(new.floor_char_boundary(MESSAGE_BYTES_MAX));
        self.told = text.len();
        #[expect(clippy::cast_precision_loss, reason = "a length far below 2^53")]
        self.reporter.progress(text.len() as f64, None, Some(start)).await;
        self.next = Instant::now() + INTERVAL;
    }
}
