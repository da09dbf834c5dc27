//! How connections end, and what that means for the request.

use std::task::Poll;

use tokio::{net::TcpSocket, task::coop};

use super::*;
use crate::upstream::client::origin::{IDLE_PLAIN, IDLE_TLS};

#[tokio::test]
async fn a_server_that_nobody_listens_at_has_got_nothing() {
    let peer = Peer::new().await;
    let (address, pool) = (peer.address, Pool::default());
    drop(peer);
    let error = ask(&origin(&pool, address)).await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
    assert!(error.reason().contains("refused"), "{}", error.reason());
    assert_eq!(pool.inner.meters.open(), 0);
}

#[tokio::test]
async fn opening_a_connection_takes_no_longer_than_it_may() {
    // Whose queue is full does not answer.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(tcp) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(tcp.unwrap());
    }
    let pool = Pool::default();
    let url = format!("http://{address}/").parse().unwrap();
    let origin = pool.origin(&url, Duration::from_millis(100), || unreachable!()).unwrap();
    let error = ask(&origin).await.unwrap_err();
    assert!(error.is_unsent(), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced_before_anything_is_sent() {
    let peer = Peer::new().await;
    let tcp = peer.used().await;
    drop(tcp);
    sleep(Duration::from_millis(20)).await;
    assert_eq!(peer.origin.idle(), 1, "nobody has looked yet");
    peer.used().await;
}

#[tokio::test]
async fn any_number_of_connections_that_the_server_closed_is_passed_over() {
    let peer = Peer::new().await;
    drop(peer.many_used(IDLE_CONNECTIONS_MAX).await);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(peer.origin.idle(), IDLE_CONNECTIONS_MAX, "nobody has looked yet");
    peer.used().await;
}

#[tokio::test]
async fn a_busy_task_finds_out_that_the_server_closed_as_well() {
    let peer = Peer::new().await;
    drop(peer.used().await);
    sleep(Duration::from_millis(50)).await;
    let busy = async {
        poll_fn(|cx| {
            while coop::has_budget_remaining() {
                if let Poll::Ready(done) = coop::poll_proceed(cx) {
                    done.made_progress();
                }
            }
            Poll::Ready(())
        })
        .await;
        ask(&peer.origin).await
    };
    let (answer, ()) = tokio::join!(biased; busy, async {
        let mut tcp = peer.accept().await;
        request(&mut tcp).await;
        tcp.write_all(SHORT.as_bytes()).await.unwrap();
    });
    assert_eq!(answer.unwrap(), "{}");
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_connection() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    // Behind an answer.
    let garbage = format!("{SHORT}{SHORT}");
    assert_eq!(peer.exchange(&mut tcp, &garbage).await.unwrap(), "{}");
    assert_eq!(peer.origin.idle(), 0);
    closed(&mut tcp).await;
    // Or while nothing is asked.
    let mut tcp = peer.used().await;
    tcp.write_all(SHORT.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(20)).await;
    peer.used().await;
    closed(&mut tcp).await;
}

#[tokio::test]
async fn an_answer_that_closes_leaves_nothing_behind() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let closing = SHORT.replace("content-length", "connection: close\r\ncontent-length");
    assert_eq!(peer.exchange(&mut tcp, &closing).await.unwrap(), "{}");
    assert_eq!(peer.origin.idle(), 0);
    closed(&mut tcp).await;
}

#[tokio::test]
async fn a_request_that_was_read_is_not_sent_again() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let (answer, ()) = tokio::join!(ask(&peer.origin), async {
        request(&mut tcp).await;
        drop(tcp);
    });
    let error = answer.unwrap_err();
    assert!(!error.is_unsent(), "{error:?}");
    assert!(!peer.is_called().await);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    let peer = Peer::new().await;
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
    ] {
        let (sent, ()) = tokio::join!(ask(&peer.origin), async {
            let mut tcp = peer.accept().await;
            request(&mut tcp).await;
            tcp.write_all(answer.as_bytes()).await.unwrap();
        });
        assert!(!sent.unwrap_err().is_unsent(), "{answer}");
        assert_eq!(peer.origin.idle(), 0);
    }
}

#[tokio::test]
async fn dropping_a_body_half_way_closes_its_connection() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let (sent, ()) = tokio::join!(send(&peer.origin), async {
        request(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    });
    let mut body = sent.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "{");
    drop(body);
    closed(&mut tcp).await;
    assert_eq!(peer.origin.idle(), 0);
}

#[tokio::test]
async fn whoever_stops_waiting_for_an_answer_closes_its_connection() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let mut asked = Box::pin(send(&peer.origin));
    tokio::select! {
        _ = &mut asked => panic!("there is no answer"),
        _ = request(&mut tcp) => {}
    }
    drop(asked);
    closed(&mut tcp).await;
    assert_eq!(peer.origin.idle(), 0);
}

#[tokio::test]
async fn whoever_stops_half_way_through_sending_closes_its_connection() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let mut asked = Box::pin(peer.origin.send(of(Method::POST, vec![b'x'; 64 * 1024 * 1024])));
    let mut buffer = vec![0; 1000];
    tokio::select! {
        _ = &mut asked => panic!("there is no answer"),
        read = tcp.read_exact(&mut buffer) => assert!(read.is_ok()),
    }
    drop(asked);
    closed(&mut tcp).await;
}

#[tokio::test]
async fn an_answer_before_the_whole_request_counts() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let asked = peer.origin.send(of(Method::POST, vec![b'x'; 64 * 1024 * 1024]));
    let (answer, ()) = tokio::join!(timeout(PATIENCE, asked), async {
        tcp.read_exact(&mut [0; 1000]).await.unwrap();
        tcp.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    });
    let answer = answer.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(read(answer).await.unwrap(), "no");
    assert_eq!(peer.origin.idle(), 0, "the rest of the request has not been sent");
    closed(&mut tcp).await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let peer = Peer::new().await;
    let (answer, ()) = tokio::join!(ask(&peer.origin), async {
        let mut tcp = peer.accept().await;
        request(&mut tcp).await;
        let head = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1024 * 1024));
        _ = tcp.write_all(head.as_bytes()).await;
        closed(&mut tcp).await;
    });
    assert!(!answer.unwrap_err().is_unsent());
}

#[tokio::test]
async fn what_was_idle_for_too_long_is_not_used() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    tokio::time::pause();
    tokio::time::advance(IDLE_PLAIN).await;
    tokio::time::resume();
    peer.used().await;
    closed(&mut tcp).await;
    assert!(IDLE_PLAIN < IDLE_TLS);
}

#[tokio::test]
async fn idle_connections_that_the_server_closes_are_let_go() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    tcp.shutdown().await.unwrap();
    closed(&mut tcp).await;
    until("it is still kept", || peer.origin.idle() == 0).await;
}

#[tokio::test]
async fn idle_connections_are_closed_in_the_end() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    closed(&mut tcp).await;
    assert_eq!(peer.origin.idle(), 0);
    until("somebody still looks after none", || {
        !peer._pool.inner.swept.load(std::sync::atomic::Ordering::SeqCst)
    })
    .await;
    // And the next is looked after again.
    let mut tcp = peer.used().await;
    closed(&mut tcp).await;
}

#[tokio::test]
async fn a_server_that_nobody_uses_any_more_is_left() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let Peer { origin, _pool: pool, .. } = peer;
    assert_eq!(pool.inner.meters.open(), 1);
    drop(origin);
    closed(&mut tcp).await;
    assert_eq!(pool.inner.meters.open(), 0);
}
