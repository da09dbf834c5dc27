//! The gateway over gRPC, with a client of ours and one that knows nothing but
//! what reflection tells it.

use std::time::Duration;

use mt_proto::pb::mcp::{
    self as pb, mcp_service_client::McpServiceClient, session_request, session_response::Message as Told,
    subscribe_response,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    cluster::{PATIENCE, eventually},
    fixture::Mode,
    manifest::policy,
    peers::{Said, mcp_service, reflect},
    rest::World,
};

const MIB: usize = 1 << 20;
const QUESTIONS: &str = "test_input_required_result_multiple_inputs";
const ANSWERED: &str = "Hello, Ada! Greeting: Paris. Roots: file:///workspace";

async fn client(world: &World) -> McpServiceClient<Channel> {
    let client = McpServiceClient::connect(format!("http://{}", world.node().mcp)).await.unwrap();
    client.max_decoding_message_size(64 * MIB).max_encoding_message_size(64 * MIB)
}

fn tool(name: &str, arguments: &Value) -> pb::CallToolRequest {
    pb::CallToolRequest { name: name.into(), arguments: arguments.to_string().into() }
}

fn stream_of(name: &str, level: &str) -> pb::CallToolStreamRequest {
    pb::CallToolStreamRequest { name: name.into(), log_level: level.into(), ..Default::default() }
}

fn at<T>(gateway: &'static str, key: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("mt-gateway", gateway.parse().unwrap());
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn text_of(result: &[u8]) -> String {
    value(result)["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}

/// The code and the reason of a refusal.
fn reason_of(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "magictunnel");
    (status.code(), info.reason.clone())
}

#[tokio::test]
async fn a_client_that_knows_only_reflection_uses_every_method() {
    let world = World::start().await;
    let calls = json!([
        ["ListTools", {}],
        ["CallTool", {"name": "echo", "arguments": {"text": "Grüße 🙂"}}],
        ["CallToolStream", {"name": "test_tool_with_progress"}],
        ["ListResources", {}],
        ["ListResourceTemplates", {}],
        ["ReadResource", {"uri": "test://static-text"}],
        ["ListPrompts", {}],
        ["GetPrompt", {"name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "ü"}}],
        ["Complete", {"prompt": "test_prompt_with_arguments", "argument": "arg1", "value": "p"}],
        ["CallTool", {"name": "nothing"}],
        ["Session", [
            {"open": {"capabilities": {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}}},
            {"call": {"id": "1", "params": {"name": QUESTIONS}}},
            {"call": {"id": "2", "method": "tools/list"}},
        ]],
    ]);
    let answers = json!({
        "elicitation/create": {"action": "accept", "content": {"name": "Ada"}},
        "sampling/createMessage": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}},
        "roots/list": {"roots": [{"uri": "file:///workspace"}]},
    });
    let arguments = ["--calls", &calls.to_string(), "--answer", &answers.to_string()];
    let said = mcp_service(&world.node().mcp, &arguments).await.succeeded();
    let of = |method: &str| -> Vec<Value> {
        let all = said.events("answer").into_iter().filter(|answer| answer["method"] == method);
        all.map(|answer| answer["answer"].clone()).collect()
    };
    let tools = of("ListTools")[0]["tools"].clone();
    let names: Vec<&str> =
        tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"echo") && !names.contains(&"veiled") && !names.contains(&"off"), "{names:?}");
    assert_eq!(of("CallTool")[0]["result"]["content"][0]["text"], "Grüße 🙂");
    assert_eq!(of("CallToolStream").len(), 4);
    assert!(of("ListResources")[0]["resources"][0]["uri"].is_string());
    assert!(of("ListResourceTemplates")[0]["resource_templates"][0]["uri_template"].is_string());
    assert!(of("ReadResource")[0]["result"]["contents"][0]["text"].is_string());
    assert!(of("ListPrompts")[0]["prompts"][0]["name"].is_string());
    assert!(of("GetPrompt")[0]["result"].to_string().contains("arg2='ü'"));
    assert_eq!(of("Complete").len(), 1);
    let refused = said.event("refused");
    assert_eq!((&refused["code"], &refused["info"]["reason"]), (&json!("NOT_FOUND"), &json!("NOT_FOUND")));
    let session = of("Session");
    let result = session.iter().find(|answer| answer["id"] == "1" && answer["result"].is_object()).unwrap();
    assert_eq!(result["result"]["content"][0]["text"], ANSWERED);
    assert!(session.iter().any(|answer| answer["id"] == "2" && answer["result"]["tools"].is_array()));
}

