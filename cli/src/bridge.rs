//! MCP on stdin and stdout, bridged to a streamable HTTP endpoint: for clients
//! that can only start a command.
//!
//! Messages pass as they come; the bridge adds what HTTP needs (sessions,
//! headers, streams) and hides what stdio cannot express (a gateway that
//! restarts, a session that was lost). Only protocol reaches stdout.

mod legacy;
mod lines;
mod message;
mod wishes;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::mcp_client::{
    headers::Marks,
    http::{Endpoint, Error, Events, Reply},
};
use legacy::Legacy;
use lines::{Line, Lines};
use message::{Kind, Parsed};

/// Requests that may be under way at once.
const IN_FLIGHT_MAX: usize = 256;
/// Messages that wait for stdout; then the streams they come from wait.
const OUTBOX_MAX: usize = 64;
/// How long a gateway may be gone before its clients are told.
const RECONNECT_LIMIT: Duration = Duration::from_secs(30);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// A broken stream is continued so often.
const RESUMES_MAX: usize = 10;
/// How long answers are awaited after the client has closed stdin.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long a notification may take.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// What all tasks of one bridge share.
struct Bridge {
    endpoint: Endpoint,
    outbox: mpsc::Sender<Bytes>,
    legacy: Legacy,
    marks: Mutex<Marks>,
    running: Mutex<HashMap<String, Running>>,
    /// Told whenever a request has ended.
    ended: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A request under way, by the text of its id.
struct Running {
    modern: bool,
    listen: bool,
    abort: AbortHandle,
}

/// Bridges until stdin ends, stdout closes or `stop` is cancelled. Dropping the
/// future leaves the legacy session open on the gateway, where it expires.
pub async fn run(
    endpoint: Endpoint,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin + Send + 'static,
    stop: CancellationToken,
) {
    let (outbox, inbox) = mpsc::channel(OUTBOX_MAX);
    let bridge = Arc::new(Bridge {
        endpoint,
        outbox,
        legacy: Legacy::default(),
        marks: Mutex::default(),
        running: Mutex::default(),
        ended: Notify::new(),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    });
    let writer = bridge.tasks.spawn(write(inbox, stdout, stop.clone()));
    let mut lines = Lines::new(stdin);
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = stop.cancelled() => break,
        };
        match line {
            Ok(Some(Line::Whole(line))) => bridge.take(line).await,
            Ok(Some(Line::TooLong)) => {
                bridge.send(message::error("null", -32600, "the message is too long")).await
            }
            Ok(None) | Err(_) => break,
        }
    }
    bridge.drain().await;
    bridge.legacy.end(&bridge.endpoint).await;
    stop.cancel();
    drop(bridge);
    // The last message may still be on its way to a slow reader.
    _ = tokio::time::timeout(DRAIN_LIMIT, writer).await;
}

async fn write(
    mut inbox: mpsc::Receiver<Bytes>,
    mut stdout: impl AsyncWrite + Unpin,
    stop: CancellationToken,
) {
    while let Some(message) = inbox.recv().await {
        let written = async {
            stdout.write_all(&message).await?;
            stdout.write_all(b"\n").await?;
            stdout.flush().await
        };
        if written.await.is_err() {
            // The client is gone.
            stop.cancel();
            return;
        }
    }
}

