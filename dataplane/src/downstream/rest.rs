//! The gateway as plain HTTP and JSON, for programs that speak no MCP.
//!
//! ```text
//!  GET  /mcp/tools                  a page of the tools, or what contains ?q=
//!  GET  /mcp/tools/NAME             one of them
//!  POST /mcp/tools/NAME/execute     the body is the arguments, the answer is what the tool gives
//!  POST /mcp/call                   {"name", "arguments"} ─► the tool's result
//!  POST /mcp/call/stream            the same, with progress and log as lines before it  (lines.rs)
//!  GET  /mcp/stream                 changes and logs as events                           (events.rs)
//!  POST /mcp/logging/setLevel       of a session, or of the caller's event streams       (level.rs)
//! ```
//!
//! What is asked here becomes a call like any other (`plain.rs`). A request that
//! fails has the status of its failure and one shape of body: `{"error": {code,
//! message, data}}`.

mod events;
mod execute;
mod level;
mod lines;
mod tools;

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    body::Body,
    door::Door,
    meters::Plain as Counted,
    openapi,
    path::Plain,
    plain::{
        Talk, Wish,
        kind::{Failure, Kind},
        unasked,
    },
    post::json_body,
    reply,
};
use crate::mcp::{RpcError, meta::LogLevel, splice::Object};

/// Answers a request to one of the paths above.
pub async fn serve<B>(door: Door, operation: Plain<'_>, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let door_of = match operation {
        Plain::CallStream => Counted::Lines,
        Plain::Stream => Counted::Events,
        Plain::OpenApi | Plain::OpenApiSmart => Counted::OpenApi,
        _ => Counted::Rest,
    };
    let doors = door.doors.clone();
    let response = answer(door, operation, request).await;
    doors.meters.plain(door_of, response.status().is_success() || response.status().is_redirection());
    response
}

async fn answer<B>(door: Door, operation: Plain<'_>, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let allowed = operation.method();
    let method = request.method();
    // The server itself takes the body off what answers HEAD.
    let fits = method.as_str() == allowed || allowed == "GET" && *method == HttpMethod::HEAD;
    if !fits || *method == HttpMethod::HEAD && operation == Plain::Stream {
        return not_allowed(if operation == Plain::Stream || allowed != "GET" {
            allowed
        } else {
            "GET, HEAD"
        });
    }
    let query = Query::of(request.uri().query().unwrap_or_default());
    let answered = match operation {
        Plain::Tools => tools::list(door, &query).await,
        Plain::Tool(name) => tools::one(&door, name),
        Plain::Execute(name) => execute::run(door, name, request).await,
        Plain::Call => call(door, request).await,
        Plain::CallStream => lines::run(door, &query, request).await,
        Plain::Stream => events::open(door, &query).await,
        Plain::SetLevel => level::set(door, request).await,
        Plain::OpenApi => openapi::serve(door, request.headers(), request.uri(), openapi::Which::All).await,
        Plain::OpenApiSmart => {
            openapi::serve(door, request.headers(), request.uri(), openapi::Which::Smart).await
        }
    };
    answered.unwrap_or_else(|failure| failed(&failure))
}

/// What a request to call a tool says. The second names are those that older
/// clients use.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, alias = "tool")]
    name: Cow<'a, str>,
    #[serde(borrow, default, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl Named<'_> {
    fn wish(body: &[u8]) -> Result<Wish, Failure> {
        let named: Named<'_> = serde_json::from_slice(body).map_err(|error| {
            let why = format!(
                "the body must be a JSON object with \"name\" (a string) and \"arguments\" (an object): {error}"
            );
            Failure::of(&RpcError::invalid_params(why))
        })?;
        let arguments = named.arguments.map(|raw| raw.get().as_bytes());
        Ok(Wish::tool(&named.name, checked(arguments)?))
    }
}

/// Arguments are one object; nothing is the empty one. What follows it would
/// get into the message around it.
fn checked(arguments: Option<&[u8]>) -> Result<Option<&[u8]>, Failure> {
    let is_object = |raw: &[u8]| raw.starts_with(b"{") && serde_json::from_slice::<&RawValue>(raw).is_ok();
    match arguments {
        Some(raw) if !is_object(raw) => {
            Err(Failure::of(&RpcError::invalid_params("the arguments must be a JSON object")))
        }
        arguments => Ok(arguments),
    }
}

/// The tool's result as it is: whether it has failed is in it (`isError`).
async fn call<B>(door: Door, request: Request<B>) -> Result<Response<Body>, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    let talk = Talk::start(door, Named::wish(&body)?)?;
    let (result, _) = unasked(talk.end().await?)?;
    Ok(reply::json(StatusCode::OK, result))
}

