//! How bodies come, and what becomes of their connections.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn what_has_no_body_ends_with_its_head() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    for (method, head) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
        (Method::POST, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        (Method::POST, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let (answer, ()) = tokio::join!(peer.origin.send(of(method, "")), async {
            request(&mut tcp).await;
            tcp.write_all(head.as_bytes()).await.unwrap();
        });
        assert_eq!(peer.origin.idle(), 1, "{head}");
        assert_eq!(read(answer.unwrap()).await.unwrap(), "");
    }
}

#[tokio::test]
async fn an_interim_answer_is_not_the_answer() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let answer = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{SHORT}");
    assert_eq!(peer.exchange(&mut tcp, &answer).await.unwrap(), "{}");
    assert_eq!(peer.origin.idle(), 1);
}

#[tokio::test]
async fn trailers_come_after_the_body_and_the_connection_is_kept() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                  2\r\n{}\r\n0\r\nx-sum: 7\r\n\r\n";
    let (sent, ()) = tokio::join!(send(&peer.origin), async {
        request(&mut tcp).await;
        tcp.write_all(answer.as_bytes()).await.unwrap();
    });
    let collected = sent.unwrap().into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "7");
    assert_eq!(collected.to_bytes(), "{}");
    assert_eq!(peer.origin.idle(), 1);
}

#[tokio::test]
async fn what_came_in_one_piece_is_given_back_before_it_is_read() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let (sent, ()) = tokio::join!(send(&peer.origin), async {
        request(&mut tcp).await;
        tcp.write_all(SHORT.as_bytes()).await.unwrap();
    });
    assert_eq!(peer.origin.idle(), 1);
    let body = sent.unwrap().into_body();
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(2));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
}

#[tokio::test]
async fn a_stream_that_is_dropped_after_its_last_event_leaves_the_connection() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let (sent, ()) = tokio::join!(send(&peer.origin), async {
        request(&mut tcp).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: {}\n\r\n0\r\n\r\n";
        tcp.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut body = sent.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: {}\n");
    drop(body);
    assert_eq!(peer.origin.idle(), 1);
    assert_eq!(peer.exchange(&mut tcp, SHORT).await.unwrap(), "{}");
}

#[tokio::test]
async fn nothing_is_read_that_nobody_asks_for() {
    const LENGTH: usize = 64 * 1024 * 1024;
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let (sent, ()) = tokio::join!(send(&peer.origin), async {
        request(&mut tcp).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
    });
    let mut body = sent.unwrap().into_body();
    let piece = vec![b'x'; 64 * 1024];
    let mut written = 0;
    while let Ok(n) = timeout(Duration::from_millis(200), tcp.write(&piece)).await {
        written += n.unwrap();
        assert!(written < LENGTH / 2, "{written} bytes went somewhere");
    }
    let (mut read, rest) = (0, LENGTH - written);
    let serve = async {
        for _ in 0..rest / piece.len() {
            tcp.write_all(&piece).await.unwrap();
        }
        tcp.write_all(&piece[..rest % piece.len()]).await.unwrap();
    };
    let all = async {
        while let Some(frame) = body.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
        }
    };
    timeout(PATIENCE, async { tokio::join!(all, serve) }).await.unwrap();
    assert_eq!(read, LENGTH);
    assert_eq!(peer.origin.idle(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunked,
    Close,
}

fn framed(framing: Framing, body: &[u8], chunk: usize) -> Vec<u8> {
    let mut wire = b"HTTP/1.1 200 OK\r\n".to_vec();
    match framing {
        Framing::Length => {
            wire.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(body);
        }
        Framing::Close => {
            wire.extend_from_slice(b"connection: close\r\n\r\n");
            wire.extend_from_slice(body);
        }
        Framing::Chunked => {
            wire.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in body.chunks(chunk) {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        }
    }
    wire
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_body_arrives_as_it_was_however_it_is_cut(
        framing in prop_oneof![Just(Framing::Length), Just(Framing::Chunked), Just(Framing::Close)],
        body in prop::collection::vec(any::<u8>(), 0..40_000),
        chunk in 1..9000usize,
        cuts in prop::collection::vec((1..20_000usize, any::<bool>()), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let peer = Peer::new().await;
            let wire = framed(framing, &body, chunk);
            let serve = async {
                let mut tcp = peer.accept().await;
                tcp.set_nodelay(true).unwrap();
                request(&mut tcp).await;
                let mut rest = &wire[..];
                for (cut, pause) in cuts {
                    let (now, later) = rest.split_at(cut.min(rest.len()));
                    tcp.write_all(now).await.unwrap();
                    rest = later;
                    if pause {
                        sleep(Duration::from_millis(1)).await;
                    }
                }
                tcp.write_all(rest).await.unwrap();
                // A connection that is not kept ends here.
                (!matches!(framing, Framing::Close)).then_some(tcp)
            };
            let (answer, tcp) = tokio::join!(ask(&peer.origin), serve);
            assert_eq!(answer.unwrap(), body);
            match tcp {
                Some(mut tcp) => {
                    assert_eq!(peer.origin.idle(), 1);
                    assert_eq!(peer.exchange(&mut tcp, SHORT).await.unwrap(), "{}");
                }
                None => assert_eq!(peer.origin.idle(), 0),
            }
        });
    }
}
