//! Backends behind one long connection, over HTTP+SSE and WebSocket: what many
//! clients share of it, what becomes of them when it breaks, and the line in
//! front of a server that bears one call at a time.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Background, Cluster, eventually};
use crate::fixture::{Fixture, Mode, Transport};
use crate::manifest::{backend, gateway, plain_gateway};
use crate::peers::Everything;
use crate::raw::{Events, Session, answer, ask, http, modern, shows_tool};

const LEGACY: &str = "2025-06-18";
const WATCHED: &str = "test://watched-resource";

fn field(transport: Transport) -> &'static str {
    match transport {
        Transport::Http => "http",
        Transport::Sse => "sse",
        Transport::WebSocket => "websocket",
    }
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({"name": tool, "arguments": arguments})
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

/// A legacy fixture on this transport behind one node, and the gateway's URL.
async fn one(transport: Transport, more: &Value) -> (Cluster, Fixture, String) {
    let fixture = Fixture::start_over(transport, Mode::Legacy, &[]).await;
    let mut spec = json!({field(transport): {"url": fixture.url()}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let cluster = Cluster::start(1).await;
    cluster.apply(&(backend("far", &spec) + &plain_gateway("default", "far"))).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "echo").await;
    (cluster, fixture, url)
}

#[tokio::test]
async fn many_clients_share_a_connection_and_each_gets_its_own() {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let (_cluster, _fixture, url) = one(transport, &json!({})).await;
        let echo = |text: String| {
            let url = url.clone();
            async move {
                let mut session = Session::open(&url, LEGACY, json!({})).await;
                let answer = session.ask("tools/call", call("echo", json!({"text": text}))).await;
                assert_eq!(self::text(&answer), text);
            }
        };
        futures_util::future::join_all((0..20).map(|n| echo(format!("{n}-{}", "x".repeat(n * 5_000))))).await;
        let large = "y".repeat(1 << 20);
        let answer = ask(&url, "tools/call", call("echo", json!({"text": large}))).await;
        assert_eq!(text(&answer).len(), large.len());
    }
}

#[tokio::test]
async fn who_follows_a_resource_hears_of_it_and_nobody_else_does() {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let (_cluster, _fixture, url) = one(transport, &json!({})).await;
        let mut follower = Session::open(&url, LEGACY, json!({})).await;
        let other = Session::open(&url, LEGACY, json!({})).await;
        let mut heard = Events::of(follower.stream().await);
        let mut unheard = Events::of(other.stream().await);
        let subscribed = follower.ask("resources/subscribe", json!({"uri": WATCHED})).await;
        assert_eq!(subscribed["error"], Value::Null, "{subscribed}");
        ask(&url, "tools/call", call("test_trigger_resource_update", json!({}))).await;
        let updated = heard.next().await;
        assert_eq!(updated["method"], "notifications/resources/updated", "{updated}");
        assert_eq!(updated["params"]["uri"], WATCHED);
        let silence = Duration::from_millis(300);
        assert!(tokio::time::timeout(silence, unheard.next_or_end()).await.is_err(), "{transport:?}");
    }
}

#[tokio::test]
async fn a_broken_connection_fails_its_calls_and_leaves_the_gateway_whole() {
    for transport in [Transport::Sse, Transport::WebSocket] {
        let (_cluster, fixture, url) = one(transport, &json!({})).await;
        let running = modern(&url, 3, "tools/call", call("slow", json!({"ms": 60_000}))).send();
        let running = Background::run(async move { answer(running.await.unwrap()).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        fixture.kill().await;
        let lost = running.end().await;
        assert_eq!(lost["error"]["code"], -31003, "{transport:?}: {lost}");
        let gone = ask(&url, "tools/call", call("echo", json!({"text": "x"}))).await;
        assert_eq!(gone["error"]["code"], -31002, "{transport:?}: {gone}");
        assert!(!gone.to_string().contains("127.0.0.1"), "clients are told no addresses: {gone}");
    }
}

#[tokio::test]
async fn a_server_of_one_session_serves_many_clients_one_after_the_other() {
    for transport in [Transport::Http, Transport::Sse, Transport::WebSocket] {
        let line = json!({"singleSession": {"queueMax": 30, "waitMax": "20s"}});
        let (_cluster, _fixture, url) = one(transport, &line).await;
        let calls = (0..15).map(|n| {
            let url = url.clone();
            async move {
                let text = format!("client {n}");
                let mut session = Session::open(&url, LEGACY, json!({})).await;
                let answer = session.ask("tools/call", call("echo", json!({"text": text}))).await;
                assert_eq!(self::text(&answer), text);
            }
        });
        futures_util::future::join_all(calls).await;
    }
    let line = json!({"singleSession": {"queueMax": 1, "waitMax": "300ms"}});
    let (_cluster, _fixture, url) = one(Transport::Sse, &line).await;
    let calls = (0..6).map(|_| ask(&url, "tools/call", call("slow", json!({"ms": 1_500}))));
    let answers = futures_util::future::join_all(calls).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_i64().unwrap_or(0)).collect();
    let count = |code| codes.iter().filter(|found| **found == code).count();
    assert_eq!((count(0), count(-31020), count(-31019)), (1, 1, 4), "{codes:?}");
}

#[tokio::test]
async fn a_server_over_http_with_sse_that_is_configured_as_http_is_told_apart() {
    let everything = Everything::start_sse().await;
    let cluster = Cluster::start(1).await;
    let text = backend("wrong", &json!({"http": {"url": everything.url()}}))
        + &gateway("default", &json!({"members": [{"backend": "wrong"}]}));
    cluster.apply(&text).await;
    let dump = format!("http://{}/config_dump", cluster.nodes[0].admin);
    eventually("the reason", async || {
        let said = http().get(&dump).send().await.unwrap().text().await.unwrap();
        if said.contains("speaks HTTP+SSE") { Ok(()) } else { Err(said) }
    })
    .await;
}
