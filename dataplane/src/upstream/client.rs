//! The HTTP client of a node: HTTP/1.1 over connections that are kept.
//!
//! A connection has no task of its own. Whoever waits for an answer drives it,
//! first for the head and then through the body, so that an answer wakes one
//! task and not two, nothing is read from a socket that nobody asks for, and
//! dropping an answer closes its connection, which is how a call is cancelled
//! upstream. Why it is ours: docs/adr/0010-own-upstream-pool.md.
//!
//! It follows no redirects, speaks no HTTP/2, and repeats nothing of which a
//! byte may have been written.

mod connection;
mod dial;
mod incoming;
mod meters;
mod origin;
mod signal;
mod sweep;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use http::{Uri, uri::Authority};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    connection::Stream,
    incoming::Incoming,
    origin::{Origin, Sending},
};
use self::{dial::Dial, meters::Meters};

/// The connections of one node.
#[derive(Default)]
pub struct Pool {
    inner: Arc<Inner>,
}

/// Which connections are interchangeable.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    tls: bool,
    authority: Authority,
    connect_timeout: Duration,
}

#[derive(Default)]
struct Inner {
    /// Those that somebody still uses; the others' connections are closed.
    origins: Mutex<HashMap<Key, Weak<Origin>>>,
    meters: Arc<Meters>,
    /// Whether the task that looks after idle connections runs.
    swept: AtomicBool,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer")]
    Exchange(#[source] hyper::Error),
}

impl Error {
    /// Nothing of the request can have reached the server.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Exchange(error) => error.is_canceled(),
        }
    }

    /// The causes, for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Connect(error) => crate::chain(&**error),
            Self::Exchange(error) => crate::chain(error),
        }
    }
}

impl Pool {
    /// A pool whose housekeeping is one of `tasks` and ends with `shutdown`.
    pub fn new(tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { inner: Arc::new(Inner { tasks, shutdown, ..Inner::default() }) }
    }

    /// The server that a URL names; none if the URL names none. `tls` is asked
    /// only for `https`.
    ///
    /// Everybody who asks with the same words gets the same one, so it is kept
    /// by who sends requests and not looked up for each.
    pub fn origin(
        &self,
        url: &Uri,
        connect_timeout: Duration,
        tls: impl FnOnce() -> Arc<ClientConfig>,
    ) -> Option<Arc<Origin>> {
        let authority = url.authority()?.clone();
        let is_tls = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let key = Key { tls: is_tls, authority, connect_timeout };
        let mut origins = self.inner.origins.lock();
        if let Some(origin) = origins.get(&key).and_then(Weak::upgrade) {
            return Some(origin);
        }
        origins.retain(|_, origin| origin.strong_count() > 0);
        let dial = Dial::new(url, connect_timeout, is_tls.then(tls))?;
        let origin = Arc::new(Origin::new(dial, is_tls, Arc::clone(&self.inner)));
        origins.insert(key, Arc::downgrade(&origin));
        Some(origin)
    }
}
