//! Which pipe serves a call: decided by who may share one, by the era, and
//! by what the client can be asked.

use std::sync::Arc;

use bytes::Bytes;
use mt_proto::resource::{ResourceName, Sharing};
use serde_json::Value;

use crate::{
    gateway::call::{Caller, Client, Scope},
    mcp::version::Era,
};

/// Capabilities that let a server ask its client something.
const ASKING: [&str; 3] = ["sampling", "elicitation", "roots"];

/// Which pipe it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PipeKey {
    pub owner: Owner,
    pub era: Era,
    /// Canonical client capabilities with which a shared legacy pipe was
    /// opened; empty where they make no difference.
    pub class: Arc<str>,
}

/// Whose calls a pipe serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    Everyone,
    Principal(Arc<str>),
    Session(Arc<str>),
    /// The node's, where clients do not share.
    Node,
    /// One call, by a number of ours.
    Call(u64),
}

impl Owner {
    /// Whether all its calls are of one client.
    pub fn is_sole(&self) -> bool {
        matches!(self, Self::Session(_) | Self::Call(_))
    }
}

/// The pipe that a client's call needs. `call` makes it unlike any other.
pub fn key(sharing: Sharing, client: &Client, call: u64) -> PipeKey {
    let owner = match (sharing, &client.scope) {
        (Sharing::Shared, _) => Owner::Everyone,
        (_, Scope::Node) => Owner::Node,
        (Sharing::PerPrincipal, _) => Owner::Principal(client.identity.principal.clone()),
        (Sharing::PerSession, Scope::Session(id)) => Owner::Session(id.clone()),
        // Nothing lasts longer than a call that has no session.
        (Sharing::PerSession | Sharing::PerCall, _) => Owner::Call(call),
    };
    let era = client.version.era();
    // A modern request brings its capabilities with it, and a sole client has
    // only the ones it has.
    let class =
        if era == Era::Modern || owner.is_sole() { "".into() } else { canonical(&client.capabilities) };
    PipeKey { owner, era, class }
}

/// Who the calls of a pipe are from.
pub struct Clients {
    /// One client only: whatever names no call is for its latest one.
    pub sole: bool,
    /// The client may be asked.
    pub asks: bool,
    /// Where messages of a sole client go that belong to no call.
    pub events: Option<Caller>,
}

/// What a pipe of this key may take for granted about its callers. None is
/// needed for a shared one.
pub fn clients(key: &PipeKey, client: Option<&Client>) -> Clients {
    let sole = key.owner.is_sole();
    let client = client.filter(|_| sole);
    let capabilities: &[u8] = client.map_or(key.class.as_bytes(), |client| &client.capabilities);
    let events = client.and_then(|client| client.events.clone());
    Clients { sole, asks: key.era == Era::Legacy && may_be_asked(capabilities), events }
}

/// The capabilities that a legacy pipe of this key is opened with.
/// None is needed for a shared one.
pub fn capabilities(key: &PipeKey, client: Option<&Client>) -> Bytes {
    let own = match client {
        Some(client) if key.owner.is_sole() => client.capabilities.clone(),
        _ => Bytes::copy_from_slice(key.class.as_bytes()),
    };
    if own.is_empty() { Bytes::from_static(b"{}") } else { own }
}

/// Whether these capabilities let a server ask its client something.
pub fn may_be_asked(capabilities: &[u8]) -> bool {
    match serde_json::from_slice(capabilities) {
        Ok(Value::Object(members)) => ASKING.iter().any(|key| members.contains_key(*key)),
        _ => false,
    }
}

/// The same text for the same capabilities, however they were written.
fn canonical(capabilities: &[u8]) -> Arc<str> {
    if matches!(capabilities.trim_ascii(), b"" | b"{}") {
        return "{}".into();
    }
    match serde_json::from_slice::<Value>(capabilities) {
        Ok(mut value @ Value::Object(_)) => {
            value.sort_all_objects();
            value.to_string().into()
        }
        _ => "{}".into(),
    }
}

