//! Against a server on loopback whose every byte is the test's.

mod bodies;
mod ends;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{origin::IDLE_CONNECTIONS_MAX, *};
use crate::upstream::message::Outgoing;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

struct Peer {
    listener: TcpListener,
    address: SocketAddr,
    _pool: Pool,
    origin: Arc<Origin>,
}

impl Peer {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pool = Pool::default();
        let origin = origin(&pool, address);
        Self { listener, address, _pool: pool, origin }
    }

    async fn accept(&self) -> TcpStream {
        timeout(PATIENCE, self.listener.accept()).await.expect("nobody connects").unwrap().0
    }

    /// Whether somebody connects in a while.
    async fn is_called(&self) -> bool {
        timeout(Duration::from_millis(100), self.listener.accept()).await.is_ok()
    }

    /// Sends a request and answers it on `tcp`.
    async fn exchange(&self, tcp: &mut TcpStream, answer: &str) -> Result<Bytes, Error> {
        let serve = async {
            request(tcp).await;
            tcp.write_all(answer.as_bytes()).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(&self.origin), serve);
        answer
    }

    /// A connection that has been used once.
    async fn used(&self) -> TcpStream {
        let serve = async {
            let mut tcp = self.accept().await;
            request(&mut tcp).await;
            tcp.write_all(SHORT.as_bytes()).await.unwrap();
            tcp
        };
        let (answer, tcp) = tokio::join!(ask(&self.origin), serve);
        assert_eq!(answer.unwrap(), "{}");
        tcp
    }

    /// Connections that have been used once each, at the same time.
    async fn many_used(&self, count: usize) -> Vec<TcpStream> {
        let (begun, last) = SHORT.as_bytes().split_at(SHORT.len() - 1);
        let (mut sockets, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (answer, tcp) = tokio::join!(send(&self.origin), async {
                let mut tcp = self.accept().await;
                request(&mut tcp).await;
                // Not the whole answer yet, so that it is not used for the next.
                tcp.write_all(begun).await.unwrap();
                tcp
            });
            answers.push(answer.unwrap());
            sockets.push(tcp);
        }
        for (answer, tcp) in answers.into_iter().zip(&mut sockets) {
            tcp.write_all(last).await.unwrap();
            assert_eq!(read(answer).await.unwrap(), "{}");
        }
        sockets
    }
}

fn origin(pool: &Pool, address: SocketAddr) -> Arc<Origin> {
    let url = format!("http://{address}/mcp").parse().unwrap();
    pool.origin(&url, Duration::from_secs(5), || unreachable!("no TLS")).unwrap()
}

fn of(method: Method, body: impl Into<Bytes>) -> Request<Outgoing> {
    Request::builder()
        .method(method)
        .uri("/mcp")
        .header("host", "peer")
        .body(Outgoing::from(body.into()))
        .unwrap()
}

async fn send(origin: &Arc<Origin>) -> Result<Response<Incoming>, Error> {
    timeout(PATIENCE, origin.send(of(Method::POST, "[1]"))).await.expect("no answer")
}

