//! Sessions with a legacy backend that are lent to one call at a time.
//!
//! Many servers ask on the session's own stream, which does not say for which
//! call. Where only one runs in a session, that is clear. So a caller without a
//! session, who may be asked, borrows one, and the next of the same words may
//! have it after.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{Leg, Upstream};
use crate::{
    gateway::call::{Caller, Client, Scope, ToClient},
    mcp::id::RawId,
};

/// Sessions of one backend that wait for the next call.
const IDLE_MAX: usize = 64;
/// For how long.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);
/// Between a cancellation and the end of its session.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// What is not lent now; the last one used comes last.
#[derive(Default)]
pub struct Lending {
    idle: Mutex<Vec<(Instant, Borrowed)>>,
    ids: AtomicU64,
}

/// A session of a call, as long as it has it.
pub struct Borrowed {
    pub client: Arc<Client>,
    /// What the backend says outside of calls.
    pub events: mpsc::Receiver<ToClient>,
}

impl Borrowed {
    fn new(client: &Client) -> Self {
        let (caller, events) = Caller::channel();
        let scope = Scope::Session(format!("lent-{}", uuid::Uuid::new_v4()).into());
        let client = Arc::new(Client { scope, events: Some(caller), ..client.clone() });
        Self { client, events }
    }

    fn suits(&self, client: &Client) -> bool {
        let words = |client: &Client| {
            let Client { identity, version, capabilities, info, .. } = client.clone();
            (identity, version, capabilities, info)
        };
        words(&self.client) == words(client)
    }
}

impl Upstream {
    /// Lends a session for a call, where the backend has sessions of which
    /// several can be open; opens nothing yet.
    /// `fresh`: one that nobody has had.
    pub async fn lend(&self, client: &Client, fresh: bool) -> Option<Borrowed> {
        if !matches!(self.leg, Leg::Http(_)) || self.config().single_session.is_some() {
            return None;
        }
        let (found, old) = {
            let mut idle = self.lending.idle.lock();
            let old: Vec<_> = idle.extract_if(.., |(since, _)| since.elapsed() >= IDLE_TIME_MAX).collect();
            let at = idle.iter().rposition(|(_, lent)| !fresh && lent.suits(client));
            (at.map(|at| idle.remove(at).1), old)
        };
        for (_, lent) in old {
            self.end_scope(&lent.client.scope).await;
        }
        let mut lent = found.unwrap_or_else(|| Borrowed::new(client));
        // What came between two calls is of none; questions are refused by that.
        while lent.events.try_recv().is_ok() {}
        Some(lent)
    }

    /// Takes a session back after a call that has ended by itself.
    pub async fn give_back(&self, lent: Borrowed) {
        let old = {
            let mut idle = self.lending.idle.lock();
            idle.push((Instant::now(), lent));
            (idle.len() > IDLE_MAX).then(|| idle.remove(0).1)
        };
        if let Some(old) = old {
            self.end_scope(&old.client.scope).await;
        }
    }

    /// Ends a session in which something may still run: what it asks is refused,
    /// and it has a moment to hear that it is cancelled.
    pub fn discard(self: &Arc<Self>, lent: Borrowed) {
        // Without a runtime the node itself is going.
        if let (Leg::Http(http), Ok(runtime)) = (&self.leg, tokio::runtime::Handle::try_current()) {
            let (upstream, scope) = (Arc::clone(self), lent.client.scope.clone());
            let end = async move {
                sleep(CANCEL_GRACE).await;
                upstream.end_scope(&scope).await;
            };
            http.legacy.shared.tasks.spawn_on(end, &runtime);
        }
    }

    /// An id that no call in a lent session has had.
    pub fn lent_id(&self) -> RawId {
        RawId::number(self.lending.ids.fetch_add(1, Ordering::Relaxed))
    }
}
