//! Cursors of merged lists: sealed, for one gateway, list, state and principal.
//!
//! A cursor whose list has changed is refused instead of skipping or repeating
//! entries: clients then list again from the start.

use super::{call::CallError, kind::ListKind, view::GatewayView};
use crate::{
    mcp::RpcError,
    seal::{KeyRing, Purpose},
};

/// A cursor for a page of the list as it is now.
pub fn seal(keys: &KeyRing, view: &GatewayView, kind: ListKind, principal: &str, page: usize) -> String {
    keys.seal(Purpose::Cursor, &context(view, kind, principal), &(page as u64).to_be_bytes())
}

/// The page that a cursor leads to.
///
/// # Errors
/// Invalid params, if it is not one of ours, not for this list as it is now, or
/// somebody else's.
pub fn open(
    keys: &KeyRing,
    view: &GatewayView,
    kind: ListKind,
    principal: &str,
    cursor: &str,
) -> Result<usize, CallError> {
    let plain = keys.open(Purpose::Cursor, &context(view, kind, principal), cursor).map_err(|_| stale())?;
    let page: [u8; 8] = plain.as_slice().try_into().map_err(|_| stale())?;
    usize::try_from(u64::from_be_bytes(page)).map_err(|_| stale())
}

/// The cursor leads nowhere (any more).
pub fn stale() -> CallError {
    CallError::Rpc(RpcError::invalid_cursor())
}

fn context(view: &GatewayView, kind: ListKind, principal: &str) -> Vec<u8> {
    let mut context = Vec::with_capacity(128);
    for part in [view.gateway.name.as_str(), kind.member(), principal] {
        context.extend_from_slice(part.as_bytes());
        context.push(0);
    }
    context.extend_from_slice(&view.list(kind).digest);
    context
}
