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
use tokio::{sync::mpsc, time::Instant};

use crate::{
    gateway::call::{Caller, Client, Scope, ToClient},
    mcp::id::RawId,
};

/// Sessions of one backend that wait for the next call.
const IDLE_MAX: usize = 64;
/// For how long.
const IDLE_TIME_MAX: Duration = Duration::from_secs(300);

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

    /// What came between two calls is of none; questions are refused by that.
    pub fn forget(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    fn suits(&self, client: &Client) -> bool {
        let words = |client: &Client| {
            let Client { identity, version, capabilities, info, .. } = client.clone();
            (identity, version, capabilities, info)
        };
        words(&self.client) == words(client)
    }
}

impl Lending {
    /// A session for a call of such a client: one that has been used, unless
    /// `fresh`. Also those that have not been used for long.
    pub fn take(&self, client: &Client, fresh: bool) -> (Borrowed, Vec<Borrowed>) {
        let (found, old) = {
            let mut idle = self.idle.lock();
            let old: Vec<_> = idle.extract_if(.., |(since, _)| since.elapsed() >= IDLE_TIME_MAX).collect();
            let at = idle.iter().rposition(|(_, lent)| !fresh && lent.suits(client));
            (at.map(|at| idle.remove(at).1), old)
        };
        let lent = found.unwrap_or_else(|| Borrowed::new(client));
        (lent, old.into_iter().map(|(_, lent)| lent).collect())
    }

    /// Keeps a session for the next call; the oldest, if there are too many.
    pub fn keep(&self, lent: Borrowed) -> Option<Borrowed> {
        let mut idle = self.idle.lock();
        idle.push((Instant::now(), lent));
        (idle.len() > IDLE_MAX).then(|| idle.remove(0).1)
    }

    /// An id that no call in a lent session has had.
    pub fn id(&self) -> RawId {
        RawId::number(self.ids.fetch_add(1, Ordering::Relaxed))
    }
}
