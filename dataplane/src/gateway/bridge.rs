//! Between the pipeline and a member: the same era passes straight through, and
//! where client and backend speak different ones, the call is carried across.
//!
//! ```text
//!  client ─► same era ──────────────────────────────► upstream
//!         ├► legacy client, modern backend: to_modern ─► upstream
//!         └► modern client, legacy backend: to_legacy ─► upstream
//! ```
//!
//! What crosses is decided by pure functions over raw JSON; asks cross through
//! the [`Caller`] like everything else that a callee wants of a client.

mod translate;

use std::sync::Arc;

use super::call::{Answer, Call, CallError, Caller};
use crate::upstream::Upstream;

/// Runs a call at a member, in an era that the member speaks.
///
/// # Errors
/// As [`Upstream::call`].
pub async fn call(upstream: &Arc<Upstream>, call: Call, caller: &Caller) -> Result<Answer, CallError> {
    upstream.call(&call, caller).await
}
