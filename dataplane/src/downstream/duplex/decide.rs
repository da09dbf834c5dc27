//! What to do with a message of a conversation. Pure.
//!
//! Both eras may occur on one connection, in any order: some clients probe with
//! the one and go on with the other. So each message is classified by itself,
//! and a request without any mark of an era belongs to the session, if there is
//! one.

use crate::mcp::{
    Key, Message, Method, Notification, RawId, Request, Response, RpcError,
    meta::Meta,
    version::{LATEST_LEGACY, LATEST_MODERN},
};

/// What to do with a message.
#[derive(Debug)]
pub enum Action {
    /// Open the session.
    Open(Request),
    /// Run a call in the session.
    Legacy(Request),
    /// Run a call that stands alone.
    Modern(Request, Meta),
    /// Answer that the node is there; the session has not been opened yet.
    Pong(RawId),
    /// Cancel what has this id.
    Cancel(RawId),
    /// Take what the client tells in its session.
    Tell(Notification),
    /// Take the answer to a question.
    Answered(Response),
    Refuse(RawId, RpcError),
    /// Wants no answer, and means nothing here.
    Ignore,
}

/// Decides by the message, and by whether the connection has a session.
pub fn decide(message: Message, has_session: bool) -> Action {
    match message {
        Message::Request(request) => of_request(request, has_session),
        Message::Notification(notification) => of_notification(notification, has_session),
        // Nobody has asked, where there is no session.
        Message::Response(response) if has_session => Action::Answered(response),
        Message::Response(_) => Action::Ignore,
    }
}

fn of_request(request: Request, has_session: bool) -> Action {
    let meta = match Meta::of(&request.params) {
        Ok(meta) => meta,
        Err(error) => return Action::Refuse(request.id, error),
    };
    let only_modern = request.method.exists_in(LATEST_MODERN) && !request.method.exists_in(LATEST_LEGACY);
    match request.method {
        _ if meta.is_modern() => Action::Modern(request, meta),
        Method::Initialize => Action::Open(request),
        _ if has_session => Action::Legacy(request),
        Method::Ping => Action::Pong(request.id),
        // It lacks what every modern request must say, and is told so.
        _ if only_modern => Action::Modern(request, meta),
        _ => {
            let why = "send initialize first, or say the protocol version in params._meta";
            Action::Refuse(request.id, RpcError::invalid_request(why))
        }
    }
}

fn of_notification(notification: Notification, has_session: bool) -> Action {
    match notification.method {
        // Whose call it is, its id says.
        Method::Cancelled => notification.params.id(Key::RequestId).map_or(Action::Ignore, Action::Cancel),
        _ if has_session && !Meta::of(&notification.params).is_ok_and(|meta| meta.is_modern()) => {
            Action::Tell(notification)
        }
        _ => Action::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::mcp::Limits;

    const MODERN: &str = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#;

    fn of(text: &str, has_session: bool) -> Action {
        let message = Message::parse(Bytes::copy_from_slice(text.as_bytes()), Limits::CLIENT).unwrap();
        decide(message, has_session)
    }

    fn request(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#)
    }

    fn told(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
    }

    #[test]
    fn each_request_says_its_era_itself_whatever_came_before() {
        for has_session in [false, true] {
            assert!(matches!(of(&request("tools/call", MODERN), has_session), Action::Modern(..)));
            assert!(matches!(of(&request("server/discover", MODERN), has_session), Action::Modern(..)));
            assert!(matches!(of(&request("initialize", MODERN), has_session), Action::Modern(..)));
            assert!(matches!(of(&request("initialize", "{}"), has_session), Action::Open(_)));
        }
        assert!(matches!(of(&request("tools/call", "{}"), true), Action::Legacy(_)));
        assert!(matches!(of(&request("x/y", "{}"), true), Action::Legacy(_)));
    }

    #[test]
    fn before_a_session_only_a_ping_is_answered() {
        assert!(matches!(of(&request("ping", "{}"), false), Action::Pong(_)));
        assert!(matches!(of(&request("tools/list", "{}"), false), Action::Refuse(..)));
        assert!(matches!(of(&request("server/discover", "{}"), false), Action::Modern(..)));
        assert!(matches!(of(&told("notifications/roots/list_changed", "{}"), false), Action::Ignore));
        assert!(matches!(of(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, false), Action::Ignore));
        assert!(matches!(of(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, true), Action::Answered(_)));
    }

    #[test]
    fn a_cancellation_goes_by_the_id_alone() {
        for params in [
            r#"{"requestId":7}"#,
            r#"{"requestId":7,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#,
        ] {
            assert!(
                matches!(of(&told("notifications/cancelled", params), false), Action::Cancel(_)),
                "{params}"
            );
        }
        assert!(matches!(of(&told("notifications/cancelled", "{}"), true), Action::Ignore));
        assert!(matches!(of(&told("notifications/progress", MODERN), true), Action::Ignore));
        assert!(matches!(of(&told("notifications/progress", "{}"), true), Action::Tell(_)));
    }

    proptest! {
        #[test]
        fn every_request_gets_something_done_under_its_own_id(
            method in "[a-z/]{1,12}|initialize|ping|tools/call|server/discover|notifications/cancelled",
            modern in any::<bool>(),
            has_session in any::<bool>(),
        ) {
            let text = request(&method, if modern { MODERN } else { "{}" });
            let id = match of(&text, has_session) {
                Action::Open(request) | Action::Legacy(request) | Action::Modern(request, _) => request.id,
                Action::Pong(id) | Action::Refuse(id, _) => id,
                other => panic!("{text}: {other:?}"),
            };
            prop_assert_eq!(id, RawId::number(7));
        }
    }
}
