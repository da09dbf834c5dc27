//! A node of the fleet.
//!
//! ```text
//!  control plane ─► discovery ─► snapshot ─┐            cache: the last good one, on disk
//!                ◄─ link ◄─ lister         ▼
//!  client ⇄ downstream ─► gateway ─► upstream ⇄ backend
//! ```

pub mod cache;
pub mod control;
pub mod discovery;
pub mod downstream;
pub mod gateway;
pub mod mcp;
pub mod node;
pub mod seal;
pub mod snapshot;
pub mod upstream;

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
