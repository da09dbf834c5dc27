//! HTTP+SSE, the transport of 2024-11-05: what the fixture says goes out on one
//! event stream per session, what the client says comes in POSTs beside it.
//!
//! The session ends with its stream; there is nothing to resume.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use futures_util::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use serde::Deserialize;

use super::BODY_BYTES_MAX;
use super::lines::{self, Writer};
use crate::server::Shared;

const PING_EVERY: Duration = Duration::from_secs(15);

struct Server {
    shared: Arc<Shared>,
    sessions: Mutex<HashMap<u64, Arc<tokio::sync::Mutex<Writer>>>>,
    next: AtomicU64,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "sessionId")]
    session: u64,
}

pub fn router(shared: Arc<Shared>) -> Router {
    let server = Server { shared, sessions: Mutex::default(), next: AtomicU64::new(1) };
    Router::new()
        .route("/sse", get(open))
        .route("/messages", post(message))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(server))
}

async fn open(State(server): State<Arc<Server>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (writer, reader) = lines::converse(server.shared.clone());
    let id = server.next.fetch_add(1, Ordering::Relaxed);
    server.sessions.lock().insert(id, Arc::new(tokio::sync::Mutex::new(writer)));
    let open = Open { server, id };
    let endpoint = Event::default().event("endpoint").data(format!("/messages?sessionId={id}"));
    let messages = reader.into_stream().map(move |message| {
        _ = &open; // The session lives as long as its stream.
        Event::default().event("message").data(message)
    });
    let events = stream::iter([endpoint]).chain(messages).map(Ok);
    Sse::new(events).keep_alive(KeepAlive::new().interval(PING_EVERY))
}

async fn message(
    State(server): State<Arc<Server>>,
    Query(Address { session }): Query<Address>,
    body: String,
) -> (StatusCode, &'static str) {
    let writer = server.sessions.lock().get(&session).cloned();
    let Some(writer) = writer else { return (StatusCode::NOT_FOUND, "no such session") };
    match writer.lock().await.write(&body).await {
        Ok(()) => (StatusCode::ACCEPTED, "Accepted"),
        Err(_) => (StatusCode::GONE, "the session has ended"),
    }
}

/// Ends its session when dropped.
struct Open {
    server: Arc<Server>,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.sessions.lock().remove(&self.id);
    }
}
