//! The agent for server-sent events against a service over a real socket.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, header},
    response::IntoResponse,
    routing::{any, get},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    Reason,
    client::testing::{Service, call, call_and_tell, problems},
    collect::ENDED_META,
};

fn events(body: Body) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")], body)
}

/// Says this, and then nothing more.
async fn saying(text: &'static str) -> Service {
    let answer = move || async move {
        let first = stream::iter([Ok::<_, Infallible>(text)]);
        events(Body::from_stream(first.chain(stream::pending())))
    };
    Service::start(Router::new().fallback(any(answer))).await
}

const SAID: &str = ": hello\n\nid: 1\ndata: {\"n\": 1}\n\nevent: log\nid: 2\ndata: two\ndata: lines\n\nevent: done\ndata: {\"n\": 3, \"status\": \"ok\"}\n\ndata: [DONE]\n\ndata: late\n\n";

#[tokio::test]
async fn a_stream_is_collected_until_there_is_enough() {
    let service = saying(SAID).await;
    let first = json!({"event": "message", "id": "1", "data": {"n": 1}});
    let log = json!({"event": "log", "id": "2", "data": "two\nlines"});
    let done = json!({"event": "done", "data": {"n": 3, "status": "ok"}});
    let late = json!({"event": "message", "data": "late"});
    let mark = json!({"event": "message", "data": "[DONE]"});
    for (more, expected, ended) in [
        (json!({"until": {"event": "done"}}), json!([first, log, done]), "condition"),
        (json!({"until": {"data": "[DONE]"}}), json!([first, log, done]), "condition"),
        (json!({"until": {"dataContains": "{{word}}"}}), json!([first, log]), "condition"),
        (json!({"until": {"count": 2}}), json!([first, log]), "condition"),
        (json!({"until": {"path": "/status", "equals": "ok"}}), json!([first, log, done]), "condition"),
        (json!({"until": [{"count": 9}, {"idle": "200ms"}]}), json!([first, log, done, mark, late]), "idle"),
        (json!({"until": {"event": "done"}, "events": ["log"]}), json!([log]), "condition"),
        (json!({"maxEvents": 1}), json!([first]), "limit"),
        (json!({"timeout": "400ms"}), json!([first, log, done, mark, late]), "timeout"),
        (json!({"until": {"count": 3}, "extract": "$[*].data.n"}), json!([1, 3]), "condition"),
    ] {
        let mut config = json!({"url": service.url("/")});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (outcome, told) = call_and_tell("sse", config, json!({"word": "lines"})).await;
        let output = outcome.unwrap_or_else(|failure| panic!("{more}: {failure:?}"));
        assert_eq!(output.structured.unwrap(), expected, "{more}");
        assert_eq!(output.meta[ENDED_META], ended, "{more}");
        if more.get("extract").is_none() {
            assert_eq!(told.progress.lock().len(), expected.as_array().unwrap().len(), "{more}");
        }
    }
}

#[tokio::test]
async fn silence_is_a_timeout_unless_the_tool_says_otherwise() {
    let service = saying(": nothing\n\n").await;
    let ask = async |on_timeout: &str| {
        let config = json!({"url": service.url("/"), "timeout": "300ms", "onTimeout": on_timeout});
        call("sse", config, json!({})).await
    };
    assert_eq!(ask("auto").await.unwrap_err().reason, Reason::Timeout);
    assert_eq!(ask("return").await.unwrap().structured, Some(json!([])));
    let service = saying("data: 1\n\n").await;
    let config = json!({"url": service.url("/"), "timeout": "300ms", "onTimeout": "fail"});
    assert_eq!(call("sse", config, json!({})).await.unwrap_err().reason, Reason::Timeout);
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_once_where_it_was() {
    for (breaks, works) in [(1, true), (2, false)] {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let answer = move |headers: HeaderMap| {
            let nth = count.fetch_add(1, Ordering::SeqCst);
            async move {
                let after = headers.get("last-event-id").map_or("none", |id| id.to_str().unwrap()).to_owned();
                let text = format!("id: {nth}\ndata: after {after}\n\n");
                let first = stream::iter([Ok(text)]);
                let pause = stream::once(async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(std::io::Error::other("broken"))
                });
                match nth < breaks {
                    true => events(Body::from_stream(first.chain(pause))),
                    false => events(Body::from_stream(first)),
                }
            }
        };
        let service = Service::start(Router::new().route("/", get(answer))).await;
        let outcome = call("sse", json!({"url": service.url("/")}), json!({})).await;
        assert_eq!(opened.load(Ordering::SeqCst), 2);
        match outcome {
            Ok(output) => {
                assert!(works);
                let datas: Vec<Value> = output
                    .structured
                    .unwrap()
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|e| e["data"].clone())
                    .collect();
                assert_eq!(datas, ["after none", "after 0"]);
            }
            Err(failure) => assert!(!works && failure.reason == Reason::Broken, "{failure:?}"),
        }
    }
}

#[tokio::test]
async fn endless_events_and_endless_streams_are_left() {
    let endless = |begin: &'static str, more: &'static [u8]| {
        get(move || async move {
            let begin = stream::iter([Bytes::from_static(begin.as_bytes())]);
            let more = stream::repeat_with(move || Bytes::from(more.repeat(4096)));
            events(Body::from_stream(begin.chain(more).map(Ok::<_, Infallible>)))
        })
    };
    let router = Router::new()
        .route("/event", endless("data: ", b"xxxxxxxxxxxxxxxx"))
        .route("/stream", endless("", b"data: xxxxxxxxxx\n\n"));
    let service = Service::start(router).await;
    for (path, more) in [("/event", json!({})), ("/stream", json!({"responseBytesMax": 1000}))] {
        let mut config = json!({"url": service.url(path)});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let failure = call("sse", config, json!({})).await.unwrap_err();
        assert_eq!(failure.reason, Reason::TooLarge, "{path}: {failure:?}");
    }
}

#[tokio::test]
async fn what_is_no_stream_of_events_is_refused() {
    let service = Service::start(Router::new().route("/", get(|| async { "hello" }))).await;
    let failure = call("sse", json!({"url": service.url("/")}), json!({})).await.unwrap_err();
    assert_eq!(failure.message, "the service answers with text/plain, not with a stream of events");
    let failure = call("sse", json!({"url": service.url("/none")}), json!({})).await.unwrap_err();
    assert_eq!(
        (failure.reason, failure.message.as_str()),
        (Reason::Refused, "the service answered 404 Not Found")
    );
}

#[test]
fn conditions_that_make_no_sense_are_refused_when_they_are_applied() {
    for (until, problem) in [
        (json!({}), "needs a condition"),
        (json!("done"), "must be an object"),
        (json!({"path": "/a"}), "`equals` is missing"),
        (json!({"equals": 1}), "`path` is missing"),
        (json!({"evnt": "done"}), "unknown setting"),
        (json!({"idle": "1ms"}), "must be a time"),
    ] {
        let found = problems("sse", json!({"url": "http://127.0.0.1/", "until": until}));
        assert!(found.iter().any(|found| found.contains(problem)), "{until}: {found:?}");
    }
}
