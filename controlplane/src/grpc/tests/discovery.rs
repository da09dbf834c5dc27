//! Discovery over a real stream, with a client that is not ours.

use mt_proto::{
    discovery::{TYPE_FACT, TYPE_ITEM, unpack_fact, unpack_item, view_hash},
    pb::{
        ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        control::{ListNodesRequest, NodeStatus},
        discovery::{Marker, fleet_fact, item},
        envoy::config::core::v3::Node,
        google::rpc,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Streaming};

use super::*;

struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    async fn open(plane: &Plane, first: DeltaDiscoveryRequest) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let responses = plane.discovery().delta_aggregated_resources(ReceiverStream::new(receiver)).await;
        Self { requests, responses: responses.unwrap().into_inner() }
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        tokio::time::timeout(PATIENCE, self.responses.next()).await.unwrap().unwrap()
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        let error = |reason: &str| rpc::Status { code: 3, message: reason.into(), details: vec![] };
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(error),
            ..Default::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

fn hello(node_id: &str, type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: node_id.into(), ..Default::default() }),
        type_url: type_url.into(),
        resource_names_subscribe: vec!["*".into()],
        ..Default::default()
    }
}

fn marker(response: &DeltaDiscoveryResponse) -> Marker {
    let last = response.resources.last().unwrap();
    let item = unpack_item(last.resource.as_ref()).unwrap();
    let Some(item::Item::Marker(marker)) = item.item else { panic!("{item:?}") };
    marker
}

/// Waits until the node is shown as `wanted` says.
async fn node_when(plane: &Plane, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
    let look = async {
        loop {
            let nodes = plane.fleet().list_nodes(ListNodesRequest {}).await.unwrap().into_inner().nodes;
            if let Some(node) = nodes.into_iter().find(|node| wanted(node)) {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap()
}

#[tokio::test]
async fn a_view_is_pushed_answered_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    plane.apply(&[backend("a", 1), gateway("default", &["a"]), backend("unused", 2)]).await.unwrap();
    let mut stream = Stream::open(&plane, hello("n1", TYPE_ITEM)).await;
    let push = loop {
        let push = stream.next().await.unwrap();
        stream.answer(&push, None).await;
        if push.system_version_info == "1.0" {
            break push;
        }
    };
    let versions = push.resources.iter().map(|resource| (resource.name.as_str(), resource.version.as_str()));
    assert_eq!(
        versions.clone().map(|(name, _)| name).collect::<Vec<_>>(),
        ["backend/a", "gateway/default", "marker"]
    );
    let marker_now = marker(&push);
    assert_eq!(marker_now.view_hash, view_hash(versions).to_vec());
    assert_eq!((marker_now.generation, marker_now.item_count), (1, 2));
    let node = node_when(&plane, |node| node.generation_acked == 1).await;
    assert_eq!((node.generation_sent, node.connected), (1, true));

    plane.apply(&[backend("a", 9)]).await.unwrap();
    let push = stream.next().await.unwrap();
    assert_eq!(push.resources.len(), 2, "what differs, and the marker");
    stream.answer(&push, Some("backend/a: I will not")).await;
    let node = node_when(&plane, |node| node.generation_refused == 2).await;
    assert_eq!((node.generation_acked, node.refusal.as_str()), (1, "backend/a: I will not"));

    plane.apply(&[backend("a", 3)]).await.unwrap();
    let push = stream.next().await.unwrap();
    assert_eq!(marker(&push).generation, 3);
    stream.answer(&push, None).await;
    let node = node_when(&plane, |node| node.generation_acked == 3).await;
    assert_eq!((node.generation_refused, node.refusal.as_str()), (0, ""));
    drop(stream);
    node_when(&plane, |node| !node.connected).await;
    plane.stop().await;
}

#[tokio::test]
async fn the_keys_of_the_fleet_are_a_fact() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut stream = Stream::open(&plane, hello("n1", TYPE_FACT)).await;
    let push = stream.next().await.unwrap();
    assert_eq!(push.resources[0].name, "key-ring");
    let fact = unpack_fact(push.resources[0].resource.as_ref()).unwrap();
    let Some(fleet_fact::Fact::KeyRing(keys)) = fact.fact else { panic!("no keys") };
    assert_eq!((keys.keys.len(), keys.keys[0].key.len()), (1, 32));
    drop(stream);
    plane.stop().await;
}

#[tokio::test]
async fn a_stream_without_a_node_id_is_refused_and_a_newer_one_of_a_node_wins() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut nobody = Stream::open(&plane, DeltaDiscoveryRequest { node: None, ..hello("", TYPE_ITEM) }).await;
    assert_eq!(nobody.next().await.unwrap_err().code(), Code::InvalidArgument);

    let mut first = Stream::open(&plane, hello("n1", TYPE_ITEM)).await;
    first.next().await.unwrap();
    let mut second = Stream::open(&plane, hello("n1", TYPE_ITEM)).await;
    second.next().await.unwrap();
    assert_eq!(first.next().await.unwrap_err().code(), Code::AlreadyExists);
    plane.shutdown.cancel();
    assert_eq!(second.next().await.unwrap_err().code(), Code::Unavailable);
    plane.stop().await;
}

#[tokio::test]
async fn a_thousand_backends_arrive_in_one_push() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let names: Vec<String> = (0..1000).map(|index| format!("b{index}")).collect();
    let mut resources: Vec<Resource> = names.iter().map(|name| backend(name, 1)).collect();
    for resource in &mut resources {
        let note = "x".repeat(3000);
        resource.metadata.as_mut().unwrap().annotations.insert("note".into(), note);
    }
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    resources.push(gateway("default", &members));
    plane.apply(&resources).await.unwrap();

    let mut stream = Stream::open(&plane, hello("n1", TYPE_ITEM)).await;
    let (mut responses, mut items) = (0, 0);
    loop {
        let response = stream.next().await.unwrap();
        responses += 1;
        items += response.resources.len();
        if response.resources.last().unwrap().name != "marker" {
            continue;
        }
        stream.answer(&response, None).await;
        if marker(&response).generation == 1 {
            assert_eq!(marker(&response).item_count, 1001);
            break;
        }
    }
    assert!(responses >= 4 && items >= 1002, "{items} items in {responses} responses");
    drop(stream);
    plane.stop().await;
}
