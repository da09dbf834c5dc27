//! `requestState` towards clients: sealed, and worth nothing to anybody but the
//! principal that got it, for the request that it was given for.
//!
//! Two things travel in it: the way to a parked call, and the state of a modern
//! backend, which no other principal, gateway or backend may be shown. What is
//! wrong with one that is refused is not said: it is an attacker's to try.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::subject::Subject;
use crate::{
    gateway::bridge::translate::member,
    mcp::{Key, Method, Params, RpcError, splice::Patch, text},
    seal::{KeyRing, Purpose},
};

/// The longest state of a backend that is carried.
pub const BACKEND_STATE_BYTES_MAX: usize = 256 * 1024;
/// The same when it is sealed, with what is said around it.
const SEALED_BYTES_MAX: usize = 2 * BACKEND_STATE_BYTES_MAX;
/// What a result contains that asks.
const HINT: &[u8] = b"input_required";

/// What is sealed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sealed {
    #[serde(rename = "w")]
    principal: String,
    #[serde(rename = "g")]
    gateway: String,
    #[serde(rename = "s")]
    state: State,
}

/// What a state leads to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum State {
    #[serde(rename = "p")]
    Parked(Ticket),
    /// A backend's own.
    #[serde(rename = "b")]
    Backend {
        #[serde(rename = "b")]
        backend: String,
        #[serde(rename = "i")]
        inner: String,
    },
}

/// The way to a parked call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Of the node that has it.
    #[serde(rename = "n")]
    pub node: String,
    #[serde(rename = "p")]
    pub park: u64,
    #[serde(rename = "r")]
    pub round: u32,
    /// Of what was asked for, see [`digest`].
    #[serde(rename = "d")]
    pub digest: String,
    /// In seconds since 1970.
    #[serde(rename = "e")]
    pub expires: u64,
}

/// Any state that is not the caller's to use here and now.
pub fn invalid() -> RpcError {
    RpcError::invalid_params("requestState is not valid for this request")
}

/// A state for a parked call.
pub fn seal_ticket(keys: &KeyRing, subject: &Subject, ticket: Ticket) -> String {
    seal(keys, subject, State::Parked(ticket))
}

fn seal(keys: &KeyRing, subject: &Subject, state: State) -> String {
    let sealed = Sealed {
        principal: subject.principal.as_ref().to_owned(),
        gateway: subject.gateway().to_owned(),
        state,
    };
    let plain = serde_json::to_vec(&sealed).expect("texts and numbers are JSON");
    keys.seal(Purpose::RequestState, b"", &plain)
}

fn unseal(keys: &KeyRing, text: &str) -> Option<Sealed> {
    let plain = keys.open_up_to(SEALED_BYTES_MAX, Purpose::RequestState, b"", text).ok()?;
    serde_json::from_slice(&plain).ok()
}

/// Opens the state of a retry.
///
/// # Errors
/// The one error for everything that is wrong with it.
pub fn open(keys: &KeyRing, subject: &Subject) -> Result<State, RpcError> {
    let text = subject.params.text(Key::RequestState).ok_or_else(invalid)?;
    let sealed = unseal(keys, &text).ok_or_else(invalid)?;
    let fits = *sealed.principal == *subject.principal
        && sealed.gateway == subject.gateway()
        && match &sealed.state {
            State::Parked(ticket) => {
                ticket.digest == digest(&subject.method, &subject.params) && now_seconds() < ticket.expires
            }
            State::Backend { backend, .. } => subject.backend().is_some_and(|own| own.as_str() == backend),
        };
    if fits { Ok(sealed.state) } else { Err(invalid()) }
}

/// The node that has the parked call to which a request comes back; none if it
/// is no such request, or was not made here. Who sent it is checked by the node
/// that has the call.
pub fn owner(keys: &KeyRing, params: &Params) -> Option<String> {
    let text = params.text(Key::RequestState)?;
    match unseal(keys, &text)?.state {
        State::Parked(ticket) => Some(ticket.node),
        State::Backend { .. } => None,
    }
}

/// A result in which a backend's own state is sealed; any other is the same bytes.
///
/// # Errors
/// If the state is none, or longer than what is carried.
pub fn wrap(keys: &KeyRing, subject: &Subject, result: Bytes) -> Result<Bytes, RpcError> {
    // Results may be long, and hardly any asks.
    if memchr::memmem::find(&result, HINT).is_none() || !asks(&result) {
        return Ok(result);
    }
    let Some(state) = member(&result, Key::RequestState.as_str()) else { return Ok(result) };
    let Some(backend) = subject.backend() else { return Err(invalid()) };
    let unusable = || RpcError::upstream_invalid(backend.as_str());
    let inner = text::decode(&state).filter(|inner| inner.len() <= BACKEND_STATE_BYTES_MAX);
    let inner = inner.ok_or_else(unusable)?.into_owned();
    let patch = Patch::of(&result).map_err(|_| unusable())?;
    let sealed = seal(keys, subject, State::Backend { backend: backend.to_string(), inner });
    Ok(patch.set_text(Key::RequestState.as_str(), &sealed).finish())
}

fn asks(result: &Bytes) -> bool {
    member(result, "resultType").is_some_and(|kind| text::is(&kind, "input_required"))
}

/// What was asked for: method, name or URI, arguments. The same for every way
/// to write the same; what surrounds a request (`_meta`, answers) is not in it.
pub fn digest(method: &Method, params: &Params) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(method.as_str().as_bytes());
    for key in [Key::Name, Key::Uri] {
        part(params.text(key).unwrap_or_default().as_bytes());
    }
    part(&params.arguments().map(|raw| canonical(&raw)).unwrap_or_default());
    URL_SAFE_NO_PAD.encode(hasher.finalize().as_bytes())
}

/// The same bytes for the same value, however it is written.
pub fn canonical(raw: &Bytes) -> Vec<u8> {
    match serde_json::from_slice::<Value>(raw) {
        Ok(mut value) => {
            value.sort_all_objects();
            value.to_string().into_bytes()
        }
        // Deeper than that reader goes: then only the same bytes are the same.
        Err(_) => raw.to_vec(),
    }
}

/// When a state that lasts so long from now expires.
pub fn expires_in(ttl: Duration) -> u64 {
    now_seconds() + ttl.as_secs()
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
