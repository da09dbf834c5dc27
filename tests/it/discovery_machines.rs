//! Discovery's two machines against each other, over a link that fails.
//!
//! Views change, streams break, applies are refused, nodes restart from what
//! they kept, and messages come twice, out of order or not at all. After every
//! step the node serves exactly some view that was published, never a mixture;
//! when the link is quiet again, both ends have the same set.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, LazyLock},
    time::Duration,
};

use mt_controlplane::discovery::{
    Stamp, View as Published, ViewItem,
    machine::{Machine as Server, Reply},
};
use mt_dataplane::{
    discovery::{
        View,
        machine::{Action, Machine as Node},
    },
    snapshot::Refusal,
};
use mt_proto::{
    discovery::{KEY_RING, version_of},
    pb::{
        ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        discovery::{Catalog, FleetFact, Item, KeyRing, SealingKey, fleet_fact::Fact, item},
    },
};
use proptest::{collection::vec, prelude::*};
use prost::Message;

/// Enough to bring any quiet system to rest.
const SETTLING_STEPS_MAX: usize = 10_000;
const BACKENDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// How many different catalogs a backend may have.
const CONTENTS: u8 = 6;
/// Two of these do not fit into one response.
const LARGE_BYTES: usize = 600 << 10;

#[derive(Clone, Debug)]
enum Step {
    /// The catalogs of these backends become what the number says; `None` goes.
    Publish(Vec<(usize, Option<u8>)>),
    PublishFact,
    Connect,
    /// Also what a server that starts anew looks like.
    Cut,
    RestartNode,
    ServerSends,
    ToNode,
    ToServer,
    Applied {
        ok: bool,
    },
    /// The server hears something again that it has heard on this stream.
    LateRequest(usize),
    /// What no proper link does.
    Fault(Fault),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    LoseResponse(usize),
    RepeatResponse,
    SwapResponses,
    LoseRequest,
    DamageResponse(usize),
}

struct World {
    published: BTreeMap<Stamp, Arc<Published>>,
    items: BTreeMap<Arc<str>, ViewItem>,
    newest: Stamp,
    facts: u32,
    steps: u64,
    server: Option<Server>,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    heard: Vec<DeltaDiscoveryRequest>,
    to_node: VecDeque<DeltaDiscoveryResponse>,
    node: Node,
    applying: Option<Arc<View>>,
    /// How often the node gave a stream up because something did not add up.
    given_up: usize,
    /// What the node has had in service.
    served: Vec<Stamp>,
    kept: Option<Arc<View>>,
    last_fact: Option<u32>,
    acked: Option<Stamp>,
}

fn stamp(view: &View) -> Stamp {
    Stamp { generation: view.generation, catalog_revision: view.catalog_revision }
}

