//! NodeService: registration, leases and reports over real streams.

use mt_proto::pb::{
    control::{ListBackendsRequest, ListNodesRequest},
    discovery::Catalog,
    node::{
        AttachRequest, AttachResponse, BackendStatus, CatalogReport, Hello, Status as NodeState,
        attach_request, attach_response::Message,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Streaming};

use super::*;

struct Node {
    requests: mpsc::Sender<AttachRequest>,
    responses: Streaming<AttachResponse>,
}

impl Node {
    async fn attach(plane: &Plane, node_id: &str, boot_id: &str) -> Self {
        let hello = Hello { node_id: node_id.into(), boot_id: boot_id.into(), ..Default::default() };
        let mut node = Self::open(plane, attach_request::Message::Hello(hello)).await;
        let Message::Welcome(welcome) = node.next().await.unwrap() else { panic!("no welcome") };
        assert_eq!((welcome.heartbeat_interval_ms, welcome.lease_ms), (5000, 15000));
        node
    }

    async fn open(plane: &Plane, first: attach_request::Message) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(AttachRequest { message: Some(first) }).await.unwrap();
        let responses = plane.nodes().attach(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn next(&mut self) -> Result<Message, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.next()).await.unwrap().unwrap();
        Ok(next?.message.unwrap())
    }

    /// Waits until this is what the node lists.
    async fn until_leases(&mut self, wanted: &[&str]) {
        loop {
            match self.next().await.unwrap() {
                Message::Leases(leases) if leases.backends == wanted => return,
                Message::Leases(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn say(&self, message: attach_request::Message) {
        self.requests.send(AttachRequest { message: Some(message) }).await.unwrap();
    }

    async fn report(&mut self, sequence: u64, backend: &str, tool: &str) -> Message {
        let tools = vec![tool.to_owned().into()];
        let catalog = Catalog { backend: backend.into(), tools, parts: 1, ..Default::default() };
        let report = CatalogReport { sequence, catalog: Some(catalog), part: 0 };
        self.say(attach_request::Message::Catalog(report)).await;
        self.next().await.unwrap()
    }
}

fn accepted(message: Message) -> (u64, u64) {
    let Message::CatalogAccepted(accepted) = message else { panic!("{message:?}") };
    (accepted.sequence, accepted.catalog_revision)
}

fn refused(message: Message) -> String {
    let Message::CatalogRefused(refused) = message else { panic!("{message:?}") };
    refused.reason
}

#[tokio::test]
async fn a_node_lists_reports_and_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut node = Node::attach(&plane, "n1", "x").await;
    plane.apply(&[backend("a", 1), gateway("default", &["a"]), backend("unused", 2)]).await.unwrap();
    node.until_leases(&["a"]).await;

    assert_eq!(accepted(node.report(1, "a", r#"{"name":"now"}"#).await), (1, 1));
    assert_eq!(accepted(node.report(2, "a", r#"{"name":"now"}"#).await), (2, 1), "nothing new");
    assert_eq!(accepted(node.report(3, "a", r#"{"name":"then"}"#).await), (3, 2));
    assert!(refused(node.report(4, "a", "[]").await).contains("name"));
    assert!(refused(node.report(5, "unused", "{}").await).contains("another node lists"));
    assert!(refused(node.report(6, "nobody", "{}").await).contains("no backend"));

    let status = BackendStatus { backend: "a".into(), state: 2, reason: String::new(), tools: 1 };
    let state = NodeState { generation: 1, catalog_revision: 2, backends: vec![status.clone()] };
    node.say(attach_request::Message::Status(state)).await;
    let look = async {
        loop {
            let list = plane.fleet().list_backends(ListBackendsRequest {}).await.unwrap().into_inner();
            let a = list.backends.into_iter().find(|backend| backend.backend == "a").unwrap();
            if a.tools == 1 && a.nodes.get("n1") == Some(&status) {
                return a;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, look).await.unwrap().lister, "n1");
    drop(node);
    plane.stop().await;
}

#[tokio::test]
async fn the_catalog_of_a_backend_that_is_gone_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    plane.apply(&[backend("a", 1), gateway("default", &["a"]), backend("b", 1)]).await.unwrap();
    let mut node = Node::attach(&plane, "n1", "x").await;
    node.until_leases(&["a"]).await;
    accepted(node.report(1, "a", r#"{"name":"now"}"#).await);
    plane.apply(&[gateway("default", &["b"])]).await.unwrap();
    let gone = mt_proto::pb::control::ResourceRef {
        kind: mt_proto::pb::control::Kind::Backend.into(),
        name: "a".into(),
    };
    let request = mt_proto::pb::control::DeleteRequest { refs: vec![gone], ..Default::default() };
    plane.config().delete(request).await.unwrap();
    let look = async {
        loop {
            let nodes = plane.fleet().list_nodes(ListNodesRequest {}).await.unwrap().into_inner();
            if nodes.catalog_revision == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap();
    drop(node);
    plane.stop().await;
}

#[tokio::test]
async fn another_process_with_the_same_id_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut first = Node::attach(&plane, "n1", "x").await;
    let second = Node::attach(&plane, "n1", "y").await;
    let end = loop {
        if let Err(status) = first.next().await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::AlreadyExists);
    let nodes = plane.fleet().list_nodes(ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!((nodes.len(), nodes[0].node.as_ref().unwrap().boot_id.as_str()), (1, "y"));
    assert!(nodes[0].connected);
    drop(second);
    plane.stop().await;
}

#[tokio::test]
async fn who_does_not_say_hello_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(dir.path()).await;
    let mut node = Node::open(&plane, attach_request::Message::Status(NodeState::default())).await;
    assert_eq!(node.next().await.unwrap_err().code(), Code::InvalidArgument);
    let mut node = Node::open(&plane, attach_request::Message::Hello(Hello::default())).await;
    assert_eq!(node.next().await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}
