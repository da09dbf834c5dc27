//! The rules of docs/discovery.md, by number, and random interleavings against
//! a client that checks everything it is sent.

use std::collections::{BTreeMap, VecDeque};

use mt_proto::{
    discovery::{MARKER, unpack_item, view_hash},
    pb::google::rpc::Status,
};
use proptest::{collection::vec, prelude::*};

use super::{super::ViewItem, *};

fn view(stamp: (u64, u64), items: &[(&str, &str)]) -> Arc<View> {
    let items = items.iter().map(|(name, body)| ((*name).into(), ViewItem::new((*body).to_owned().into())));
    Arc::new(View::marked(Stamp { generation: stamp.0, catalog_revision: stamp.1 }, items.collect()))
}

fn facts(items: &[(&str, &str)]) -> Arc<View> {
    let items = items.iter().map(|(name, body)| ((*name).into(), ViewItem::new((*body).to_owned().into())));
    Arc::new(View::plain(items.collect()))
}

fn subscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: names.iter().map(|name| (*name).into()).collect(),
        ..Default::default()
    }
}

fn unsubscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    let names = names.iter().map(|name| (*name).into()).collect();
    DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..subscribe(TYPE_ITEM, &[]) }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}

fn nack(response: &DeltaDiscoveryResponse, reason: &str) -> DeltaDiscoveryRequest {
    let status = Status { code: 3, message: reason.into(), details: vec![] };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ack(response) }
}

fn node(view_now: Arc<View>) -> Machine {
    let mut machine = Machine::default();
    machine.on_view(view_now);
    machine.on_request(subscribe(TYPE_ITEM, &[WILDCARD])).unwrap();
    machine
}

fn next(machine: &mut Machine) -> Option<DeltaDiscoveryResponse> {
    machine.next(Duration::ZERO).map(|outgoing| outgoing.response)
}

/// Names of what is sent, then of what is gone after a minus.
fn told(response: &DeltaDiscoveryResponse) -> String {
    let sent = response.resources.iter().map(|resource| resource.name.clone());
    let gone = response.removed_resources.iter().map(|name| format!("-{name}"));
    sent.chain(gone).collect::<Vec<_>>().join(" ")
}

fn marker(response: &DeltaDiscoveryResponse) -> Option<Marker> {
    let last = response.resources.last()?;
    match unpack_item(last.resource.as_ref()) {
        Ok(Item { item: Some(item::Item::Marker(marker)) }) if last.name == MARKER => Some(marker),
        _ => None,
    }
}

#[test]
fn r3_asking_for_nothing_or_for_the_wildcard_gives_everything() {
    for names in [&[][..], &[WILDCARD][..]] {
        let mut machine = Machine::default();
        machine.on_view(view((1, 0), &[("backend/a", "A"), ("backend/b", "B")]));
        assert!(next(&mut machine).is_none(), "nobody has asked");
        machine.on_request(subscribe(TYPE_ITEM, names)).unwrap();
        let push = next(&mut machine).unwrap();
        assert_eq!(told(&push), "backend/a backend/b marker");
        assert_eq!(push.system_version_info, "1.0");
    }
}

#[test]
fn r4_what_a_client_begins_with_is_not_sent_again() {
    let now = view((7, 3), &[("backend/a", "A"), ("backend/b", "B")]);
    let version = |name: &str| now.items()[name].version.to_string();
    let mut machine = Machine::default();
    machine.on_view(now.clone());
    let has = [("backend/a", version("backend/a")), ("backend/b", "old".into()), ("backend/c", "old".into())];
    machine
        .on_request(DeltaDiscoveryRequest {
            initial_resource_versions: has.map(|(name, version)| (name.to_owned(), version)).into(),
            ..subscribe(TYPE_ITEM, &[WILDCARD])
        })
        .unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!(told(&push), "backend/b marker -backend/c");
    assert_eq!(marker(&push).unwrap().item_count, 2);
}

#[test]
fn r4_a_client_that_has_everything_is_sent_the_marker_alone() {
    let now = view((7, 3), &[("backend/a", "A")]);
    let mut machine = Machine::default();
    machine.on_view(now.clone());
    let has = now.items().iter().map(|(name, item)| (name.to_string(), item.version.to_string()));
    let mut request = subscribe(TYPE_ITEM, &[]);
    request.initial_resource_versions = has.collect();
    machine.on_request(request).unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!(told(&push), "marker");
    assert_eq!(marker(&push).unwrap().view_hash, now.hash().to_vec());
    machine.on_request(ack(&push)).unwrap();
    assert!(next(&mut machine).is_none());
}

