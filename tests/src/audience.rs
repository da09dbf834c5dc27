//! Those who want to hear of changes: legacy sessions and modern subscriptions.
//!
//! Nothing is queued here. Who does not take a notification within
//! `TELL_DEADLINE` misses it, because a client that went away without a word
//! must not hold up the tool call that made the change.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::model::{LoggingLevel, ResourceUpdatedNotificationParam};
use rmcp::service::{Peer, SubscriptionSink};

const TELL_DEADLINE: Duration = Duration::from_millis(500);

/// Something that clients may have asked to be told.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    Tools,
    Prompts,
    Resource(&'a str),
}

/// What one legacy session has asked for. Modern requests have an unused one.
#[derive(Debug)]
pub struct Session {
    /// Set once the client says that it is initialized.
    peer: OnceLock<Peer<RoleServer>>,
    watched: Mutex<HashSet<String>>,
    log_level: Mutex<LoggingLevel>,
    /// Which session of its process it is.
    pub number: u64,
    /// How many calls it has counted on request.
    pub counted: AtomicU64,
}

impl Session {
    pub fn new(number: u64) -> Self {
        Self {
            peer: OnceLock::new(),
            watched: Mutex::default(),
            log_level: Mutex::new(LoggingLevel::Debug),
            number,
            counted: AtomicU64::new(0),
        }
    }

    pub fn watch(&self, uri: String) {
        self.watched.lock().insert(uri);
    }

    pub fn unwatch(&self, uri: &str) {
        self.watched.lock().remove(uri);
    }

    pub fn log_level(&self) -> LoggingLevel {
        *self.log_level.lock()
    }

    pub fn set_log_level(&self, level: LoggingLevel) {
        *self.log_level.lock() = level;
    }

    async fn tell(&self, change: Change<'_>) {
        let Some(peer) = self.peer.get() else { return };
        // A client that is gone cannot be told, and nobody waits for the outcome.
        _ = match change {
            Change::Tools => peer.notify_tool_list_changed().await,
            Change::Prompts => peer.notify_prompt_list_changed().await,
            Change::Resource(uri) if self.watched.lock().contains(uri) => {
                peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await
            }
            Change::Resource(_) => return,
        };
    }
}

#[derive(Debug, Default)]
pub struct Audience {
    sessions: Mutex<Vec<Weak<Session>>>,
    subscriptions: Mutex<BTreeMap<u64, SubscriptionSink>>,
    next: AtomicU64,
}

impl Audience {
    /// Adds a session, until the SDK drops it.
    pub fn join(&self, session: &Arc<Session>, peer: Peer<RoleServer>) {
        if session.peer.set(peer).is_err() {
            return; // A second `initialized` changes nothing.
        }
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
    }

    /// Adds a subscription, until the returned guard is dropped.
    pub fn subscribe(&self, sink: SubscriptionSink) -> Subscribed<'_> {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.subscriptions.lock().insert(key, sink);
        Subscribed { audience: self, key }
    }

    /// Tells everyone who asked; returns when they know or `TELL_DEADLINE` is over.
    pub async fn tell(&self, change: Change<'_>) {
        let sessions: Vec<Arc<Session>> = self.sessions.lock().iter().filter_map(Weak::upgrade).collect();
        let subscriptions: Vec<SubscriptionSink> = self.subscriptions.lock().values().cloned().collect();
        let telling = async {
            tokio::join!(
                join_all(sessions.iter().map(|session| session.tell(change))),
                join_all(subscriptions.iter().map(|sink| send(sink, change))),
            );
        };
        _ = tokio::time::timeout(TELL_DEADLINE, telling).await;
    }
}

/// Ends its subscription when dropped.
pub struct Subscribed<'a> {
    audience: &'a Audience,
    key: u64,
}

impl Drop for Subscribed<'_> {
    fn drop(&mut self) {
        self.audience.subscriptions.lock().remove(&self.key);
    }
}

/// The sink itself leaves out what its subscriber did not ask for.
async fn send(sink: &SubscriptionSink, change: Change<'_>) {
    _ = match change {
        Change::Tools => sink.notify_tool_list_changed().await,
        Change::Prompts => sink.notify_prompt_list_changed().await,
        Change::Resource(uri) => sink.notify_resource_updated(uri).await,
    };
}
