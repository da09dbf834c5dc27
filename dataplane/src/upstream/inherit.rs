//! What a client's session has at a backend when its node is gone: the next node
//! goes on in a session over HTTP; what was in a process or on a socket is lost,
//! and the client must know.

use bytes::Bytes;
use mt_proto::resource::ResourceName;

use super::{
    leg_key::LegKey,
    session::Session,
    shared::Shared,
    sharing::{Owner, PipeKey},
};
use crate::{
    gateway::call::CallError,
    relay::{change::Change, ledger::Held},
};

/// The session that the node before had with a backend, if there was one.
pub fn adopt(shared: &Shared, key: &LegKey, backend: &ResourceName) -> Option<Result<Session, CallError>> {
    let LegKey::Session(id) = key else { return None };
    let adopted = match shared.relay.held(id, backend)? {
        Held::Session { id, protocol_version } => {
            Session::adopted(&id, &protocol_version, shared.shutdown.child_token())
        }
        Held::Lost => None,
    };
    Some(adopted.ok_or_else(|| CallError::SessionLost { backend: backend.clone() }))
}

/// Tells the next node of a session, before it is used.
pub async fn note_session(shared: &Shared, key: &LegKey, session: &Session, backend: &ResourceName) {
    if let (LegKey::Session(id), Some((session_id, protocol_version))) = (key, session.id_and_version()) {
        let change = Change::Upstream { backend: backend.clone(), session_id, protocol_version };
        shared.relay.note(id, change).await;
    }
}

/// Why there is no pipe, if a session had one of its own on a node that is gone.
/// Said once, for the client starts again.
pub fn lost(shared: &Shared, key: &PipeKey, backend: &ResourceName) -> Option<CallError> {
    let Owner::Session(id) = &key.owner else { return None };
    shared.relay.held(id, backend)?;
    Some(CallError::SessionLost { backend: backend.clone() })
}

/// Tells the next node that a session has a pipe of its own.
pub async fn note_pipe(shared: &Shared, key: &PipeKey, backend: &ResourceName) {
    if let Owner::Session(id) = &key.owner {
        let (backend, session_id) = (backend.clone(), Bytes::new());
        let change = Change::Upstream { backend, session_id, protocol_version: String::new() };
        shared.relay.note(id, change).await;
    }
}
