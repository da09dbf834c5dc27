//! The HTTP agent against a service over a real socket.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Multipart, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::{any, get, post},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Content, Failure, Output, Reason,
    client::testing::{SECRET, Service, call, call_and_tell, problems},
};

/// Answers with what has come, byte for byte.
async fn echo(request: Request) -> Json<Value> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes())))
    };
    Json(json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": parts.headers.iter().map(header).collect::<serde_json::Map<_, _>>(),
        "body": String::from_utf8_lossy(&body),
    }))
}

async fn echoing() -> Service {
    Service::start(Router::new().fallback(any(echo))).await
}

fn value(outcome: Result<Output, Failure>) -> Value {
    outcome.unwrap().structured.unwrap()
}

fn failure(outcome: Result<Output, Failure>) -> Failure {
    outcome.unwrap_err()
}

#[tokio::test]
async fn arguments_end_up_as_values() {
    let service = echoing().await;
    let config = json!({
        "url": service.url("/users/{{id}}?fixed=1"),
        "method": "PUT",
        "query": {"q": "{{text}}", "tag": "{{tags}}", "none": "{{nothing}}", "gone": "{{missing}}"},
        "headers": {"X-Text": "<{{text}}>", "X-Gone": "{{missing}}"},
        "body": {"text": "{{text}}", "tags": "{{tags}}", "gone": "{{missing}}", "said": "{{text}}!"},
    });
    let arguments = json!({"id": "a/b?c#d", "text": "x&admin=1", "tags": ["a b", "c=d"], "nothing": null});
    let got = value(call("http", config, arguments).await);
    assert_eq!(got["method"], "PUT");
    assert_eq!(got["path"], "/users/a%2Fb%3Fc%23d");
    assert_eq!(got["query"], "fixed=1&q=x%26admin%3D1&tag=a+b&tag=c%3Dd");
    assert_eq!(got["headers"]["x-text"], "<x&admin=1>");
    assert_eq!(got["headers"].get("x-gone"), None);
    let body: Value = serde_json::from_str(got["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({"text": "x&admin=1", "tags": ["a b", "c=d"], "said": "x&admin=1!"}));
    assert_eq!(got["headers"]["content-type"], "application/json");
}

#[tokio::test]
async fn no_value_leaves_its_segment_of_the_path() {
    let service = echoing().await;
    for hostile in
        ["..", ".", "../admin", "a/../../admin", "..%2fadmin", "%2e%2e", "a?b", "a#b", "a;b", "\\..\\a"]
    {
        let config = json!({"url": service.url("/users/{{id}}/name")});
        match call("http", config, json!({"id": hostile})).await {
            Ok(output) => {
                let path = output.structured.unwrap()["path"].as_str().unwrap().to_owned();
                let inside = path.strip_prefix("/users/").and_then(|rest| rest.strip_suffix("/name"));
                assert!(inside.is_some_and(|segment| !segment.contains('/')), "{hostile}: {path}");
            }
            Err(failure) => assert_eq!(failure.reason, Reason::InvalidArguments, "{hostile}"),
        }
    }
}

#[tokio::test]
async fn a_header_stays_one_line() {
    let service = echoing().await;
    for hostile in ["a\r\nX-Admin: 1", "a\nX-Admin: 1", "a\rb", "a\0b"] {
        let config = json!({"url": service.url("/"), "headers": {"X-Text": "{{text}}"}});
        let failure = failure(call("http", config, json!({"text": hostile})).await);
        assert_eq!(failure.reason, Reason::InvalidArguments, "{hostile:?}");
    }
}

#[test]
fn what_arguments_may_not_decide_is_refused_when_it_is_applied() {
    let url = "http://127.0.0.1/";
    for (config, problem) in [
        (json!({"url": "http://{{host}}/"}), "an argument decides which host is asked"),
        (json!({"url": url, "headers": {"Authorization": "Bearer {{token}}"}}), "which says who is asking"),
        (json!({"url": url, "headers": {"X-Forwarded-For": "{{ip}}"}}), "which says who is asking"),
        (json!({"url": url, "headers": {"Content-Length": "5"}}), "the connection itself decides"),
        (json!({"url": url, "headers": {"X-{{name}}": "a"}}), "is not the name of a header"),
        (json!({"url": url, "auth": {"bearer": "{{token}}"}}), "an argument decides who is asking"),
        (
            json!({"url": url, "auth": {"basic": {"username": "{{u}}", "password": "p"}}}),
            "an argument decides",
        ),
        (json!({"url": url, "auth": {"header": {"name": "Host", "value": "{{h}}"}}}), "an argument decides"),
        (json!({"url": url, "body": {"a": 1}, "form": {"a": 1}}), "a request has one body"),
        (json!({"url": url, "extract": "$..a"}), "this is no path into JSON"),
        (json!({"url": url, "successStatus": "fine"}), "must be statuses"),
        (json!({"url": url, "retries": 50}), "must be a number of 0 to 5"),
        (json!({"url": url, "redirect": 1}), "unknown setting"),
        (json!({}), "`url` is missing"),
    ] {
        let found = problems("http", config.clone());
        assert!(found.iter().any(|found| found.contains(problem)), "{config}: {found:?}");
    }
}

#[tokio::test]
async fn bodies_are_text_json_forms_and_parts() {
    let service = echoing().await;
    let hostile = "a\",\"admin\":true,\"x\":\"";
    for (more, content_type, body) in [
        (json!({"bodyText": "hello {{t}}"}), "text/plain; charset=utf-8", format!("hello {hostile}")),
        (
            json!({"bodyText": "{\"t\": {{t}}}"}),
            "application/json",
            format!("{{\"t\": {}}}", Value::from(hostile)),
        ),
        (
            json!({"body": "{\"t\": \"<{{t}}>\"}"}),
            "application/json",
            format!("{{\"t\": {}}}", Value::from(format!("<{hostile}>"))),
        ),
        (json!({"body": "{{t}}"}), "application/json", Value::from(hostile).to_string()),
        (
            json!({"bodyText": "<t>{{n}}</t>", "contentType": "application/xml"}),
            "application/xml",
            "<t>7</t>".to_owned(),
        ),
        (
            json!({"form": {"t": "{{t}}", "n": "{{n}}", "l": "{{l}}"}}),
            "application/x-www-form-urlencoded",
            "l=1&l=2&n=7&t=a%22%2C%22admin%22%3Atrue%2C%22x%22%3A%22".to_owned(),
        ),
    ] {
        let mut config = json!({"url": service.url("/")});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let got = value(call("http", config, json!({"t": hostile, "n": 7, "l": [1, 2]})).await);
        assert_eq!(got["method"], "POST", "{more}");
        assert_eq!(got["headers"]["content-type"], content_type, "{more}");
        assert_eq!(got["body"], body, "{more}");
    }
}

#[tokio::test]
async fn a_part_is_a_part_whatever_its_file_is_called() {
    async fn parts(mut multipart: Multipart) -> Json<Value> {
        let mut all = Vec::new();
        while let Some(part) = multipart.next_field().await.unwrap() {
            let (name, file) = (part.name().map(str::to_owned), part.file_name().map(str::to_owned));
            let kind = part.content_type().map(str::to_owned);
            let bytes = part.bytes().await.unwrap();
            all.push(json!([name, file, kind, String::from_utf8_lossy(&bytes)]));
        }
        Json(all.into())
    }
    let service = Service::start(Router::new().route("/", post(parts))).await;
    let config = json!({"url": service.url("/"), "multipart": [
        {"name": "note", "value": "{{note}}"},
        {"name": "file", "data": "{{data}}", "fileName": "{{file}}", "contentType": "image/png"},
    ]});
    let hostile = "a\"; name=\"admin\"\r\nX: y";
    let arguments = json!({"note": "--boundary\r\n", "data": "AQID", "file": hostile});
    let got = value(call("http", config.clone(), arguments).await);
    assert_eq!(got.as_array().unwrap().len(), 2);
    assert_eq!(got[0], json!(["note", null, null, "--boundary\r\n"]));
    assert_eq!(
        (&got[1][0], &got[1][2], &got[1][3]),
        (&json!("file"), &json!("image/png"), &json!("\u{1}\u{2}\u{3}"))
    );
    let wrong = call("http", config, json!({"note": "", "data": "?", "file": "a"})).await;
    assert_eq!(failure(wrong).reason, Reason::InvalidArguments);
}

#[tokio::test]
async fn each_kind_of_credential_arrives() {
    let service = echoing().await;
    let shown = async |auth: Value| {
        value(call("http", json!({"url": service.url("/?a=1"), "auth": auth}), json!({})).await)
    };
    let secret = json!({"secret": "token"});
    let got = shown(json!({"bearer": secret})).await;
    assert_eq!(got["headers"]["authorization"], format!("Bearer {SECRET}"));
    let got = shown(json!({"basic": {"username": "me", "password": secret}})).await;
    let expected = "Basic bWU6czNjcmV0LW9mLXRoZS1vcGVyYXRvcg==";
    assert_eq!(got["headers"]["authorization"], expected);
    let got = shown(json!({"header": {"name": "X-Key", "value": secret}})).await;
    assert_eq!(got["headers"]["x-key"], SECRET);
    let got = shown(json!({"query": {"name": "key", "value": secret}})).await;
    assert_eq!(got["query"], format!("a=1&key={SECRET}"));
    let got = shown(json!({"type": "api_key", "header": "X-Other", "key": secret})).await;
    assert_eq!(got["headers"]["x-other"], SECRET);
}

#[tokio::test]
async fn no_failure_repeats_a_credential_or_an_address() {
    async fn tells(headers: HeaderMap, request: Request) -> impl IntoResponse {
        let shown = ["authorization", "x-key"].map(|name| headers.get(name).cloned());
        (StatusCode::UNAUTHORIZED, format!("denied:\n{} {shown:?}", request.uri()))
    }
    let service = Service::start(Router::new().fallback(any(tells))).await;
    let gone = {
        let gone = echoing().await;
        gone.url("/private/path")
    };
    let secret = json!({"secret": "token"});
    for auth in [
        json!({"bearer": secret}),
        json!({"basic": {"username": "me", "password": secret}}),
        json!({"header": {"name": "X-Key", "value": secret}}),
        json!({"query": {"name": "key", "value": secret}}),
    ] {
        let refused = failure(call("http", json!({"url": service.url("/"), "auth": auth}), json!({})).await);
        assert_eq!(refused.reason, Reason::Refused);
        assert!(refused.message.starts_with("the service answered 401 Unauthorized: denied:"), "{refused}");
        let unreachable = failure(call("http", json!({"url": gone, "auth": auth}), json!({})).await);
        assert_eq!(unreachable.reason, Reason::Unreachable);
        for failure in [refused, unreachable] {
            let all = format!("{} {}", failure.message, failure.detail.unwrap_or_default());
            for hidden in [SECRET, "bWU6czNjcmV0", "/private/path"] {
                assert!(!all.contains(hidden), "{hidden}: {all}");
            }
            assert!(!failure.message.contains("127.0.0.1"), "{}", failure.message);
        }
    }
}

#[tokio::test]
async fn redirects_stay_on_their_host_or_are_refused() {
    let other = echoing().await;
    let elsewhere = other.url("/stolen");
    let router = Router::new()
        .route("/see", post(|| async { Redirect::to("/echo") }))
        .route("/same", any(|| async { Redirect::temporary("/echo?x=1") }))
        .route("/other", any(move || async move { Redirect::temporary(&elsewhere) }))
        .route("/loop", any(|| async { Redirect::temporary("/loop") }))
        .fallback(any(echo));
    let service = Service::start(router).await;
    let ask = async |path: &str, redirects: u32| {
        let config = json!({
            "url": service.url(path), "redirects": redirects, "body": {"a": 1},
            "auth": {"bearer": {"secret": "token"}},
        });
        call("http", config, json!({})).await
    };
    let got = value(ask("/same", 1).await);
    assert_eq!(
        (&got["method"], &got["query"], &got["body"]),
        (&json!("POST"), &json!("x=1"), &json!("{\"a\":1}"))
    );
    assert_eq!(got["headers"]["authorization"], format!("Bearer {SECRET}"));
    let got = value(ask("/see", 1).await);
    assert_eq!((&got["method"], &got["body"]), (&json!("GET"), &json!("")));
    for (path, redirects) in [("/same", 0), ("/other", 0), ("/other", 3), ("/loop", 3)] {
        let failure = failure(ask(path, redirects).await);
        assert_eq!(failure.reason, Reason::Refused, "{path}");
        assert!(failure.message.starts_with("the service sends callers"), "{path}: {failure}");
        assert!(!failure.message.contains("127.0.0.1"), "{failure}");
    }
}

/// Fails so often with that status, then answers.
async fn failing(times: usize, status: u16, after: &'static str) -> (Service, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let answer = move || {
        let nth = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if nth < times {
                let status = StatusCode::from_u16(status).unwrap();
                return (status, [(header::RETRY_AFTER, after)], "not now").into_response();
            }
            "now".into_response()
        }
    };
    (Service::start(Router::new().fallback(any(answer))).await, seen)
}

