//! Legacy calls over HTTP, against servers that behave as real ones were seen to.

use mt_proto::resource::{Header, Value as ConfigValue};

use super::*;

#[tokio::test]
async fn calls_of_a_session_share_one_handshake_and_keep_their_ids() {
    let server =
        Server::legacy(|seen| seen.is("tools/call").then_some(Say::Result(r#"{"content":[]}"#))).await;
    let upstream = server.upstream();
    let client = client(Scope::Session("a".into()), LATEST_LEGACY, r#"{"roots":{}}"#, None);
    let calls = ["1", r#""x""#, "9007199254740993"].map(|id| tool(&client, id, "t"));
    let answers = futures_util::future::join_all(calls.iter().map(|call| run(&upstream, call))).await;
    for answer in answers {
        assert_eq!(answer.unwrap(), result(r#"{"content":[]}"#));
    }
    let [initialize] = &server.all("initialize")[..] else { panic!("one handshake") };
    assert_eq!(initialize.json()["params"]["protocolVersion"], "2025-11-25");
    assert_eq!(initialize.json()["params"]["capabilities"]["roots"], serde_json::json!({}));
    assert_eq!(initialize.json()["params"]["clientInfo"]["name"], "client");
    assert_eq!(initialize.header("mcp-protocol-version"), None);
    let order: Vec<_> =
        server.seen.lock().iter().map(|seen| seen.json()["method"].to_string()).take(2).collect();
    assert_eq!(order, [r#""initialize""#, r#""notifications/initialized""#]);
    let mut bodies: Vec<_> = server.all("tools/call").iter().map(|seen| seen.body.clone()).collect();
    bodies.sort();
    assert!(bodies[0].starts_with(r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"t""#));
    assert!(bodies[2].starts_with(r#"{"jsonrpc":"2.0","id":9007199254740993,"#));
    for seen in server.all("tools/call") {
        assert_eq!(seen.header("mcp-session-id"), Some(SESSION));
        assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"), "what the server has chosen");
        assert_eq!(seen.header("accept"), Some("application/json, text/event-stream"));
        assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
    }
}

#[tokio::test]
async fn a_stream_brings_notifications_and_questions_before_the_answer() {
    let (events, stream) = mpsc::channel(8);
    let stream = Mutex::new(Some(stream));
    let server =
        Server::legacy(move |seen| seen.is("tools/call").then(|| Say::Live(stream.lock().take().unwrap())))
            .await;
    let upstream = server.upstream();
    let (running, mut door) = begin(&upstream, tool(&legacy_client("a"), "7", "t"));
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":1}}"#;
    let message = |data: &str| Bytes::from(format!("data: {data}\n\n"));
    events.send(message(progress)).await.unwrap();
    assert_eq!(next_told(&mut door).await, progress);
    events
        .send(message(
            r#"{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"message":"who?"}}"#,
        ))
        .await
        .unwrap();
    let ToClient::Ask(ask) = next(&mut door).await else { panic!("a question") };
    assert_eq!(ask.questions[0].method, Method::Elicit);
    assert_eq!(ask.questions[0].params, r#"{"message":"who?"}"#);
    // The stream goes on while the client thinks.
    events.send(message(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)).await.unwrap();
    server.until(|seen| seen.body == r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await;
    events.send(message(progress)).await.unwrap();
    assert_eq!(next_told(&mut door).await, progress);
    ask.replies.send(vec![Ok(Bytes::from_static(br#"{"action":"accept"}"#))]).unwrap();
    let reply = server.until(|seen| seen.json()["result"]["action"] == "accept").await;
    assert_eq!(reply.json()["id"], 0);
    assert_eq!(reply.header("mcp-session-id"), Some(SESSION));
    events.send(message(r#"{"jsonrpc":"2.0","id":7,"result":{"ok":true}}"#)).await.unwrap();
    assert_eq!(running.await.unwrap().unwrap(), result(r#"{"ok":true}"#));
}

#[tokio::test]
async fn a_question_to_nobody_is_refused_at_once() {
    let server = Server::legacy(|seen| {
        seen.is("tools/call").then(|| {
            Say::Events(
                "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n: wait\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{}}\n\n".into(),
            )
        })
    })
    .await;
    let upstream = server.upstream();
    let (caller, door) = Caller::channel();
    drop(door);
    // The answer is on the same stream, so the refusal may come too late to be
    // sent; what counts is that the call does not hang.
    let answer =
        timeout(PATIENCE, upstream.call(&tool(&legacy_client("a"), "1", "t"), &caller)).await.unwrap();
    assert_eq!(answer.unwrap(), result("{}"));
}

#[tokio::test]
async fn a_stream_that_closes_early_is_taken_up_after_the_wait_it_asks_for() {
    let began = Arc::new(Mutex::new(None));
    let waited = began.clone();
    let server = Server::legacy(move |seen| match (seen.verb.as_str(), seen.header("last-event-id")) {
        ("POST", _) if seen.is("tools/call") => {
            *began.lock() = Some(Instant::now());
            Some(Say::Events("id: e/1\nretry: 300\ndata:\n\n".into()))
        }
        ("GET", Some("e/1")) => Some(Say::Events(
            "id: e/2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n"
                .into(),
        )),
        ("GET", Some("e/2")) => {
            Some(Say::Events("data: {\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{\"late\":1}}\n\n".into()))
        }
        _ => None,
    })
    .await;
    let upstream = server.upstream();
    let (running, mut door) = begin(&upstream, tool(&legacy_client("a"), "5", "t"));
    let ToClient::Pause { retry } = next(&mut door).await else { panic!("a pause") };
    assert_eq!(retry, Some(Duration::from_millis(300)));
    server.until(|seen| seen.verb == "GET" && seen.header("last-event-id").is_some()).await;
    let waited = waited.lock().unwrap().elapsed();
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    assert!(next_told(&mut door).await.contains("notifications/message"));
    assert!(matches!(next(&mut door).await, ToClient::Pause { .. }));
    assert_eq!(running.await.unwrap().unwrap(), result(r#"{"late":1}"#));
}

#[tokio::test]
async fn a_stream_that_ends_without_an_answer_is_an_error() {
    let server = Server::legacy(|seen| {
        seen.is("tools/call").then(|| {
            Say::Events(
                "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n".into(),
            )
        })
    })
    .await;
    let error = run(&server.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn answers_to_nothing_are_dropped() {
    let server = Server::legacy(|seen| {
        seen.is("tools/call").then(|| {
            Say::Events(
                "data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{\"of\":\"another\"}}\n\ndata: nonsense\n\ndata: [1]\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"mine\":1}}\n\n".into(),
            )
        })
    })
    .await;
    let answer = run(&server.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    assert_eq!(answer, result(r#"{"mine":1}"#));
}

/// A server that forgets its session before the `forgets`th tool call.
async fn forgetful(forgets: usize, status: u16, body: &'static str) -> Server {
    let calls = Mutex::new(0);
    Server::legacy(move |seen| {
        if !seen.is("tools/call") {
            return None;
        }
        let mut calls = calls.lock();
        *calls += 1;
        Some(if *calls == forgets {
            Say::Status(status, "application/json", body.into())
        } else {
            Say::Result("{}")
        })
    })
    .await
}

const NO_VALID_SESSION: &str = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#;

#[tokio::test]
async fn a_lost_session_with_state_makes_the_client_start_again() {
    for (status, body) in [(404, "Session not found"), (400, NO_VALID_SESSION)] {
        let server = forgetful(2, status, body).await;
        let upstream = server.upstream();
        let client = legacy_client("a");
        run(&upstream, &tool(&client, "1", "t")).await.unwrap();
        let error = run(&upstream, &tool(&client, "2", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::SessionLost { .. }), "{error}");
        run(&upstream, &tool(&client, "3", "t")).await.unwrap();
        assert_eq!(server.all("initialize").len(), 2);
    }
}

#[tokio::test]
async fn a_lost_session_without_state_is_opened_again_unseen() {
    for (forgets, scope) in [(1, Scope::Session("a".into())), (2, Scope::Node), (2, Scope::Stateless)] {
        let server = forgetful(forgets, 404, "").await;
        let upstream = server.upstream();
        let client = client(scope, LATEST_LEGACY, "{}", None);
        run(&upstream, &tool(&client, "1", "t")).await.unwrap();
        run(&upstream, &tool(&client, "1", "t")).await.unwrap();
        assert_eq!(server.all("initialize").len(), 2);
    }
}

#[tokio::test]
async fn a_shared_session_numbers_its_calls_itself() {
    let server = Server::legacy(|_| None).await;
    let upstream = server.upstream();
    let client = client(Scope::Stateless, LATEST_LEGACY, "{}", None);
    run(&upstream, &tool(&client, r#""same""#, "t")).await.unwrap();
    run(&upstream, &tool(&client, r#""same""#, "t")).await.unwrap();
    let ids: Vec<_> = server.all("tools/call").iter().map(|seen| seen.json()["id"].clone()).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(server.all("initialize").len(), 1);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_by_its_id() {
    let server = Server::legacy(|seen| seen.is("tools/call").then_some(Say::Silence)).await;
    let upstream = server.upstream();
    let (running, _door) = begin(&upstream, tool(&legacy_client("a"), r#""c-1""#, "t"));
    server.until(|seen| seen.is("tools/call")).await;
    running.abort();
    let cancelled = server.until(|seen| seen.is("notifications/cancelled")).await;
    assert_eq!(cancelled.json()["params"]["requestId"], "c-1");
    assert_eq!(cancelled.header("mcp-session-id"), Some(SESSION));
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_an_error_and_is_cancelled() {
    let server = Server::legacy(|seen| seen.is("tools/call").then_some(Say::Silence)).await;
    let upstream = server.upstream();
    let mut call = tool(&legacy_client("a"), "1", "t");
    call.deadline = Instant::now() + Duration::from_millis(300);
    let error = run(&upstream, &call).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    server.until(|seen| seen.is("notifications/cancelled")).await;
    let mut quick = tool(&legacy_client("a"), "2", "other");
    quick.method = Method::ToolsList;
    run(&upstream, &quick).await.unwrap();
}

#[tokio::test]
async fn a_handshake_goes_on_when_the_first_caller_leaves() {
    let (let_go, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let server = Server::legacy(move |seen| {
        if seen.is("initialize") {
            // On the test's own runtime of two threads, for a moment.
            tokio::task::block_in_place(|| _ = gate.lock().recv_timeout(PATIENCE));
        }
        None
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (server, upstream) = runtime
        .spawn(async {
            let server = server.await;
            let upstream = server.upstream();
            (server, upstream)
        })
        .await
        .unwrap();
    runtime
        .spawn(async move {
            let client = legacy_client("a");
            let (first, _door) = begin(&upstream, tool(&client, "1", "t"));
            server.until(|seen| seen.is("initialize")).await;
            first.abort();
            let (second, _door) = begin(&upstream, tool(&client, "2", "t"));
            let_go.send(()).unwrap();
            second.await.unwrap().unwrap();
            assert_eq!(server.all("initialize").len(), 1);
            assert!(server.all("notifications/cancelled").is_empty(), "initialize is never cancelled");
        })
        .await
        .unwrap();
    runtime.shutdown_background();
}

#[tokio::test]
async fn what_a_backend_says_outside_of_calls_reaches_the_session() {
    let (events, stream) = mpsc::channel(8);
    let stream = Mutex::new(Some(stream));
    let server = Server::legacy(move |seen| {
        (seen.verb == "GET").then(|| match stream.lock().take() {
            Some(stream) => Say::Live(stream),
            None => Say::Silence,
        })
    })
    .await;
    let upstream = server.upstream();
    let (to_session, mut session) = Caller::channel();
    let client = client(Scope::Session("a".into()), LATEST_LEGACY, "{}", Some(to_session));
    let (to_node, mut node) = Caller::channel();
    let lister = super::client(Scope::Node, LATEST_LEGACY, "{}", Some(to_node));
    run(&upstream, &tool(&client, "1", "t")).await.unwrap();
    run(&upstream, &call(&lister, "1", Method::ToolsList, "{}")).await.unwrap();
    let updated = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
    events.send(Bytes::from(format!("event: message\nid: 1\ndata: {updated}\n\n"))).await.unwrap();
    assert_eq!(next_told(&mut session).await, updated);
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    events.send(Bytes::from(format!("data: {changed}\n\n"))).await.unwrap();
    assert_eq!(next_told(&mut node).await, changed, "the node hears of it on whatever leg");
    upstream.end_scope(&client.scope).await;
    let deleted = server.until(|seen| seen.is("DELETE")).await;
    assert_eq!(deleted.header("mcp-session-id"), Some(SESSION));
    timeout(PATIENCE, events.closed()).await.expect("the stream is closed with the session");
}

#[tokio::test]
async fn a_backend_without_a_stream_is_asked_for_one_only_once() {
    let server = Server::legacy(|_| None).await;
    let upstream = server.upstream();
    for session in ["a", "b", "c"] {
        let (events, _door) = Caller::channel();
        let client = client(Scope::Session(session.into()), LATEST_LEGACY, "{}", Some(events));
        run(&upstream, &tool(&client, "1", "t")).await.unwrap();
        server.until(|seen| seen.verb == "GET").await;
        let known = async {
            let super::super::Leg::Http(http) = &upstream.leg else { panic!() };
            while http.legacy.may_have_event_stream() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, known).await.unwrap();
    }
    assert_eq!(server.all("GET").len(), 1);
}

#[tokio::test]
async fn notifications_of_a_client_reach_only_a_session_that_is_open() {
    let server = Server::legacy(|_| None).await;
    let upstream = server.upstream();
    let client = legacy_client("a");
    let changed = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#);
    upstream.notify(&client, changed.clone()).await;
    assert!(server.seen.lock().is_empty());
    run(&upstream, &tool(&client, "1", "t")).await.unwrap();
    upstream.notify(&client, changed.clone()).await;
    assert_eq!(server.until(|seen| seen.is("notifications/roots/list_changed")).await.body, changed);
}

#[tokio::test]
async fn a_backend_at_its_limit_refuses_at_once_and_only_then() {
    let server = Server::legacy(|seen| seen.body.contains("slow").then_some(Say::Silence)).await;
    let upstream = server.upstream_as(|backend| backend.concurrent_calls_max = 1);
    let client = legacy_client("a");
    let (slow, _door) = begin(&upstream, tool(&client, "1", "slow"));
    server.until(|seen| seen.is("tools/call")).await;
    let error = run(&upstream, &tool(&client, "2", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded { limit: 1, .. }), "{error}");
    slow.abort();
    _ = slow.await;
    run(&upstream, &tool(&client, "3", "t")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_answer_is_a_typed_error() {
    type Check = fn(&CallError) -> bool;
    let cases: [(u16, &str, &str, Check); 9] = [
        (401, "text/plain", "", |e| matches!(e, CallError::NeedsAuth { status: 401, .. })),
        (403, "application/json", "{}", |e| matches!(e, CallError::NeedsAuth { status: 403, .. })),
        (503, "text/html", "<h1>busy</h1>", |e| matches!(e, CallError::Unreachable { .. })),
        (429, "text/plain", "slow down", |e| matches!(e, CallError::Unreachable { .. })),
        (502, "text/html", "<h1>bad gateway</h1>", |e| matches!(e, CallError::Lost { .. })),
        (415, "text/html", "<h1>type</h1>", |e| matches!(e, CallError::Protocol { .. })),
        (307, "text/plain", "", |e| matches!(e, CallError::Protocol { .. })),
        (200, "text/html", "<html>hello</html>", |e| matches!(e, CallError::Protocol { .. })),
        (200, "application/json", r#"{"jsonrpc":"2.0","id":77,"result":{}}"#, |e| {
            matches!(e, CallError::Protocol { .. })
        }),
    ];
    for (status, kind, body, expected) in cases {
        let server =
            Server::legacy(move |seen| seen.is("tools/call").then(|| Say::Status(status, kind, body.into())))
                .await;
        let error = run(&server.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(expected(&error), "{status} {body}: {error:?}");
    }
}

#[tokio::test]
async fn an_error_of_the_backend_is_an_answer_whatever_the_status() {
    for (status, id) in [(200, "$id"), (400, "null"), (400, r#""server-error""#), (500, "$id")] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32602,"message":"no"}}}}"#);
        let server = Server::legacy(move |seen| {
            seen.is("tools/call")
                .then(|| Say::Status(status, "application/json; charset=utf-8", body.clone()))
        })
        .await;
        let answer = run(&server.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap();
        assert_eq!(answer, Answer::Error(Bytes::from_static(br#"{"code":-32602,"message":"no"}"#)));
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let server = Server::legacy(|seen| {
        seen.is("tools/call").then(|| Say::Status(200, "application/json", " ".repeat(11 << 20)))
    })
    .await;
    let error = run(&server.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn headers_of_the_operator_are_sent_and_replace_none_of_ours() {
    let server = Server::legacy(|_| None).await;
    let header = |name: &str, value| Header { name: name.into(), value };
    let upstream = server.upstream_as(|backend| {
        let Transport::Http(http) = &mut backend.transport else { panic!() };
        http.headers = vec![
            header("authorization", ConfigValue::Secret("token".parse().unwrap())),
            header("mcp-session-id", ConfigValue::Text("forged".into())),
            header("accept", ConfigValue::Text("*/*".into())),
        ];
    });
    run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    let seen = server.until(|seen| seen.is("tools/call")).await;
    assert_eq!(seen.header("authorization"), Some("value-of-token"));
    assert_eq!(seen.header("mcp-session-id"), Some(SESSION));
    assert_eq!(seen.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(server.all("initialize")[0].header("mcp-session-id"), None);
}

#[tokio::test]
async fn a_modern_only_backend_is_named_to_a_legacy_client() {
    let server = Server::legacy(|seen| {
        seen.is("initialize").then(|| {
            Say::Status(400, "application/json", r#"{"jsonrpc":"2.0","id":$id,"error":{"code":-32022,"message":"v","data":{"supported":["2026-07-28"]}}}"#.into())
        })
    })
    .await;
    let error = run(&server.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::EraMismatch { backend_era: "modern", .. }), "{error}");
}

#[tokio::test]
async fn closing_ends_the_sessions() {
    let server = Server::legacy(|_| None).await;
    let upstream = server.upstream();
    run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    upstream.close(PATIENCE).await;
    server.until(|seen| seen.is("DELETE")).await;
    let error = run(&upstream, &tool(&legacy_client("a"), "2", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Overloaded { .. } | CallError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn whoever_lists_for_the_node_next_hears_of_changes_on_the_same_session() {
    let (events, stream) = mpsc::channel(8);
    let stream = Mutex::new(Some(stream));
    let server = Server::legacy(move |seen| {
        (seen.verb == "GET").then(|| stream.lock().take().map_or(Say::Silence, Say::Live))
    })
    .await;
    let upstream = server.upstream();
    let lister = |events| client(Scope::Node, LATEST_LEGACY, "{}", Some(events));
    let (first, first_door) = Caller::channel();
    run(&upstream, &call(&lister(first), "1", Method::ToolsList, "{}")).await.unwrap();
    drop(first_door);
    let (second, mut second_door) = Caller::channel();
    run(&upstream, &call(&lister(second), "1", Method::ToolsList, "{}")).await.unwrap();
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}"#;
    events.send(Bytes::from(format!("data: {changed}\n\n"))).await.unwrap();
    assert_eq!(next_told(&mut second_door).await, changed);
    assert_eq!(server.all("initialize").len(), 1);
}