/// The name under which a pipe is shown in the log.
pub fn describe(backend: &ResourceName, key: &PipeKey) -> String {
    let era = super::state::era_name(key.era);
    match &key.owner {
        Owner::Everyone => format!("{backend} ({era})"),
        Owner::Principal(_) => format!("{backend} ({era}, of one principal)"),
        Owner::Session(_) => format!("{backend} ({era}, of one session)"),
        Owner::Node => format!("{backend} ({era}, of the node)"),
        Owner::Call(_) => format!("{backend} ({era}, of one call)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::call::Identity;
    use crate::mcp::version::{LATEST_LEGACY, LATEST_MODERN, ProtocolVersion};

    fn client(scope: Scope, version: ProtocolVersion, capabilities: &'static str) -> Client {
        Client {
            identity: Identity::anonymous(),
            version,
            info: Bytes::new(),
            capabilities: Bytes::from_static(capabilities.as_bytes()),
            scope,
            events: None,
        }
    }

    fn session(id: &str) -> Scope {
        Scope::Session(id.into())
    }

    #[test]
    fn clients_that_cannot_be_asked_share_one_process() {
        let a = key(Sharing::Shared, &client(session("a"), LATEST_LEGACY, "{}"), 1);
        let b = key(Sharing::Shared, &client(session("b"), ProtocolVersion::V2025_03_26, " {} "), 2);
        let node = key(Sharing::Shared, &client(Scope::Node, LATEST_LEGACY, "{}"), 3);
        assert_eq!(a, b);
        assert_eq!(a, node);
        let clients = clients(&a, Some(&client(session("a"), LATEST_LEGACY, "{}")));
        assert!(!clients.asks && !clients.sole);
    }

    #[test]
    fn capabilities_that_say_the_same_are_the_same() {
        let one =
            client(session("a"), LATEST_LEGACY, r#"{"roots":{"listChanged":true,"x":1},"sampling":{}}"#);
        let two = client(
            session("b"),
            LATEST_LEGACY,
            r#"{ "sampling": {}, "roots": {"x":1, "listChanged": true} }"#,
        );
        let key_one = key(Sharing::Shared, &one, 1);
        assert_eq!(key_one, key(Sharing::Shared, &two, 2));
        assert!(clients(&key_one, Some(&one)).asks);
        assert_ne!(key_one, key(Sharing::Shared, &client(session("a"), LATEST_LEGACY, "{}"), 1));
    }

    #[test]
    fn settings_without_questions_do_not_make_a_process_exclusive() {
        let one = client(session("a"), LATEST_LEGACY, r#"{"extensions":{"a/b":{}}}"#);
        assert!(!clients(&key(Sharing::Shared, &one, 1), Some(&one)).asks);
    }

    #[test]
    fn modern_clients_share_whatever_they_can_do() {
        let one = client(Scope::Stateless, LATEST_MODERN, r#"{"sampling":{}}"#);
        let two = client(Scope::Stateless, LATEST_MODERN, "{}");
        let shared = key(Sharing::Shared, &one, 1);
        assert_eq!(shared, key(Sharing::Shared, &two, 2));
        assert_ne!(shared.era, key(Sharing::Shared, &client(session("a"), LATEST_LEGACY, "{}"), 3).era);
    }

    #[test]
    fn each_sharing_mode_separates_what_it_says() {
        let of = |scope, call, sharing| key(sharing, &client(scope, LATEST_LEGACY, "{}"), call).owner;
        assert_eq!(of(session("a"), 1, Sharing::PerPrincipal), of(session("b"), 2, Sharing::PerPrincipal));
        assert_ne!(of(session("a"), 1, Sharing::PerSession), of(session("b"), 2, Sharing::PerSession));
        assert_eq!(of(session("a"), 1, Sharing::PerSession), of(session("a"), 2, Sharing::PerSession));
        assert_ne!(
            of(Scope::Stateless, 1, Sharing::PerSession),
            of(Scope::Stateless, 2, Sharing::PerSession)
        );
        assert_ne!(of(session("a"), 1, Sharing::PerCall), of(session("a"), 2, Sharing::PerCall));
        assert_eq!(of(Scope::Node, 1, Sharing::PerCall), Owner::Node);
    }
}
