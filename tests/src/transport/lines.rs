//! A conversation with the fixture in lines of text, within the process.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, stream};
use rmcp::ServiceExt as _;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
};
use tokio::task::JoinSet;

use super::BODY_BYTES_MAX;
use crate::server::{Fixture, Shared};

/// What one side may have written and the other not yet read.
const BUFFER_BYTES: usize = 256 * 1024;

/// To the fixture; the conversation ends when it is dropped.
pub struct Writer(WriteHalf<DuplexStream>);

/// From the fixture; the conversation ends when it is dropped.
pub struct Reader {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    _serving: JoinSet<()>,
}

/// Starts a conversation with a fixture of its own.
pub fn converse(shared: Arc<Shared>) -> (Writer, Reader) {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (read, write) = tokio::io::split(theirs);
        let transport = AsyncRwTransport::new_server(read, write).with_max_line_length(BODY_BYTES_MAX);
        // Who does not open a conversation has none, and sees it end.
        if let Ok(running) = Fixture::new(shared).serve(transport).await {
            _ = running.waiting().await;
        }
    });
    let (read, write) = tokio::io::split(ours);
    (Writer(write), Reader { lines: BufReader::new(read).lines(), _serving: serving })
}

impl Writer {
    /// Hands over one message. Line ends within it are only between its tokens.
    pub async fn write(&mut self, message: &str) -> io::Result<()> {
        let mut line = message.replace(['\n', '\r'], " ");
        line.push('\n');
        self.0.write_all(line.as_bytes()).await
    }
}

impl Reader {
    pub async fn read(&mut self) -> Option<String> {
        self.lines.next_line().await.ok()?
    }

    /// Every message, to the end of the conversation.
    pub fn into_stream(self) -> impl Stream<Item = String> + Send {
        stream::unfold(self, |mut reader| async move { Some((reader.read().await?, reader)) })
    }
}
