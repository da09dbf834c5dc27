//! The results that a node makes itself: `initialize`, `server/discover`, lists.
//!
//! Each is made once for a view and a form, when it is first asked for, and kept
//! in the view: it goes with the view, and whoever is answered shares its memory.
//! That is safe because none depends on the caller: neither rules nor identities
//! decide what is listed. Once they do, only what the compiled rules prove to be
//! the same for all may stay here. What is a caller's own today is the cursor of
//! a next page, which is sealed for its principal: a page that has one is put
//! together for each answer, around entries that are kept.
//!
//! A list is held once for legacy clients, and once more as soon as a modern one
//! has asked for it.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use super::view::{GatewayView, ListKind};
use crate::mcp::{
    Era, ProtocolVersion,
    meta::{self, CacheScope, ServerSaying},
    splice::Object,
    text, version,
};

/// How long a client may keep what a node has listed without asking again.
/// Lists follow the backends within milliseconds, and a client that listens is
/// told; one that does not is at most so far behind.
pub const LIST_TTL_MS: u64 = 5_000;

/// What clients hear before they list anything.
#[derive(Debug, Default)]
pub struct Greetings {
    /// As [`version::LEGACY`] has them.
    initialize: [OnceLock<Bytes>; version::LEGACY.len()],
    discover: OnceLock<Bytes>,
}

/// The result of `initialize`.
pub fn initialize(view: &GatewayView, version: ProtocolVersion) -> Bytes {
    let make = || meta::initialize_result(version, saying(view, Era::Legacy, &server_info(view)));
    match version::LEGACY.iter().position(|legacy| *legacy == version) {
        Some(at) => view.greetings.initialize[at].get_or_init(make).clone(),
        None => make(),
    }
}

/// The result of `server/discover`.
pub fn discover(view: &GatewayView) -> Bytes {
    let make = || {
        let server_info = server_info(view);
        let saying = saying(view, Era::Modern, &server_info);
        meta::discover_result(view.versions(), saying, LIST_TTL_MS, CacheScope::Public)
    };
    view.greetings.discover.get_or_init(make).clone()
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// `{"tools":[…]}`: a whole result for those that want no type of it.
    plain: Bytes,
    /// The array in it.
    entries: Bytes,
    /// The same with what a result says of itself.
    typed: OnceLock<Bytes>,
}

impl Page {
    /// A page of a kind of entries, each a JSON object.
    pub fn new(kind: ListKind, entries: &[&Bytes]) -> Self {
        let length = entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
        let mut out = BytesMut::with_capacity(length + kind.member().len() + 8);
        out.put_slice(b"{\"");
        out.put_slice(kind.member().as_bytes());
        out.put_slice(b"\":");
        let start = out.len();
        out.put_u8(b'[');
        for (i, entry) in entries.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            out.put_slice(entry);
        }
        out.put_u8(b']');
        let end = out.len();
        out.put_u8(b'}');
        let plain = out.freeze();
        Self { entries: plain.slice(start..end), plain, typed: OnceLock::new() }
    }

    /// A JSON array.
    pub fn entries(&self) -> &Bytes {
        &self.entries
    }

    /// The whole result, with the cursor of the next page if there is one.
    pub fn result(&self, version: ProtocolVersion, view: &GatewayView, next: Option<&str>) -> Bytes {
        match (version.requires_result_type(), next) {
            (false, None) => self.plain.clone(),
            (true, None) => self.typed.get_or_init(|| self.joined(None, &of_itself(view))).clone(),
            (false, Some(next)) => self.joined(Some(next), b"}"),
            (true, Some(next)) => self.joined(Some(next), &of_itself(view)),
        }
    }

    fn joined(&self, next: Option<&str>, end: &[u8]) -> Bytes {
        let next = next.map(text::encode);
        let open = &self.plain[..self.plain.len() - 1];
        let mut out = Vec::with_capacity(open.len() + next.as_ref().map_or(0, |n| n.len() + 16) + end.len());
        out.extend_from_slice(open);
        if let Some(next) = next {
            out.extend_from_slice(b",\"nextCursor\":");
            out.extend_from_slice(&next);
        }
        out.extend_from_slice(end);
        out.into()
    }
}

/// What a list says of itself: the end of the result, from a comma on.
fn of_itself(view: &GatewayView) -> Vec<u8> {
    let said = Object::default()
        .set_text("resultType", "complete")
        .set("ttlMs", LIST_TTL_MS.to_string().as_bytes())
        .set_text("cacheScope", CacheScope::Public.as_str())
        .set("_meta", &meta::server_meta(&server_info(view)))
        .finish();
    let mut end = vec![b','];
    end.extend_from_slice(&said[1..]);
    end
}

/// The result of `completion/complete` where there is nothing to suggest.
pub fn no_completion(version: ProtocolVersion) -> Bytes {
    let result = Object::default().set("completion", &b"{\"values\":[],\"total\":0,\"hasMore\":false}"[..]);
    if version.requires_result_type() { result.set_text("resultType", "complete") } else { result }.finish()
}

fn saying<'a>(view: &'a GatewayView, era: Era, server_info: &'a [u8]) -> ServerSaying<'a> {
    ServerSaying {
        capabilities: view.capabilities(era),
        server_info,
        instructions: view.instructions.as_deref(),
    }
}

/// `serverInfo` of the gateway.
fn server_info(view: &GatewayView) -> Bytes {
    Object::default()
        .set_text("name", "magictunnel")
        .set_text("title", &view.title)
        .set_text("version", env!("CARGO_PKG_VERSION"))
        .finish()
}
