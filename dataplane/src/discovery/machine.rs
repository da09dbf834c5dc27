//! The node's half of the discovery protocol, as a state machine without I/O.
//!
//! Nothing here sleeps, reads a clock or touches a socket: `client.rs` feeds
//! responses in and carries the actions out, in order. So every interleaving of
//! pushes, refusals and lost streams is a unit test. Rules by number:
//! docs/discovery.md.
//!
//! A push is staged beside what is in service until its marker has come and its
//! hash agrees; then it is applied whole, and only after that acknowledged. What
//! does not add up is never put into service: the stream is given up, and the
//! next one starts from nothing.

mod stage;

use std::sync::Arc;

use prost::Message;

use mt_proto::{
    discovery::{self, MESSAGE_BYTES_MAX, TYPE_FACT, TYPE_ITEM, WILDCARD},
    pb::{
        ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        discovery::FleetFact,
        envoy::config::core::v3::Node,
        google::rpc::Status,
    },
};

pub(super) use self::stage::Stage;
pub use self::stage::{PUSH_BYTES_MAX, VIEW_ITEMS_MAX};
use super::View;
use crate::snapshot::Refusal;

/// How much of its reasons a refusal tells.
pub const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// `google.rpc.Code.INVALID_ARGUMENT`.
const INVALID_ARGUMENT: i32 = 3;
/// Room in the first request for all that is not a version of an item.
const REQUEST_OVERHEAD_BYTES: usize = 16 << 10;

/// What the pipe must do next, in order.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are a handful at a time, and they are gone at once")]
pub enum Action {
    /// Send this on the stream.
    Send(DeltaDiscoveryRequest),
    /// Try to put this into service, then tell the machine by
    /// [`Machine::applied`]. At most one is under way.
    Apply(Arc<View>),
    /// This is in service: keep a copy of it.
    Keep(Arc<View>),
    /// A fact of the fleet holds from now on.
    Fact(FleetFact),
    /// The stream cannot go on: end it, wait a little, connect again.
    Reconnect(Broken),
}

/// What a server must not do. A damaged or reordered stream looks the same, so
/// nothing is refused for it: the node starts over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("a response is of type {0:?}, which nobody subscribed to")]
    Type(String),
    #[error("a push came before the one before it was answered")]
    Overlap,
    #[error("the content of {name} is not what its version names")]
    Content { name: String },
    #[error("the marker cannot be read")]
    Marker,
    #[error("the marker counts {said} items, there are {have}")]
    Count { said: u64, have: u64 },
    #[error("the marker's hash is not that of the items")]
    Hash,
    #[error("the push is larger than {VIEW_ITEMS_MAX} items or {PUSH_BYTES_MAX} bytes")]
    TooLarge,
}

/// The node's half of one discovery relation, over any number of streams.
#[derive(Debug)]
pub struct Machine {
    node: Node,
    in_service: Option<Arc<View>>,
    stream: Stream,
    push: Push,
}

#[derive(Debug, PartialEq)]
enum Stream {
    Down {
        next: Start,
    },
    /// There is a stream, but what to ask for is known only after the push in
    /// hand is applied.
    Waiting {
        next: Start,
    },
    Up {
        /// What the server takes the node to have: differences start there.
        base: Arc<View>,
    },
}

/// How the next stream starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With what is in service.
    Resume,
    /// With nothing: something did not add up.
    Afresh,
}

#[derive(Debug)]
enum Push {
    None,
    Staging(Stage),
    Applying {
        view: Arc<View>,
        /// Of the marker; none if its stream is gone.
        nonce: Option<String>,
    },
}

impl Machine {
    /// For a node that serves `in_service` (from its disk) or nothing.
    pub fn new(node: Node, in_service: Option<Arc<View>>) -> Self {
        Self { node, in_service, stream: Stream::Down { next: Start::Resume }, push: Push::None }
    }

    /// What is in service; none before the first push.
    pub fn in_service(&self) -> Option<&Arc<View>> {
        self.in_service.as_ref()
    }

