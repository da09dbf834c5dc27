//! The doors besides streamable HTTP, opened by clients that others have written,
//! with a server of each era behind them.

use serde_json::{Value, json};

use crate::cluster::{Cluster, program};
use crate::fixture::{Fixture, Mode};
use crate::manifest::{gateway, over_http};
use crate::peers::{Client, Said};
use crate::raw::{http, shows_tool};

const QUESTIONS: &str = "test_input_required_result_multiple_inputs";
const ANSWERED: &str = "Hello, Ada! Greeting: Paris. Roots: file:///workspace";

struct World {
    _fixtures: [Fixture; 2],
    cluster: Cluster,
}

async fn world() -> World {
    let (old, new) = tokio::join!(Fixture::start(Mode::Legacy), Fixture::start(Mode::Modern));
    let cluster = Cluster::start(1).await;
    let members = json!({"members": [{"backend": "old"}, {"backend": "new"}]});
    let text = over_http("old", old.url()) + &over_http("new", new.url()) + &gateway("default", &members);
    cluster.apply(&text).await;
    for backend in ["old", "new"] {
        shows_tool(&cluster.nodes[0].url("default"), &format!("{backend}_{QUESTIONS}")).await;
    }
    World { _fixtures: [old, new], cluster }
}

/// Lists, calls, and answers questions of a server of each era.
async fn use_all(client: Client, target: &str, more: &[&str]) -> Said {
    let echo = json!({"text": "grüße"});
    let calls = ["old", "new"].map(|backend| {
        [json!([format!("{backend}_echo"), echo]), json!([format!("{backend}_{QUESTIONS}"), {}])]
    });
    let calls = Value::from(calls.concat()).to_string();
    let said = client.run(target, &[&["--calls", &calls][..], more].concat()).await.succeeded();
    let texts: Vec<_> =
        said.events("result").iter().map(|event| event["result"]["content"][0]["text"].clone()).collect();
    assert_eq!(texts, ["grüße", ANSWERED, "grüße", ANSWERED], "{client:?} at {target}");
    said
}

#[tokio::test]
async fn clients_come_in_over_sse_and_websockets() {
    let world = world().await;
    let url = world.cluster.nodes[0].url("default");
    for client in [Client::Py1, Client::Ts1] {
        use_all(client, &format!("{url}/sse"), &[]).await;
        use_all(client, &format!("{}/ws", url.replace("http:", "ws:")), &[]).await;
    }
    let stream = http().get(format!("{url}/sse")).header("accept", "text/event-stream");
    let stream = stream.send().await.unwrap();
    assert!(stream.headers().contains_key("x-mcp-deprecated"), "{:?}", stream.headers());
}

#[tokio::test]
async fn clients_that_start_a_command_get_a_node_or_a_bridge_to_one() {
    let world = world().await;
    let control = format!("http://{}", world.cluster.control.grpc);
    let cache = world.cluster.folder.path().join("stdio");
    let node = format!(
        "stdio:{} --stdio --node-id stdio --control {control} --cache-dir {}",
        program("mt-dataplane").display(),
        cache.display()
    );
    let bridge = format!("stdio:{} --server {control} stdio", program("mtctl").display());
    for (era, version) in [("legacy", "2025-11-25"), ("modern", "2026-07-28")] {
        for target in [&node, &bridge] {
            let said = use_all(Client::Py2, target, &["--era", era]).await;
            assert_eq!(said.protocol_version(), version, "{target}");
        }
    }
}
