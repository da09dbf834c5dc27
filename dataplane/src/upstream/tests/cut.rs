//! Connections that fail, at every place where they can.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::upstream::UpstreamState;

/// A server that answers each request with the first `bytes` of a response and
/// closes the connection.
async fn cut_at(response: &'static str, bytes: usize) -> (Arc<Upstream>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = TaskTracker::new().spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.windows(4).any(|window| window == b"}}}\n" || window.ends_with(b"}}")) {
                if !matches!(socket.read_buf(&mut read).await, Ok(1..)) {
                    break;
                }
            }
            _ = socket.write_all(&response.as_bytes()[..bytes]).await;
            _ = socket.shutdown().await;
        }
    });
    let mut config = backend(Transport::Http(HttpTransport {
        url: format!("http://{address}/mcp").parse().unwrap(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        auth: None,
        sharing: Sharing::Shared,
    }));
    config.protocol = Protocol::Modern;
    (upstream(config), task)
}

#[tokio::test]
async fn a_response_that_is_cut_anywhere_is_one_error_and_never_an_answer() {
    const JSON: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 38\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":1}";
    const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n2e\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"a\":1}}\n\r\n1\r\n\n\r\n0\r\n\r\n";
    for response in [JSON, SSE] {
        // The event is complete with its empty line, some bytes before the end.
        let complete = response.len() - if response == SSE { 7 } else { 0 };
        for bytes in (0..complete).step_by(3).chain([complete - 1]) {
            let (upstream, server) = cut_at(response, bytes).await;
            let began = Instant::now();
            let outcome = run(&upstream, &tool(&modern_client(), "1", "t")).await;
            assert!(
                matches!(outcome, Err(CallError::Lost { .. } | CallError::Protocol { .. })),
                "cut at {bytes} of {response:?}: {outcome:?}"
            );
            assert!(began.elapsed() < Duration::from_secs(5));
            server.abort();
        }
    }
}

#[tokio::test]
async fn a_closed_port_is_said_at_once_and_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let upstream = upstream(backend(Transport::Http(HttpTransport {
        url: format!("http://{address}/mcp").parse().unwrap(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(5),
        auth: None,
        sharing: Sharing::Shared,
    })));
    for client in [modern_client(), legacy_client("a")] {
        let error = run(&upstream, &tool(&client, "1", "t")).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
    }
    let error = upstream.probe().await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
    let state = upstream.state().borrow().clone();
    assert!(matches!(state, UpstreamState::Unavailable { .. }), "{state:?}");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_used() {
    let server = Server::start(|_| Say::Result("{}")).await;
    let upstream = server.upstream();
    for id in ["1", "2", "3"] {
        run(&upstream, &tool(&modern_client(), id, "t")).await.unwrap();
    }
    assert_eq!(server.seen.lock().len(), 3);
}

#[tokio::test]
async fn a_peer_that_cannot_do_tls_is_unreachable_and_sent_nothing() {
    let server = Server::start(|_| Say::Result("{}")).await;
    let upstream = server.upstream_as(|backend| {
        let Transport::Http(http) = &mut backend.transport else { panic!() };
        http.url.set_scheme("https").unwrap();
    });
    let error = run(&upstream, &tool(&modern_client(), "1", "t")).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
    assert!(server.seen.lock().is_empty());
}