#[test]
fn r4_an_empty_server_takes_nothing_away() {
    let mut machine = Machine::default();
    machine.on_view(view((0, 0), &[]));
    let mut request = subscribe(TYPE_ITEM, &[WILDCARD]);
    request.initial_resource_versions.insert("backend/a".into(), "1".into());
    machine.on_request(request).unwrap();
    assert!(next(&mut machine).is_none());
    machine.on_view(view((1, 0), &[]));
    assert_eq!(told(&next(&mut machine).unwrap()), "marker -backend/a", "somebody wanted it so");
    assert_eq!(told(&next(&mut node(view((0, 0), &[]))).unwrap()), "marker", "there is nothing to lose");
}

#[test]
fn r5_names_are_a_filter_and_the_marker_rides_along() {
    let mut machine = Machine::default();
    machine.on_view(view((1, 0), &[("backend/a", "A"), ("backend/b", "B")]));
    machine.on_request(subscribe(TYPE_ITEM, &["backend/a", "backend/x"])).unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!(told(&push), "backend/a marker -backend/x");
    let marker = marker(&push).unwrap();
    assert_eq!(marker.item_count, 1);
    machine.on_request(ack(&push)).unwrap();

    machine.on_request(subscribe(TYPE_ITEM, &["backend/b"])).unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!(told(&push), "backend/b marker");
    machine.on_request(ack(&push)).unwrap();

    machine.on_request(subscribe(TYPE_ITEM, &["backend/a"])).unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!(told(&push), "backend/a marker", "named again is sent again");
    machine.on_request(ack(&push)).unwrap();

    machine.on_request(unsubscribe(&["backend/a"])).unwrap();
    assert_eq!(told(&next(&mut machine).unwrap()), "marker");
}

#[test]
fn r6_a_large_push_comes_in_responses_below_the_limit_with_the_marker_last() {
    let body = "x".repeat(300 << 10);
    let names: Vec<String> = (0..7).map(|index| format!("backend/b{index}")).collect();
    let big = "y".repeat(PUSH_BYTES_MAX + 5);
    let mut items: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), body.as_str())).collect();
    items.push(("backend/big", &big));
    let mut machine = node(view((1, 1), &items));
    let mut responses = vec![];
    while let Some(outgoing) = machine.next(Duration::ZERO) {
        assert_eq!(outgoing.completes.is_some(), marker(&outgoing.response).is_some());
        responses.push(outgoing.response);
    }
    let shape: Vec<_> = responses.iter().map(|response| response.resources.len()).collect();
    assert_eq!(shape, [3, 3, 1, 2], "the large one and the marker share the last");
    let within = |r: &&DeltaDiscoveryResponse| r.encoded_len() <= PUSH_BYTES_MAX;
    assert_eq!(responses.iter().filter(within).count(), 3);
    let nonces: BTreeSet<_> = responses.iter().map(|response| &response.nonce).collect();
    assert_eq!(nonces.len(), 4);
}

#[test]
fn r6_a_push_is_completed_as_it_was_begun_and_the_next_one_follows_the_new_wishes() {
    for refuse in [false, true] {
        let now = view((1, 0), &[("backend/a", "A"), ("backend/b", "B")]);
        let mut machine = Machine::default();
        machine.on_view(now.clone());
        machine.on_request(subscribe(TYPE_ITEM, &["backend/a"])).unwrap();
        let push = next(&mut machine).unwrap();
        machine.on_request(subscribe(TYPE_ITEM, &["backend/b"])).unwrap();
        machine.on_request(unsubscribe(&["backend/a"])).unwrap();
        assert!(next(&mut machine).is_none());
        let answer = if refuse { nack(&push, "not what I want") } else { ack(&push) };
        machine.on_request(answer).unwrap();
        let push = next(&mut machine).unwrap();
        assert_eq!(told(&push), "backend/b marker");
        let only_b = view_hash([("backend/b", &*now.items()["backend/b"].version)]);
        assert_eq!(marker(&push).unwrap().view_hash, only_b.to_vec());
    }
}

#[test]
fn r7_only_the_nonce_of_the_marker_counts() {
    let big = "x".repeat(PUSH_BYTES_MAX);
    let mut machine = node(view((1, 0), &[("backend/a", &big), ("backend/b", &big)]));
    let first = next(&mut machine).unwrap();
    assert_eq!(machine.on_request(ack(&first)), Ok(Reply::None), "it is not the last");
    let last = next(&mut machine).unwrap();
    assert_eq!(machine.on_request(nack(&first, "no")), Ok(Reply::None));
    let stamp = Stamp { generation: 1, catalog_revision: 0 };
    assert_eq!(machine.on_request(ack(&last)), Ok(Reply::Acked(Some(stamp))));
    assert_eq!(machine.on_request(ack(&last)), Ok(Reply::None), "it has been answered");
    assert!(next(&mut machine).is_none());
}

