//! The control plane's doors as others see them: reflection, health, and a
//! discovery client that was made from Envoy's own files.

use std::collections::BTreeMap;

use mt_proto::discovery::{encode_resource_item, version_of};
use mt_proto::pb::control::{GetRequest, Kind, ResourceRef};
use prost::Message as _;
use serde_json::{Value, json};

use crate::cluster::{Background, Cluster, eventually};
use crate::fixture::{Fixture, Mode};
use crate::manifest::{gateway, over_http, plain_gateway};
use crate::peers::{discover, reflect};
use crate::raw::{http, shows_tool};

#[tokio::test]
async fn reflection_lists_and_describes_every_service() {
    let cluster = Cluster::start(0).await;
    let said = reflect(&cluster.control.grpc).await.succeeded();
    let answers = said.events("services");
    assert_eq!(answers.len(), 2, "{said:?}");
    for (answer, version) in answers.into_iter().zip(["v1", "v1alpha"]) {
        assert_eq!(answer["version"], version);
        let names: Vec<&str> = answer["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for service in [
            "magictunnel.control.v1.ConfigService",
            "magictunnel.control.v1.FleetService",
            "magictunnel.node.v1.NodeService",
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            "grpc.health.v1.Health",
        ] {
            assert!(names.contains(&service), "{version}: no {service} in {names:?}");
        }
        assert_eq!(answer["names"], answer["described"], "{version}");
    }
}

#[tokio::test]
async fn health_is_told_over_grpc_and_http() {
    let cluster = Cluster::start(1).await;
    // An empty HealthCheckRequest, in gRPC's frame; the answer is {status: SERVING}.
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let answer = client
        .post(format!("http://{}/grpc.health.v1.Health/Check", cluster.control.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(&[0_u8, 0, 0, 0, 0][..])
        .send()
        .await
        .unwrap();
    assert_eq!(&answer.bytes().await.unwrap()[..], [0, 0, 0, 0, 2, 0x08, 1]);
    for address in [&cluster.control.http, &cluster.nodes[0].admin] {
        let url = format!("http://{address}/livez");
        assert_eq!(http().get(&url).send().await.unwrap().status(), 200, "{url}");
    }
    let ready = format!("http://{}/readyz", cluster.control.http);
    assert_eq!(http().get(&ready).send().await.unwrap().status(), 200);
    cluster.apply(&over_http("any", "http://127.0.0.1:1/mcp")).await;
    let ready = format!("http://{}/readyz", cluster.nodes[0].admin);
    assert_eq!(http().get(&ready).send().await.unwrap().status(), 200);
    let metrics = http().get(format!("http://{}/metrics", cluster.nodes[0].admin)).send().await.unwrap();
    assert_eq!(metrics.status(), 200);
    assert_ne!(metrics.text().await.unwrap(), "");
}

/// The names and versions that the last push left a client with.
fn held(push: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(push["held"].clone()).unwrap()
}

#[tokio::test]
async fn an_independent_client_reads_a_generation() {
    let fixture = Fixture::start(Mode::Dual).await;
    let cluster = Cluster::start(1).await;
    let elsewhere = json!({
        "members": [{"backend": "far"}],
        "nodes": {"matchLabels": {"region": "eu"}},
    });
    let text = over_http("fixture", fixture.url())
        + &plain_gateway("default", "fixture")
        + &over_http("far", "http://127.0.0.1:1/mcp")
        + &gateway("elsewhere", &elsewhere);
    let generation = cluster.apply(&text).await;
    shows_tool(&cluster.nodes[0].url("default"), "echo").await;

    let said = discover(&cluster.control.grpc, &[]).await.succeeded();
    let push = said.event("push");
    assert!(push["version"].as_str().unwrap().starts_with(&format!("{generation}.")), "{push}");
    let read = held(push);
    let names: Vec<&str> = read.keys().map(String::as_str).collect();
    assert_eq!(names, ["backend/fixture", "catalog/fixture/0", "gateway/default", "marker"]);

    let reference = ResourceRef { kind: Kind::Backend.into(), name: "fixture".into() };
    let request = GetRequest { r#ref: Some(reference), generation: 0 };
    let stored = cluster.control.config().await.get(request).await.unwrap().into_inner();
    let resource = stored.resource.unwrap().resource.unwrap().encode_to_vec();
    assert_eq!(
        read["backend/fixture"],
        version_of(&encode_resource_item(&resource)),
        "a hash of the content"
    );

    // With a label there is more; with what it has already there is less to send.
    let said = discover(&cluster.control.grpc, &["--label", "region=eu"]).await.succeeded();
    let more = held(said.event("push"));
    assert!(more.contains_key("gateway/elsewhere") && more.contains_key("backend/far"), "{more:?}");
    let have: Vec<String> = read
        .iter()
        .filter(|(name, _)| *name != "marker")
        .flat_map(|(name, version)| ["--have".to_owned(), format!("{name}={version}")])
        .chain(["--have".to_owned(), "backend/gone=0".to_owned()])
        .collect();
    let have: Vec<&str> = have.iter().map(String::as_str).collect();
    let said = discover(&cluster.control.grpc, &have).await.succeeded();
    let push = said.event("push");
    let changed: Vec<&str> = push["changed"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((changed, &push["removed"]), (vec!["marker"], &json!(["backend/gone"])), "{push}");
}

#[tokio::test]
async fn a_refusal_is_shown_and_the_next_generation_is_sent() {
    let mut cluster = Cluster::start(1).await;
    let shown = |name: &str| over_http(name, "http://127.0.0.1:1/mcp") + &plain_gateway(name, name);
    cluster.apply(&shown("first")).await;
    // It takes the node's place: only who has registered is shown.
    cluster.nodes[0].process.kill().await;
    let arguments = ["--node", "node-0", "--refuse", "backend/first: cannot", "--pushes", "2"];
    let grpc = cluster.control.grpc.clone();
    let client = Background::run(async move { discover(&grpc, &arguments).await });
    let refused = eventually("the refusal", async || {
        let nodes = cluster.control.nodes().await.nodes;
        let refused = nodes.into_iter().find(|node| node.generation_refused == 1);
        refused.ok_or_else(|| "nothing refused".to_owned())
    })
    .await;
    assert_eq!(refused.refusal, "backend/first: cannot");
    let table = crate::cluster::printed(&cluster.mtctl(&["nodes"]).await);
    assert!(table.contains("backend/first: cannot"), "{table}");

    cluster.control.apply(&shown("second")).await;
    let said = client.end().await.succeeded();
    let pushes = said.events("push");
    assert_eq!(pushes.len(), 2, "{said:?}");
    let changed: Vec<&String> = pushes[1]["changed"].as_object().unwrap().keys().collect();
    let all = ["backend/first", "backend/second", "gateway/first", "gateway/second", "marker"];
    assert_eq!(changed, all, "nothing was in service");
}
