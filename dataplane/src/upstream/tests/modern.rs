//! Modern calls over HTTP, and finding out what a backend speaks.

use super::*;
use crate::upstream::Eras;

fn headers_of(seen: &Seen) -> [Option<&str>; 4] {
    ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-region"].map(|name| seen.header(name))
}

#[tokio::test]
async fn headers_say_what_the_body_says() {
    let server = Server::start(|_| Say::Result(r#"{"resultType":"complete","content":[]}"#)).await;
    let upstream = server.upstream();
    let client = modern_client();
    let mut first = tool(&client, "1", "naïve tool");
    first.param_headers = vec![("mcp-param-region".parse().unwrap(), "eu".parse().unwrap())];
    run(&upstream, &first).await.unwrap();
    run(&upstream, &call(&client, "2", Method::ToolsList, "{}")).await.unwrap();
    run(&upstream, &call(&client, "3", Method::ResourcesRead, r#"{"uri":"file:///a b"}"#)).await.unwrap();
    let seen = server.seen.lock().clone();
    assert_eq!(
        headers_of(&seen[0]),
        [Some("2026-07-28"), Some("tools/call"), Some("=?base64?bmHDr3ZlIHRvb2w=?="), Some("eu")]
    );
    assert_eq!(headers_of(&seen[1]), [Some("2026-07-28"), Some("tools/list"), None, None]);
    assert_eq!(headers_of(&seen[2])[2], Some("file:///a b"));
    assert!(seen.iter().all(|seen| seen.header("mcp-session-id").is_none()), "there are no sessions");
    assert_eq!(seen.len(), 3, "and no handshakes");
}

#[tokio::test]
async fn a_stream_brings_notifications_and_then_the_answer() {
    let server = Server::start(|_| {
        Say::Events(": hello\r\n\r\nevent: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":1,\"progress\":2}}\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":$id,\r\ndata: \"result\":{\"x\":1}}\r\n\r\nid: 2/0\r\n\r\n".into())
    })
    .await;
    let upstream = server.upstream();
    let (running, mut door) = begin(&upstream, tool(&modern_client(), r#""a""#, "t"));
    assert!(next_told(&mut door).await.contains(r#""progressToken":1"#));
    assert_eq!(running.await.unwrap().unwrap(), result(r#"{"x":1}"#));
}

#[tokio::test]
async fn a_request_of_a_modern_backend_breaks_the_protocol() {
    let server = Server::start(|_| {
        Say::Events("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"roots/list\"}\n\n".into())
    })
    .await;
    let error = run(&server.upstream(), &tool(&modern_client(), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_closes_its_stream() {
    let (events, stream) = mpsc::channel(8);
    let stream = Mutex::new(Some(stream));
    let server = Server::start(move |_| Say::Live(stream.lock().take().unwrap())).await;
    let upstream = server.upstream();
    let (running, mut door) = begin(&upstream, tool(&modern_client(), "1", "t"));
    events
        .send(Bytes::from_static(
            b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n",
        ))
        .await
        .unwrap();
    next_told(&mut door).await;
    running.abort();
    timeout(PATIENCE, events.closed()).await.expect("the stream is still open");
    assert!(server.all("notifications/cancelled").is_empty(), "closing is the cancellation");
}

#[tokio::test]
async fn a_subscription_outlives_the_deadline_of_calls() {
    let (events, stream) = mpsc::channel(8);
    let stream = Mutex::new(Some(stream));
    let server = Server::start(move |_| Say::Live(stream.lock().take().unwrap())).await;
    let upstream = server.upstream();
    let mut listen =
        call(&modern_client(), "1", Method::Listen, r#"{"notifications":{"toolsListChanged":true}}"#);
    listen.deadline = Instant::now() + Duration::from_millis(200);
    let (running, mut door) = begin(&upstream, listen);
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{}}"#;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        events.send(Bytes::from(format!("data: {changed}\n\n"))).await.unwrap();
        assert_eq!(next_told(&mut door).await, changed);
    }
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test]
async fn a_subscription_takes_no_place_of_a_call_and_ends_with_its_upstream() {
    let (_events, stream) = mpsc::channel(8);
    let stream = Mutex::new(Some(stream));
    let server = Server::start(move |seen| match seen.json()["method"].as_str() {
        Some("subscriptions/listen") => Say::Live(stream.lock().take().unwrap()),
        _ => Say::Result("{}"),
    })
    .await;
    let upstream = server.upstream_as(|backend| backend.concurrent_calls_max = 1);
    let listen = call(&modern_client(), "1", Method::Listen, r#"{"notifications":{}}"#);
    let (listening, mut door) = begin(&upstream, listen);
    assert!(matches!(timeout(PATIENCE, door.recv()).await, Ok(Some(ToClient::Begin))));
    assert_eq!(run(&upstream, &tool(&modern_client(), "2", "t")).await.unwrap(), result("{}"));
    timeout(PATIENCE, upstream.close(2 * PATIENCE)).await.expect("nobody waits for a subscription");
    assert!(matches!(timeout(PATIENCE, listening).await, Ok(Ok(Err(CallError::Lost { .. })))));
}

#[tokio::test]
async fn an_error_with_a_status_is_an_answer() {
    for (status, code) in [(400, -32020), (404, -32601), (400, -32021)] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":$id,"error":{{"code":{code},"message":"m"}}}}"#);
        let server = Server::start(move |_| Say::Status(status, "application/json", body.clone())).await;
        let answer = run(&server.upstream(), &tool(&modern_client(), "1", "t")).await.unwrap();
        assert!(matches!(answer, Answer::Error(_)));
        assert_eq!(server.seen.lock().len(), 1, "our id is in it, so nothing has to be found out");
    }
}

/// As the TypeScript SDK's version 1, among others.
fn legacy_only(seen: &Seen) -> Option<Say> {
    let modern = seen.header("mcp-protocol-version") == Some("2026-07-28");
    modern.then(|| {
        let error = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Unsupported protocol version"},"id":null}"#;
        Say::Status(400, "application/json", error.into())
    })
}

#[tokio::test]
async fn a_legacy_backend_is_named_to_a_modern_client() {
    let server = Server::legacy(legacy_only).await;
    let upstream = server.upstream();
    assert_eq!(upstream.eras(), None);
    let error = run(&upstream, &tool(&modern_client(), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::EraMismatch { backend_era: "legacy", .. }), "{error}");
    assert_eq!(upstream.eras(), Some(Eras { legacy: true, modern: false }));
    let asked = server.seen.lock().len();
    run(&upstream, &tool(&modern_client(), "2", "t")).await.unwrap_err();
    assert_eq!(server.seen.lock().len(), asked, "from then on without asking");
    run(&upstream, &tool(&legacy_client("a"), "3", "t")).await.unwrap();
}

const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"1"}}}"#;

async fn probed(
    script: impl Fn(&Seen) -> Option<Say> + Send + Sync + 'static,
) -> Result<(bool, bool), CallError> {
    let server = Server::legacy(script).await;
    let facts = server.upstream().probe().await?;
    if facts.legacy {
        server.until(|seen| seen.is("DELETE")).await;
    }
    Ok((facts.legacy, !facts.modern_versions.is_empty()))
}

#[tokio::test]
async fn a_probe_tells_the_eras_of_servers_as_they_were_measured() {
    let discover = |say: fn() -> Say| move |seen: &Seen| seen.is("server/discover").then(say);
    let error = |status: u16, body: &'static str| Say::Status(status, "application/json", body.into());
    // Dual, in JSON and on a stream.
    assert_eq!(probed(discover(|| Say::Result(DISCOVERED))).await.unwrap(), (true, true));
    let streamed = |seen: &Seen| {
        seen.is("server/discover").then(|| {
            Say::Events(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{DISCOVERED}}}\n\n"))
        })
    };
    assert_eq!(probed(streamed).await.unwrap(), (true, true));
    // Legacy: an error without our id, a 200 with -32601, HTML.
    assert_eq!(probed(legacy_only).await.unwrap(), (true, false));
    let chuk = discover(|| {
        Say::Status(
            200,
            "application/json",
            r#"{"jsonrpc":"2.0","id":$id,"error":{"code":-32601,"message":"m"}}"#.into(),
        )
    });
    assert_eq!(probed(chuk).await.unwrap(), (true, false));
    let html = discover(|| Say::Status(400, "text/html", "<pre>Bad Request</pre>".into()));
    assert_eq!(probed(html).await.unwrap(), (true, false));
    // Modern only: `initialize` is an unknown method there.
    let modern = move |seen: &Seen| {
        Some(if seen.is("server/discover") {
            Say::Result(DISCOVERED)
        } else {
            error(404, r#"{"jsonrpc":"2.0","id":$id,"error":{"code":-32601,"message":"m"}}"#)
        })
    };
    assert_eq!(probed(modern).await.unwrap(), (false, true));
    // No evidence at all.
    let locked = probed(|_| Some(Say::Status(401, "text/plain", String::new()))).await.unwrap_err();
    assert!(matches!(locked, CallError::NeedsAuth { status: 401, .. }));
    let broken = probed(|_| Some(Say::Status(503, "text/plain", String::new()))).await.unwrap_err();
    assert!(matches!(broken, CallError::Unreachable { .. }));
    let elsewhere =
        probed(|_| Some(Say::Status(404, "text/html", "<h1>Not Found</h1>".into()))).await.unwrap_err();
    assert!(matches!(elsewhere, CallError::Protocol { .. }));
}

#[tokio::test]
async fn a_pinned_era_is_the_only_one_that_is_asked_for() {
    let server = Server::legacy(|_| None).await;
    let upstream = server.upstream_as(|backend| backend.protocol = Protocol::Revision("2025-03-26".into()));
    assert_eq!(upstream.eras(), Some(Eras { legacy: true, modern: false }));
    upstream.probe().await.unwrap();
    assert!(server.all("server/discover").is_empty());
    assert_eq!(server.all("initialize")[0].json()["params"]["protocolVersion"], "2025-03-26");
    let error = run(&upstream, &tool(&modern_client(), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::EraMismatch { .. }));
}

#[tokio::test]
async fn a_disabled_backend_is_left_alone() {
    let server = Server::legacy(|_| None).await;
    let upstream = server.upstream_as(|backend| backend.disabled = true);
    assert!(matches!(
        run(&upstream, &tool(&modern_client(), "1", "t")).await,
        Err(CallError::Disabled { .. })
    ));
    assert!(matches!(upstream.probe().await, Err(CallError::Disabled { .. })));
    assert!(server.seen.lock().is_empty());
}