/// The body of a POST, or how it is refused.
async fn body_of<B>(request: Request<B>) -> Result<Bytes, Response<Body>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (head, incoming) = request.into_parts();
    json_body(&head.headers, incoming).await.map_err(|(status, error)| refuse(status, &error))
}

/// A request that is not served, in the shape that errors have at these doors.
pub fn refuse(status: StatusCode, error: &RpcError) -> Response<Body> {
    let failure = Failure::of(error);
    let mut response = failed(&failure);
    *response.status_mut() = status;
    response
}

/// A response with the status of the failure.
pub fn failed(failure: &Failure) -> Response<Body> {
    let body = Object::default().set("error", &failure.error).finish();
    let mut response = reply::json(failure.kind.status(), body);
    if failure.kind.comes_again() {
        let seconds = HeaderValue::from(failure.retry_after_seconds);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// What somebody gets who is refused before the operation is looked at, in the
/// shape of these doors and with the headers of the refusal.
pub fn reshaped(refusal: Response<Body>, error: &RpcError) -> Response<Body> {
    let body = Object::default().set("error", &error.to_json()).finish();
    refusal.map(|_| Body::full(body))
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let error = RpcError::invalid_request(format!("the method of this path is {allowed}"));
    let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, &error);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// What is behind the `?` of a path.
struct Query(Vec<(String, String)>);

impl Query {
    /// Pairs that are looked at.
    const PAIRS_MAX: usize = 2_000;

    fn of(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Self(pairs.take(Self::PAIRS_MAX).map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// `?level=`
    fn level(&self) -> Result<Option<LogLevel>, Failure> {
        self.get("level").map(read_level).transpose()
    }
}

fn read_level(text: &str) -> Result<LogLevel, Failure> {
    LogLevel::parse(text).ok_or_else(|| {
        let why =
            format!("{text:?} is no level: debug, info, notice, warning, error, critical, alert, emergency");
        Failure::of(&RpcError::invalid_params(why))
    })
}

/// A name as it is written in a path.
///
/// # Errors
/// If it is no text.
fn decoded(name: &str) -> Result<Cow<'_, str>, Failure> {
    // Three characters mean something in forms and nothing in a path.
    let shielded = name.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    let pairs = url::form_urlencoded::parse(shielded.as_bytes()).next();
    match pairs {
        Some((text, _)) if text == name => Ok(Cow::Borrowed(name)),
        Some((text, _)) if !text.contains('\u{fffd}') => Ok(Cow::Owned(text.into_owned())),
        _ => Err(Failure { kind: Kind::NotFound, ..Failure::of(&RpcError::unknown_tool(name)) }),
    }
}

/// Nothing between keeps or changes what this says.
fn live(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_pass_as_they_are_written_under_either_name() {
        let body = br#" {"tool": "a\u0062", "parameters": {"n": 1.0, "s":"\u00fc"} }"#;
        let wish = Named::wish(body).unwrap();
        assert_eq!(wish.params, r#"{"name":"ab","arguments":{"n": 1.0, "s":"\u00fc"}}"#);
        let wish = Named::wish(br#"{"name":"x","arguments":null}"#).unwrap();
        assert_eq!(wish.params, r#"{"name":"x","arguments":{}}"#);
    }

    #[test]
    fn a_body_that_names_no_tool_or_two_is_refused() {
        for body in
            ["", "[]", "{}", r#"{"name":1}"#, r#"{"name":"a","tool":"b"}"#, r#"{"name":"a","arguments":[1]}"#]
        {
            assert_eq!(Named::wish(body.as_bytes()).unwrap_err().kind, Kind::Invalid, "{body}");
        }
    }

    #[test]
    fn arguments_are_one_object_and_nothing_behind_it() {
        for bad in ["[]", "{", "{} {}", "{\"a\":1},\"_meta\":{}", "1"] {
            assert!(checked(Some(bad.as_bytes())).is_err(), "{bad}");
        }
        assert_eq!(checked(Some(b"{\"a\": 1.0}")).unwrap().unwrap(), b"{\"a\": 1.0}");
        assert!(checked(None).unwrap().is_none());
    }

    #[test]
    fn names_in_paths_are_decoded_once() {
        for (path, name) in
            [("a+b", "a+b"), ("a%2Fb", "a/b"), ("%C3%BC", "ü"), ("a%2525", "a%25"), ("a=b&c", "a=b&c")]
        {
            assert_eq!(decoded(path).unwrap(), name);
        }
        assert!(decoded("%ff").is_err());
    }
}
