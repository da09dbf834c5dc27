//! Who may talk to a node at all, before anything of the request is looked at.
//!
//! A page in a browser can make it send requests to `127.0.0.1`, or to a name
//! that an attacker's DNS points there. So `Host` must be a name of this node
//! and `Origin`, where a browser sends one, a page that may use it.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};

use super::{body::Body, door::DoorOptions, reply};
use crate::mcp::RpcError;

/// What a page may send of its own will.
const ALLOWED_HEADERS: &str = "content-type, accept, authorization, x-api-key, last-event-id, mcp-session-id, \
                               mcp-protocol-version, mcp-method, mcp-name";
/// Names that a browser asks for, looked at.
const ASKED_HEADERS_MAX: usize = 64;
/// How long a browser need not ask again; most keep it no longer than two hours.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("7200");

/// Refuses foreign hosts and origins. Gives back the origin that CORS must name.
///
/// # Errors
/// What the client is told, with HTTP 403.
pub fn check(options: &DoorOptions, headers: &HeaderMap, uri: &Uri) -> Result<Option<HeaderValue>, RpcError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next(), uri.authority()) {
        // HTTP/2 has the authority in its head; an absolute URI names it too.
        (None, _, Some(authority)) => authority.as_str(),
        (Some(host), None, None) => host.to_str().unwrap_or_default(),
        (Some(host), None, Some(authority)) if host.as_bytes() == authority.as_str().as_bytes() => {
            authority.as_str()
        }
        _ => return Err(refused("the request must have one Host")),
    };
    if !allowed(host_name(host), &options.allowed_hosts) {
        return Err(refused("this Host is not served here; a node's --allow-host names more"));
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let local = text.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && is_loopback(host_name(authority))
    });
    let listed = options.allowed_origins.iter().any(|allowed| allowed == "*" || allowed == text);
    if origins.next().is_some() || !(local || listed) {
        return Err(RpcError::origin_refused());
    }
    Ok(Some(origin.clone()))
}

/// Answers a browser that asks what it may send; it shows no credentials with
/// that. Only for an origin that was let through.
pub fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(asked));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

/// What is always allowed, and the protocol's own that a page asks for: their
/// names follow from a tool's schema (`Mcp-Param-*`), and no pattern can be given.
fn allowed_headers(asked: &HeaderMap) -> HeaderValue {
    let asked = asked.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut allowed = ALLOWED_HEADERS.to_owned();
    for name in names.take(ASKED_HEADERS_MAX) {
        // Only what is a name: the text goes into our answer.
        let Ok(name) = HeaderName::from_bytes(name.trim().as_bytes()) else { continue };
        if name.as_str().starts_with("mcp-") {
            allowed.push_str(", ");
            allowed.push_str(name.as_str());
        }
    }
    HeaderValue::try_from(allowed).expect("names of headers and commas are visible ASCII")
}

/// Lets the page that asked read the answer. Cookies are never allowed: with
/// them any page could call as the one who is logged in.
pub fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("mcp-session-id, mcp-protocol-version, www-authenticate, retry-after"),
    );
}

fn refused(why: &'static str) -> RpcError {
    RpcError::invalid_request(why)
}

/// Without the port. Empty if the text is no authority.
fn host_name(authority: &str) -> &str {
    if authority.contains(['@', '/', '\\', ' ', '?', '#']) {
        return "";
    }
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((_, "")) => return authority,
            Some((name, port)) => (&authority[..name.len() + 2], port.strip_prefix(':')),
            None => return "",
        },
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => return authority,
        },
    };
    let digits = |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    if port.is_some_and(digits) { name } else { "" }
}

fn allowed(name: &str, listed: &[String]) -> bool {
    !name.is_empty() && (is_loopback(name) || listed.iter().any(|l| l == "*" || l.eq_ignore_ascii_case(name)))
}

fn is_loopback(name: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| local.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &str, origin: Option<&str>, options: &DoorOptions) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        check(options, &headers, &Uri::from_static("/mcp")).is_ok()
    }

    #[test]
    fn only_loopback_and_listed_hosts_are_served() {
        let options = DoorOptions { allowed_hosts: vec!["mcp.example".into()], ..DoorOptions::default() };
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:3001", "[::1]", "[::1]:3001", "mcp.example:443"] {
            assert!(verdict(host, None, &options), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.",
            "localhost.evil",
            "127.0.0.1.evil",
            "[::ffff:127.0.0.1]",
            "localhost:1@evil",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "[::1",
            "[::1]x",
            "",
            "user@localhost",
            "0.0.0.0",
            "127.0.0.2",
        ] {
            assert!(!verdict(host, None, &options), "{host}");
        }
    }

    #[test]
    fn only_local_and_listed_pages_may_ask() {
        let options =
            DoorOptions { allowed_origins: vec!["https://ui.example".into()], ..DoorOptions::default() };
        for origin in ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:80", "https://ui.example"]
        {
            assert!(verdict("localhost", Some(origin), &options), "{origin}");
        }
        for origin in [
            "null",
            "http://evil.example",
            "https://ui.example:444",
            "http://localhost.evil",
            "file://localhost",
            "http://localhost@evil",
            "localhost",
            "",
            "http://localhost/x",
        ] {
            assert!(!verdict("localhost", Some(origin), &options), "{origin}");
        }
    }

    #[test]
    fn a_page_may_send_the_protocols_headers_and_no_others() {
        let mut asked = HeaderMap::new();
        let names = "mcp-param-city, x-evil, Mcp-Param-Zip ,content-type, mcp-bad name";
        asked.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static(names));
        let response = preflight(&asked);
        let header = |name| response.headers().get(name).unwrap().to_str().unwrap();
        let allowed = header(header::ACCESS_CONTROL_ALLOW_HEADERS);
        assert_eq!(allowed, format!("{ALLOWED_HEADERS}, mcp-param-city, mcp-param-zip"));
        assert_eq!(header(header::ACCESS_CONTROL_MAX_AGE), "7200");
        assert_eq!(header(header::ACCESS_CONTROL_ALLOW_METHODS), "GET, POST, DELETE");
        assert!(response.headers().get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS).is_none());
    }

    #[test]
    fn an_answer_names_the_page_that_may_read_it() {
        let mut headers = HeaderMap::new();
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        allow_origin(&mut headers, HeaderValue::from_static("http://localhost:1"));
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:1");
        assert_eq!(headers.get_all(header::VARY).iter().count(), 2);
        assert!(headers.get(header::ACCESS_CONTROL_ALLOW_CREDENTIALS).is_none());
    }

    #[test]
    fn two_hosts_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(check(&DoorOptions::default(), &headers, &Uri::from_static("/mcp")).is_err());
    }
}