#[tokio::test]
async fn a_try_is_repeated_where_that_is_safe_and_only_so_often() {
    for (times, status, more, tries, works) in [
        (2, 503, json!({"retries": 2}), 3, true),
        (3, 503, json!({"retries": 2}), 3, false),
        (1, 503, json!({}), 1, false),
        (1, 429, json!({"retries": 1, "method": "DELETE"}), 2, true),
        (1, 500, json!({"retries": 3}), 1, false),
        (1, 503, json!({"retries": 3, "body": {}}), 1, false),
        (1, 503, json!({"retries": 3, "body": {}, "retryUnsafe": true}), 2, true),
    ] {
        let (service, seen) = failing(times, status, "0").await;
        let mut config = json!({"url": service.url("/")});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (outcome, told) = call_and_tell("http", config.clone(), json!({})).await;
        assert_eq!(seen.load(Ordering::SeqCst), tries, "{config}");
        assert_eq!(told.logs.lock().len(), tries - 1, "{config}");
        assert_eq!(outcome.is_ok(), works, "{config}: {outcome:?}");
    }
}

#[tokio::test]
async fn the_deadline_wins_over_what_the_service_asks_for() {
    let (service, seen) = failing(1, 503, "60").await;
    let begun = Instant::now();
    let config = json!({"url": service.url("/"), "retries": 3, "timeout": "5s"});
    let failure = failure(call("http", config, json!({})).await);
    assert_eq!(failure.message, "the service answered 503 Service Unavailable: not now");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// A gzip of a gibibyte of zeros, as fast as it is read. One fixed block
/// (RFC 1951 §3.2.6): a literal, then copies of 258 bytes from 1 byte before,
/// of which eight are 13 bytes.
fn bomb() -> (Bytes, Bytes) {
    fn packed(bits: &str) -> Vec<u8> {
        let bits: Vec<u8> = bits.bytes().filter(|b| *b != b' ').map(|b| b - b'0').collect();
        bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | bit)).collect()
    }
    let copy = "11000101 00000";
    let mut begin = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    begin.extend(packed(&format!("010 00110000 {copy}")));
    (begin.into(), packed(&copy.repeat(8)).repeat(1024).into())
}

