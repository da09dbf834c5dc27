//! A gRPC server for tests: written against tonic and derived messages, with
//! the same types compiled from a file for reflection.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use prost_reflect::prost_types::Timestamp;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, BoxStream, Service, http},
    metadata::KeyAndValueRef,
    server::{Grpc, NamedService, ServerStreamingService, UnaryService},
    transport::Server,
};
use tonic_prost::ProstCodec;

const FILE: &str = r#"
syntax = "proto3";
package shop.v1;
import "shop/types.proto";
service Orders {
  rpc Get(Order) returns (Order);
  rpc Watch(Order) returns (stream Order);
  rpc Fail(Order) returns (Order);
  rpc Slow(Order) returns (Order);
  rpc Collect(stream Order) returns (Order);
  rpc Headers(Order) returns (Order);
}
"#;

const TYPES: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
enum State { STATE_UNSPECIFIED = 0; STATE_PAID = 1; }
message Item { string sku = 1; uint32 amount = 2; }
message Order {
  string id = 1;
  int64 cents = 2;
  State state = 3;
  repeated string tags = 4;
  map<string, int32> counts = 5;
  oneof pay { string card = 6; bool cash = 7; }
  google.protobuf.Timestamp at = 8;
  bytes raw = 9;
  double ratio = 10;
  Order parent = 11;
  repeated Item line_items = 12;
}
"#;

#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(string, tag = "1")]
    sku: String,
    #[prost(uint32, tag = "2")]
    amount: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    cents: i64,
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(string, repeated, tag = "4")]
    tags: Vec<String>,
    #[prost(map = "string, int32", tag = "5")]
    counts: HashMap<String, i32>,
    #[prost(oneof = "Pay", tags = "6, 7")]
    pay: Option<Pay>,
    #[prost(message, optional, tag = "8")]
    at: Option<Timestamp>,
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
    #[prost(double, tag = "10")]
    ratio: f64,
    #[prost(message, optional, boxed, tag = "11")]
    parent: Option<Box<Order>>,
    #[prost(message, repeated, tag = "12")]
    line_items: Vec<Item>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Pay {
    #[prost(string, tag = "6")]
    Card(String),
    #[prost(bool, tag = "7")]
    Cash(bool),
}

/// The types of the server, with all that they import.
pub fn descriptor_set() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("shop")).unwrap();
    std::fs::write(dir.path().join("shop/orders.proto"), FILE).unwrap();
    std::fs::write(dir.path().join("shop/types.proto"), TYPES).unwrap();
    let mut compiler = protox::Compiler::new([dir.path()]).unwrap();
    compiler.include_imports(true).open_file("shop/orders.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

#[derive(Clone, Copy, PartialEq)]
pub enum Reflects {
    V1,
    V1Alpha,
    Not,
}

/// A running server.
pub struct Shop {
    pub endpoint: String,
    pub calls: Arc<AtomicUsize>,
    pub running: Arc<AtomicUsize>,
    /// What each call had for `grpc-timeout`.
    pub timeouts: Arc<Mutex<Vec<Option<String>>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Shop {
    pub async fn start(reflects: Reflects) -> Self {
        Self::start_at("http://127.0.0.1:0", reflects).await
    }

    pub async fn start_at(endpoint: &str, reflects: Reflects) -> Self {
        let address: SocketAddr = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let orders = Orders::default();
        let (calls, running, timeouts) =
            (orders.calls.clone(), orders.running.clone(), orders.timeouts.clone());
        let set = descriptor_set();
        let reflection =
            || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(&set);
        let mut router = Server::builder().add_service(orders);
        match reflects {
            Reflects::V1 => router = router.add_service(reflection().build_v1().unwrap()),
            Reflects::V1Alpha => router = router.add_service(reflection().build_v1alpha().unwrap()),
            Reflects::Not => {}
        }
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
        });
        Self { endpoint, calls, running, timeouts, stop, tasks }
    }

    /// Until nothing runs any more.
    pub async fn at_rest(&self) {
        let still = async {
            while self.running.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), still).await.expect("the server stops working");
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        _ = tokio::time::timeout(Duration::from_millis(200), self.tasks.join_next()).await;
        self.tasks.shutdown().await;
    }
}

#[derive(Clone, Default)]
struct Orders {
    calls: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    timeouts: Arc<Mutex<Vec<Option<String>>>>,
}

impl NamedService for Orders {
    const NAME: &'static str = "shop.v1.Orders";
}

/// Counts down when it is dropped.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service<http::Request<Body>> for Orders {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let timeout = request.headers().get("grpc-timeout");
        self.timeouts.lock().push(timeout.map(|value| value.to_str().unwrap().to_owned()));
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let running = self.running.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Order, Order>::default());
            Ok(match method.as_str() {
                "Watch" => grpc.server_streaming(Watch(running), request).await,
                _ => grpc.unary(Unary { method, running }, request).await,
            })
        })
    }
}

struct Unary {
    method: String,
    running: Arc<AtomicUsize>,
}

impl UnaryService<Order> for Unary {
    type Response = Order;
    type Future = BoxFuture<Response<Order>, Status>;

    fn call(&mut self, request: Request<Order>) -> Self::Future {
        let (method, running) = (self.method.clone(), self.running.clone());
        Box::pin(async move {
            match method.as_str() {
                "Get" => Ok(Response::new(request.into_inner())),
                "Fail" => {
                    // As servers do that say what they did not like.
                    let shown = request.metadata().get("authorization").map(|shown| format!(" to {shown:?}"));
                    Err(Status::failed_precondition(format!("the till is shut{}", shown.unwrap_or_default())))
                }
                "Headers" => Ok(Response::new(headers(&request))),
                "Slow" => {
                    let _running = Running::new(&running);
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    Ok(Response::new(Order::default()))
                }
                _ => Err(Status::unimplemented("no such method")),
            }
        })
    }
}

/// The metadata that is not every call's: names in `counts`, values in `tags`.
fn headers(request: &Request<Order>) -> Order {
    let common = ["te", "content-type", "user-agent", "grpc-timeout", "grpc-accept-encoding"];
    let mut order = Order::default();
    let mut tags = BTreeMap::new();
    for entry in request.metadata().iter() {
        let (name, value) = match entry {
            KeyAndValueRef::Ascii(name, value) => (name.as_str(), value.to_str().unwrap().to_owned()),
            KeyAndValueRef::Binary(name, value) => {
                (name.as_str(), BASE64_STANDARD.encode(value.to_bytes().unwrap()))
            }
        };
        if !common.contains(&name) {
            *order.counts.entry(name.to_owned()).or_default() += 1;
            tags.insert(value, ());
        }
    }
    let mut tags: Vec<String> = tags.into_keys().collect();
    tags.sort_by_key(|tag| (tag != super::SECRET, tag.starts_with('A'), !tag.starts_with('B')));
    order.tags = tags;
    order
}

struct Watch(Arc<AtomicUsize>);

impl ServerStreamingService<Order> for Watch {
    type Response = Order;
    type ResponseStream = BoxStream<Order>;
    type Future = BoxFuture<Response<BoxStream<Order>>, Status>;

    fn call(&mut self, request: Request<Order>) -> Self::Future {
        let running = Running::new(&self.0);
        let asked = request.into_inner();
        let count: usize = asked.id.parse().unwrap();
        let messages = stream::iter(0..count).map(move |i| {
            _ = &running;
            Ok(Order { id: i.to_string(), tags: asked.tags.clone(), ..Order::default() })
        });
        Box::pin(async move { Ok(Response::new(Box::pin(messages) as BoxStream<Order>)) })
    }
}