#[tokio::test]
async fn reflection_and_health_are_on_the_nodes_port() {
    let world = World::start().await;
    let said: Said = reflect(&world.node().mcp).await.succeeded();
    for answer in said.events("services") {
        let names = &answer["names"];
        assert_eq!(names, &answer["described"], "{answer}");
        for service in ["magictunnel.mcp.v1.McpService", "grpc.health.v1.Health"] {
            assert!(names.as_array().unwrap().contains(&service.into()), "{names}");
        }
        assert!(!names.to_string().contains("control"), "{names}");
    }
    assert_eq!(said.events("services").len(), 2);
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let check = http
        .post(world.url("/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(&[0_u8, 0, 0, 0, 0][..]);
    assert_eq!(&check.send().await.unwrap().bytes().await.unwrap()[..], [0, 0, 0, 0, 2, 0x08, 1]);
}

#[tokio::test]
async fn a_tool_is_called_with_anything_that_may_be_in_json() {
    let world = World::start().await;
    let mut client = client(&world).await;
    for text in ["Grüße 🙂 世界".to_owned(), "ü".repeat(MIB / 2)] {
        let answer = client.call_tool(tool("echo", &json!({"text": text}))).await.unwrap().into_inner();
        assert!(text_of(&answer.result) == text && !answer.is_error);
    }
    let answer = client.call_tool(tool("payload", &json!({"bytes": 8 * MIB}))).await.unwrap().into_inner();
    assert_eq!(text_of(&answer.result).len(), 8 * MIB);
    let answer = client.call_tool(tool("veiled", &json!({}))).await.unwrap().into_inner();
    assert_eq!(text_of(&answer.result).trim(), "veiled");
    let answer =
        client.call_tool(tool("test_custom_header", &json!({"value": "ü"}))).await.unwrap().into_inner();
    assert!(!answer.is_error && text_of(&answer.result).contains('ü'));
    for (name, arguments) in [("number", json!({"n": "x"})), ("no", json!({})), ("late", json!({}))] {
        let answer = client.call_tool(tool(name, &arguments)).await.unwrap().into_inner();
        assert!(answer.is_error, "{name}");
    }
}

#[tokio::test]
async fn what_fails_has_a_status_and_a_reason() {
    let world = World::start().await;
    let mut client = client(&world).await;
    for (name, arguments, code, reason) in [
        ("nothing", json!({}), Code::NotFound, "NOT_FOUND"),
        ("off", json!({}), Code::NotFound, "NOT_FOUND"),
        ("echo", json!([1]), Code::InvalidArgument, "INVALID_ARGUMENT"),
        ("slow", json!({"ms": 30_000}), Code::DeadlineExceeded, "BACKEND_TIMEOUT"),
        ("fail", json!({"code": 42, "message": "odd"}), Code::FailedPrecondition, "BACKEND_FAILED"),
        ("echo", json!({"text": "x".repeat(5 * MIB)}), Code::ResourceExhausted, "TOO_LARGE"),
    ] {
        let status = client.call_tool(tool(name, &arguments)).await.unwrap_err();
        assert_eq!(reason_of(&status), (code, reason.to_owned()), "{name}: {status:?}");
    }
    let request = stream_of("nothing", "");
    let mut stream = client.call_tool_stream(request).await.unwrap().into_inner();
    assert_eq!(reason_of(&stream.message().await.unwrap_err()).0, Code::NotFound);
    let status = client.call_tool_stream(stream_of("echo", "loud")).await.unwrap_err();
    assert_eq!(reason_of(&status).0, Code::InvalidArgument);
    let status =
        client.read_resource(pb::ReadResourceRequest { uri: "test://none".into() }).await.unwrap_err();
    assert!(matches!(status.code(), Code::NotFound | Code::InvalidArgument), "{status:?}");
    let status = client.list_tools(at("none", None, pb::ListToolsRequest::default())).await.unwrap_err();
    assert_eq!(reason_of(&status).0, Code::NotFound);
    let request = pb::ListToolsRequest { cursor: "x".into() };
    assert_eq!(reason_of(&client.list_tools(request).await.unwrap_err()).0, Code::InvalidArgument);
}

#[tokio::test]
async fn without_a_key_nobody_gets_in() {
    let world = World::start().await;
    let mut client = client(&world).await;
    let echo = || tool("echo", &json!({"text": "in"}));
    for key in [None, Some("mt_wrong")] {
        let refusals = [
            client.list_tools(at("closed", key, pb::ListToolsRequest::default())).await.unwrap_err(),
            client.call_tool(at("closed", key, echo())).await.unwrap_err(),
            client.call_tool_stream(at("closed", key, stream_of("echo", ""))).await.unwrap_err(),
            client.list_resources(at("closed", key, pb::ListResourcesRequest::default())).await.unwrap_err(),
            client.list_prompts(at("closed", key, pb::ListPromptsRequest::default())).await.unwrap_err(),
            client.subscribe(at("closed", key, pb::SubscribeRequest::default())).await.unwrap_err(),
            client.session(at("closed", key, tokio_stream::empty())).await.unwrap_err(),
        ];
        for status in refusals {
            assert_eq!(
                reason_of(&status),
                (Code::Unauthenticated, "UNAUTHENTICATED".to_owned()),
                "{status:?}"
            );
        }
    }
    let answer = client.call_tool(at("closed", Some(&world.key), echo())).await.unwrap().into_inner();
    assert_eq!(text_of(&answer.result), "in");

    // What is open ends with the right to it.
    let mut events = client
        .subscribe(at("closed", Some(&world.key), pb::SubscribeRequest::default()))
        .await
        .unwrap()
        .into_inner();
    assert!(matches!(
        events.message().await.unwrap().unwrap().event,
        Some(subscribe_response::Event::Subscribed(_))
    ));
    let (_say, mut session) = open(&world, Some(("closed", world.key.clone()))).await;
    let removed = world.cluster.mtctl(&["delete", "principal", "ada"]).await;
    assert!(removed.status.success(), "{removed:?}");
    let ended = async { (events.message().await.unwrap_err(), session.message().await.unwrap_err()) };
    let (events, session) = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!((reason_of(&events).0, reason_of(&session).0), (Code::Unauthenticated, Code::Unauthenticated));
}

#[tokio::test]
async fn a_running_tool_tells_progress_and_log() {
    use pb::call_tool_stream_response::Event;
    let world = World::start().await;
    let mut client = client(&world).await;
    let mut kinds = Vec::new();
    for (name, level) in [
        ("test_tool_with_progress", ""),
        ("test_tool_with_logging", "info"),
        ("test_tool_with_logging", "error"),
    ] {
        let mut stream = client.call_tool_stream(stream_of(name, level)).await.unwrap().into_inner();
        while let Some(message) = stream.message().await.unwrap() {
            kinds.push(match message.event.unwrap() {
                Event::Progress(_) => 'p',
                Event::Log(_) => 'l',
                Event::Result(_) => 'r',
            });
        }
    }
    assert_eq!(kinds.into_iter().collect::<String>(), "ppprlllrr");
}

#[tokio::test]
async fn changes_are_told() {
    use subscribe_response::Event;
    let world = World::start().await;
    let mut client = client(&world).await;
    let wanted = pb::SubscribeRequest {
        uris: vec!["test://watched-resource".into()],
        log_level: "info".into(),
        ..Default::default()
    };
    let mut events = client.subscribe(wanted).await.unwrap().into_inner();
    let first = events.message().await.unwrap().unwrap();
    let Some(Event::Subscribed(subscribed)) = first.event else { panic!("{first:?}") };
    assert_eq!((subscribed.lists.len(), subscribed.uris), (3, vec!["test://watched-resource".to_owned()]));
    for name in ["test_trigger_resource_update", "test_trigger_tool_change", "test_tool_with_logging"] {
        client.call_tool(tool(name, &json!({}))).await.unwrap();
    }
    let mut told = String::new();
    while !['u', 'c', 'l'].iter().all(|kind| told.contains(*kind)) {
        let event = tokio::time::timeout(PATIENCE, events.message()).await.expect(&told).unwrap().unwrap();
        told.push(match event.event.unwrap() {
            Event::ResourceUpdated(_) => 'u',
            Event::ListChanged(_) => 'c',
            Event::Log(_) => 'l',
            Event::Subscribed(_) => 's',
        });
    }
}

type Say = mpsc::Sender<pb::SessionRequest>;

async fn open(
    world: &World,
    closed: Option<(&'static str, String)>,
) -> (Say, Streaming<pb::SessionResponse>) {
    let (say, said) = mpsc::channel(256);
    let request = match closed {
        Some((gateway, key)) => at(gateway, Some(&key), ReceiverStream::new(said)),
        None => Request::new(ReceiverStream::new(said)),
    };
    let stream = client(world).await.session(request).await.unwrap().into_inner();
    (say, stream)
}

async fn say(to: &Say, message: session_request::Message) {
    to.send(pb::SessionRequest { message: Some(message) }).await.unwrap();
}

fn call(id: &str, name: &str, arguments: &Value) -> session_request::Message {
    let params = json!({"name": name, "arguments": arguments}).to_string();
    session_request::Message::Call(pb::SessionCall {
        id: id.into(),
        params: params.into(),
        ..Default::default()
    })
}

async fn next(stream: &mut Streaming<pb::SessionResponse>) -> (String, Told) {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await.expect("it says something");
    let message = message.unwrap().expect("it goes on");
    (message.id, message.message.unwrap())
}

fn asks(kinds: &Value) -> session_request::Message {
    let open = pb::SessionOpen { capabilities: kinds.to_string().into(), ..Default::default() };
    session_request::Message::Open(open)
}

fn reply_to(id: &str, ask: &pb::SessionAsk) -> session_request::Message {
    let answer = match ask.method.as_str() {
        "elicitation/create" => json!({"action": "accept", "content": {"name": "Ada"}}),
        "sampling/createMessage" => {
            json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}})
        }
        _ => json!({"roots": [{"uri": "file:///workspace"}]}),
    };
    session_request::Message::Reply(pb::SessionReply {
        id: id.into(),
        key: ask.key.clone(),
        reply: Some(pb::session_reply::Reply::Result(answer.to_string().into())),
    })
}