#[tokio::test]
async fn a_compressed_gibibyte_is_left_where_it_grows_too_large() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let answer = move || {
        let (begin, more) = bomb();
        let count = Arc::clone(&count);
        let chunks = (0..(1 << 30) / (258 * 8 * 1024)).map(move |_| {
            count.fetch_add(258 * 8 * 1024, Ordering::SeqCst);
            more.clone()
        });
        let chunks = std::iter::once(begin).chain(chunks).map(Ok::<_, std::io::Error>);
        async move { ([(header::CONTENT_ENCODING, "gzip")], Body::from_stream(stream::iter(chunks))) }
    };
    let service = Service::start(Router::new().route("/", get(answer))).await;
    let failure = failure(call("http", json!({"url": service.url("/")}), json!({})).await);
    assert_eq!(failure.reason, Reason::TooLarge, "{failure:?}");
    // It was read while it was sent: the rest has stayed where it was.
    assert!(sent.load(Ordering::SeqCst) < 1 << 30, "all of it was sent");
}

#[tokio::test]
async fn a_body_that_stalls_ends_with_the_time() {
    let answer = || async {
        let first = stream::iter([Ok::<_, std::io::Error>("some")]);
        Body::from_stream(futures_util::StreamExt::chain(first, stream::pending()))
    };
    let service = Service::start(Router::new().route("/", get(answer))).await;
    for stream in [false, true] {
        let config = json!({"url": service.url("/"), "timeout": "300ms", "stream": stream});
        let failure = failure(call("http", config, json!({})).await);
        assert_eq!((failure.reason, failure.message.as_str()), (Reason::Timeout, "no answer within 300ms"));
    }
}