#[test]
fn r8_while_a_push_is_unanswered_only_the_newest_view_waits() {
    let mut machine = node(view((1, 0), &[("backend/a", "1")]));
    let push = next(&mut machine).unwrap();
    machine.on_view(view((2, 0), &[("backend/a", "2"), ("backend/b", "2")]));
    machine.on_view(view((3, 0), &[("backend/a", "3")]));
    assert!(next(&mut machine).is_none());
    machine.on_request(ack(&push)).unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!((told(&push).as_str(), push.system_version_info.as_str()), ("backend/a marker", "3.0"));
}

#[test]
fn r8_a_generation_that_changes_nothing_for_a_client_is_a_marker() {
    let mut machine = node(view((1, 0), &[("backend/a", "1")]));
    let push = next(&mut machine).unwrap();
    machine.on_request(ack(&push)).unwrap();
    machine.on_view(view((1, 0), &[("backend/a", "1")]));
    assert!(next(&mut machine).is_none(), "it is the same");
    machine.on_view(view((2, 0), &[("backend/a", "1")]));
    assert_eq!(told(&next(&mut machine).unwrap()), "marker");
}

#[test]
fn r9_a_refused_view_is_not_sent_again_and_the_next_differs_from_what_is_in_service() {
    let mut machine = node(view((1, 0), &[("backend/a", "1")]));
    let push = next(&mut machine).unwrap();
    machine.on_request(ack(&push)).unwrap();

    let bad = view((2, 0), &[("backend/a", "bad"), ("backend/b", "2")]);
    machine.on_view(bad.clone());
    let push = next(&mut machine).unwrap();
    let reply = machine.on_request(nack(&push, "backend/a: no")).unwrap();
    let stamp = Some(Stamp { generation: 2, catalog_revision: 0 });
    assert_eq!(reply, Reply::Refused { stamp, reason: "backend/a: no".into() });
    assert!(next(&mut machine).is_none());
    machine.on_view(bad);
    assert!(next(&mut machine).is_none(), "it has not changed");

    machine.on_view(view((3, 0), &[("backend/a", "1"), ("backend/b", "2")]));
    assert_eq!(told(&next(&mut machine).unwrap()), "backend/b marker");
}

#[test]
fn r10_facts_have_no_marker_and_come_when_they_change() {
    let mut machine = Machine::default();
    machine.on_facts(facts(&[("key-ring", "1")]));
    machine.on_request(subscribe(TYPE_FACT, &[WILDCARD])).unwrap();
    let push = next(&mut machine).unwrap();
    assert_eq!((told(&push).as_str(), push.type_url.as_str()), ("key-ring", TYPE_FACT));
    machine.on_facts(facts(&[("key-ring", "2")]));
    assert!(next(&mut machine).is_none(), "one at a time");
    assert_eq!(machine.on_request(ack(&push)), Ok(Reply::Acked(None)));
    assert_eq!(told(&next(&mut machine).unwrap()), "key-ring");
}

#[test]
fn r11_an_unknown_type_is_told_and_harms_nothing() {
    let mut machine = node(view((1, 0), &[]));
    let reply = machine.on_request(subscribe("type.googleapis.com/other", &[WILDCARD]));
    assert_eq!(reply, Ok(Reply::UnknownType("type.googleapis.com/other".into())));
    assert_eq!(told(&next(&mut machine).unwrap()), "marker");
}

#[test]
fn r12_a_push_that_nobody_answers_ends_the_stream() {
    let mut machine = node(view((1, 0), &[]));
    assert_eq!(machine.on_tick(ACK_TIMEOUT * 5), Ok(()), "nothing has been sent");
    let push = machine.next(Duration::from_secs(7)).unwrap().response;
    assert_eq!(machine.on_tick(ACK_TIMEOUT + Duration::from_secs(7)), Ok(()));
    assert_eq!(machine.on_tick(ACK_TIMEOUT + Duration::from_secs(8)), Err(Close::Unanswered));
    machine.on_request(ack(&push)).unwrap();
    assert_eq!(machine.on_tick(ACK_TIMEOUT * 5), Ok(()));
}