#[tokio::test]
async fn a_session_carries_many_calls_and_their_questions() {
    for mode in [Mode::Legacy, Mode::Modern] {
        let world = World::with_mode(mode).await;
        let (to, mut from) = open(&world, None).await;
        say(&to, asks(&json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}}))).await;
        for number in 0..20 {
            say(&to, call(&format!("e{number}"), "echo", &json!({"text": format!("{number}")}))).await;
            say(&to, call(&format!("q{number}"), QUESTIONS, &json!({}))).await;
        }
        let mut ended = 0;
        while ended < 40 {
            let (id, told) = next(&mut from).await;
            match told {
                Told::Ask(ask) => say(&to, reply_to(&id, &ask)).await,
                Told::Result(result) => {
                    ended += 1;
                    let expected = id.strip_prefix('e').unwrap_or(ANSWERED);
                    assert_eq!(text_of(&result), expected, "{mode:?} {id}");
                }
                other => panic!("{mode:?} {id}: {other:?}"),
            }
        }
        drop(to);
        assert!(from.message().await.unwrap().is_none(), "all is said");
    }
}

#[tokio::test]
async fn calls_of_a_session_are_cancelled_refused_and_end_with_it() {
    let world = World::start().await;
    world.cluster.apply(&policy("quick", &json!({"tools": ["slow"], "timeout": {"limit": "60s"}}))).await;
    let (to, mut from) = open(&world, None).await;
    say(&to, asks(&json!({"elicitation": {"form": {}}, "sampling": {}, "roots": {}}))).await;
    say(&to, call("slow", "slow", &json!({"ms": 30_000}))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    say(&to, session_request::Message::Cancel(pb::SessionCancel { id: "slow".into() })).await;
    let (id, told) = next(&mut from).await;
    let Told::Failure(failure) = told else { panic!("{told:?}") };
    assert_eq!((id.as_str(), failure.status), ("slow", Code::Cancelled as i32));
    let cancelled = async || {
        let mut client = client(&world).await;
        let answer = client.call_tool(tool("cancelled_count", &json!({}))).await.unwrap().into_inner();
        value(&answer.result)["structuredContent"]["cancelled"].as_u64().unwrap()
    };
    let reaches = async |wanted: u64| {
        eventually("the end of the call", async || match cancelled().await {
            count if count == wanted => Ok(()),
            count => Err(count.to_string()),
        })
        .await;
    };
    reaches(1).await;

    say(&to, call("q", QUESTIONS, &json!({}))).await;
    let (_, told) = next(&mut from).await;
    let Told::Ask(ask) = told else { panic!("{told:?}") };
    let refusal = Some(pb::session_reply::Reply::Refusal("never".into()));
    let reply = pb::SessionReply { id: "q".into(), key: ask.key, reply: refusal };
    say(&to, session_request::Message::Reply(reply)).await;
    let failure = loop {
        match next(&mut from).await.1 {
            Told::Ask(_) => {}
            Told::Failure(failure) => break failure,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failure.status, Code::FailedPrecondition as i32);
    assert_eq!(value(&failure.error)["code"], -31017);

    say(&to, call("slow", "slow", &json!({"ms": 30_000}))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop((to, from));
    reaches(2).await;
    let (to, mut from) = open(&world, None).await;
    say(&to, call("same", "slow", &json!({"ms": 30_000}))).await;
    // It has reached the backend, so that its end is seen there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    say(&to, call("same", "echo", &json!({}))).await;
    let status = tokio::time::timeout(PATIENCE, from.message()).await.unwrap().unwrap_err();
    assert_eq!(reason_of(&status).0, Code::InvalidArgument);
    reaches(3).await;
}

#[tokio::test]
async fn a_session_has_room_for_so_many_calls() {
    let world = World::start().await;
    let (to, mut from) = open(&world, None).await;
    for number in 0..70 {
        say(&to, call(&number.to_string(), "slow", &json!({"ms": 500}))).await;
    }
    let (mut results, mut refused) = (0, 0);
    while results + refused < 70 {
        match next(&mut from).await.1 {
            Told::Result(_) => results += 1,
            Told::Failure(failure) => {
                assert_eq!(failure.status, Code::ResourceExhausted as i32, "{failure:?}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((results, refused), (64, 6));
}
