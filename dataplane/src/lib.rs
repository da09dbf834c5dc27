//! A node of the fleet: serves MCP clients with what the control plane has
//! configured, and goes on with the last good of it when that is gone.
//!
//! ```text
//!  control plane ─► discovery ─► snapshot ─┐            cache: the last good one, on disk
//!                ◄─ link ◄─ lister         ▼
//!  client ⇄ downstream ─► gateway ─► upstream ⇄ backend
//! ```
//!
//! Calls run on the runtime that [`run`] is called on. Everything that talks to
//! the control plane or to operators runs on a thread of its own, so that
//! neither a flood of configuration nor one of calls starves the other.

pub mod admin;
pub mod cache;
pub mod config;
pub mod control;
pub mod discovery;
pub mod downstream;
pub mod gateway;
mod hash;
mod held;
pub mod link;
pub mod lister;
pub use mt_mcp as mcp;
pub mod metrics;
pub mod node;
pub mod relay;
mod run;
pub mod seal;
pub mod snapshot;
pub mod tag;
pub mod upstream;

pub use config::Options;
pub use mt_process::guard;
pub use run::{Bound, Error, run};

/// An error with its causes, for the log. What a cause repeats is said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
