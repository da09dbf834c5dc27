//! What a session has asked for that lasts: its log level, the resources that
//! it follows. Said again to a session that takes the place of a lost one. Pure.

use bytes::Bytes;
use indexmap::IndexMap;

use crate::{
    gateway::call::SUBSCRIBED_URIS_MAX,
    mcp::{Key, Method, Params, RawId, Request},
};

/// What lasts.
#[derive(Debug, Default)]
pub struct Standing {
    level: Option<Params>,
    /// By the raw text of the URI.
    followed: IndexMap<Bytes, Params>,
}

impl Standing {
    /// Notes a request that has been granted.
    pub fn granted(&mut self, request: &Request) {
        let uri = || request.params.get(Key::Uri);
        match request.method {
            Method::SetLevel => self.level = Some(request.params.clone()),
            Method::ResourcesSubscribe if self.followed.len() < SUBSCRIBED_URIS_MAX => {
                if let Some(uri) = uri() {
                    self.followed.insert(uri, request.params.clone());
                }
            }
            Method::ResourcesUnsubscribe => {
                if let Some(uri) = uri() {
                    self.followed.shift_remove(&uri);
                }
            }
            _ => {}
        }
    }

    /// The requests that ask for all of it again, with ids that no client has.
    pub fn again(&self, prefix: &str) -> Vec<Request> {
        let level = self.level.iter().map(|params| (Method::SetLevel, params));
        let followed = self.followed.values().map(|params| (Method::ResourcesSubscribe, params));
        level
            .chain(followed)
            .enumerate()
            .map(|(number, (method, params))| Request {
                id: RawId::text(&format!("{prefix}.{number}")),
                method,
                params: params.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Message};

    fn request(method: &str, params: &str) -> Request {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        match Message::parse(text.into(), Limits::CLIENT).unwrap() {
            Message::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_asked_last_is_asked_again() {
        let mut standing = Standing::default();
        for (method, params) in [
            ("logging/setLevel", r#"{"level":"debug"}"#),
            ("resources/subscribe", r#"{"uri":"a:1"}"#),
            ("resources/subscribe", r#"{"uri":"a:2"}"#),
            ("logging/setLevel", r#"{"level":"error"}"#),
            ("resources/unsubscribe", r#"{"uri":"a:1"}"#),
            ("tools/call", r#"{"name":"x"}"#),
        ] {
            standing.granted(&request(method, params));
        }
        let again = standing.again("p");
        let said: Vec<_> = again.iter().map(|r| (r.id.to_string(), r.method.as_str().to_owned())).collect();
        assert_eq!(
            said,
            [("\"p.0\"".into(), "logging/setLevel".into()), ("\"p.1\"".into(), "resources/subscribe".into())]
        );
        assert_eq!(again[0].params.object(), r#"{"level":"error"}"#);
        assert_eq!(again[1].params.text(Key::Uri).unwrap(), "a:2");
    }
}