async fn ask(origin: &Arc<Origin>) -> Result<Bytes, Error> {
    read(send(origin).await?).await.map_err(Error::Exchange)
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, hyper::Error> {
    let collected = timeout(PATIENCE, answer.into_body().collect()).await.expect("no end");
    Ok(collected?.to_bytes())
}

/// The next request, whole.
async fn request(tcp: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let read = async {
        loop {
            let mut buffer = [0; 4096];
            let n = tcp.read(&mut buffer).await.unwrap();
            assert_ne!(n, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..n]);
            let text = String::from_utf8_lossy(&seen);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
    };
    timeout(PATIENCE, read).await.expect("no request")
}

/// Waits until the other side has closed, whatever it sends before.
async fn closed(tcp: &mut TcpStream) {
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        while !matches!(tcp.read(&mut buffer).await, Ok(0) | Err(_)) {}
    };
    timeout(PATIENCE, read).await.expect("not closed");
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let wait = async {
        while !is() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    for _ in 0..3 {
        assert_eq!(peer.origin.idle(), 1);
        assert_eq!(peer.exchange(&mut tcp, SHORT).await.unwrap(), "{}");
    }
    assert!(!peer.is_called().await);
}

#[tokio::test]
async fn the_request_is_in_origin_form_and_says_what_it_was_given() {
    let peer = Peer::new().await;
    let serve = async {
        let mut tcp = peer.accept().await;
        let seen = request(&mut tcp).await;
        tcp.write_all(SHORT.as_bytes()).await.unwrap();
        seen
    };
    let (answer, seen) = tokio::join!(ask(&peer.origin), serve);
    answer.unwrap();
    assert_eq!(seen, "POST /mcp HTTP/1.1\r\nhost: peer\r\ncontent-length: 3\r\n\r\n[1]");
}

#[tokio::test]
async fn what_was_idle_for_the_shortest_time_is_used_first() {
    let peer = Peer::new().await;
    let (one, two) = tokio::join!(send(&peer.origin), async {
        let mut first = peer.accept().await;
        request(&mut first).await;
        let (other, mut second) = tokio::join!(send(&peer.origin), async {
            let mut second = peer.accept().await;
            request(&mut second).await;
            first.write_all(SHORT.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            second.write_all(SHORT.as_bytes()).await.unwrap();
            second
        });
        read(other.unwrap()).await.unwrap();
        assert_eq!(peer.exchange(&mut second, SHORT).await.unwrap(), "{}");
    });
    read(one.unwrap()).await.unwrap();
    let () = two;
    assert_eq!(peer.origin.idle(), 2);
}

#[tokio::test]
async fn no_more_is_kept_than_there_is_room_for() {
    let peer = Peer::new().await;
    let mut sockets = peer.many_used(IDLE_CONNECTIONS_MAX + 3).await;
    assert_eq!(peer.origin.idle(), IDLE_CONNECTIONS_MAX);
    closed(sockets.last_mut().unwrap()).await;
}

#[tokio::test]
async fn the_same_words_name_the_same_server() {
    let pool = Pool::default();
    let address = "127.0.0.1:9".parse().unwrap();
    let one = origin(&pool, address);
    assert!(Arc::ptr_eq(&one, &origin(&pool, address)));
    assert!(!Arc::ptr_eq(&one, &origin(&pool, "127.0.0.1:10".parse().unwrap())));
    drop(one);
    origin(&pool, "127.0.0.1:11".parse().unwrap());
    assert_eq!(pool.inner.origins.lock().len(), 1, "what nobody uses is forgotten");
    for none in ["/mcp", "ftp://host/"] {
        assert!(pool.origin(&none.parse().unwrap(), PATIENCE, || unreachable!()).is_none());
    }
}

#[tokio::test]
async fn nothing_is_polled_without_need() {
    let peer = Peer::new().await;
    let mut tcp = peer.used().await;
    let serve = async {
        request(&mut tcp).await;
        tcp.write_all(SHORT.as_bytes()).await.unwrap();
    };
    let mut asked = pin!(ask(&peer.origin));
    let mut polls = 0;
    let counted = poll_fn(|cx| {
        polls += 1;
        asked.as_mut().poll(cx)
    });
    let task = async {
        // Apart, so that only its own wakes poll it.
        let mut set = futures_util::stream::FuturesUnordered::new();
        set.push(Box::pin(counted) as Pin<Box<dyn Future<Output = Result<Bytes, Error>>>>);
        futures_util::StreamExt::next(&mut set).await.unwrap()
    };
    let (answer, ()) = tokio::join!(task, serve);
    assert_eq!(answer.unwrap(), "{}");
    // To write, and to read.
    assert!(polls <= 2, "polled {polls} times");
}

#[tokio::test]
async fn waiting_for_an_answer_takes_no_room_in_who_waits() {
    let peer = Peer::new().await;
    // Every future around it is moved with all that is in it.
    assert!(size_of_val(&peer.origin.send(of(Method::POST, "[1]"))) <= 5 * size_of::<usize>());
    assert!(size_of::<Incoming>() <= 64, "{}", size_of::<Incoming>());
}

#[tokio::test]
async fn a_body_can_be_read_on_another_runtime_than_its_connection_is_registered_with() {
    let peer = Peer::new().await;
    let elsewhere =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let origin = Arc::clone(&peer.origin);
    let sent = elsewhere.spawn(async move { origin.send(of(Method::POST, "[1]")).await });
    let mut tcp = peer.accept().await;
    request(&mut tcp).await;
    tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let answer = sent.await.unwrap().unwrap();
    let serve = async {
        for _ in 0..10 {
            sleep(Duration::from_millis(2)).await;
            tcp.write_all(b"3\r\nabc\r\n").await.unwrap();
        }
        tcp.write_all(b"0\r\n\r\n").await.unwrap();
    };
    let (body, ()) = tokio::join!(read(answer), serve);
    assert_eq!(body.unwrap(), "abc".repeat(10));
    elsewhere.shutdown_background();
}