    /// R18: there is a new stream. The one before it, if any, is gone.
    pub fn connected(&mut self) -> Vec<Action> {
        self.disconnected();
        let next = match self.stream {
            Stream::Down { next } | Stream::Waiting { next } => next,
            Stream::Up { .. } => Start::Resume,
        };
        if matches!(self.push, Push::Applying { .. }) {
            self.stream = Stream::Waiting { next };
            return vec![];
        }
        self.subscribe(next)
    }

    /// R14: the stream is gone. What was staged is dropped; what is being applied
    /// goes on, and is not acknowledged.
    pub fn disconnected(&mut self) {
        self.stream = match self.stream {
            Stream::Down { next } | Stream::Waiting { next } => Stream::Down { next },
            Stream::Up { .. } => Stream::Down { next: Start::Resume },
        };
        match &mut self.push {
            Push::Applying { nonce, .. } => *nonce = None,
            push => *push = Push::None,
        }
    }

    /// The server said something.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Vec<Action> {
        match response.type_url.as_str() {
            TYPE_FACT => take_facts(response),
            TYPE_ITEM => match self.take_items(response) {
                Ok(actions) => actions,
                Err(broken) => {
                    self.disconnected();
                    self.stream = Stream::Down { next: Start::Afresh };
                    vec![Action::Reconnect(broken)]
                }
            },
            other => {
                self.disconnected();
                vec![Action::Reconnect(Broken::Type(other.to_owned()))]
            }
        }
    }

    /// R16: how the last [`Action::Apply`] went.
    pub fn applied(&mut self, result: Result<(), Vec<Refusal>>) -> Vec<Action> {
        let Push::Applying { view, nonce } = std::mem::replace(&mut self.push, Push::None) else {
            debug_assert!(false, "nothing is being applied");
            return vec![];
        };
        let mut actions = vec![];
        let answer = match result {
            Ok(()) => {
                self.in_service = Some(view.clone());
                if let (Stream::Up { base }, Some(_)) = (&mut self.stream, &nonce) {
                    *base = view.clone();
                }
                actions.push(Action::Keep(view));
                nonce.map(|nonce| ack(TYPE_ITEM, nonce))
            }
            Err(refusals) => nonce.map(|nonce| nack(TYPE_ITEM, nonce, &refusals)),
        };
        // The ACK leaves before the copy is on disk: the copy is only a cache.
        actions.splice(0..0, answer.map(Action::Send));
        if let Stream::Waiting { next } = self.stream {
            actions.extend(self.subscribe(next));
        }
        actions
    }

    fn subscribe(&mut self, start: Start) -> Vec<Action> {
        let base = match start {
            Start::Resume => self.in_service.clone().unwrap_or_default(),
            Start::Afresh => Arc::default(),
        };
        let mut items = subscription(TYPE_ITEM);
        items.node = Some(self.node.clone());
        items.initial_resource_versions = base.versions();
        if items.encoded_len() > MESSAGE_BYTES_MAX - REQUEST_OVERHEAD_BYTES {
            // What does not fit into a message is not said: everything comes anew.
            items.initial_resource_versions.clear();
            self.stream = Stream::Up { base: Arc::default() };
        } else {
            self.stream = Stream::Up { base };
        }
        vec![Action::Send(items), Action::Send(subscription(TYPE_FACT))]
    }

    fn take_items(&mut self, response: DeltaDiscoveryResponse) -> Result<Vec<Action>, Broken> {
        let Stream::Up { base } = &self.stream else { return Ok(vec![]) };
        let (label, nonce) = (response.system_version_info.clone(), response.nonce.clone());
        let mut stage = match std::mem::replace(&mut self.push, Push::None) {
            Push::Staging(stage) if stage.label == label => stage,
            // R14: a push with another label takes the place of one that never ended.
            Push::Staging(_) | Push::None => Stage::new(label),
            applying @ Push::Applying { .. } => {
                self.push = applying;
                return Err(Broken::Overlap); // R8
            }
        };
        let Some(marker) = stage.take(response)? else {
            self.push = Push::Staging(stage);
            return Ok(vec![]);
        };
        let (view, refusals) = stage.complete(base, &marker)?;
        if !refusals.is_empty() {
            return Ok(vec![Action::Send(nack(TYPE_ITEM, nonce, &refusals))]);
        }
        if let Some(same) = self.in_service.as_ref().filter(|serving| ***serving == view) {
            // Nothing changed while the stream was down.
            self.stream = Stream::Up { base: same.clone() };
            return Ok(vec![Action::Send(ack(TYPE_ITEM, nonce))]);
        }
        let view = Arc::new(view);
        self.push = Push::Applying { view: view.clone(), nonce: Some(nonce) };
        Ok(vec![Action::Apply(view)])
    }
}