#[test]
fn r12_a_stream_that_asks_for_too_much_ends() {
    let names: Vec<String> = (0..=NAMES_MAX).map(|index| format!("backend/b{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(Machine::default().on_request(subscribe(TYPE_ITEM, &names)), Err(Close::TooManyNames));
    let mut request = subscribe(TYPE_ITEM, &[]);
    request.initial_resource_versions =
        (0..=INITIAL_VERSIONS_MAX).map(|index| (format!("n{index}"), "v".into())).collect();
    assert_eq!(Machine::default().on_request(request), Err(Close::TooManyVersions));
}

#[test]
fn a_reason_is_cut_between_characters() {
    let mut machine = node(view((1, 0), &[]));
    let push = next(&mut machine).unwrap();
    let Reply::Refused { reason, .. } = machine.on_request(nack(&push, &"é".repeat(9999))).unwrap() else {
        panic!("not refused")
    };
    assert_eq!(reason.len(), REASON_BYTES_MAX);
}

/// A client that keeps what it has over any number of streams.
#[derive(Debug, Default)]
struct Client {
    all: bool,
    names: BTreeSet<String>,
    has: BTreeMap<String, String>,
    staged: BTreeMap<String, Option<String>>,
    stamp: (u64, u64),
    mismatches: usize,
}

impl Client {
    fn wants(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn hello(&self) -> DeltaDiscoveryRequest {
        let names = self.names.iter().cloned().chain(self.all.then(|| WILDCARD.into()));
        // Not in the machine's sense empty: that would be everything.
        let names: Vec<String> = names.chain([MARKER.into()]).collect();
        DeltaDiscoveryRequest {
            type_url: TYPE_ITEM.into(),
            resource_names_subscribe: names,
            initial_resource_versions: self.has.clone(),
            ..Default::default()
        }
    }

    /// Takes a response, as docs/discovery.md says; answers a marker.
    fn take(&mut self, response: &DeltaDiscoveryResponse, refuse: bool) -> Option<DeltaDiscoveryRequest> {
        for resource in response.resources.iter().filter(|resource| resource.name != MARKER) {
            assert!(self.staged.insert(resource.name.clone(), Some(resource.version.clone())).is_none());
        }
        for name in &response.removed_resources {
            assert!(self.staged.insert(name.clone(), None).is_none(), "{name} comes twice in a push");
        }
        let marker = marker(response)?;
        let mut has = self.has.clone();
        for (name, version) in std::mem::take(&mut self.staged) {
            match version {
                Some(version) if self.wants(&name) => _ = has.insert(name, version),
                _ => _ = has.remove(&name),
            }
        }
        let hash = view_hash(has.iter().map(|(name, version)| (name.as_str(), version.as_str())));
        let right = marker.view_hash == hash.to_vec() && marker.item_count == has.len() as u64;
        if !right {
            self.mismatches += 1;
        }
        if !right || refuse {
            return Some(nack(response, "no"));
        }
        let stamp = (marker.generation, marker.catalog_revision);
        assert!(stamp >= self.stamp, "back from {:?} to {stamp:?}", self.stamp);
        (self.has, self.stamp) = (has, stamp);
        Some(ack(response))
    }
}

#[derive(Clone, Debug)]
enum Step {
    View(Vec<(u8, u8)>),
    Send,
    Take { refuse: bool },
    Hear,
    StaleAck(u8),
    Reconnect,
    Subscribe(Option<u8>),
    Unsubscribe(Option<u8>),
}

fn name(index: u8) -> String {
    format!("backend/b{index}")
}

fn steps(with_names: bool) -> impl Strategy<Value = Vec<Step>> {
    let rarely = u32::from(with_names);
    let step = prop_oneof![
        4 => vec((0u8..6, 0u8..3), 0..6).prop_map(Step::View),
        8 => Just(Step::Send),
        8 => (0u8..5).prop_map(|dice| Step::Take { refuse: dice == 0 }),
        8 => Just(Step::Hear),
        1 => (0u8..40).prop_map(Step::StaleAck),
        1 => Just(Step::Reconnect),
        2 * rarely => proptest::option::of(0u8..8).prop_map(Step::Subscribe),
        2 * rarely => proptest::option::of(0u8..8).prop_map(Step::Unsubscribe),
    ];
    vec(step, 0..120)
}

/// A machine, a client, and what is on its way between them.
struct World {
    machine: Machine,
    client: Client,
    view: Arc<View>,
    requests: VecDeque<DeltaDiscoveryRequest>,
    responses: VecDeque<DeltaDiscoveryResponse>,
    unanswered: usize,
    generation: u64,
}

impl World {
    fn new() -> Self {
        let client = Client { all: true, ..Default::default() };
        let mut world = Self {
            machine: Machine::default(),
            requests: VecDeque::from([client.hello()]),
            client,
            view: view((0, 0), &[]),
            responses: VecDeque::new(),
            unanswered: 0,
            generation: 0,
        };
        world.machine.on_view(world.view.clone());
        world
    }

    fn show(&mut self, items: &[(u8, u8)]) {
        self.generation += 1;
        let items: BTreeMap<String, String> =
            items.iter().map(|(index, body)| (name(*index), body.to_string())).collect();
        let items: Vec<(&str, &str)> =
            items.iter().map(|(name, body)| (name.as_str(), body.as_str())).collect();
        self.view = view((self.generation, 0), &items);
        self.machine.on_view(self.view.clone());
    }

    /// Whether a response was made.
    fn send(&mut self) -> bool {
        let Some(outgoing) = self.machine.next(Duration::ZERO) else { return false };
        assert_eq!(outgoing.completes.is_some(), marker(&outgoing.response).is_some());
        self.unanswered += usize::from(outgoing.completes.is_some());
        assert!(self.unanswered <= 1, "two pushes are unanswered");
        self.responses.push_back(outgoing.response);
        true
    }

    fn take(&mut self, refuse: bool) -> bool {
        let Some(response) = self.responses.pop_front() else { return false };
        self.requests.extend(self.client.take(&response, refuse));
        true
    }

    fn hear(&mut self) -> bool {
        let Some(request) = self.requests.pop_front() else { return false };
        match self.machine.on_request(request).unwrap() {
            Reply::Acked(stamp) => {
                assert!(stamp.is_some());
                self.unanswered -= 1;
            }
            Reply::Refused { .. } => self.unanswered -= 1,
            Reply::None => {}
            Reply::UnknownType(type_url) => panic!("{type_url}"),
        }
        true
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::View(items) => self.show(items),
            Step::Send => _ = self.send(),
            Step::Take { refuse } => _ = self.take(*refuse),
            Step::Hear => _ = self.hear(),
            Step::StaleAck(nonce) => {
                let pending = match &self.machine.items.state {
                    State::Unanswered(push) => push.nonce.clone(),
                    _ => String::new(),
                };
                if pending != nonce.to_string() {
                    let stale = DeltaDiscoveryResponse {
                        nonce: format!("old-{nonce}"),
                        type_url: TYPE_ITEM.into(),
                        ..Default::default()
                    };
                    self.requests.push_back(ack(&stale));
                }
            }
            Step::Reconnect => {
                self.machine = Machine::default();
                self.machine.on_view(self.view.clone());
                self.client.staged.clear();
                self.responses.clear();
                self.requests = VecDeque::from([self.client.hello()]);
                self.unanswered = 0;
            }
            Step::Subscribe(index) => {
                let name = index.map_or(WILDCARD.to_owned(), name);
                match index {
                    None => self.client.all = true,
                    Some(_) => _ = self.client.names.insert(name.clone()),
                }
                self.requests.push_back(subscribe(TYPE_ITEM, &[&name]));
            }
            Step::Unsubscribe(index) => {
                let name = index.map_or(WILDCARD.to_owned(), name);
                match index {
                    None => self.client.all = false,
                    Some(_) => _ = self.client.names.remove(&name),
                }
                let names = std::mem::take(&mut self.client.has);
                self.client.has = names.into_iter().filter(|(name, _)| self.client.wants(name)).collect();
                self.requests.push_back(unsubscribe(&[&name]));
            }
        }
    }

    /// Lets everything on its way arrive, refusing nothing.
    fn settle(&mut self) {
        for _ in 0..200 {
            let sent = self.send();
            if !(self.take(false) | self.hear() | sent) {
                return;
            }
        }
        panic!("the two never come to rest");
    }

    fn check_agreement(&self) {
        let wanted = self.view.items().iter().filter(|(name, _)| self.client.wants(name));
        let wanted: BTreeMap<String, String> =
            wanted.map(|(name, item)| (name.to_string(), item.version.to_string())).collect();
        assert_eq!(self.client.has, wanted);
        assert_eq!(self.client.stamp.0, self.generation);
        let held = self.machine.items.held.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        assert_eq!(held.collect::<BTreeMap<_, _>>(), wanted);
    }
}

proptest! {
    #[test]
    fn a_node_and_the_machine_always_come_to_agree(steps in steps(false)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        // One that has not been refused.
        world.show(&[(1, 9), (2, 9)]);
        world.settle();
        world.check_agreement();
        prop_assert_eq!(world.client.mismatches, 0);
    }

    #[test]
    fn a_client_that_changes_its_mind_comes_to_agree_too(steps in steps(true)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.show(&[(1, 9), (2, 9), (7, 9)]);
        world.settle();
        world.check_agreement();
    }
}
