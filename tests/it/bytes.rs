//! Payloads leave as the bytes that came, and what could be read in two ways, or
//! is too much, is refused with its place.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::fixture::{Fixture, Mode};
use crate::manifest::{backend, gateway, over_http, plain_gateway};
use crate::raw::{Session, http, modern, shows_tool};

const LEGACY: &str = "2025-11-25";
const MIB: usize = 1 << 20;

/// What no typed model keeps: spacing, spelling of numbers and texts, order, unknown members.
const ARGUMENTS: &str = r#"{ "n":12345678901234567890123 ,"f":1.0E+2,"g":1e400,"e":"\u00e9\/\ud83d\ude00 <>&\u2028","z":[ 1,{"a":null}],"a":{}}"#;
const RESULT: &str = r#"{"content":[ {"type":"text","text":"\u00e9\/ \ud83d\ude00","annotations":{"x-new":9007199254740993}},{"type":"x-unknown","blob":[1.50,-0]} ],"resultType":"complete","x-more":{"n":1E400}, "isError":false}"#;
const TOOL: &str = r#"{"name":"bytes","x-unknown":{"n":1.0},"inputSchema":{"type":"object","properties":{"f":{"const":1.0E+2}}},"description":"\u00e9\/"}"#;

/// A backend that says what it is told to say, and keeps what it was sent.
struct Scripted {
    url: String,
    calls: Arc<Mutex<Vec<Bytes>>>,
    _serving: JoinSet<()>,
}

impl Scripted {
    async fn start() -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let kept = calls.clone();
        let router = Router::new().route("/mcp", post(move |body: Bytes| async move { answer(&kept, body) }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, calls, _serving: serving }
    }

    /// The last call, as it came.
    fn last_call(&self) -> String {
        String::from_utf8(self.calls.lock().last().expect("a call came").to_vec()).unwrap()
    }
}

fn answer(calls: &Mutex<Vec<Bytes>>, body: Bytes) -> Response {
    #[derive(serde::Deserialize)]
    struct Asked<'a> {
        #[serde(borrow)]
        id: Option<&'a serde_json::value::RawValue>,
        method: &'a str,
    }
    let asked: Asked<'_> = serde_json::from_slice(&body).unwrap();
    let Some(id) = asked.id else { return StatusCode::ACCEPTED.into_response() };
    let result = match asked.method {
        "initialize" => {
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#
                .to_owned()
        }
        "server/discover" => {
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}"#
                .to_owned()
        }
        "tools/list" => format!(r#"{{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[{TOOL}]}}"#),
        "tools/call" => {
            calls.lock().push(body.clone());
            RESULT.to_owned()
        }
        _ => {
            let error = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"no"}}}}"#);
            return (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], error).into_response();
        }
    };
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