fn take_facts(response: DeltaDiscoveryResponse) -> Vec<Action> {
    let mut actions = vec![];
    let mut refusals = vec![];
    // R10: a fact that is gone keeps holding until another takes its place.
    for resource in response.resources {
        match discovery::unpack_fact(resource.resource.as_ref()) {
            Ok(fact) => actions.push(Action::Fact(fact)),
            Err(error) => refusals.push(Refusal { resource: resource.name, reason: error.to_string() }),
        }
    }
    let answer = if refusals.is_empty() {
        ack(TYPE_FACT, response.nonce)
    } else {
        nack(TYPE_FACT, response.nonce, &refusals)
    };
    actions.push(Action::Send(answer));
    actions
}

fn subscription(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: vec![WILDCARD.to_owned()],
        ..Default::default()
    }
}

fn ack(type_url: &str, nonce: String) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: type_url.to_owned(), response_nonce: nonce, ..Default::default() }
}

fn nack(type_url: &str, nonce: String, refusals: &[Refusal]) -> DeltaDiscoveryRequest {
    let status = Status { code: INVALID_ARGUMENT, message: reasons(refusals), details: vec![] };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ack(type_url, nonce) }
}

/// One line for each refused item, as far as they fit.
fn reasons(refusals: &[Refusal]) -> String {
    let mut text = String::new();
    for (told, Refusal { resource, reason }) in refusals.iter().enumerate() {
        let line = format!("{resource}: {reason}");
        if text.len() + line.len() > REFUSAL_BYTES_MAX && told > 0 {
            text.push_str(&format!("\nand {} more", refusals.len() - told));
            break;
        }
        if told > 0 {
            text.push('\n');
        }
        text.extend(line.chars().take(REFUSAL_BYTES_MAX / 4));
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mt_proto::pb::{
        ads::Resource,
        discovery::{Catalog, Item, item},
    };

    use super::*;
    use crate::discovery::Entry;

    fn node() -> Node {
        Node { id: "n1".to_owned(), ..Default::default() }
    }

    /// A view with one catalog for each backend; its content is `revision`.
    fn view(generation: u64, revision: u64, backends: &[&str]) -> View {
        let entry = |backend: &&str| {
            let tools = vec![Bytes::from(format!("{{\"name\":\"{revision}\"}}"))];
            let catalog = Catalog { backend: (*backend).to_owned(), parts: 1, tools, ..Default::default() };
            let content: Bytes = Item { item: Some(item::Item::Catalog(catalog)) }.encode_to_vec().into();
            (
                format!("catalog/{backend}/0"),
                Arc::new(Entry { version: discovery::version_of(&content), content }),
            )
        };
        View { generation, catalog_revision: revision, entries: backends.iter().map(entry).collect() }
    }

    /// A push of a whole view, as one response for each of its resources.
    fn push(view: &View, nonce: &str) -> Vec<DeltaDiscoveryResponse> {
        let whole = view.to_push();
        let one = |resource| DeltaDiscoveryResponse {
            resources: vec![resource],
            nonce: nonce.to_owned(),
            type_url: whole.type_url.clone(),
            system_version_info: whole.system_version_info.clone(),
            removed_resources: vec![],
        };
        whole.resources.iter().cloned().map(one).collect()
    }

    fn feed(machine: &mut Machine, responses: Vec<DeltaDiscoveryResponse>) -> Vec<Action> {
        responses.into_iter().flat_map(|response| machine.on_response(response)).collect()
    }

    /// A machine that has this in service.
    fn serving(view: &View) -> Machine {
        let mut machine = Machine::new(node(), None);
        machine.connected();
        feed(&mut machine, push(view, "1"));
        machine.applied(Ok(()));
        machine
    }

    fn the_push(actions: &[Action]) -> Option<&View> {
        actions.iter().find_map(|action| if let Action::Apply(view) = action { Some(&**view) } else { None })
    }

    fn sent(actions: &[Action]) -> Vec<&DeltaDiscoveryRequest> {
        actions
            .iter()
            .filter_map(|a| if let Action::Send(request) = a { Some(request) } else { None })
            .collect()
    }

    #[test]
    fn a_push_is_acknowledged_by_its_last_nonce_after_it_is_in_service() {
        let mut machine = Machine::new(node(), None);
        assert_eq!(sent(&machine.connected())[0].node, Some(node()));
        let wanted = view(1, 1, &["a", "b"]);
        let mut responses = push(&wanted, "early");
        let last = responses.pop().unwrap();
        assert_eq!(feed(&mut machine, responses), []);
        let actions = machine.on_response(DeltaDiscoveryResponse { nonce: "last".into(), ..last });
        assert_eq!(the_push(&actions), Some(&wanted));
        assert_eq!(machine.in_service(), None);
        let actions = machine.applied(Ok(()));
        assert_eq!(sent(&actions)[0].response_nonce, "last");
        assert_eq!(sent(&actions)[0].error_detail, None);
        assert_eq!(actions[1], Action::Keep(Arc::new(wanted.clone())));
        assert_eq!(machine.in_service().map(|v| &**v), Some(&wanted));
    }

    #[test]
    fn a_refused_push_leaves_the_old_view_serving_and_says_why() {
        let old = view(1, 1, &["a"]);
        let mut machine = serving(&old);
        feed(&mut machine, push(&view(2, 2, &["a"]), "7"));
        let refusal = Refusal { resource: "catalog/a/0".into(), reason: "no".into() };
        let actions = machine.applied(Err(vec![refusal]));
        let nack = sent(&actions)[0];
        assert_eq!((nack.response_nonce.as_str(), actions.len()), ("7", 1));
        assert_eq!(nack.error_detail.as_ref().unwrap().message, "catalog/a/0: no");
        assert_eq!(machine.in_service().map(|v| &**v), Some(&old));
    }

    #[test]
    fn what_does_not_decode_is_refused_by_name_and_not_applied() {
        let mut machine = serving(&view(1, 1, &["a"]));
        let mut responses = push(&view(2, 2, &["a"]), "7");
        let resource = &mut responses[0].resources[0];
        resource.resource.as_mut().unwrap().value = vec![0xff; 3];
        resource.version = discovery::version_of(&[0xff; 3]);
        let actions = feed(&mut machine, responses);
        assert_eq!(the_push(&actions), None);
        let status = sent(&actions)[0].error_detail.as_ref().unwrap();
        assert!(status.message.starts_with("catalog/a/0: the content does not decode"), "{}", status.message);
    }

    #[test]
    fn a_lost_stream_is_taken_up_with_what_is_in_service() {
        let old = view(1, 1, &["a"]);
        let mut machine = serving(&old);
        let mut half = push(&view(2, 2, &["b"]), "7");
        half.pop();
        feed(&mut machine, half);
        machine.disconnected();
        let actions = machine.connected();
        assert_eq!(sent(&actions)[0].initial_resource_versions, old.versions());
        // Only the marker: what was staged before must not count.
        let same = push(&old, "1").pop().unwrap();
        let actions = machine.on_response(same);
        assert_eq!(actions.len(), 1);
        assert_eq!(sent(&actions)[0].response_nonce, "1");
    }

    #[test]
    fn what_does_not_add_up_is_not_served_and_the_next_stream_starts_afresh() {
        let old = view(1, 1, &["a"]);
        let wrong: [fn(&mut Vec<DeltaDiscoveryResponse>) -> Broken; 4] = [
            |responses| {
                responses.remove(0);
                Broken::Count { said: 2, have: 1 }
            },
            |responses| {
                responses[0].resources[0].resource.as_mut().unwrap().value.push(1);
                Broken::Content { name: "catalog/b/0".into() }
            },
            |responses| {
                responses[1] = push(&view(2, 9, &["c"]), "7").remove(0);
                responses[1].system_version_info = "2.2".into();
                Broken::Hash
            },
            |responses| {
                responses[0].type_url = "x".into();
                Broken::Type("x".into())
            },
        ];
        for damage in wrong {
            let mut machine = serving(&old);
            let mut responses = push(&view(2, 2, &["b", "c"]), "7");
            responses[2].removed_resources.push("catalog/a/0".into());
            let expected = damage(&mut responses);
            let afresh = !matches!(expected, Broken::Type(_));
            let actions = feed(&mut machine, responses);
            assert_eq!(actions, [Action::Reconnect(expected)]);
            assert_eq!(machine.in_service().map(|v| &**v), Some(&old));
            let versions = &sent(&machine.connected())[0].initial_resource_versions.clone();
            assert_eq!(versions.is_empty(), afresh);
        }
    }

    #[test]
    fn a_push_that_never_ended_gives_way_to_the_next() {
        let mut machine = serving(&view(1, 1, &["a"]));
        let mut half = push(&view(2, 2, &["b"]), "7");
        half.pop();
        feed(&mut machine, half);
        let next = view(3, 3, &["a"]);
        let actions = feed(&mut machine, push(&next, "8"));
        assert_eq!(the_push(&actions), Some(&next));
    }

    #[test]
    fn a_stream_that_comes_up_during_an_apply_subscribes_after_it() {
        let mut machine = Machine::new(node(), None);
        machine.connected();
        let wanted = view(1, 1, &["a"]);
        feed(&mut machine, push(&wanted, "1"));
        machine.disconnected();
        assert_eq!(machine.connected(), []);
        let actions = machine.applied(Ok(()));
        assert_eq!(actions[0], Action::Keep(Arc::new(wanted.clone())));
        let requests = sent(&actions);
        assert_eq!(requests[0].response_nonce, "");
        assert_eq!(requests[0].initial_resource_versions, wanted.versions());
    }

    #[test]
    fn facts_hold_at_once_and_bad_ones_are_refused() {
        let mut machine = Machine::new(node(), None);
        machine.connected();
        let fact = FleetFact::default();
        let resource = |name: &str, any| Resource { name: name.into(), resource: any, ..Default::default() };
        let mut response = DeltaDiscoveryResponse {
            type_url: TYPE_FACT.into(),
            nonce: "1".into(),
            resources: vec![resource("key-ring", Some(discovery::pack_fact(&fact)))],
            ..Default::default()
        };
        let actions = machine.on_response(response.clone());
        assert_eq!(actions, [Action::Fact(fact), Action::Send(ack(TYPE_FACT, "1".into()))]);
        response.resources.push(resource("nodes", None));
        let actions = machine.on_response(response);
        assert_eq!(sent(&actions)[0].error_detail.as_ref().unwrap().message, "nodes: there is no content");
    }

    #[test]
    fn a_long_list_of_reasons_is_cut() {
        let refusal = Refusal { resource: "backend/a".into(), reason: "x".repeat(1000) };
        let text = reasons(&vec![refusal; 100]);
        assert!(text.len() < REFUSAL_BYTES_MAX + 100);
        assert!(text.ends_with(" more"), "{}", &text[text.len() - 20..]);
    }
}