/// Every other one is so large that a push of some takes several responses.
fn catalog(backend: usize, content: u8) -> ViewItem {
    static ALL: LazyLock<Vec<ViewItem>> = LazyLock::new(|| {
        let of = |(backend, content): (&str, u8)| {
            let bytes = if content % 2 == 0 { LARGE_BYTES } else { 10 };
            let tools = vec![vec![content; bytes].into()];
            let catalog = Catalog { backend: backend.to_owned(), parts: 1, tools, ..Default::default() };
            ViewItem::new(Item { item: Some(item::Item::Catalog(catalog)) }.encode_to_vec().into())
        };
        let contents = |backend| (0..CONTENTS).map(move |content| (backend, content));
        BACKENDS.into_iter().flat_map(contents).map(of).collect()
    });
    ALL[backend * usize::from(CONTENTS) + usize::from(content)].clone()
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            published: BTreeMap::new(),
            items: BTreeMap::new(),
            newest: Stamp::default(),
            facts: 0,
            steps: 0,
            server: None,
            to_server: VecDeque::new(),
            heard: vec![],
            to_node: VecDeque::new(),
            node: Node::new(Default::default(), None),
            applying: None,
            given_up: 0,
            served: vec![],
            kept: None,
            last_fact: None,
            acked: None,
        };
        world.publish(&[(0, Some(1))]);
        world.publish_fact();
        world
    }

    fn publish(&mut self, changes: &[(usize, Option<u8>)]) {
        for (backend, content) in changes {
            let name: Arc<str> = format!("catalog/{}/0", BACKENDS[*backend]).into();
            match content {
                Some(content) => _ = self.items.insert(name, catalog(*backend, *content)),
                None => _ = self.items.remove(&name),
            }
        }
        self.newest.generation += 1;
        self.newest.catalog_revision += 2;
        let view = Arc::new(Published::marked(self.newest, self.items.clone()));
        self.published.insert(self.newest, view.clone());
        if let Some(server) = &mut self.server {
            server.on_view(view);
        }
    }

    fn publish_fact(&mut self) {
        self.facts += 1;
        if let Some(server) = &mut self.server {
            server.on_facts(facts(self.facts));
        }
    }

    fn step(&mut self, step: &Step) {
        self.steps += 1;
        match step {
            Step::Publish(changes) => self.publish(changes),
            Step::PublishFact => self.publish_fact(),
            Step::Connect if self.server.is_none() => self.connect(),
            Step::Connect => {}
            Step::Cut => self.cut(),
            Step::RestartNode => {
                self.cut();
                self.applying = None;
                self.last_fact = None;
                // By way of the disk.
                let push = self.kept.as_ref().map(|kept| kept.to_push());
                let view = push.map(|push| Arc::new(View::from_push(push).unwrap()));
                self.node = Node::new(Default::default(), view);
            }
            Step::ServerSends => _ = self.server_sends(),
            Step::ToNode => _ = self.node_hears(),
            Step::ToServer => _ = self.server_hears(),
            Step::Applied { ok } => _ = self.applied(*ok),
            Step::LateRequest(which) => {
                if let Some(request) = self.heard.get(which % self.heard.len().max(1)).cloned()
                    // Only answers: what a node wants it says once.
                    && request.resource_names_subscribe.is_empty()
                    && let Some(server) = &mut self.server
                {
                    server.on_request(request).unwrap();
                }
            }
            Step::Fault(fault) => self.fail(*fault),
        }
        self.check();
    }

    fn fail(&mut self, fault: Fault) {
        match fault {
            Fault::LoseResponse(at) => _ = self.to_node.remove(at % self.to_node.len().max(1)),
            Fault::LoseRequest => _ = self.to_server.pop_front(),
            Fault::RepeatResponse => {
                if let Some(first) = self.to_node.front().cloned() {
                    self.to_node.push_back(first);
                }
            }
            Fault::SwapResponses if self.to_node.len() > 1 => self.to_node.swap(0, 1),
            Fault::SwapResponses => {}
            Fault::DamageResponse(at) => {
                let resources = self.to_node.front_mut().map(|first| &mut first.resources);
                if let Some(first) = resources.and_then(|resources| resources.first_mut())
                    && let Some(any) = &mut first.resource
                    && !any.value.is_empty()
                {
                    let at = at % any.value.len();
                    any.value[at] ^= 1;
                }
            }
        }
    }

    fn connect(&mut self) {
        self.cut();
        let mut server = Server::default();
        server.on_view(self.published[&self.newest].clone());
        server.on_facts(facts(self.facts));
        self.server = Some(server);
        let actions = self.node.connected();
        self.act(actions);
    }

    fn cut(&mut self) {
        self.server = None;
        self.to_server.clear();
        self.to_node.clear();
        self.heard.clear();
        self.node.disconnected();
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(request) => {
                    if self.server.is_some() {
                        self.to_server.push_back(request);
                    }
                }
                Action::Apply(view) => {
                    assert!(self.applying.is_none(), "one apply at a time");
                    for (name, entry) in &view.entries {
                        assert_eq!(entry.version, version_of(&entry.content), "{name} is damaged");
                    }
                    self.applying = Some(view);
                }
                Action::Keep(view) => self.kept = Some(view),
                Action::Fact(FleetFact { fact: Some(Fact::KeyRing(ring)) }) => {
                    self.last_fact = Some(ring.keys[0].id);
                }
                Action::Fact(_) => {}
                Action::Reconnect(_) => {
                    self.given_up += 1;
                    self.cut();
                }
            }
        }
    }

    fn server_sends(&mut self) -> bool {
        let now = Duration::from_millis(self.steps);
        let next = self.server.as_mut().and_then(|server| server.next(now));
        let sent = next.is_some();
        self.to_node.extend(next.map(|outgoing| outgoing.response));
        sent
    }

    /// The pipe reads nothing while the node applies.
    fn node_hears(&mut self) -> bool {
        if self.applying.is_some() {
            return false;
        }
        let Some(response) = self.to_node.pop_front() else { return false };
        let actions = self.node.on_response(response);
        self.act(actions);
        true
    }

    fn server_hears(&mut self) -> bool {
        let (Some(request), Some(server)) = (self.to_server.pop_front(), &mut self.server) else {
            return false;
        };
        self.heard.push(request.clone());
        if let Reply::Acked(Some(stamp)) = server.on_request(request).unwrap() {
            assert!(self.served.contains(&stamp), "{stamp} is acknowledged and never was in service");
            self.acked = Some(stamp);
        }
        true
    }

    fn applied(&mut self, ok: bool) -> bool {
        let Some(view) = self.applying.take() else { return false };
        let result = if ok {
            self.served.push(stamp(&view));
            Ok(())
        } else {
            Err(vec![Refusal { resource: "catalog/a/0".into(), reason: "not today".into() }])
        };
        let actions = self.node.applied(result);
        self.act(actions);
        true
    }

    /// What must hold after every step.
    fn check(&self) {
        for view in [self.node.in_service(), self.applying.as_ref(), self.kept.as_ref()].into_iter().flatten()
        {
            let published = self.published.get(&stamp(view)).expect("a view was published");
            assert_eq!(view.hash(), published.hash(), "view {} is a mixture", view.version());
        }
    }

    /// Runs everything that can run, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..SETTLING_STEPS_MAX {
            self.steps += 1;
            if self.server.is_none() {
                self.connect();
            }
            let moved = self.applied(true) | self.server_hears() | self.server_sends() | self.node_hears();
            self.check();
            if !moved && self.server.is_some() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn assert_agreed(&self) {
        let view = self.node.in_service().expect("something is in service");
        assert_eq!(stamp(view), self.newest);
        assert_eq!(view.hash(), self.published[&self.newest].hash());
        assert_eq!(self.kept.as_ref(), Some(view));
        assert_eq!(self.last_fact, Some(self.facts));
    }
}

