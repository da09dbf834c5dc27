//! A gateway's tools as an OpenAPI 3.1 description: one operation for each tool
//! that is listed, live from what is in service.
//!
//! ```text
//!  the view's list ─► tools ─► schemas that stand in one document (schema.rs)
//!                                     └─► operations (document.rs) ─► bytes, kept until the list changes
//! ```
//!
//! `openapi-smart.json` is the same within what Custom GPT Actions take: few
//! operations and short texts. Only what the list shows is described; what can
//! be called is decided by the call, not here.

mod document;
mod names;
mod schema;
pub mod shelf;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};

use self::document::Description;
use super::{body::Body, door::Door, plain::kind::Failure, reply};
use crate::mcp::text;

/// Which description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    Smart,
}

/// Whether a tool is described as answering with its structured result.
pub async fn is_structured(door: &Door, tool: &str) -> bool {
    match door.doors.shelf.set(&door.table, &door.view).await {
        Ok(set) => set.structured.contains(tool),
        Err(_) => false,
    }
}

/// Answers a request for a description.
pub async fn serve(door: Door, head: &HeaderMap, uri: &Uri, which: Which) -> Result<Response<Body>, Failure> {
    let set = door.doors.shelf.set(&door.table, &door.view).await?;
    let description = match which {
        Which::All => &set.all,
        Which::Smart => &set.smart,
    };
    let server = server(head, uri);
    let etag = etag(description, &server);
    let mut response = if is_known(head, &etag) {
        reply::empty(StatusCode::NOT_MODIFIED)
    } else {
        let url = text::encode(&server);
        reply::json(StatusCode::OK, Bytes::from([&description.before[..], &url, &description.after].concat()))
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    // It is asked for again each time, and sent again only when it has changed.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.append(header::VARY, HeaderValue::from_static("host, x-forwarded-proto"));
    Ok(response)
}

/// Where the client has reached the node: the guard has let this host through.
fn server(head: &HeaderMap, uri: &Uri) -> String {
    let host = head.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost");
    let tls = head.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https");
    format!("{}://{host}", if tls { "https" } else { "http" })
}

fn etag(description: &Description, server: &str) -> HeaderValue {
    let mut hasher = blake3::Hasher::new();
    hasher.update(description.hash.as_bytes());
    hasher.update(server.as_bytes());
    let tag = format!("\"{}\"", &hasher.finalize().to_hex()[..32]);
    HeaderValue::try_from(tag).expect("hexadecimal digits between quotes are visible ASCII")
}

/// Whether the client has it already (RFC 9110 §13.1.2).
fn is_known(head: &HeaderMap, etag: &HeaderValue) -> bool {
    let tags = head.get_all(header::IF_NONE_MATCH).iter();
    let mut tags =
        tags.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    tags.any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_where_the_client_has_come() {
        let uri = Uri::from_static("/openapi.json");
        let mut head = HeaderMap::new();
        head.insert(header::HOST, HeaderValue::from_static("tools.example:8443"));
        assert_eq!(server(&head, &uri), "http://tools.example:8443");
        head.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        assert_eq!(server(&head, &uri), "https://tools.example:8443");
        let uri = Uri::from_static("http://[::1]:80/openapi.json");
        assert_eq!(server(&HeaderMap::new(), &uri), "http://[::1]:80");
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let etag = HeaderValue::from_static("\"abc\"");
        let known = |tags: &'static str| {
            let head = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(tags))]);
            is_known(&head, &etag)
        };
        assert!(known("\"abc\"") && known("W/\"abc\"") && known("\"x\", \"abc\"") && known("*"));
        assert!(!known("\"abd\"") && !is_known(&HeaderMap::new(), &etag));
    }
}
