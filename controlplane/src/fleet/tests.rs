//! Who is in the fleet, and who lists what.

use mt_proto::pb::resource::{
    Backend, Gateway, HttpTransport, Member, Metadata, Resource, backend, member, resource::Spec,
};
use prost::Message;

use super::*;
use crate::store::{BlobHash, Entry as Stored, State};

fn hello(node_id: &str, boot_id: &str) -> Hello {
    Hello { node_id: node_id.into(), boot_id: boot_id.into(), ..Default::default() }
}

/// One gateway over these backends, for every node.
fn published(backends: &[&str]) -> Published {
    let metadata = |name: &str| Some(Metadata { name: name.into(), ..Default::default() });
    let http = HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
    let transport = Some(backend::Transport::Http(http));
    let spec = Backend { transport, ..Default::default() };
    let member =
        |name: &&str| Member { source: Some(member::Source::Backend((*name).into())), ..Default::default() };
    let gateway = Gateway { members: backends.iter().map(member).collect(), ..Default::default() };
    let mut entries = BTreeMap::new();
    let mut put = |key: String, resource: Resource| {
        let value = resource.encode_to_vec();
        entries.insert(key, Stored { hash: BlobHash::of(&value), value: value.into(), revision: 1 });
    };
    put("gateway/all".into(), Resource { metadata: metadata("all"), spec: Some(Spec::Gateway(gateway)) });
    for name in backends {
        let spec = Some(Spec::Backend(spec.clone()));
        put(format!("backend/{name}"), Resource { metadata: metadata(name), spec });
    }
    Published::new(&Published::empty(), &State { revision: 1, entries }, &State::default())
}

fn leases(attached: &Attached) -> Vec<String> {
    attached.leases.borrow().to_vec()
}

#[tokio::test(start_paused = true)]
async fn every_backend_has_a_lister_as_long_as_there_is_a_node() {
    let (fleet, published) = (Fleet::default(), published(&["a", "b", "c", "d", "e", "f"]));
    let one = fleet.attach(hello("n1", "x")).unwrap();
    fleet.refresh(&published, Instant::now());
    assert_eq!(leases(&one).len(), 6);

    let two = fleet.attach(hello("n2", "x")).unwrap();
    fleet.refresh(&published, Instant::now());
    assert_eq!(leases(&one).len() + leases(&two).len(), 6);
    assert!(!leases(&two).is_empty());

    // Its lease goes on for a while.
    drop(two);
    fleet.refresh(&published, Instant::now());
    assert!(leases(&one).len() < 6);
    tokio::time::advance(LEASE).await;
    fleet.refresh(&published, Instant::now());
    assert_eq!(leases(&one).len(), 6);
    assert_eq!(fleet.lister("a").as_deref(), Some("n1"));

    drop(one);
    tokio::time::advance(LEASE).await;
    fleet.refresh(&published, Instant::now());
    assert_eq!(fleet.lister("a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_within_its_lease_keeps_what_it_lists() {
    let (fleet, published) = (Fleet::default(), published(&["a", "b", "c", "d"]));
    let one = fleet.attach(hello("n1", "x")).unwrap();
    let two = fleet.attach(hello("n2", "x")).unwrap();
    fleet.refresh(&published, Instant::now());
    let before = leases(&two);
    drop(two);
    tokio::time::advance(LEASE / 2).await;
    fleet.refresh(&published, Instant::now());
    let two = fleet.attach(hello("n2", "x")).unwrap();
    fleet.refresh(&published, Instant::now());
    assert_eq!(leases(&two), before);
    drop(one);
}

#[tokio::test(start_paused = true)]
async fn a_second_stream_of_a_node_ends_the_first_and_is_not_ended_by_it() {
    let fleet = Fleet::default();
    let first = fleet.attach(hello("n1", "x")).unwrap();
    let second = fleet.attach(hello("n1", "y")).unwrap();
    first.superseded().await;
    first.status(Status { backends: vec![BackendStatus::default()], ..Default::default() });
    drop(first);
    let nodes = fleet.nodes();
    assert_eq!((nodes.len(), nodes[0].connected, nodes[0].hello.boot_id.as_str()), (1, true, "y"));
    assert!(nodes[0].backends.is_empty(), "a stream that is over says nothing");
    drop(second);
    assert!(!fleet.nodes()[0].connected);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_was_sent_and_took_is_shown() {
    let fleet = Fleet::default();
    let node = fleet.discovering("n1", &BTreeMap::new());
    let stamp = |generation| Stamp { generation, catalog_revision: 0 };
    node.sent(stamp(4));
    node.acked(stamp(4));
    node.sent(stamp(5));
    node.refused(stamp(5), "no".into());
    let info = &fleet.nodes()[0];
    assert_eq!((info.sent, info.acked), (Some(stamp(5)), Some(stamp(4))));
    assert_eq!(info.refused, Some((stamp(5), "no".into())));
    node.acked(stamp(6));
    assert_eq!(fleet.nodes()[0].refused, None);
    drop(node);
    tokio::time::advance(FORGET_AFTER).await;
    fleet.refresh(&Published::empty(), Instant::now());
    assert!(fleet.nodes().is_empty(), "long gone");
}

#[tokio::test(start_paused = true)]
async fn a_full_fleet_forgets_who_is_gone_before_it_refuses_who_comes() {
    let fleet = Fleet::default();
    let mut live: Vec<_> =
        (0..NODES_MAX).map(|i| fleet.attach(hello(&format!("n{i}"), "x")).unwrap()).collect();
    assert!(matches!(fleet.attach(hello("late", "x")), Err(Error::Full)));
    assert!(fleet.attach(hello("n7", "y")).is_ok(), "known nodes may come again");
    live.truncate(NODES_MAX - 1);
    assert!(fleet.attach(hello("late", "x")).is_ok());
}