#[tokio::test]
async fn payloads_pass_byte_for_byte_in_both_eras() {
    let scripted = Scripted::start().await;
    let cluster = Cluster::start(1).await;
    let pinned = |name: &str| {
        backend(name, &json!({"http": {"url": scripted.url}, "protocol": name}))
            + &gateway(name, &json!({"members": [{"backend": name}]}))
    };
    cluster.apply(&(pinned("legacy") + &pinned("modern"))).await;
    let url = |name: &str| cluster.nodes[0].url(name);
    shows_tool(&url("legacy"), "legacy_bytes").await;
    shows_tool(&url("modern"), "modern_bytes").await;

    let session = Session::open(&url("legacy"), LEGACY, json!({})).await;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"\u00e9","method":"tools/call","params":{{"x-new":{{"k":1e400}},"name":"legacy_bytes","arguments":{ARGUMENTS}}}}}"#
    );
    let request = session.post(&Value::Null).body(body);
    let response = request.send().await.unwrap().text().await.unwrap();
    assert_eq!(response, format!(r#"{{"jsonrpc":"2.0","id":"\u00e9","result":{RESULT}}}"#));
    let sent = scripted.last_call();
    assert!(sent.contains(ARGUMENTS) && sent.contains(r#""x-new":{"k":1e400}"#), "{sent}");
    assert!(sent.contains(r#""name":"bytes""#), "{sent}");

    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"x":1.0}"#;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{{"name":"modern_bytes","_meta":{meta},"arguments":{ARGUMENTS}}}}}"#
    );
    let request = modern(&url("modern"), 1, "tools/call", json!({"name": "modern_bytes"})).body(body);
    let response = request.send().await.unwrap().text().await.unwrap();
    assert_eq!(response, format!(r#"{{"jsonrpc":"2.0","id":9007199254740993,"result":{RESULT}}}"#));
    let sent = scripted.last_call();
    assert!(sent.contains(ARGUMENTS) && sent.contains(meta), "{sent}");

    let listed =
        modern(&url("modern"), 1, "tools/list", json!({})).send().await.unwrap().text().await.unwrap();
    assert!(listed.contains(&TOOL.replace("bytes", "modern_bytes")), "{listed}");
}

/// Posts a body to a session and gives the status and the error.
async fn post_raw(session: &Session, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let response = session.post(&Value::Null).body(body).send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str::<Value>(&text).unwrap_or_default()["error"].clone())
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_with_its_place() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    let url = cluster.nodes[0].url("default");
    let session = Session::open(&url, LEGACY, json!({})).await;
    let ping = |rest: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping"{rest}}}"#);
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        ping(&format!(r#","params":{{"a":{open}{close}}}"#))
    };
    assert_eq!(post_raw(&session, ping("")).await, (200, Value::Null));
    assert_eq!(post_raw(&session, nested(60)).await, (200, Value::Null));
    let refused = [
        (nested(100), -32700),
        (String::new(), -32700),
        ("{".into(), -32700),
        ("\u{feff}{}".into(), -32700),
        (ping("") + "x", -32700),
        (ping("").replace("ping", "pi\nng"), -32700),
        (ping(r#","method":"tools/list""#), -32600),
        (ping(r#","id":2"#), -32600),
        (ping(r#","params":{"name":"a","name":"b"}"#), -32600),
        (ping(r#","Method":"tools/list""#), -32600),
        (ping("").replace("\"id\":1", "\"id\":null"), -32600),
        (ping("").replace("\"id\":1", "\"id\":1.5"), -32600),
        (ping("").replace("2.0", "1.0"), -32600),
        ("1".into(), -32600),
    ];
    for (body, code) in refused {
        let (status, error) = post_raw(&session, body.clone()).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains("at byte "), "{body}: {error}");
    }
    let text = http().post(&url).headers(session.headers.clone()).header("content-type", "text/plain");
    assert_eq!(text.body(ping("")).send().await.unwrap().status(), 415);
}

#[tokio::test]
async fn a_body_of_4_mib_passes_and_a_longer_one_does_not() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "echo").await;
    let session = Session::open(&url, LEGACY, json!({})).await;
    let sized = |bytes: usize| {
        let body = |text: &str| {
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": "echo", "arguments": {"text": text}}})
            .to_string()
        };
        body(&"x".repeat(bytes - body("").len()))
    };
    let largest = sized(4 * MIB);
    assert_eq!(largest.len(), 4 * MIB);
    assert_eq!(post_raw(&session, largest).await, (200, Value::Null));
    let (status, error) = post_raw(&session, sized(4 * MIB + 1)).await;
    assert_eq!((status, &error["code"]), (413, &json!(-31012)), "{error}");
    // Nobody says beforehand how long a stream is: it is cut off at the limit too.
    let chunks = (0..5).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; MIB])));
    let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    assert_eq!(post_raw(&session, stream).await.0, 413);
}

#[tokio::test]
async fn only_one_revision_has_batches() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    cluster.apply(&(over_http("fixture", fixture.url()) + &plain_gateway("default", "fixture"))).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "echo").await;
    let call = |id: Value, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let echo = json!({"name": "echo", "arguments": {"text": "batched"}});
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let batch = json!([call(json!("a"), "ping", json!({})), progress, call(json!(2), "tools/call", echo)]);

    let session = Session::open(&url, "2025-03-26", json!({})).await;
    let response = session.post(&batch).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut answers: Vec<Value> = response.json().await.unwrap();
    answers.sort_by_key(|answer| answer["id"].is_string());
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0]["result"]["content"][0]["text"], "batched");
    assert_eq!((&answers[1]["id"], &answers[1]["result"]), (&json!("a"), &json!({})));
    assert_eq!(session.post(&json!([progress])).send().await.unwrap().status(), 202);

    let params = json!({"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let initialize = json!([call(json!(1), "initialize", params)]);
    let answered: Value = session.post(&initialize).send().await.unwrap().json().await.unwrap();
    let error = answered.get("error").or_else(|| answered[0].get("error"));
    assert!(error.is_some(), "a batch opens no session: {answered}");
    assert_eq!(http().post(&url).json(&initialize).send().await.unwrap().status(), 400);
    let many: Vec<Value> = (0..101).map(|id| call(json!(id), "ping", json!({}))).collect();
    for bad in [json!([]), json!(many)] {
        assert_eq!(session.post(&bad).send().await.unwrap().status(), 400);
    }
    for version in ["2025-06-18", LEGACY] {
        let session = Session::open(&url, version, json!({})).await;
        let (status, error) = post_raw(&session, batch.to_string()).await;
        assert_eq!((status, &error["code"]), (400, &json!(-32600)), "{version}: {error}");
    }
}

#[tokio::test]
async fn a_session_ends_when_the_client_says_so_and_is_good_for_one_gateway() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    let text = over_http("fixture", fixture.url())
        + &plain_gateway("default", "fixture")
        + &plain_gateway("other", "fixture");
    cluster.apply(&text).await;
    let url = cluster.nodes[0].url("default");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let session = Session::open(&url, LEGACY, json!({})).await;
    let status = async |session: &Session| session.post(&ping).send().await.unwrap().status().as_u16();
    assert_eq!(status(&session).await, 200);

    let mut stolen = Session::open(&url, LEGACY, json!({})).await;
    stolen.url = cluster.nodes[0].url("other");
    assert_eq!(status(&stolen).await, 404, "it was opened at another gateway");
    let mut forged = Session::open(&url, LEGACY, json!({})).await;
    forged.headers.insert("mcp-session-id", "forged".parse().unwrap());
    assert_eq!(status(&forged).await, 404);
    forged.headers.remove("mcp-session-id");
    assert_eq!(status(&forged).await, 400, "a session id is needed");

    let delete = http().delete(&url).headers(session.headers.clone()).send().await.unwrap();
    assert!(delete.status().is_success(), "{}", delete.status());
    assert_eq!(status(&session).await, 404);
    assert_eq!(session.stream().await.status(), 404);
    let again = http().delete(&url).headers(session.headers.clone()).send().await.unwrap();
    assert_eq!(again.status(), 404);
    assert_eq!(http().get(&url).header("accept", "text/event-stream").send().await.unwrap().status(), 405);
}