impl Bridge {
    /// Takes one message of the client. Returns once what must keep its order
    /// has been sent.
    async fn take(self: &Arc<Self>, line: Bytes) {
        let parsed = match message::parse(&line) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return,
            Err(why) => return self.send(message::error("null", -32700, why)).await,
        };
        match parsed.kind {
            Kind::Request if parsed.method == "initialize" && !parsed.is_modern() => {
                self.initialize(parsed).await
            }
            Kind::Request => self.start(parsed).await,
            Kind::Notification if parsed.method == "notifications/cancelled" && self.abort(&parsed).await => {
            }
            Kind::Notification | Kind::Answer => self.notify(parsed).await,
            Kind::Batch => {
                let bridge = Arc::clone(self);
                _ = self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
                    bridge.legacy_request(&parsed).await;
                }));
            }
        }
    }

    async fn start(self: &Arc<Self>, parsed: Parsed) {
        let id = parsed.id.clone();
        let refusal = {
            let running = self.running();
            if running.contains_key(&id) {
                Some("this id is in use")
            } else {
                (running.len() >= IN_FLIGHT_MAX).then_some("too many requests are under way")
            }
        };
        if let Some(why) = refusal {
            return self.send(message::error(&id, -32600, why)).await;
        }
        let (modern, listen) = (parsed.is_modern(), parsed.method == "subscriptions/listen");
        // Made here and moved in: a task may be aborted before it has begun.
        let entry = Entry { bridge: Arc::clone(self), id: id.clone() };
        let work = async move {
            if parsed.is_modern() {
                entry.bridge.modern_request(&parsed).await;
            } else {
                entry.bridge.legacy_request(&parsed).await;
            }
        };
        let mut running = self.running();
        let abort = self.tasks.spawn(work).abort_handle();
        running.insert(id, Running { modern, listen, abort });
    }

    /// Carries out the cancellation of a modern request, which has no message
    /// over HTTP: its connection closes. False if the request is not modern.
    async fn abort(&self, parsed: &Parsed) -> bool {
        let Some(id) = &parsed.cancels else { return false };
        let listen = {
            let running = self.running();
            let Some(found) = running.get(id).filter(|running| running.modern) else { return false };
            found.abort.abort();
            found.listen
        };
        if listen {
            self.send(message::listen_end(id)).await;
        }
        true
    }

    async fn initialize(self: &Arc<Self>, parsed: Parsed) {
        self.legacy.begin(parsed.body.clone());
        match self.post(&parsed.body, &HeaderMap::new()).await {
            Ok((headers, reply)) => {
                let answer = self.answer_of(reply, &parsed.id).await;
                if let Some(answer) = &answer {
                    self.legacy.opened(&headers, answer);
                }
                self.send(answer.unwrap_or_else(|| message::no_answer(&parsed.id))).await;
            }
            Err(error) => self.send(message::failure(&parsed.id, &error)).await,
        }
    }

    /// Sends what has no answer, and waits until it has been taken, so that
    /// the next message finds it done.
    async fn notify(self: &Arc<Self>, parsed: Parsed) {
        let headers = if parsed.is_modern() { self.modern_headers(&parsed) } else { self.legacy.headers() };
        let sent = tokio::time::timeout(NOTIFY_TIMEOUT, self.post(&parsed.body, &headers)).await;
        match sent {
            Ok(Ok(_)) if parsed.method == "notifications/initialized" => legacy::open_stream(self),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %message::chain(&error), "the gateway did not take a notification")
            }
            Err(_) => tracing::warn!("the gateway did not take a notification in time"),
        }
    }

    async fn modern_request(&self, parsed: &Parsed) {
        let reply = match self.post(&parsed.body, &self.modern_headers(parsed)).await {
            Ok((_, reply)) => reply,
            Err(error) => return self.send(message::failure(&parsed.id, &error)).await,
        };
        let learns = parsed.method == "tools/list";
        let mut answered = false;
        match reply {
            Reply::Accepted => {}
            Reply::Message(body) => {
                answered = true;
                self.learn(learns, &body);
                self.send(body).await;
            }
            Reply::Stream(mut events) => {
                while let Ok(Some(body)) = events.next().await {
                    answered = message::answers(&body, &parsed.id);
                    self.learn(learns && answered, &body);
                    self.send(body).await;
                    if answered {
                        break;
                    }
                }
            }
        }
        if !answered {
            self.send(message::no_answer(&parsed.id)).await;
        }
    }

    async fn legacy_request(self: &Arc<Self>, parsed: &Parsed) {
        self.legacy.note(&parsed.method, &parsed.params);
        let mut epoch = self.legacy.epoch();
        let mut again = true;
        loop {
            match self.post(&parsed.body, &self.legacy.headers()).await {
                Ok((_, Reply::Message(body))) => return self.send(body).await,
                Ok((_, Reply::Stream(events))) => return self.follow(events, &parsed.id).await,
                Ok((_, Reply::Accepted)) if parsed.kind == Kind::Batch => return,
                Ok((_, Reply::Accepted)) => return self.send(message::no_answer(&parsed.id)).await,
                // Not found means not processed: a new session may take it.
                Err(Error::Status { status, .. })
                    if status.as_u16() == 404 && again && self.legacy.has_session() =>
                {
                    again = false;
                    if let Err(error) = legacy::reopen(self, epoch).await {
                        return self.send(message::failure(&parsed.id, &error)).await;
                    }
                    epoch = self.legacy.epoch();
                }
                Err(error) => return self.send(message::failure(&parsed.id, &error)).await,
            }
        }
    }

    /// Passes a legacy stream on until it has brought the answer, over as many
    /// connections as that takes.
    async fn follow(&self, mut events: Events, id: &str) {
        for resumes in 0.. {
            while let Ok(Some(body)) = events.next().await {
                let answered = message::answers(&body, id);
                self.send(body).await;
                if answered {
                    return;
                }
            }
            if id == message::NO_ID {
                return;
            }
            let Some(last_id) = events.last_id.clone().filter(|_| resumes < RESUMES_MAX) else { break };
            tokio::time::sleep(events.retry.unwrap_or(BACKOFF_MIN).min(RECONNECT_LIMIT)).await;
            match self.endpoint.get(self.legacy.headers(), Some(&last_id)).await {
                Ok(next) => {
                    events = next;
                    events.last_id.get_or_insert(last_id);
                }
                Err(Error::Connect { .. }) => events.retry = Some(BACKOFF_MAX),
                Err(_) => break,
            }
        }
        self.send(message::no_answer(id)).await;
    }

    /// The answer to a request that is waited for in its place; what comes
    /// before it is passed on.
    async fn answer_of(&self, reply: Reply, id: &str) -> Option<Bytes> {
        match reply {
            Reply::Accepted => None,
            Reply::Message(body) => Some(body),
            Reply::Stream(mut events) => loop {
                let body = events.next().await.ok()??;
                if message::answers(&body, id) {
                    return Some(body);
                }
                self.send(body).await;
            },
        }
    }

    /// Posts a message, again and again while nothing has been sent yet or the
    /// gateway says itself that it was refused without effect.
    async fn post(&self, body: &Bytes, headers: &HeaderMap) -> Result<(HeaderMap, Reply), Error> {
        let give_up = Instant::now() + RECONNECT_LIMIT;
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.endpoint.post(body.clone(), headers.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let may_repeat = match &error {
                Error::Connect { .. } => true,
                Error::Status { status, body, .. } => status.as_u16() == 503 && message::may_repeat(body),
                _ => false,
            };
            if !may_repeat || Instant::now() + backoff > give_up {
                return Err(error);
            }
            tracing::info!(error = %message::chain(&error), "the gateway is away, trying again");
            tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn modern_headers(&self, parsed: &Parsed) -> HeaderMap {
        let params: Value = serde_json::from_str(&parsed.params).unwrap_or_default();
        let version = parsed.modern.as_deref().unwrap_or_default();
        self.marks.lock().headers(&parsed.method, &params, version)
    }

    fn learn(&self, is_list: bool, body: &Bytes) {
        // Only lists with marks are worth a parse.
        if is_list && message::contains(body, b"x-mcp-header") {
            let answer: Value = serde_json::from_slice(body).unwrap_or_default();
            self.marks.lock().learn(&answer["result"]);
        }
    }

    async fn send(&self, body: Bytes) {
        // Fails only when the writer is gone, and then everything ends.
        _ = self.outbox.send(message::one_line(body)).await;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock()
    }

    /// Waits for the answers that are still to come, but not for streams that
    /// have no end.
    async fn drain(&self) {
        self.legacy.close_stream();
        for running in self.running().values().filter(|running| running.listen) {
            running.abort.abort();
        }
        let idle = async {
            while !self.running().is_empty() {
                self.ended.notified().await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(DRAIN_LIMIT, idle) => {}
            () = self.stop.cancelled() => {}
        }
        for running in self.running().values() {
            running.abort.abort();
        }
    }
}

/// Takes a request off the table when its task ends, however it ends.
struct Entry {
    bridge: Arc<Bridge>,
    id: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.bridge.running().remove(&self.id);
        self.bridge.ended.notify_one();
    }
}
