//! A backend behind a URL, and what a node shows to be let in.

use std::{collections::BTreeSet, time::Duration};

use super::{Sharing, TIMEOUT_MIN, Value, check_sharing};
use crate::{
    pb::resource as pb,
    resource::{
        check::{Checker, quoted},
        problem::closest,
    },
};

const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const URL_BYTES_MAX: usize = 8192;

/// The protocol's own, by which it means something else than the operator
/// could, and those that belong to one connection (RFC 9110 §7.6.1).
const HEADERS_REFUSED: [&str; 21] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "last-event-id",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "traceparent",
    "tracestate",
    "baggage",
];

/// What the transports behind a URL differ in, when they are written down.
pub(super) struct RemoteKind {
    field: &'static str,
    schemes: [&'static str; 2],
    example: &'static str,
    /// Whether clients may share a connection.
    shares: bool,
}

pub(super) const STREAMABLE: RemoteKind = RemoteKind {
    field: "http",
    schemes: ["http", "https"],
    example: "https://mcp.example.com/mcp",
    shares: false,
};
pub(super) const SSE: RemoteKind = RemoteKind {
    field: "sse",
    schemes: ["http", "https"],
    example: "https://mcp.example.com/sse",
    shares: true,
};
pub(super) const WEBSOCKET: RemoteKind = RemoteKind {
    field: "websocket",
    schemes: ["ws", "wss"],
    example: "wss://mcp.example.com/ws",
    shares: true,
};

/// A server behind a URL.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTransport {
    pub url: url::Url,
    pub headers: Vec<Header>,
    pub connect_timeout: Duration,
    pub auth: Option<BackendAuth>,
    /// Of connections; over streamable HTTP it says nothing.
    pub sharing: Sharing,
}

/// A header of the operator's; never one of the protocol's.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Lower case.
    pub name: String,
    pub value: Value,
}

/// What a node shows to be let in.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendAuth {
    /// `Authorization: Bearer ...`.
    Bearer(Value),
    ApiKey(Header),
    Query(QueryParameter),
    ClientCredentials(ClientCredentials),
}

/// A parameter of a URL's query.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryParameter {
    pub name: String,
    pub value: Value,
}

/// How a token is fetched: OAuth 2.1 client credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientCredentials {
    pub token_url: url::Url,
    pub client_id: String,
    pub client_secret: Value,
    pub scopes: Vec<String>,
    /// None: the backend's URL.
    pub resource: Option<String>,
    pub audience: Option<String>,
}

pub(super) fn check(
    checker: &mut Checker<'_>,
    http: &pb::HttpTransport,
    kind: &RemoteKind,
) -> Option<HttpTransport> {
    let spec = format!("spec.{}", kind.field);
    let url = check_url(checker, kind, &http.url);
    let mut seen = BTreeSet::new();
    let mut headers = Vec::with_capacity(http.headers.len());
    for (i, header) in http.headers.iter().enumerate() {
        let path = format!("{spec}.headers[{i}]");
        let name = header.name.to_ascii_lowercase();
        check_header_name(checker, &format!("{path}.name"), &name);
        if !seen.insert(name.clone()) {
            checker
                .problem(&format!("{path}.name"), format!("header {} is in the list twice", quoted(&name)));
        }
        let path = format!("{path}.value");
        if let Some(value) = checker.value(&path, header.value.as_ref()) {
            check_header_value(checker, &path, &value);
            headers.push(Header { name, value });
        }
    }
    let connect_timeout = checker.duration(
        &format!("{spec}.connectTimeout"),
        http.connect_timeout.as_ref(),
        TIMEOUT_MIN..=CONNECT_TIMEOUT_MAX,
        CONNECT_TIMEOUT_DEFAULT,
    );
    if !kind.shares && http.sharing != 0 {
        let hint = "leave it out: over streamable HTTP each client has a session of its own";
        checker.problem_with_hint(&format!("{spec}.sharing"), "nothing is shared over streamable HTTP", hint);
    }
    let sharing = check_sharing(checker, &format!("{spec}.sharing"), http.sharing);
    let auth = http.auth.as_ref().and_then(|auth| check_auth(checker, &format!("{spec}.auth"), auth));
    Some(HttpTransport { url: url?, headers, connect_timeout, auth, sharing })
}

