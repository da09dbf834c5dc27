//! Backends behind one long connection: a WebSocket, or HTTP+SSE.

use std::sync::atomic::Ordering;

use super::{
    peer::{Act, Peer, Script, Shape, legacy, remote, result_of, sharing},
    *,
};

#[tokio::test]
async fn a_call_goes_there_and_back() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("t") => vec![
            Act::Say(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{},"progress":1}}}}"#,
                message["params"]["_meta"]["progressToken"]
            )),
            result_of(message, r#"{"ok":1}"#),
        ],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let facts = upstream.probe().await.unwrap();
        assert_eq!(facts.legacy_version, "2025-06-18");
        let call = call(
            &legacy_client("a"),
            "7",
            Method::ToolsCall,
            r#"{"name":"t","_meta":{"progressToken":"mine"}}"#,
        );
        let (running, mut door) = begin(&upstream, call);
        assert!(next_told(&mut door).await.contains(r#""progressToken":"mine""#));
        assert_eq!(running.await.unwrap().unwrap(), result(r#"{"ok":1}"#));
        assert_eq!(peer.log.methods()[..2], ["initialize", "notifications/initialized"]);
        assert_eq!(peer.log.connections(), 1);
    }
}

#[tokio::test]
async fn large_messages_pass_both_ways() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("echo") => vec![result_of(message, &message["params"]["arguments"].to_string())],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let arguments = format!(r#"{{"text":"{}"}}"#, "x".repeat(3 << 20));
        let params = format!(r#"{{"name":"echo","arguments":{arguments}}}"#);
        let client = legacy_client("a");
        let (one, _a) = begin(&upstream, call(&client, "1", Method::ToolsCall, &params));
        let (two, _b) = begin(&upstream, call(&client, "2", Method::ToolsCall, &params));
        assert_eq!(one.await.unwrap().unwrap(), result(&arguments));
        assert_eq!(two.await.unwrap().unwrap(), result(&arguments));
    }
}

#[tokio::test]
async fn a_connection_that_ends_fails_its_calls_once_and_the_next_call_has_a_new_one() {
    for end in [Act::Cut, Act::Close, Act::Half] {
        for peer in Peer::all({
            let end = end.clone();
            move |_, message| match message["params"]["name"].as_str() {
                Some("end") => vec![end.clone()],
                Some("hold") => vec![],
                _ => legacy(message),
            }
        })
        .await
        {
            let upstream = peer.upstream();
            let client = legacy_client("a");
            let (held, _door) = begin(&upstream, tool(&client, "1", "hold"));
            peer.log.until("the held call", |log| log.count("tools/call") == 1).await;
            let error = run(&upstream, &tool(&client, "2", "end")).await.unwrap_err();
            assert!(matches!(error, CallError::Lost { .. }), "{error}");
            let error = held.await.unwrap().unwrap_err();
            assert!(matches!(error, CallError::Lost { .. }), "{error}");
            assert!(error.to_string().contains("the connection ended"), "{error}");
            run(&upstream, &tool(&client, "3", "t")).await.unwrap();
            assert_eq!(peer.log.connections(), 2);
            assert_eq!(peer.log.count("tools/call"), 3, "nothing is sent twice");
        }
    }
}

#[tokio::test]
async fn garbage_between_messages_is_skipped_and_a_flood_of_it_is_not() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("t") => vec![
            Act::Say("hello".into()),
            Act::Say("[1,2]".into()),
            Act::Say("{}".into()),
            result_of(message, r#"{"ok":1}"#),
        ],
        Some("flood") => vec![Act::Say("noise".into()); 200],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let client = legacy_client("a");
        assert_eq!(run(&upstream, &tool(&client, "1", "t")).await.unwrap(), result(r#"{"ok":1}"#));
        let error = run(&upstream, &tool(&client, "2", "flood")).await.unwrap_err();
        assert!(error.to_string().contains("no message"), "{error}");
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled_on_the_connection() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("hold") => vec![],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let (running, door) = begin(&upstream, tool(&legacy_client("a"), "1", "hold"));
        peer.log.until("the held call", |log| log.count("tools/call") == 1).await;
        running.abort();
        drop(door);
        peer.log.until("its end", |log| log.count("notifications/cancelled") == 1).await;
        let seen = peer.log.seen.lock();
        let id = |method: &str| seen.iter().find(|(_, m)| m["method"] == method).unwrap().1.clone();
        assert_eq!(id("notifications/cancelled")["params"]["requestId"], id("tools/call")["id"]);
    }
}

#[tokio::test]
async fn a_question_of_the_server_reaches_the_one_client_of_its_connection() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("ask") => vec![Act::Say(
            r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{"n":1}}"#.into(),
        )],
        _ if message["result"]["yes"] == 1 => {
            vec![Act::Say(r#"{"jsonrpc":"2.0","id":2,"result":{"asked":1}}"#.into())]
        }
        _ => legacy(message),
    })
    .await
    {
        let mut config = peer.backend();
        *sharing(&mut config) = Sharing::PerSession;
        let upstream = upstream(config);
        let client = client(Scope::Session("a".into()), LATEST_LEGACY, r#"{"sampling":{}}"#, None);
        let (running, mut door) = begin(&upstream, tool(&client, "1", "ask"));
        let ToClient::Ask(ask) = next(&mut door).await else { panic!() };
        ask.replies.send(vec![Ok(Bytes::from_static(br#"{"yes":1}"#))]).unwrap();
        // Ids are counted from 1, and the handshake had the first.
        assert_eq!(running.await.unwrap().unwrap(), result(r#"{"asked":1}"#));
    }
}

#[tokio::test]
async fn connections_are_shared_as_configured_and_end_with_their_owner() {
    for peer in Peer::all(|_, message| legacy(message)).await {
        let mut config = peer.backend();
        *sharing(&mut config) = Sharing::PerSession;
        let upstream = upstream(config);
        let (a, b) = (legacy_client("a"), legacy_client("b"));
        run(&upstream, &tool(&a, "1", "t")).await.unwrap();
        run(&upstream, &tool(&b, "1", "t")).await.unwrap();
        run(&upstream, &tool(&a, "2", "t")).await.unwrap();
        assert_eq!(peer.log.connections(), 2);
        upstream.end_scope(&a.scope).await;
        peer.log.until("one connection", |log| log.open.load(Ordering::SeqCst) == 1).await;
        upstream.close(Duration::from_secs(1)).await;
        peer.log.until("no connection", |log| log.open.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn who_is_not_there_or_does_not_let_in_is_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for transport in [
        Transport::WebSocket(remote(format!("ws://{gone}/ws"))),
        Transport::Sse(remote(format!("http://{gone}/sse"))),
    ] {
        let error =
            run(&upstream(backend(transport)), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    }
    let server = Server::start(|_| Say::Status(401, "text/plain", "who are you".into())).await;
    for transport in [
        Transport::WebSocket(remote(format!("ws://{}/ws", server.address))),
        Transport::Sse(remote(format!("http://{}/sse", server.address))),
    ] {
        let error =
            run(&upstream(backend(transport)), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::NeedsAuth { status: 401, .. }), "{error}");
    }
    let page = Server::start(|_| Say::Status(200, "text/html", "<p>hello".into())).await;
    for transport in [
        Transport::WebSocket(remote(format!("ws://{}/ws", page.address))),
        Transport::Sse(remote(format!("http://{}/sse", page.address))),
    ] {
        let error =
            run(&upstream(backend(transport)), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn who_never_says_a_word_costs_a_call_its_time_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    for transport in [
        Transport::WebSocket(remote(format!("ws://{silent}/ws"))),
        Transport::Sse(remote(format!("http://{silent}/sse"))),
    ] {
        let mut call = tool(&legacy_client("a"), "1", "t");
        call.deadline = Instant::now() + Duration::from_millis(300);
        let error = run(&upstream(backend(transport)), &call).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    }
    let script: Script = Arc::new(|_, _| vec![]);
    for peer in [Peer::socket(script.clone()).await, Peer::sse(script, Shape::default()).await] {
        let mut call = tool(&legacy_client("a"), "1", "t");
        call.deadline = Instant::now() + Duration::from_millis(300);
        let error = run(&peer.upstream(), &call).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_server_over_http_with_sse_that_is_configured_as_http_is_said_to_be_one() {
    let script: Script = Arc::new(|_, message| legacy(message));
    let peer = Peer::sse(script, Shape::default()).await;
    let Transport::Sse(remote) = peer.transport.clone() else { unreachable!() };
    let upstream = upstream(backend(Transport::Http(remote)));
    let error = upstream.probe().await.unwrap_err();
    assert!(error.to_string().contains("configure it as `sse:`"), "{error}");
    let error = run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(error.to_string().contains("configure it as `sse:`"), "{error}");
}

#[tokio::test]
async fn a_socket_is_taken_with_the_subprotocol_or_without_one_but_not_with_another() {
    let script: Script = Arc::new(|_, message| legacy(message));
    for (subprotocol, fine) in [(Some("mcp"), true), (None, true), (Some("chat"), false)] {
        let peer = Peer::socket_with(script.clone(), subprotocol).await;
        let outcome = run(&peer.upstream(), &tool(&legacy_client("a"), "1", "t")).await;
        assert_eq!(outcome.is_ok(), fine, "{subprotocol:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_socket_speaks_the_era_of_its_first_message() {
    let script: Script = Arc::new(|_, message| match message["method"].as_str() {
        Some("server/discover") => vec![result_of(
            message,
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{},"ttlMs":0,"cacheScope":"private"}"#,
        )],
        Some("tools/call") => vec![result_of(message, r#"{"resultType":"complete"}"#)],
        _ => legacy(message),
    });
    let peer = Peer::socket(script).await;
    let mut config = peer.backend();
    config.protocol = Protocol::Auto;
    let upstream = upstream(config);
    let params = r#"{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}"#;
    run(&upstream, &call(&modern_client(), "1", Method::ToolsCall, params)).await.unwrap();
    run(&upstream, &tool(&legacy_client("a"), "1", "t")).await.unwrap();
    let seen = peer.log.seen.lock();
    let first = |connection| seen.iter().find(|(at, _)| *at == connection).unwrap().1["method"].clone();
    assert_eq!(first(0), "initialize");
    assert_eq!(first(1), "server/discover", "on a connection that is thrown away");
    assert_eq!(first(2), "tools/call");
    assert_eq!(peer.log.connections(), 3);
}

#[tokio::test]
async fn every_way_to_name_the_place_for_messages_is_understood() {
    for (first, message) in [
        ("event: endpoint\ndata: /messages/$id\n\n", "event: message\ndata: $data\n\n"),
        (
            "event: endpoint\r\ndata: $base/messages/$id\r\n\r\n",
            "id: 1\r\nevent: message\r\ndata: $data\r\n\r\n",
        ),
        (": hello\n\nid: 0\nevent: endpoint\ndata:messages/$id?session_id=1\n\n", "data: $data\nid: 7\n\n"),
    ] {
        let script: Script = Arc::new(|_, message| legacy(message));
        let peer = Peer::sse(script, Shape { first, message }).await;
        run(&peer.upstream(), &tool(&legacy_client("a"), "1", "t")).await.expect(first);
    }
}

#[tokio::test]
async fn messages_are_not_posted_to_another_server() {
    let other = Server::start(usual).await;
    let first: &'static str =
        Box::leak(format!("event: endpoint\ndata: http://{}/m\n\n", other.address).into_boxed_str());
    let script: Script = Arc::new(|_, message| legacy(message));
    let peer = Peer::sse(script, Shape { first, ..Shape::default() }).await;
    let error = run(&peer.upstream(), &tool(&legacy_client("a"), "1", "t")).await.unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    assert!(other.seen.lock().is_empty());
}

#[tokio::test]
async fn what_follows_a_resource_is_said_once_and_told_to_those_who_follow() {
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
    for peer in Peer::all(move |_, message| match message["params"]["name"].as_str() {
        Some("change") => vec![Act::Say(changed.into()), result_of(message, "{}")],
        Some("cut") => vec![Act::Cut],
        _ => legacy(message),
    })
    .await
    {
        let upstream = peer.upstream();
        let with_events = |session: &str| {
            let (events, door) = Caller::channel();
            (client(Scope::Session(session.into()), LATEST_LEGACY, "{}", Some(events)), door)
        };
        let ((a, mut door_a), (b, mut door_b), (c, mut door_c)) =
            (with_events("a"), with_events("b"), with_events("c"));
        let subscribe = |client| call(client, "1", Method::ResourcesSubscribe, r#"{"uri":"a:b"}"#);
        run(&upstream, &subscribe(&a)).await.unwrap();
        run(&upstream, &subscribe(&b)).await.unwrap();
        assert_eq!(peer.log.count("resources/subscribe"), 1);
        run(&upstream, &tool(&c, "2", "change")).await.unwrap();
        assert_eq!(next_told(&mut door_a).await, changed);
        assert_eq!(next_told(&mut door_b).await, changed);
        assert!(door_c.try_recv().is_err());
        // When the connection has been replaced, everything is said again.
        _ = run(&upstream, &tool(&c, "3", "cut")).await.unwrap_err();
        peer.log.until("a new subscription", |log| log.count("resources/subscribe") == 2).await;
        assert_eq!(next_told(&mut door_a).await, changed, "something may have been missed");
        assert_eq!(next_told(&mut door_b).await, changed);
        let unsubscribe = call(&a, "4", Method::ResourcesUnsubscribe, r#"{"uri":"a:b"}"#);
        run(&upstream, &unsubscribe).await.unwrap();
        assert_eq!(peer.log.count("resources/unsubscribe"), 0);
        upstream.end_scope(&b.scope).await;
        peer.log.until("the last one gone", |log| log.count("resources/unsubscribe") == 1).await;
        run(&upstream, &tool(&c, "5", "change")).await.unwrap();
        assert!(door_a.try_recv().is_err() && door_b.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_server_of_one_session_has_one_connection_and_one_call_at_a_time() {
    for peer in Peer::all(|_, message| legacy(message)).await {
        let mut config = peer.backend();
        *sharing(&mut config) = Sharing::PerSession;
        config.single_session =
            Some(mt_proto::resource::SingleSession { queue_max: 50, wait_max: Duration::from_secs(20) });
        let upstream = upstream(config);
        let clients: Vec<_> = ["a", "b", "c"].map(legacy_client).into();
        let mut calls = Vec::new();
        for round in 0..3 {
            for client in &clients {
                calls.push(begin(&upstream, tool(client, &round.to_string(), "t")));
            }
        }
        for (call, _door) in calls {
            call.await.unwrap().unwrap();
        }
        upstream.probe().await.unwrap();
        assert_eq!(peer.log.open_most(), 1, "socket: {}", peer.is_socket());
    }
}

#[tokio::test]
async fn a_full_line_refuses_at_once_and_a_wait_ends() {
    for peer in Peer::all(|_, message| match message["params"]["name"].as_str() {
        Some("hold") => vec![],
        _ => legacy(message),
    })
    .await
    {
        let mut config = peer.backend();
        config.single_session =
            Some(mt_proto::resource::SingleSession { queue_max: 1, wait_max: Duration::from_millis(300) });
        let upstream = upstream(config);
        let client = legacy_client("a");
        let (held, _door) = begin(&upstream, tool(&client, "1", "hold"));
        peer.log.until("the held call", |log| log.count("tools/call") == 1).await;
        let (waiting, _door) = begin(&upstream, tool(&client, "2", "t"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = Instant::now();
        let error = run(&upstream, &tool(&client, "3", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::QueueFull { limit: 1, .. }), "{error}");
        assert!(began.elapsed() < Duration::from_millis(200));
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::QueueTimeout { .. }), "{error}");
        held.abort();
        assert_eq!(peer.log.count("tools/call"), 1, "the server has seen nothing of the others");
    }
}
