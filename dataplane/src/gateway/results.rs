//! The results that a node makes itself: `initialize`, `server/discover`, lists.
//!
//! Each is made once for a view and a form, when it is first asked for, and kept
//! in the view (`page.rs`): it goes with the view, and whoever is answered shares its memory.
//! That is safe because none depends on the caller: neither rules nor identities
//! decide what is listed. Once they do, only what the compiled rules prove to be
//! the same for all may stay here. What is a caller's own today is the cursor of
//! a next page, which is sealed for its principal: a page that has one is put
//! together for each answer, around entries that are kept.
//!
//! A list is held once for legacy clients, and once more as soon as a modern one
//! has asked for it.

use bytes::Bytes;

use super::{page::Page, view::GatewayView};
use crate::mcp::{
    Era, ProtocolVersion,
    meta::{self, CacheScope, ServerSaying},
    splice::Object,
    version,
};

/// How long a client may keep what a node has listed without asking again.
/// Lists follow the backends within milliseconds, and a client that listens is
/// told; one that does not is at most so far behind.
pub const LIST_TTL_MS: u64 = 5_000;

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

/// A page of a list as a whole result, with the cursor of the next page if there
/// is one.
pub fn page(view: &GatewayView, page: &Page, version: ProtocolVersion, next: Option<&str>) -> Bytes {
    page.result(version.requires_result_type().then_some(|| of_itself(view)), next)
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
