//! What a program writes on stdout: collected up to its limit and, where the
//! client wants to see it, told line by line as it comes.

use std::{io, time::Duration};

use bytes::BytesMut;
use mt_proto::resource::Subprocess;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, sleep_until},
};

use crate::Reporter;

/// Messages in one window of time; what comes faster is told together.
const MESSAGES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// Of one message.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;

/// Why there is not all of it.
pub enum Stop {
    /// This came, and then more than the limit allows.
    Cut(Vec<u8>),
    Io(io::Error),
}

/// As text, without the end of its last line.
pub fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// Without a character at the end that is only half there.
pub fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

/// Reads to the end.
///
/// # Errors
/// At the limit, and if the pipe breaks.
pub async fn collect(
    mut stdout: impl AsyncRead + Unpin,
    config: &Subprocess,
    reporter: &dyn Reporter,
) -> Result<Vec<u8>, Stop> {
    let mut telling = (config.stream && reporter.wants_progress()).then(|| Telling::to(reporter));
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    let mut bytes = Vec::new();
    loop {
        let due = telling.as_ref().and_then(Telling::due);
        let read = tokio::select! {
            read = stdout.read_buf(&mut chunk) => read.map_err(Stop::Io)?,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(telling) = &mut telling {
                    telling.flush().await;
                }
                continue;
            }
        };
        if read == 0 {
            break;
        }
        let room = config.output_bytes_max - bytes.len();
        bytes.extend_from_slice(&chunk[..read.min(room)]);
        if read > room {
            return Err(Stop::Cut(bytes));
        }
        if let Some(telling) = &mut telling {
            telling.take(&chunk).await;
        }
        chunk.clear();
        chunk.reserve(CHUNK_BYTES);
    }
    if let Some(mut telling) = telling {
        telling.finish().await;
    }
    Ok(bytes)
}

/// Lines on their way to the client.
struct Telling<'a> {
    reporter: &'a dyn Reporter,
    /// The line that is not yet whole.
    line: Vec<u8>,
    /// Whole lines that wait for the next window.
    waiting: String,
    /// Of whole lines.
    count: u32,
    window: Instant,
    messages: u32,
}

impl<'a> Telling<'a> {
    fn to(reporter: &'a dyn Reporter) -> Self {
        Self {
            reporter,
            line: Vec::new(),
            waiting: String::new(),
            count: 0,
            window: Instant::now(),
            messages: 0,
        }
    }

    /// When what waits may go.
    fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.window + WINDOW)
    }

    async fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = MESSAGE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.whole_line().await;
            }
        }
    }

    async fn whole_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let line = line.trim_end_matches(['\n', '\r']);
        self.count += 1;
        if self.waiting.len() + line.len() < MESSAGE_BYTES_MAX {
            if !self.waiting.is_empty() {
                self.waiting.push('\n');
            }
            self.waiting.push_str(line);
        }
        self.line.clear();
        if self.window.elapsed() >= WINDOW || self.messages < MESSAGES_MAX {
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        if self.window.elapsed() >= WINDOW {
            (self.window, self.messages) = (Instant::now(), 0);
        }
        self.messages += 1;
        self.reporter.progress(f64::from(self.count), None, Some(&self.waiting)).await;
        self.waiting.clear();
    }

    async fn finish(&mut self) {
        if !self.line.is_empty() {
            self.whole_line().await;
        }
        if !self.waiting.is_empty() {
            self.flush().await;
        }
    }
}
