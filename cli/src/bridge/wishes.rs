//! What a client has asked of its session that ends with the session: told again
//! when a lost one is opened anew, for the client cannot know that it has to.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;

/// Resources that are followed again; a client that follows more must look itself.
const FOLLOWED_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub struct Wishes {
    /// Params of the last `logging/setLevel`.
    level: Option<String>,
    /// Params of `resources/subscribe`, by URI.
    followed: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Resource {
    uri: String,
}

impl Wishes {
    /// Notes a request of the client, if its effect lasts.
    pub fn note(&mut self, method: &str, params: &str) {
        let uri = || serde_json::from_str::<Resource>(params).ok().map(|resource| resource.uri);
        match method {
            "logging/setLevel" => self.level = Some(params.to_owned()),
            "resources/subscribe" => {
                if let Some(uri) = uri().filter(|_| self.followed.len() < FOLLOWED_MAX) {
                    self.followed.insert(uri, params.to_owned());
                }
            }
            "resources/unsubscribe" => {
                if let Some(uri) = uri() {
                    self.followed.remove(&uri);
                }
            }
            _ => {}
        }
    }

    /// The requests that say all of it again: their ids, and they.
    pub fn requests(&self) -> Vec<(String, Bytes)> {
        let level = self.level.iter().map(|params| ("logging/setLevel", params));
        let followed = self.followed.values().map(|params| ("resources/subscribe", params));
        let request = |(number, (method, params)): (usize, (&str, &String))| {
            let id = format!("\"mtctl-again-{number}\"");
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
            (id, body.into())
        };
        level.chain(followed).enumerate().map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_said_again_and_what_was_taken_back_is_not() {
        let mut wishes = Wishes::default();
        wishes.note("tools/list", "{}");
        wishes.note("logging/setLevel", r#"{"level":"info"}"#);
        wishes.note("logging/setLevel", r#"{"level":"debug"}"#);
        wishes.note("resources/subscribe", r#"{"uri":"a:1"}"#);
        wishes.note("resources/subscribe", r#"{"uri":"a:2"}"#);
        wishes.note("resources/unsubscribe", r#"{"uri":"a:1"}"#);
        wishes.note("resources/subscribe", "[]");
        let said: Vec<_> = wishes.requests().into_iter().map(|(_, body)| body).collect();
        assert_eq!(
            said,
            [
                r#"{"jsonrpc":"2.0","id":"mtctl-again-0","method":"logging/setLevel","params":{"level":"debug"}}"#,
                r#"{"jsonrpc":"2.0","id":"mtctl-again-1","method":"resources/subscribe","params":{"uri":"a:2"}}"#,
            ]
        );
    }
}
