//! The agent against servers of tonic that know nothing of dynamic messages.

mod server;

use std::{sync::atomic::Ordering, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use self::server::{Reflects, Shop, descriptor_set};
use crate::{
    Agents, Failure, Output, Reason,
    testing::{SECRET, Told, agents, call, problems},
};

fn orders(shop: &Shop, more: Value) -> Agents {
    let mut tools = serde_json::Map::new();
    for method in ["Get", "Watch", "Fail", "Slow", "Collect", "Headers", "Nope"] {
        let mut config = json!({"endpoint": shop.endpoint, "method": format!("shop.v1.Orders/{method}")});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tools.insert(method.to_lowercase(), config);
    }
    agents("grpc", &Value::Object(tools))
}

async fn quietly(agents: &Agents, tool: &str, arguments: Value) -> Result<Output, Failure> {
    call(agents, tool, arguments, &Told::deaf()).await
}

fn whole_order() -> Value {
    json!({
        "id": "o-1", "cents": "9007199254740993", "state": "STATE_PAID", "tags": ["a", "b"],
        "counts": {"x": 1, "y": -2}, "card": "visa", "at": "2026-11-21T06:00:00.250Z",
        "raw": "AQID", "ratio": 0.5, "parent": {"id": "o-0", "cash": true},
        "lineItems": [{"sku": "s", "amount": 3}],
    })
}

#[tokio::test]
async fn every_kind_of_field_makes_the_round_trip() {
    for reflects in [Reflects::V1, Reflects::V1Alpha] {
        let shop = Shop::start(reflects).await;
        let agents = orders(&shop, json!({}));
        let output = quietly(&agents, "get", whole_order()).await.unwrap();
        assert_eq!(output.structured, Some(whole_order()));
        // Names as they stand in the file are taken as well, and numbers for texts.
        let other = json!({"line_items": [{"amount": 1}], "cents": 7, "state": 1});
        let output = quietly(&agents, "get", other).await.unwrap();
        let canonical = json!({"lineItems": [{"amount": 1}], "cents": "7", "state": "STATE_PAID"});
        assert_eq!(output.structured, Some(canonical));
    }
}

#[tokio::test]
async fn a_server_without_reflection_needs_a_descriptor_set() {
    let shop = Shop::start(Reflects::Not).await;
    let failure = quietly(&orders(&shop, json!({})), "get", json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Misconfigured);
    assert!(failure.message.contains("descriptorSet"), "{failure}");
    let set = descriptor_set();
    let config =
        |method: &str, set: Value| json!({"endpoint": shop.endpoint, "method": method, "descriptorSet": set});
    let inline: Value = BASE64_STANDARD.encode(&set).into();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.bin");
    std::fs::write(&path, &set).unwrap();
    for set in [inline.clone(), json!({"base64": inline}), json!({"file": path})] {
        let agents = agents("grpc", &json!({"get": config("shop.v1.Orders/Get", set)}));
        let output = quietly(&agents, "get", whole_order()).await.unwrap();
        assert_eq!(output.structured, Some(whole_order()));
    }
    let wrong = problems("grpc", &config("shop.v1.Orders/Nope", inline.clone()));
    assert!(wrong.contains("has no method"), "{wrong}");
    let wrong = problems("grpc", &config("shop.v1.Orders/Collect", inline));
    assert!(wrong.contains("takes a stream of messages"), "{wrong}");
    assert!(problems("grpc", &config("shop.v1.Orders/Get", json!("????"))).contains("must be base64"));
}

#[tokio::test]
async fn what_is_wrong_with_the_arguments_is_said_before_anything_is_sent() {
    let shop = Shop::start(Reflects::V1).await;
    let agents = orders(&shop, json!({}));
    for (arguments, said) in [
        (json!({"nope": 1}), "nope"),
        (json!({"parent": {"colour": 1}}), "colour"),
        (json!({"state": "STATE_EATEN"}), "STATE_EATEN"),
        (json!({"cents": "many"}), "cents"),
        (json!({"card": "x", "cash": true}), "pay"),
        (json!({"at": "yesterday"}), "order"),
    ] {
        let failure = quietly(&agents, "get", arguments.clone()).await.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidArguments, "{arguments}");
        assert!(failure.message.to_lowercase().contains(&said.to_lowercase()), "{arguments}: {failure}");
    }
    assert_eq!(shop.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_the_server_says_no_with_is_told() {
    let shop = Shop::start(Reflects::V1).await;
    let agents = orders(&shop, json!({}));
    let failure = quietly(&agents, "fail", json!({})).await.unwrap_err();
    assert_eq!(
        (failure.reason, failure.message.as_str()),
        (Reason::Refused, "FAILED_PRECONDITION: the till is shut")
    );
    let failure = quietly(&agents, "nope", json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Misconfigured);
    assert!(failure.message.contains("methods of shop.v1.Orders: Get, Watch"), "{failure}");
    let failure = quietly(&agents, "collect", json!({})).await.unwrap_err();
    assert!(failure.message.contains("takes a stream of messages"), "{failure}");
    let elsewhere = json!({"t": {"endpoint": shop.endpoint, "method": "shop.v1.Nothing/Get"}});
    let failure = quietly(&self::agents("grpc", &elsewhere), "t", json!({})).await.unwrap_err();
    assert!(failure.message.contains("no service \"shop.v1.Nothing\""), "{failure}");
}

#[tokio::test]
async fn what_was_shown_to_the_server_does_not_come_back_in_an_error() {
    let shop = Shop::start(Reflects::V1).await;
    let path = std::env::var("PATH").unwrap();
    for auth in [
        json!({"bearer": {"secret": "key"}}),
        json!({"basic": {"username": "me", "password": {"secret": "key"}}}),
        json!({"header": {"name": "authorization", "value": "of {{env.PATH}}"}}),
    ] {
        let failure = quietly(&orders(&shop, json!({"auth": auth})), "fail", json!({})).await.unwrap_err();
        assert!(
            failure.message.contains("the till is shut to") && failure.message.contains("***"),
            "{failure}"
        );
        assert!(!failure.message.contains(SECRET) && !failure.message.contains(&path), "{failure}");
    }
    let metadata = json!({"metadata": {"authorization-x": "1"}, "auth": {"bearer": "{{env.PATH}}"}});
    let failure = quietly(&orders(&shop, metadata), "fail", json!({})).await.unwrap_err();
    assert!(!failure.message.contains(&path), "{failure}");
}

#[tokio::test]
async fn a_stream_is_told_message_by_message_and_has_an_end() {
    let shop = Shop::start(Reflects::V1).await;
    let told = Told::default();
    let output = call(&orders(&shop, json!({})), "watch", json!({"id": "3"}), &told).await.unwrap();
    assert_eq!(output.structured, Some(json!([{"id": "0"}, {"id": "1"}, {"id": "2"}])));
    let progress = told.progress();
    assert_eq!(progress.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    assert_eq!(progress[2].1, r#"{"id":"2"}"#);

    let agents = orders(&shop, json!({"maxMessages": 100}));
    let output = quietly(&agents, "watch", json!({"id": "10000"})).await.unwrap();
    assert_eq!(output.structured.unwrap().as_array().unwrap().len(), 100);
    assert_eq!(output.meta["io.magictunnel/truncated"], json!(true));
    shop.at_rest().await;
    let all = quietly(&orders(&shop, json!({"maxMessages": 10_000})), "watch", json!({"id": "10000"})).await;
    let all = all.unwrap();
    assert_eq!(all.structured.unwrap().as_array().unwrap().len(), 10_000);
    assert!(all.meta.is_empty());
}

#[tokio::test]
async fn messages_and_streams_have_a_size() {
    let shop = Shop::start(Reflects::V1).await;
    let agents = orders(&shop, json!({"maxMessageBytes": 1000}));
    let failure = quietly(&agents, "get", json!({"id": "x".repeat(2_000)})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TooLarge, "{failure}");
    let agents = orders(&shop, json!({"maxMessages": 100_000}));
    let arguments = json!({"id": "9000", "tags": ["x".repeat(1_000)]});
    let failure = quietly(&agents, "watch", arguments).await.unwrap_err();
    assert_eq!(failure.reason, Reason::TooLarge, "{failure}");
    shop.at_rest().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_on_the_server_and_one_that_is_late_too() {
    let shop = Shop::start(Reflects::V1).await;
    let agents = orders(&shop, json!({}));
    {
        let told = Told::deaf();
        let pending = call(&agents, "slow", json!({}), &told);
        tokio::pin!(pending);
        while shop.running.load(Ordering::SeqCst) == 0 {
            tokio::select! {
                ended = &mut pending => panic!("{ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    }
    shop.at_rest().await;
    let agents = orders(&shop, json!({"timeoutMs": 300}));
    let failure = quietly(&agents, "slow", json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Timeout, "{failure}");
    shop.at_rest().await;
    assert!(shop.timeouts.lock().iter().all(Option::is_some), "grpc-timeout was not sent");
}

#[tokio::test]
async fn metadata_is_what_the_author_named_and_never_more() {
    let shop = Shop::start(Reflects::V1).await;
    let agents = orders(
        &shop,
        json!({
            "metadata": {"X-Tenant": "{{id}}", "trace-bin": "AQID", "x-key": {"secret": "key"}},
            "auth": {"bearer": {"secret": "key"}},
            "request": {"id": "{{id}}"},
        }),
    );
    let output = quietly(&agents, "headers", json!({"id": "acme"})).await.unwrap();
    let seen = output.structured.unwrap();
    assert_eq!(seen["counts"], json!({"x-tenant": 1, "x-key": 1, "trace-bin": 1, "authorization": 1}));
    let values = format!("{:?}", [SECRET, &format!("Bearer {SECRET}"), "acme", "AQID"].map(str::to_owned));
    assert_eq!(
        format!(
            "{:?}",
            seen["tags"]
                .as_array()
                .unwrap()
                .iter()
                .map(|tag| tag.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        ),
        values
    );
    let calls = shop.calls.load(Ordering::SeqCst);
    for hostile in ["a\r\nx-admin: 1", "a\nb", "\u{0}", "ümlaut", "a\u{7f}"] {
        let failure = quietly(&agents, "headers", json!({"id": hostile})).await.unwrap_err();
        assert_eq!(failure.reason, Reason::InvalidArguments, "{hostile:?}");
        assert!(failure.message.contains("x-tenant"), "{failure}");
    }
    let binary = orders(&shop, json!({"metadata": {"t-bin": "{{id}}"}}));
    assert_eq!(
        quietly(&binary, "headers", json!({"id": "no!"})).await.unwrap_err().reason,
        Reason::InvalidArguments
    );
    assert_eq!(shop.calls.load(Ordering::SeqCst), calls);
}

#[tokio::test]
async fn a_server_that_comes_back_is_reached_again_and_asked_for_its_types() {
    let shop = Shop::start(Reflects::V1).await;
    let (agents, endpoint) = (orders(&shop, json!({})), shop.endpoint.clone());
    quietly(&agents, "get", json!({})).await.unwrap();
    shop.stop().await;
    let failure = quietly(&agents, "get", json!({})).await.unwrap_err();
    assert!(matches!(failure.reason, Reason::Unreachable | Reason::Broken), "{failure}");
    assert!(!failure.message.contains("127.0.0.1"), "{failure}");
    let failure = quietly(&agents, "get", json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Unreachable, "{failure}");
    let shop = Shop::start_at(&endpoint, Reflects::V1).await;
    quietly(&agents, "get", json!({})).await.unwrap();
    assert_eq!(shop.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn settings_that_cannot_work_are_problems_where_they_are_written() {
    let wrong = |config: Value| problems("grpc", &config);
    let base = |more: Value| {
        let mut config = json!({"endpoint": "http://127.0.0.1:1", "method": "a.B/C"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wrong(config)
    };
    assert_eq!(base(json!({})), "");
    assert_eq!(wrong(json!({"endpoint": "http://[::1]:1", "service": "a.B", "method": "C"})), "");
    assert!(base(json!({"endpoint": "http://{{host}}:1"})).contains("must not depend on the arguments"));
    assert!(base(json!({"endpoint": "127.0.0.1:1"})).contains("not the address of a gRPC server"));
    assert!(base(json!({"method": "a.B/"})).contains("not the name of a method"));
    assert!(base(json!({"method": "a.B/../C"})).contains("not the name of a method"));
    assert!(base(json!({"service": "a.X"})).contains("two services"));
    assert!(wrong(json!({"endpoint": "http://a", "method": "C"})).contains("`service` is missing"));
    assert!(base(json!({"metadata": {"grpc-timeout": "1S"}})).contains("gRPC itself sets"));
    assert!(base(json!({"metadata": {"x y": "1"}})).contains("not a name of metadata"));
    assert!(base(json!({"auth": {"query": {"name": "k", "value": "v"}}})).contains("has no query"));
    assert!(base(json!({"mesage": 1})).contains("unknown setting"));
}
