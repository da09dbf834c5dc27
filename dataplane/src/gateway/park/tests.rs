use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use mt_proto::{
    pb::{discovery::Catalog as CatalogPb, resource as pb},
    resource::{Key as ResourceKey, Kind, ResourceSet},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{machine::ROUND_TTL, state::State, *};
use crate::{
    gateway::{
        call::{Answer, Caller, Question, ToClient},
        catalog::Catalog,
        view::GatewayView,
    },
    mcp::{Limits, Method, error::code},
    seal::KeyRing,
};

fn node() -> Arc<Node> {
    Node::new(TaskTracker::new(), CancellationToken::new(), CancellationToken::new())
}

fn view(gateway: &str) -> Arc<GatewayView> {
    let mut set = ResourceSet::default();
    let mut put = |kind, name: &str, spec| {
        let metadata = Some(pb::Metadata { name: name.into(), ..Default::default() });
        let key = ResourceKey::new(kind, name.parse().unwrap());
        set.insert(key, Arc::new(pb::Resource { metadata, spec: Some(spec) }));
    };
    let http = pb::HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
    let backend = pb::Backend { transport: Some(pb::backend::Transport::Http(http)), ..Default::default() };
    put(Kind::Backend, "b", pb::resource::Spec::Backend(backend));
    let member = pb::Member { source: Some(pb::member::Source::Backend("b".into())), ..Default::default() };
    let spec = pb::Gateway { members: vec![member], tool_name: "{tool}".into(), ..Default::default() };
    put(Kind::Gateway, gateway, pb::resource::Spec::Gateway(spec));
    let config = set.compile().unwrap();
    let tools = vec![Bytes::from_static(br#"{"name":"t"}"#)];
    let catalog = Catalog::new(CatalogPb { tools, ..Default::default() });
    let catalogs = [("b".parse().unwrap(), Arc::new(catalog))].into();
    Arc::new(GatewayView::new(&config.gateways[gateway], &config, &catalogs))
}

fn subject(principal: &str, gateway: &str, params: &Value) -> Subject {
    let params = Params::scan(&Bytes::from(params.to_string()), Limits::CLIENT).unwrap();
    Subject { principal: principal.into(), view: view(gateway), method: Method::ToolsCall, params }
}

fn alice(params: &Value) -> Subject {
    subject("alice", "default", params)
}

/// Notes when it goes.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A call that asks as often as `rounds` says and answers with what it heard.
fn asking(rounds: usize) -> (Work, Arc<AtomicBool>) {
    let (caller, from_call) = Caller::channel();
    let gone = Arc::new(AtomicBool::new(false));
    let guard = Gone(gone.clone());
    let call = Box::pin(async move {
        let _guard = guard;
        let mut heard = Vec::new();
        for round in 0..rounds {
            let params = Bytes::from(format!("{{\"round\":{round}}}"));
            let question = Question { key: "0".into(), method: Method::Elicit, params };
            match caller.ask(vec![question]).await {
                Ok(replies) => heard.extend(replies.into_iter().map(Result::unwrap)),
                Err(_) => {
                    return Ok(Answer::Error(Bytes::from_static(b"{\"code\":1,\"message\":\"refused\"}")));
                }
            }
            caller.notify(Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#)).await;
            sleep(Duration::from_secs(1)).await;
        }
        Ok(Answer::Result([b"[", heard.join(&b","[..]).as_slice(), b"]"].concat().into()))
    });
    (Work { call, from_call }, gone)
}

/// Runs a call to its first question and parks it.
async fn park(node: &Arc<Node>, subject: &Subject, rounds: usize) -> (Attachment, Arc<AtomicBool>) {
    let (mut work, gone) = asking(rounds);
    let first = tokio::select! {
        Some(ToClient::Ask(ask)) = work.from_call.recv() => ask,
        _ = &mut work.call => panic!("it asks"),
    };
    let Ok(attachment) = adopt(node, subject.clone(), work, first) else { panic!("there is room") };
    (attachment, gone)
}

async fn outcome(attachment: &mut Attachment) -> Outcome {
    loop {
        if let Told::Ended(outcome) = attachment.next().await {
            return outcome;
        }
    }
}

/// What the client is asked, and the request that it sends then.
async fn asked(
    attachment: &mut Attachment,
    arguments: &Value,
    responses: impl Fn(&str) -> Value,
) -> (Value, Value) {
    let Ok(Answer::Result(result)) = outcome(attachment).await else { panic!("it asks") };
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!(result["resultType"], "input_required", "{result}");
    let answers: serde_json::Map<_, _> = result["inputRequests"]
        .as_object()
        .unwrap()
        .keys()
        .map(|key| (key.clone(), responses(key)))
        .collect();
    let mut retry = arguments.clone();
    retry["requestState"] = result["requestState"].clone();
    retry["inputResponses"] = answers.into();
    (result, retry)
}

fn retry(node: &Node, subject: &Subject) -> Result<Attachment, RpcError> {
    match state::open(&node.keys(), subject)? {
        State::Parked(ticket) => super::retry(node, &ticket, &subject.params),
        other => panic!("{other:?}"),
    }
}

fn request() -> Value {
    json!({"name": "t", "arguments": {"a": 1, "b": [2]}})
}

fn text(outcome: &Outcome) -> &str {
    match outcome {
        Ok(Answer::Result(bytes) | Answer::Error(bytes)) => std::str::from_utf8(bytes).unwrap(),
        Err(error) => &error.message,
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_asks_goes_on_and_its_answer_can_be_had_again() {
    let node = node();
    let (mut began, _) = park(&node, &alice(&request()), 2).await;
    let (first, again) = asked(&mut began, &request(), |key| json!({"key": key})).await;
    assert_eq!(
        first["inputRequests"],
        json!({"q1": {"method": "elicitation/create", "params": {"round": 0}}})
    );
    // Where nobody is who listens, nobody cancels.
    drop(began);
    let mut second = retry(&node, &alice(&again)).unwrap();
    let (_, last) = asked(&mut second, &request(), |key| json!({"key": key})).await;
    let (one, two) = (alice(&last), alice(&last));
    let (mut one, mut two) = (retry(&node, &one).unwrap(), retry(&node, &two).unwrap());
    for attachment in [&mut one, &mut two] {
        assert_eq!(text(&outcome(attachment).await), r#"[{"key":"q1"},{"key":"q2"}]"#);
    }
    let mut late = retry(&node, &alice(&last)).unwrap();
    assert_eq!(text(&outcome(&mut late).await), r#"[{"key":"q1"},{"key":"q2"}]"#);
    let mut other = last.clone();
    other["inputResponses"]["q2"] = json!({"key": "other"});
    let mut other = retry(&node, &alice(&other)).unwrap();
    assert!(text(&outcome(&mut other).await).contains("other inputResponses"));
    let mut spent = retry(&node, &alice(&again)).unwrap();
    assert!(text(&outcome(&mut spent).await).contains("asked again"));
    sleep(2 * machine::OUTCOME_KEPT).await;
    assert!(node.parks.table.lock().inboxes.is_empty());
    assert_eq!(retry(&node, &alice(&last)).unwrap_err().code, code::OWNER_LOST);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_under_the_token_of_who_listens() {
    let node = node();
    let (mut began, _) = park(&node, &alice(&request()), 1).await;
    let (_, mut again) = asked(&mut began, &request(), |_| json!({})).await;
    again["_meta"] = json!({"progressToken": "mine"});
    let mut listening = retry(&node, &alice(&again)).unwrap();
    let Told::Said(progress) = listening.next().await else { panic!("it reports") };
    let progress: Value = serde_json::from_slice(&progress).unwrap();
    assert_eq!(progress["params"], json!({"progressToken": "mine", "progress": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_state_is_worth_nothing_to_others_and_for_other_requests() {
    let node = node();
    let (mut began, _) = park(&node, &alice(&request()), 1).await;
    let (_, again) = asked(&mut began, &request(), |_| json!({})).await;
    let with = |key: &str, value: Value| {
        let mut other = again.clone();
        other[key] = value;
        other
    };
    let sealed = again["requestState"].as_str().unwrap();
    let flipped = sealed.replace(sealed.chars().last().unwrap(), "-");
    for stolen in [
        subject("mallory", "default", &again),
        subject("alice", "other", &again),
        alice(&with("arguments", json!({"a": 2, "b": [2]}))),
        alice(&with("name", json!("u"))),
        alice(&with("requestState", json!(flipped))),
        alice(&with("requestState", json!(""))),
        alice(&with("requestState", json!({"not": "text"}))),
        Subject { method: Method::PromptsGet, ..alice(&again) },
    ] {
        assert_eq!(state::open(&node.keys(), &stolen).unwrap_err(), state::invalid());
    }
    assert_eq!(state::open(&KeyRing::ephemeral(), &alice(&again)).unwrap_err(), state::invalid());
    // However it is written, it is the same request.
    let mut again = again;
    again["arguments"] = json!({"b": [2], "a": 1});
    assert!(retry(&node, &alice(&again)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_state_names_its_node_and_expires() {
    let node = node();
    let ticket = |expires| Ticket {
        node: "elsewhere".into(),
        park: 1,
        round: 1,
        digest: state::digest(&Method::ToolsCall, &alice(&request()).params),
        expires,
    };
    let subject_with = |ticket| {
        let mut again = request();
        again["requestState"] = state::seal_ticket(&node.keys(), &alice(&request()), ticket).into();
        alice(&again)
    };
    let late = subject_with(ticket(1));
    assert_eq!(state::open(&node.keys(), &late).unwrap_err(), state::invalid());
    let elsewhere = subject_with(ticket(u64::MAX));
    assert_eq!(owner(&node.keys(), &elsewhere.params).as_deref(), Some("elsewhere"));
    assert_eq!(retry(&node, &elsewhere).unwrap_err().code, code::OWNER_LOST);
    assert_eq!(owner(&node.keys(), &alice(&request()).params), None);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_the_call_works_cancels_it() {
    let node = node();
    let (mut began, gone) = park(&node, &alice(&request()), 1).await;
    let (_, again) = asked(&mut began, &request(), |_| json!({})).await;
    let listening = retry(&node, &alice(&again)).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert!(!gone.load(Ordering::SeqCst));
    drop(listening);
    sleep(Duration::from_millis(100)).await;
    assert!(gone.load(Ordering::SeqCst));
    let mut late = retry(&node, &alice(&again)).unwrap();
    assert!(text(&outcome(&mut late).await).contains("cancelled"));
}

#[tokio::test(start_paused = true)]
async fn who_never_comes_back_leaves_nothing_behind() {
    let node = node();
    let (mut began, gone) = park(&node, &alice(&request()), 1).await;
    asked(&mut began, &request(), |_| json!({})).await;
    sleep(ROUND_TTL - Duration::from_secs(1)).await;
    assert!(!gone.load(Ordering::SeqCst));
    sleep(Duration::from_secs(3)).await;
    assert!(gone.load(Ordering::SeqCst));
    let table = node.parks.table.lock();
    assert!(table.inboxes.is_empty() && table.live.is_empty() && table.live_total == 0);
    assert_eq!(node.parks.kept_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_does_not_wait_for_clients() {
    let node = node();
    let (mut began, gone) = park(&node, &alice(&request()), 1).await;
    asked(&mut began, &request(), |_| json!({})).await;
    node.draining.cancel();
    node.tracker.close();
    timeout(Duration::from_secs(1), node.tracker.wait()).await.expect("nothing is waited for");
    assert!(gone.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn one_principal_cannot_take_every_place() {
    let node = node();
    let mut parked = Vec::new();
    for _ in 0..PRINCIPAL_PARKS_MAX {
        parked.push(park(&node, &alice(&request()), 1).await);
    }
    let (mut work, _) = asking(1);
    let ask = || Ask { questions: Vec::new(), replies: tokio::sync::oneshot::channel().0 };
    work = *adopt(&node, alice(&request()), work, ask()).unwrap_err();
    assert!(adopt(&node, subject("bob", "default", &request()), work, ask()).is_ok());
}

#[test]
fn the_state_of_a_backend_comes_back_only_to_it() {
    let keys = KeyRing::ephemeral();
    let result = json!({"resultType": "input_required", "requestState": "inner \"1\"", "x": 1.0});
    let raw = Bytes::from(result.to_string());
    let wrapped = state::wrap(&keys, &alice(&request()), raw).unwrap();
    let wrapped: Value = serde_json::from_slice(&wrapped).unwrap();
    assert_eq!(wrapped["x"], 1.0);
    let mut again = request();
    again["requestState"] = wrapped["requestState"].clone();
    assert_eq!(
        state::open(&keys, &alice(&again)),
        Ok(State::Backend { backend: "b".into(), inner: "inner \"1\"".into() })
    );
    assert_eq!(state::open(&keys, &subject("mallory", "default", &again)), Err(state::invalid()));
    again["requestState"] = "inner \"1\"".into();
    assert_eq!(state::open(&keys, &alice(&again)), Err(state::invalid()));
}

#[test]
fn results_that_ask_nothing_are_the_same_memory() {
    let keys = KeyRing::ephemeral();
    for text in [
        r#"{"resultType":"complete","content":[{"text":"input_required"}],"requestState":"x"}"#,
        r#"{"content":[]}"#,
        r#"{"resultType":"input_required","inputRequests":{}}"#,
    ] {
        let raw = Bytes::from_static(text.as_bytes());
        assert_eq!(state::wrap(&keys, &alice(&request()), raw.clone()).unwrap().as_ptr(), raw.as_ptr());
    }
    let long = json!({"resultType": "input_required", "requestState": "x".repeat(state::BACKEND_STATE_BYTES_MAX + 1)});
    let refused = state::wrap(&keys, &alice(&request()), Bytes::from(long.to_string())).unwrap_err();
    assert_eq!(refused.code, code::UPSTREAM_INVALID);
}
