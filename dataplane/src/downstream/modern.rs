//! The door of modern clients: every request stands alone.
//!
//! The call runs inside the response, so a client that goes away cancels it:
//! that is what the revision asks for, and nothing has to be remembered.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::{
    chunks,
    door::Door,
    framing::Framing,
    ndjson,
    reply::{self, Answering, at_once, refuse},
    running::Running,
    step::Step,
};
use crate::{
    gateway::call::{Call, Client, Scope},
    mcp::{Message, Request, RpcError, error::code, headers, meta::Meta},
};

/// A bound for calls that are answered here; a backend's own comes later.
const LOCAL_LIMIT: Duration = Duration::from_secs(60);
/// Headers that repeat arguments, forwarded at most.
const PARAM_HEADERS_MAX: usize = 64;

/// Takes one message.
pub fn post(door: Door, head: &HeaderMap, message: Message, meta: &Meta) -> Answering {
    match message {
        Message::Request(request) => match admit(&door, Some(head), &request, meta) {
            Ok(call) if ndjson::is_wanted(head) => Box::pin(ndjson::run(Running::start(door, call))),
            Ok(call) => run(Running::start(door, call)),
            Err((status, error)) => at_once(refuse(status, Some(&request.id), &error)),
        },
        // Closing the response cancels; nothing else is told by notifications over HTTP.
        Message::Notification(_) => at_once(reply::accepted()),
        Message::Response(_) => {
            let error = RpcError::invalid_request("clients send no responses in this revision");
            at_once(refuse(StatusCode::BAD_REQUEST, None, &error))
        }
    }
}

/// Checks what a modern request must say, in its body and around it. Only HTTP
/// has headers that repeat it.
///
/// # Errors
/// What the client is told, and the status for doors that have one.
pub fn admit(
    door: &Door,
    head: Option<&HeaderMap>,
    request: &Request,
    meta: &Meta,
) -> Result<Call, (StatusCode, RpcError)> {
    let bad = |error: RpcError| (StatusCode::BAD_REQUEST, error);
    // Before the body's version is judged: a header that says something else is
    // a mismatch, whatever either of them names.
    if let (Some(head), Some(claimed)) = (head, meta.protocol_version()) {
        headers::check_version(head, &claimed).map_err(bad)?;
    }
    let modern = meta.modern().map_err(|error| match meta.protocol_version() {
        // The gateway names what it advertises.
        Some(claimed) if error.code == code::UNSUPPORTED_VERSION => {
            bad(RpcError::unsupported_version(&claimed, door.view.versions()))
        }
        _ => bad(error),
    })?;
    if let Some(head) = head {
        headers::check(head, modern.version.as_str(), &request.method, &request.params).map_err(bad)?;
    }
    if !request.method.exists_in(modern.version) || !(request.method.is_for_server()) {
        return Err((StatusCode::NOT_FOUND, RpcError::method_not_found(request.method.as_str())));
    }
    let param_headers: Vec<_> = head
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.as_str().starts_with(headers::PARAM_PREFIX))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if param_headers.len() > PARAM_HEADERS_MAX {
        return Err(bad(RpcError::invalid_request(format!(
            "more than {PARAM_HEADERS_MAX} Mcp-Param headers"
        ))));
    }
    Ok(Call {
        id: request.id.clone(),
        method: request.method.clone(),
        params: request.params.clone(),
        client: Arc::new(Client {
            identity: door.identity.clone(),
            version: modern.version,
            info: modern.client_info.unwrap_or_default(),
            capabilities: modern.capabilities,
            scope: Scope::Stateless,
            events: None,
        }),
        deadline: Instant::now() + LOCAL_LIMIT,
        param_headers,
    })
}

/// Runs a call: a JSON response if the answer comes first, else a stream.
fn run(mut running: Running) -> Answering {
    Box::pin(async move {
        match running.next().await {
            Some(Step::Said(first)) => reply::events(chunks::body(running, first, Framing::Events)),
            Some(Step::Ended { message, status }) => reply::json(status, message),
            None => reply::accepted(),
        }
    })
}