#[tokio::test]
async fn what_comes_bit_by_bit_is_told_bit_by_bit() {
    let chunks = |kind: &'static str, chunks: &'static [&'static str]| {
        get(move || async move {
            let chunks = stream::unfold(0, move |nth| async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                chunks.get(nth).map(|chunk| (Ok::<_, std::io::Error>(*chunk), nth + 1))
            });
            ([(header::CONTENT_TYPE, kind)], Body::from_stream(chunks))
        })
    };
    let router = Router::new()
        .route("/lines", chunks("application/x-ndjson", &["{\"n\":1}\n{\"n", "\":2}\n", "{\"n\":3}"]))
        .route(
            "/events",
            chunks("text/event-stream", &["data: {\"n\":1}\n\nev", "ent: b\ndata: x\n\n: c\n\n"]),
        )
        .route("/text", chunks("text/plain", &["one ", "two ", "three"]));
    let service = Service::start(router).await;
    for (path, expected, result) in [
        ("/lines", vec!["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"], json!([{"n": 1}, {"n": 2}, {"n": 3}])),
        (
            "/events",
            vec!["{\"n\":1}", "x"],
            json!([{"event": "message", "data": {"n": 1}}, {"event": "b", "data": "x"}]),
        ),
        ("/text", vec!["one ", "two ", "three"], Value::Null),
    ] {
        let (outcome, told) =
            call_and_tell("http", json!({"url": service.url(path), "stream": true}), json!({})).await;
        let output = outcome.unwrap();
        assert_eq!(*told.progress.lock(), expected, "{path}");
        assert_eq!(output.structured.unwrap_or_default(), result, "{path}");
        if path == "/text" {
            assert_eq!(output.content, [Content::Text("one two three".to_owned())]);
        }
    }
}

#[tokio::test]
async fn the_result_is_the_part_that_is_asked_for() {
    let items = json!({"items": [{"name": "a"}, {"name": "b"}]});
    let answer = {
        let items = items.clone();
        move || async move { (StatusCode::NOT_FOUND, Json(items)) }
    };
    let service = Service::start(Router::new().route("/", get(answer))).await;
    let ask = async |more: Value| {
        let mut config = json!({"url": service.url("/"), "successStatus": [404]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call("http", config, json!({})).await
    };
    assert_eq!(value(ask(json!({})).await), items);
    assert_eq!(value(ask(json!({"extract": "/items/1/name"})).await), "b");
    assert_eq!(value(ask(json!({"extract": "$.items[*].name"})).await), json!(["a", "b"]));
    assert_eq!(failure(ask(json!({"extract": "/none"})).await).reason, Reason::Broken);
    assert_eq!(ask(json!({"output": "text"})).await.unwrap().structured, None);
    assert_eq!(value(ask(json!({"output": "base64"})).await)["contentType"], "application/json");
    assert_eq!(failure(ask(json!({"responseBytesMax": 4})).await).reason, Reason::TooLarge);
}