fn check_url(checker: &mut Checker<'_>, kind: &RemoteKind, text: &str) -> Option<url::Url> {
    let path = &*format!("spec.{}.url", kind.field);
    let [plain, secure] = kind.schemes;
    let example = &*format!("for example `{}`", kind.example);
    if text.is_empty() {
        checker.problem_with_hint(path, "the url is missing", example);
        return None;
    }
    if text.len() > URL_BYTES_MAX {
        checker.problem(path, format!("the url is longer than {URL_BYTES_MAX} bytes"));
        return None;
    }
    let url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            checker.problem_with_hint(path, format!("{} is not a url: {error}", quoted(text)), example);
            return None;
        }
    };
    if url.scheme() != plain && url.scheme() != secure {
        let hint = match closest(url.scheme(), kind.schemes) {
            Some(near) => format!("did you mean `{near}://`?"),
            None => example.to_owned(),
        };
        checker.problem_with_hint(
            path,
            format!("the url starts with {:?}, it must be {plain} or {secure}", url.scheme()),
            hint,
        );
    } else if url.host_str().is_none_or(str::is_empty) {
        checker.problem_with_hint(path, "the url names no host", example);
    } else if !url.username().is_empty() || url.password().is_some() {
        let hint = "send it as a header: `headers: [{name: Authorization, value: {secret: ...}}]`";
        checker.problem_with_hint(path, "the url holds a user or a password, which would not be sent", hint);
    }
    Some(url)
}

/// Whether a header, in lower case, is one that the operator cannot set.
pub fn is_protocol_header(name: &str) -> bool {
    HEADERS_REFUSED.contains(&name) || name.starts_with("mcp-")
}

fn check_header_name(checker: &mut Checker<'_>, path: &str, name: &str) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        checker.problem(path, format!("{} is not the name of a header", quoted(name)));
    } else if is_protocol_header(name) {
        let hint = "leave it out; the node sends it as the protocol asks";
        checker.problem_with_hint(path, format!("header {name:?} is the protocol's own"), hint);
    }
}

fn check_header_value(checker: &mut Checker<'_>, path: &str, value: &Value) {
    if let Value::Text(text) = value
        && text.bytes().any(|b| (b < b' ' && b != b'\t') || b >= 0x7f)
    {
        checker.problem(path, "the value of a header is printable ASCII");
    }
}

fn check_auth(checker: &mut Checker<'_>, path: &str, auth: &pb::BackendAuth) -> Option<BackendAuth> {
    match &auth.method {
        Some(pb::backend_auth::Method::Bearer(value)) => {
            let path = format!("{path}.bearer");
            let value = checker.value(&path, Some(value))?;
            check_header_value(checker, &path, &value);
            Some(BackendAuth::Bearer(value))
        }
        Some(pb::backend_auth::Method::ApiKey(header)) => {
            let path = format!("{path}.apiKey");
            let name = header.name.to_ascii_lowercase();
            check_header_name(checker, &format!("{path}.name"), &name);
            let path = format!("{path}.value");
            let value = checker.value(&path, header.value.as_ref())?;
            check_header_value(checker, &path, &value);
            Some(BackendAuth::ApiKey(Header { name, value }))
        }
        Some(pb::backend_auth::Method::Query(parameter)) => {
            let path = format!("{path}.query");
            if parameter.name.is_empty() {
                checker.problem(&format!("{path}.name"), "the name of the parameter is missing");
            }
            let value = checker.value(&format!("{path}.value"), parameter.value.as_ref())?;
            Some(BackendAuth::Query(QueryParameter { name: parameter.name.clone(), value }))
        }
        Some(pb::backend_auth::Method::ClientCredentials(credentials)) => {
            check_credentials(checker, &format!("{path}.clientCredentials"), credentials)
                .map(BackendAuth::ClientCredentials)
        }
        None => {
            let hint = "one of `bearer`, `apiKey`, `query`, `clientCredentials`";
            checker.problem_with_hint(path, "nothing says what is shown to the backend", hint);
            None
        }
    }
}

fn check_credentials(
    checker: &mut Checker<'_>,
    path: &str,
    credentials: &pb::ClientCredentials,
) -> Option<ClientCredentials> {
    let token_url = checker.secure_url(&format!("{path}.tokenUrl"), &credentials.token_url);
    if credentials.client_id.is_empty() {
        checker.problem(&format!("{path}.clientId"), "the id of the client is missing");
    }
    let secret = checker.value(&format!("{path}.clientSecret"), credentials.client_secret.as_ref());
    for (i, scope) in credentials.scopes.iter().enumerate() {
        // RFC 6749, section 3.3.
        if scope.is_empty() || scope.bytes().any(|b| !(0x21..0x7f).contains(&b) || b == b'"' || b == b'\\') {
            checker.problem(&format!("{path}.scopes[{i}]"), format!("{} is not a scope", quoted(scope)));
        }
    }
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(ClientCredentials {
        token_url: token_url?,
        client_id: credentials.client_id.clone(),
        client_secret: secret?,
        scopes: credentials.scopes.clone(),
        resource: given(&credentials.resource),
        audience: given(&credentials.audience),
    })
}
