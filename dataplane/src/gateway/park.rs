//! Calls that have asked a modern client and wait for it to come back.
//!
//! A modern client cannot be sent a request: its response ends with the questions
//! (`input_required`), and it sends the same request again with the answers. The
//! call at the backend is still open meanwhile. So from its first question on, a
//! task owns it and keeps driving it, and whoever retries with the sealed
//! `requestState` hears it again.
//!
//! ```text
//!  Running (the door) ─ first question ─► adopt ─► Driver: the call, its questions
//!           ▲                                        ▲   │   machine.rs decides
//!           └── Attachment: notifications, outcome ──┼───┘
//!  a retry ─────────────► retry ─────────────────────┘
//! ```
//!
//! A client need never come back: every park ends by itself. A connection that
//! closes while somebody listens cancels the call, as for every modern call.

mod attachment;
mod driver;
pub mod machine;
pub mod state;
mod subject;
pub mod table;

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use tokio::sync::mpsc;

use self::{attachment::lost, driver::Driver, state::Ticket, table::Retry};
pub use self::{
    attachment::{Attachment, Outcome, Told},
    driver::Work,
    state::owner,
    subject::Subject,
    table::{KEPT_BYTES_MAX, OUTCOMES_MAX, PARKS_MAX, PRINCIPAL_PARKS_MAX},
};
use super::call::Ask;
use crate::{
    mcp::{Key, Params, RpcError, meta::Meta},
    node::Node,
};

/// Retries of one call that wait to be looked at.
const RETRIES_MAX: usize = 16;

/// Takes over a call that asks its first question; whoever began it listens.
///
/// # Errors
/// The call, if there are too many: then it cannot ask.
pub fn adopt(node: &Arc<Node>, subject: Subject, work: Work, first: Ask) -> Result<Attachment, Box<Work>> {
    let (inbox, retries) = mpsc::channel(RETRIES_MAX);
    let Some(place) = node.parks.enter(&subject.principal, inbox) else {
        return Err(Box::new(work));
    };
    let (listener, attachment) = Attachment::first();
    let driver = Driver::new(node.clone(), place, subject, work, retries, listener, first);
    node.tracker.spawn(driver.run());
    Ok(attachment)
}

/// Brings a retry to its call.
///
/// # Errors
/// If the call is not here (any more).
pub fn retry(node: &Node, ticket: &Ticket, params: &Params) -> Result<Attachment, RpcError> {
    if ticket.node != **node.tag() {
        counter!("mt_park_retries_total", "outcome" => "elsewhere").increment(1);
        return Err(lost());
    }
    let token = Meta::of(params).ok().and_then(|meta| meta.progress_token());
    let (listener, attachment) = Attachment::again(token);
    let responses = params.get(Key::InputResponses).unwrap_or(Bytes::from_static(b"{}"));
    let retry = Retry { round: ticket.round, responses, listener };
    match node.parks.inbox(ticket.park).map(|inbox| inbox.try_send(retry)) {
        Some(Ok(())) => Ok(attachment),
        Some(Err(mpsc::error::TrySendError::Full(_))) => Err(RpcError::overloaded()),
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => {
            counter!("mt_park_retries_total", "outcome" => "lost").increment(1);
            Err(lost())
        }
    }
}

#[cfg(test)]
mod tests;