fn facts(id: u32) -> Arc<Published> {
    let keys = vec![SealingKey { id, key: vec![0; 32].into(), ..Default::default() }];
    let fact = FleetFact { fact: Some(Fact::KeyRing(KeyRing { keys })) };
    let item = ViewItem::new(fact.encode_to_vec().into());
    Arc::new(Published::plain([(KEY_RING.into(), item)].into()))
}

fn orderly() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => vec((0..BACKENDS.len(), prop::option::weighted(0.9, 0..CONTENTS)), 0..6).prop_map(Step::Publish),
        1 => Just(Step::PublishFact),
        8 => Just(Step::Connect),
        1 => Just(Step::Cut),
        1 => Just(Step::RestartNode),
        24 => Just(Step::ServerSends),
        16 => Just(Step::ToNode),
        16 => Just(Step::ToServer),
        12 => prop::bool::weighted(0.8).prop_map(|ok| Step::Applied { ok }),
        4 => any::<usize>().prop_map(Step::LateRequest),
    ]
}

fn faulty() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        3 => any::<usize>().prop_map(Fault::LoseResponse),
        1 => Just(Fault::RepeatResponse),
        1 => Just(Fault::SwapResponses),
        1 => Just(Fault::LoseRequest),
        1 => any::<usize>().prop_map(Fault::DamageResponse),
    ];
    prop_oneof![8 => orderly(), 1 => fault.prop_map(Step::Fault)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn over_a_link_that_breaks_both_ends_come_to_agree(steps in vec(orderly(), 0..200)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        // What was refused is not pushed again; what comes after it is.
        world.publish(&[(1, Some(3))]);
        world.settle();
        world.assert_agreed();
        prop_assert_eq!(world.acked, Some(world.newest));
        prop_assert_eq!(world.given_up, 0, "nothing was wrong, but the node thought so");
    }

    #[test]
    fn over_a_link_that_garbles_nothing_wrong_is_ever_served(steps in vec(faulty(), 0..200)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.step(step));
        world.publish(&[(1, Some(3))]);
        world.settle();
        // A lost message is noticed by time alone: the server ends such a stream.
        world.cut();
        world.settle();
        world.assert_agreed();
    }
}

#[test]
fn a_node_that_has_everything_is_sent_the_marker_and_no_item() {
    let mut world = World::new();
    world.publish(&[(0, Some(2)), (1, Some(4)), (2, Some(0))]);
    world.settle();
    world.connect();
    while world.server_hears() {}
    let mut sent = vec![];
    while world.server_sends() {
        sent.extend(world.to_node.drain(..));
    }
    let items: Vec<_> = sent.iter().filter(|response| response.nonce != "1").collect();
    assert_eq!(items.len(), 1);
    assert!(items[0].encoded_len() < 512, "{} bytes", items[0].encoded_len());
}
