//! Between the pipeline and a member: the same era passes straight through, and
//! where client and backend speak different ones, the call is carried across.
//!
//! ```text
//!  client ─► same era ──────────────────────────────► upstream ─► content (older revisions)
//!         ├► legacy client, modern backend: to_modern ─► upstream
//!         │     asked, kept, follow, param_headers
//!         └► modern client, legacy backend: to_legacy ─► upstream
//! ```
//!
//! What crosses is decided by pure functions over raw JSON (`translate`,
//! `abilities`, `shown`); asks cross through the [`Caller`] like everything else
//! that a callee wants of a client.

mod abilities;
mod asked;
mod content;
#[cfg(test)]
mod documented;
mod follow;
pub mod kept;
pub mod param_headers;
pub mod shown;
mod speaker;
mod to_legacy;
mod to_modern;
pub(super) mod translate;

use std::sync::Arc;

use tokio::time::timeout_at;

pub use self::abilities::within;
use super::call::{Answer, Call, CallError, Caller};
use crate::{
    mcp::Era,
    node::{Node, Table},
    upstream::Upstream,
};

/// How a call reaches a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Straight,
    ToModern,
    ToLegacy,
}

impl Way {
    /// By what is known of the backend: its own era, unless it does not speak it.
    fn of(upstream: &Upstream, client: Era) -> Self {
        match (client, upstream.eras()) {
            (Era::Legacy, Some(eras)) if !eras.legacy && eras.modern => Self::ToModern,
            (Era::Modern, Some(eras)) if !eras.modern && eras.legacy => Self::ToLegacy,
            _ => Self::Straight,
        }
    }
}

/// Runs a call at a member, in an era that the member speaks.
///
/// # Errors
/// As [`Upstream::call`].
pub async fn call(
    node: &Arc<Node>,
    table: &Table,
    upstream: &Arc<Upstream>,
    call: &Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    let era = call.client.version.era();
    let way = Way::of(upstream, era);
    let mut outcome = carry(node, table, upstream, way, call, caller).await;
    if let Err(CallError::EraMismatch { .. }) = outcome {
        // What was known was wrong, or nothing was: nothing of the call has run.
        let learned = Box::pin(learn(upstream, era, way, call)).await;
        let other = Way::of(upstream, era);
        if learned.is_ok() && other != way {
            outcome = Box::pin(carry(node, table, upstream, other, call, caller)).await;
        }
    }
    outcome.map(|answer| content::fit(&call.client, &call.method, answer))
}

async fn carry(
    node: &Arc<Node>,
    table: &Table,
    upstream: &Arc<Upstream>,
    way: Way,
    call: &Call,
    caller: &Caller,
) -> Result<Answer, CallError> {
    match way {
        Way::Straight => upstream.call(call, caller).await,
        Way::ToModern => {
            let catalog = table.snapshot.catalogs.get(&upstream.config().name).map(Arc::as_ref);
            Box::pin(to_modern::call(node, catalog, upstream, call, caller)).await
        }
        Way::ToLegacy => Box::pin(to_legacy::call(upstream, call, caller)).await,
    }
}

/// Asks the backend what it speaks, if that has not been done since it refused.
async fn learn(upstream: &Upstream, era: Era, way: Way, call: &Call) -> Result<(), CallError> {
    if upstream.eras().is_some() && Way::of(upstream, era) != way {
        return Ok(());
    }
    let late = || CallError::Timeout {
        backend: upstream.config().name.clone(),
        limit: call.deadline.saturating_duration_since(tokio::time::Instant::now()),
    };
    let asked = async {
        if upstream.eras().is_none() { upstream.learn().await } else { upstream.probe().await.map(drop) }
    };
    timeout_at(call.deadline, Box::pin(asked)).await.map_err(|_| late())?
}
