//! The results that a node makes itself: `initialize`, `server/discover`, lists.

use bytes::{BufMut, Bytes, BytesMut};

use super::view::{GatewayView, ListKind};
use crate::mcp::{
    Era, ProtocolVersion,
    meta::{self, CacheScope, ServerSaying},
    splice::Object,
    text,
};

/// How long a client may keep what a node has listed without asking again.
/// Lists follow the backends within milliseconds, and a client that listens is
/// told; one that does not is at most so far behind.
pub const LIST_TTL_MS: u64 = 5_000;

/// The result of `initialize`.
pub fn initialize(view: &GatewayView, version: ProtocolVersion) -> Bytes {
    let server_info = server_info(view);
    meta::initialize_result(version, saying(view, Era::Legacy, &server_info))
}

/// The result of `server/discover`.
pub fn discover(view: &GatewayView) -> Bytes {
    let server_info = server_info(view);
    let saying = saying(view, Era::Modern, &server_info);
    // Lists are the same for every caller, until rules make them differ.
    meta::discover_result(view.versions(), saying, LIST_TTL_MS, CacheScope::Public)
}

/// One page of a list.
pub fn list(
    version: ProtocolVersion,
    view: &GatewayView,
    kind: ListKind,
    entries: &Bytes,
    next: Option<&str>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(entries.len() + 512);
    out.put_slice(b"{\"");
    out.put_slice(kind.member().as_bytes());
    out.put_slice(b"\":");
    out.put_slice(entries);
    if let Some(next) = next {
        out.put_slice(b",\"nextCursor\":");
        out.put_slice(&text::encode(next));
    }
    if version.requires_result_type() {
        let rest = Object::default()
            .set_text("resultType", "complete")
            .set("ttlMs", LIST_TTL_MS.to_string().as_bytes())
            .set_text("cacheScope", CacheScope::Public.as_str())
            .set("_meta", &meta::server_meta(&server_info(view)))
            .finish();
        out.put_u8(b',');
        out.put_slice(&rest[1..]);
    } else {
        out.put_u8(b'}');
    }
    out.freeze()
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
