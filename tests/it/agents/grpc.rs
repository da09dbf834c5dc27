//! The gRPC agent: a server of tonic with reflection, whose types it shares with
//! nobody but by that.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, BoxStream, Service, http},
    server::{Grpc, NamedService, ServerStreamingService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::{
    MIB, Served,
    http::{SLOW, STEP, Working},
    serve, text_of,
};
use crate::raw;

const FILE: &str = r#"
syntax = "proto3";
package test.v1;
message Text { string text = 1; int64 number = 2; map<string, string> labels = 3; }
service Words {
  rpc Echo(Text) returns (Text);
  rpc Meta(Text) returns (Text);
  rpc Fail(Text) returns (Text);
  rpc Slow(Text) returns (Text);
  rpc Big(Text) returns (Text);
  rpc Steps(Text) returns (stream Text);
}
"#;

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "2")]
    number: i64,
    #[prost(map = "string, string", tag = "3")]
    labels: std::collections::HashMap<String, String>,
}

#[derive(Clone)]
struct Words {
    running: Arc<AtomicUsize>,
}

impl NamedService for Words {
    const NAME: &'static str = "test.v1.Words";
}

impl Service<http::Request<Body>> for Words {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let running = self.running.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(match method.as_str() {
                "Steps" => grpc.server_streaming(Steps, request).await,
                _ => grpc.unary(Unary { method, running }, request).await,
            })
        })
    }
}

struct Unary {
    method: String,
    running: Arc<AtomicUsize>,
}

impl UnaryService<Text> for Unary {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;

    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let (method, running) = (self.method.clone(), self.running.clone());
        Box::pin(async move {
            let header = |name| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
            let text = match method.as_str() {
                "Echo" => return Ok(Response::new(request.into_inner())),
                "Meta" => header("x-text").unwrap_or_default(),
                "Big" => "z".repeat(MIB),
                "Slow" => {
                    let _working = Working::on(&running);
                    tokio::time::sleep(SLOW).await;
                    String::new()
                }
                "Fail" => return Err(Status::permission_denied("not for you")),
                _ => return Err(Status::unimplemented("no such method")),
            };
            Ok(Response::new(Text { text, ..Text::default() }))
        })
    }
}

struct Steps;

impl ServerStreamingService<Text> for Steps {
    type Response = Text;
    type ResponseStream = BoxStream<Text>;
    type Future = BoxFuture<Response<BoxStream<Text>>, Status>;

    fn call(&mut self, _: Request<Text>) -> Self::Future {
        let steps = stream::iter(1..=4).then(async |number| {
            tokio::time::sleep(STEP.max(Duration::from_millis(20))).await;
            Ok(Text { number, ..Text::default() })
        });
        Box::pin(async move { Ok(Response::new(Box::pin(steps) as BoxStream<Text>)) })
    }
}

pub async fn start() -> Served {
    let running = Arc::new(AtomicUsize::new(0));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("words.proto"), FILE).unwrap();
    let set = protox::compile(["words.proto"], [dir.path()]).unwrap();
    let reflection =
        tonic_reflection::server::Builder::configure().register_file_descriptor_set(set).build_v1().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(Words { running: running.clone() }).add_service(reflection);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
    let tool = |name: &str, method: &str, more: Value, timeout: Option<&str>| {
        let mut config = json!({"endpoint": format!("http://{address}"), "method": format!("test.v1.Words/{method}"),
            "emitDefaults": true, "request": {"text": "go"}});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
        let mut tool = json!({"name": format!("grpc_{name}"), "inputSchema": schema,
            "routing": {"type": "grpc", "config": config}});
        if let Some(timeout) = timeout {
            tool["timeout"] = timeout.into();
        }
        tool
    };
    let given = || json!({"request": {"text": "{{text}}"}});
    let tools = json!({"tools": [
        tool("ok", "Echo", given(), None),
        tool("fail", "Fail", json!({}), None),
        tool("slow", "Slow", json!({}), None),
        tool("late", "Slow", json!({}), Some("300ms")),
        tool("steps", "Steps", json!({}), None),
        tool("big", "Big", json!({}), None),
        tool("echo", "Echo", given(), None),
        tool("meta", "Meta", json!({"metadata": {"x-text": "{{text}}"}}), None),
    ]});
    Served { agent: "grpc", tools: tools.to_string(), more: String::new(), running, keep: Box::new(tasks) }
}

#[tokio::test]
async fn an_argument_is_a_field_or_a_value_of_metadata_and_nothing_else() {
    let served = [start().await];
    let cluster = serve(&served).await;
    let url = cluster.nodes[0].url("grpc");
    raw::shows_tool(&url, "grpc_ok").await;
    let call = async |tool: &str, text: &str| {
        let answer = raw::ask(&url, "tools/call", json!({"name": tool, "arguments": {"text": text}})).await;
        answer["result"].clone()
    };
    for text in ["\",\"number\":7,\"x\":\"", "{{number}}", "\u{0}\r\n", "../../Fail", "ü\u{2028}"] {
        let received: Value = serde_json::from_str(&text_of(&call("grpc_echo", text).await)).unwrap();
        assert_eq!(received, json!({"text": text, "number": "0", "labels": {}}));
    }
    let fine = call("grpc_meta", "plain text; with, signs").await;
    assert_eq!(fine["structuredContent"]["text"], "plain text; with, signs", "{fine}");
    for text in ["x\r\nauthorization: Bearer y", "x\ny", "\u{0}"] {
        let refused = call("grpc_meta", text).await;
        assert_eq!(refused["_meta"]["io.magictunnel/error"]["reason"], "invalid_arguments", "{refused}");
    }
}
