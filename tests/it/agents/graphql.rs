//! The GraphQL agent: a GraphQL server with queries, a mutation and a
//! subscription.

use std::sync::{Arc, atomic::AtomicUsize};

use async_graphql::{
    Context, Error, Object, Request, Schema, SimpleObject, Subscription,
    http::{WebSocket as Protocol, WebSocketProtocols, WsMessage},
};
use axum::{
    Json, Router,
    extract::{
        State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    },
    http::HeaderMap,
    response::Response,
    routing::get,
};
use futures_util::{SinkExt as _, Stream, StreamExt as _, stream};
use serde_json::json;

use super::{
    MIB, Served,
    http::{SLOW, STEP, Working, listen},
    serve, text_of,
};
use crate::raw;

struct Queries;

#[derive(SimpleObject)]
struct Note {
    id: i32,
    text: String,
}

/// What came beside the operation.
struct Header(Option<String>);

#[Object]
impl Queries {
    async fn ok(&self, text: String) -> Note {
        Note { id: 1, text }
    }

    async fn fail(&self) -> Result<Note, Error> {
        Err("not like this".into())
    }

    async fn slow(&self, context: &Context<'_>) -> Note {
        let _working = Working::on(context.data_unchecked::<Arc<AtomicUsize>>());
        tokio::time::sleep(SLOW).await;
        Note { id: 2, text: "at last".to_owned() }
    }

    async fn big(&self) -> Note {
        Note { id: 3, text: "x".repeat(MIB) }
    }

    async fn echo(&self, text: String) -> String {
        text
    }

    async fn header(&self, context: &Context<'_>) -> Option<String> {
        context.data_unchecked::<Header>().0.clone()
    }
}

struct Mutations;

#[Object]
impl Mutations {
    async fn add(&self, text: String, #[graphql(default)] times: i32) -> Vec<Note> {
        (0..times).map(|id| Note { id, text: text.clone() }).collect()
    }
}

struct Subscriptions;

#[Subscription]
impl Subscriptions {
    async fn steps(&self, to: i32) -> impl Stream<Item = Note> {
        stream::unfold(1, move |id| async move {
            tokio::time::sleep(STEP).await;
            (id <= to).then(|| (Note { id, text: "step".to_owned() }, id + 1))
        })
    }
}

type Service = Schema<Queries, Mutations, Subscriptions>;

async fn ask(
    State(schema): State<Service>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Json<async_graphql::Response> {
    let header = headers.get("x-text").map(|value| value.to_str().unwrap().to_owned());
    Json(schema.execute(request.data(Header(header))).await)
}

async fn subscribe(State(schema): State<Service>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["graphql-transport-ws"]).on_upgrade(move |socket| converse(schema, socket))
}

async fn converse(schema: Service, socket: WebSocket) {
    let (mut sink, messages) = socket.split();
    let texts = messages.filter_map(async |message| match message {
        Ok(Message::Text(text)) => Some(text.to_string()),
        _ => None,
    });
    let mut said = std::pin::pin!(Protocol::new(schema, Box::pin(texts), WebSocketProtocols::GraphQLWS));
    while let Some(message) = said.next().await {
        let message = match message {
            WsMessage::Text(text) => Message::text(text),
            WsMessage::Close(code, reason) => {
                Message::Close(Some(CloseFrame { code, reason: reason.into() }))
            }
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

pub async fn start() -> Served {
    let running = Arc::new(AtomicUsize::new(0));
    let schema = Schema::build(Queries, Mutations, Subscriptions).data(Arc::clone(&running)).finish();
    let router = Router::new().route("/", get(subscribe).post(ask)).with_state(schema);
    let (address, tasks) = listen(router).await;
    let text = "inputSchema: {type: object, required: [text], properties: {text: {type: string}}}";
    let tools = format!(
        r#"
tools:
  - name: graphql_ok
    {text}
    routing:
      type: graphql
      config: {{url: "http://{address}/", query: "query($text: String!) {{ ok(text: $text) {{ id text }} }}"}}
  - name: graphql_fail
    routing: {{type: graphql, config: {{url: "http://{address}/", query: "{{ fail {{ id }} }}"}}}}
  - name: graphql_slow
    routing: {{type: graphql, config: {{url: "http://{address}/", query: "{{ slow {{ id }} }}"}}}}
  - name: graphql_late
    timeout: 300ms
    routing: {{type: graphql, config: {{url: "http://{address}/", query: "{{ slow {{ id }} }}"}}}}
  - name: graphql_steps
    routing:
      type: graphql
      config:
        url: "http://{address}/"
        query: "subscription($to: Int!) {{ steps(to: $to) {{ id text }} }}"
        variables: {{to: 4}}
  - name: graphql_big
    routing: {{type: graphql, config: {{url: "http://{address}/", query: "{{ big {{ text }} }}"}}}}
  - name: graphql_echo
    {text}
    routing:
      type: graphql
      config: {{url: "http://{address}/", query: "query($text: String!) {{ echo(text: $text) }}"}}
  - name: graphql_add
    {text}
    routing:
      type: graphql
      config:
        endpoint: "http://{address}/"
        query: "mutation($text: String!, $times: Int! = 2) {{ add(text: $text, times: $times) {{ id text }} }}"
        extract: $.add[*].id
  - name: graphql_partly
    {text}
    routing:
      type: graphql
      config:
        url: "http://{address}/"
        headers: {{X-Text: "{{{{text}}}}"}}
        query: "{{ header none: nothing }}"
"#
    );
    Served { agent: "graphql", tools, more: String::new(), running, keep: Box::new(tasks) }
}

#[tokio::test]
async fn mutations_work_and_a_server_says_itself_what_it_does_not_know() {
    let served = start().await;
    let cluster = serve(std::slice::from_ref(&served)).await;
    let url = cluster.nodes[0].url("graphql");
    raw::shows_tool(&url, "graphql_add").await;
    let call = async |name: &str, arguments: serde_json::Value| {
        raw::ask(&url, "tools/call", json!({"name": name, "arguments": arguments})).await["result"].clone()
    };
    let hostile = "\") { id } } mutation { add(text: \"";
    let added = call("graphql_add", json!({"text": hostile, "times": 3})).await;
    assert_eq!(added["structuredContent"], json!([0, 1, 2]), "{added}");
    let added = call("graphql_add", json!({"text": hostile})).await;
    assert_eq!(added["structuredContent"], json!([0, 1]), "{added}");
    let echoed = call("graphql_echo", json!({"text": hostile})).await;
    assert_eq!(echoed["structuredContent"], json!({"echo": hostile}), "{echoed}");
    let unknown = call("graphql_partly", json!({"text": "x"})).await;
    assert_eq!(unknown["isError"], true, "{unknown}");
    assert!(text_of(&unknown).contains("Unknown field \"nothing\""), "{unknown}");
}
