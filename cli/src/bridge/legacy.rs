//! The legacy session of a bridge: opened by the client's `initialize`, kept
//! through losses that the client cannot see over stdio.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::task::AbortHandle;

use super::{BACKOFF_MAX, BACKOFF_MIN, Bridge, message, wishes::Wishes};
use crate::mcp_client::{
    headers::{PROTOCOL_VERSION, SESSION_ID},
    http::{Endpoint, Error, Reply},
};

const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// The id of our own `initialize`; the client sees no answer to it.
const REOPEN_ID: &str = "\"mtctl-reopen\"";

/// The session, if there is one.
#[derive(Default)]
pub struct Legacy {
    state: Mutex<State>,
    /// Held while a lost session is opened again, so that this happens once.
    reopening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Sent with every request of the session.
    headers: HeaderMap,
    /// The client's own `initialize`, to open the session again.
    initialize: Bytes,
    wishes: Wishes,
    /// Counts the sessions.
    epoch: u64,
    stream: Option<AbortHandle>,
}

impl Legacy {
    pub fn headers(&self) -> HeaderMap {
        self.state().headers.clone()
    }

    pub fn has_session(&self) -> bool {
        self.state().headers.contains_key(SESSION_ID)
    }

    pub fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// Notes how the client opens its session.
    pub fn begin(&self, initialize: Bytes) {
        self.close_stream();
        let mut state = self.state();
        state.headers.clear();
        state.initialize = initialize;
        state.wishes = Wishes::default();
    }

    /// Notes a request whose effect lasts as long as the session.
    pub fn note(&self, method: &str, params: &str) {
        self.state().wishes.note(method, params);
    }

    /// Notes the session that an answer to `initialize` has opened.
    pub fn opened(&self, headers: &HeaderMap, answer: &Bytes) {
        let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
        let version = answer["result"]["protocolVersion"].as_str();
        let Some(version) = version.and_then(|version| HeaderValue::from_str(version).ok()) else { return };
        let mut state = self.state();
        state.epoch += 1;
        state.headers.clear();
        state.headers.insert(PROTOCOL_VERSION, version);
        if let Some(id) = headers.get(SESSION_ID) {
            state.headers.insert(SESSION_ID, id.clone());
        }
    }

    pub fn close_stream(&self) {
        if let Some(stream) = self.state().stream.take() {
            stream.abort();
        }
    }

    /// Ends the session, if the gateway still listens.
    pub async fn end(&self, endpoint: &Endpoint) {
        self.close_stream();
        if self.has_session() {
            _ = tokio::time::timeout(GOODBYE_TIMEOUT, endpoint.delete(self.headers())).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Follows the stream on which the gateway speaks without being asked.
pub fn open_stream(bridge: &Arc<Bridge>) {
    let follower = Arc::clone(bridge);
    let task = bridge.tasks.spawn(async move { follow_stream(&follower).await });
    let old = bridge.legacy.state().stream.replace(task.abort_handle());
    if let Some(old) = old {
        old.abort();
    }
}

async fn follow_stream(bridge: &Bridge) {
    let mut last_id: Option<String> = None;
    let mut pause = BACKOFF_MIN;
    loop {
        match bridge.endpoint.get(bridge.legacy.headers(), last_id.as_deref()).await {
            Ok(mut events) => {
                while let Ok(Some(body)) = events.next().await {
                    pause = BACKOFF_MIN;
                    bridge.send(body).await;
                }
                last_id = events.last_id.or(last_id);
                pause = events.retry.unwrap_or(pause);
            }
            // There is no such stream, or no such session any more.
            Err(Error::Status { status, .. }) if status.is_client_error() => return,
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// Opens a lost session again, as the client has opened it. Does nothing if
/// that has happened since `epoch`.
///
/// # Errors
/// When the gateway does not take it.
pub async fn reopen(bridge: &Arc<Bridge>, epoch: u64) -> Result<(), Error> {
    let _once = bridge.legacy.reopening.lock().await;
    if bridge.legacy.epoch() != epoch {
        return Ok(());
    }
    tracing::info!("the session was lost, opening it again");
    let mut initialize: Value = serde_json::from_slice(&bridge.legacy.state().initialize).unwrap_or_default();
    initialize["id"] = REOPEN_ID.trim_matches('"').into();
    let (headers, reply) = bridge.post(&initialize.to_string().into(), &HeaderMap::new()).await?;
    let answer = match reply {
        Reply::Accepted => None,
        Reply::Message(body) => Some(body),
        Reply::Stream(mut events) => loop {
            match events.next().await? {
                Some(body) if message::answers(&body, REOPEN_ID) => break Some(body),
                Some(_) => {}
                None => break None,
            }
        },
    };
    bridge.legacy.opened(&headers, &answer.unwrap_or_default());
    let initialized = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    bridge.post(&initialized, &bridge.legacy.headers()).await?;
    let wishes = bridge.legacy.state().wishes.requests();
    for (id, request) in wishes {
        match bridge.post(&request, &bridge.legacy.headers()).await {
            Ok((_, reply)) => _ = bridge.answer_of(reply, &id).await,
            Err(error) => {
                tracing::warn!(error = %message::chain(&error), "the new session lacks what the old one had");
            }
        }
    }
    open_stream(bridge);
    Ok(())
}
