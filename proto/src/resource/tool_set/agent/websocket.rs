//! Settings of the WebSocket agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A conversation over a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocket {
    pub url: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<WebSocket> {
    let url = fields.template("url");
    if url.is_none() {
        fields.missing("url", "for example `url: wss://api.example.com/feed`");
    }
    Some(WebSocket { url: url? })
}
