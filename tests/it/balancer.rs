//! A load balancer as people have them: each request goes to the next node, with
//! no thought for who has what, and one that could not be connected to is passed
//! over. What was written to a node that then dies fails, with 502.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Body = BoxBody<Bytes, hyper::Error>;

/// A running balancer; dropping it closes every connection.
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    /// `127.0.0.1:PORT`, in turn.
    nodes: Vec<String>,
    next: AtomicUsize,
    answered: Vec<AtomicUsize>,
    broken: AtomicUsize,
}

impl Balancer {
    pub async fn start(nodes: impl IntoIterator<Item = String>) -> Self {
        let nodes: Vec<String> = nodes.into_iter().collect();
        let answered = nodes.iter().map(|_| AtomicUsize::new(0)).collect();
        let shared =
            Arc::new(Shared { nodes, next: AtomicUsize::new(0), answered, broken: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, shared.clone()));
        Self { address, shared, _serving: serving }
    }

    /// Where clients reach a gateway through it.
    pub fn url(&self, gateway: &str) -> String {
        match gateway {
            "default" => format!("http://localhost:{}/mcp", self.address.port()),
            other => format!("http://localhost:{}/g/{other}/mcp", self.address.port()),
        }
    }

    /// How many requests each node has begun to answer.
    pub fn answered(&self) -> Vec<usize> {
        self.shared.answered.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// How many requests were written to a node that did not answer them, or not to the end.
    pub fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            Some(_) = connections.join_next() => continue,
        };
        socket.set_nodelay(true).unwrap();
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(forward(&shared, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            // Clients go when they like.
            _ = connection.await;
        });
    }
}

/// Gives a request to the next node that accepts a connection.
async fn forward(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let first = shared.next.fetch_add(1, Ordering::Relaxed);
    for passed_over in 0..shared.nodes.len() {
        let at = (first + passed_over) % shared.nodes.len();
        let Ok(socket) = TcpStream::connect(&shared.nodes[at]).await else { continue };
        socket.set_nodelay(true).unwrap();
        return match exchange(socket, request).await {
            Ok(response) => {
                shared.answered[at].fetch_add(1, Ordering::Relaxed);
                let shared = shared.clone();
                // An answer that is cut off is none.
                let cut = move |error| {
                    shared.broken.fetch_add(1, Ordering::Relaxed);
                    error
                };
                response.map(|body| body.map_err(cut).boxed())
            }
            Err(_) => {
                shared.broken.fetch_add(1, Ordering::Relaxed);
                empty(StatusCode::BAD_GATEWAY)
            }
        };
    }
    empty(StatusCode::SERVICE_UNAVAILABLE)
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

/// One request on a connection of its own, which the response keeps open.
async fn exchange(socket: TcpStream, mut request: Request<Incoming>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        _ = connection.with_upgrades().await;
    });
    let switches = request.headers().contains_key(header::UPGRADE);
    let of_client = switches.then(|| hyper::upgrade::on(&mut request));
    if !switches {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mut response = sender.send_request(request).await?;
    response.headers_mut().remove("keep-alive");
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let of_node = hyper::upgrade::on(&mut response);
        driving.spawn(async move {
            if let Some(of_client) = of_client
                && let (Ok(client), Ok(node)) = tokio::join!(of_client, of_node)
            {
                _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(node)).await;
            }
        });
    } else {
        response.headers_mut().remove(header::CONNECTION);
    }
    // They live as long as there is something to carry, and end with the runtime of their test.
    driving.detach_all();
    Ok(response)
}

/// Reads a whole response, for tests of the balancer itself.
async fn read(address: SocketAddr) -> (StatusCode, Bytes) {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    let mut driving = JoinSet::new();
    driving.spawn(async move { _ = connection.await });
    let request = Request::get("/").header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    (response.status(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn each_request_goes_to_the_next_node_and_a_dead_one_is_passed_over() {
    let mut nodes = Vec::new();
    let mut serving = JoinSet::new();
    for name in ["a", "b"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        nodes.push(listener.local_addr().unwrap().to_string());
        serving.spawn(async move {
            let app = axum::Router::new().fallback(async move || name);
            axum::serve(listener, app).await.unwrap();
        });
    }
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    nodes.push(unused.local_addr().unwrap().to_string());
    drop(unused);
    let balancer = Balancer::start(nodes).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let (status, body) = read(balancer.address).await;
        assert_eq!(status, StatusCode::OK);
        seen.push(body);
    }
    // Whoever comes after the dead one takes its turns too.
    assert_eq!(seen, ["a", "b", "a", "a", "b", "a"]);
    assert_eq!((balancer.answered(), balancer.broken()), (vec![4, 2, 0], 0));
}
