//! What `ResourceSet::compile` promises, over sets made by hand and at random.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mt_proto::{
    pb::resource::{self as pb, member::Source, resource::Spec},
    resource::{Compiled, Key, Kind, Problem, ResourceSet},
};

mod generate;

fn resource(name: &str, labels: &[(&str, &str)], spec: Spec) -> pb::Resource {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let metadata = pb::Metadata { name: name.into(), labels, ..Default::default() };
    pb::Resource { metadata: Some(metadata), spec: Some(spec) }
}

fn backend(name: &str, labels: &[(&str, &str)]) -> pb::Resource {
    resource(name, labels, Spec::Backend(stdio("mcp-server-time")))
}

fn stdio(command: &str) -> pb::Backend {
    let stdio = pb::StdioTransport { command: command.into(), ..Default::default() };
    pb::Backend { transport: Some(pb::backend::Transport::Stdio(stdio)), ..Default::default() }
}

fn http(url: &str) -> pb::Backend {
    let http = pb::HttpTransport { url: url.into(), ..Default::default() };
    pb::Backend { transport: Some(pb::backend::Transport::Http(http)), ..Default::default() }
}

fn header(name: &str, value: Option<pb::value::Source>) -> pb::Header {
    pb::Header { name: name.into(), value: Some(pb::Value { source: value }) }
}

fn member(source: Source) -> pb::Member {
    pb::Member { source: Some(source), ..Default::default() }
}

fn selector(labels: &[(&str, &str)]) -> pb::LabelSelector {
    pb::LabelSelector {
        match_labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

fn gateway(members: Vec<pb::Member>) -> pb::Gateway {
    pb::Gateway { members, ..Default::default() }
}

fn set(resources: Vec<pb::Resource>) -> ResourceSet {
    let (set, problems) = ResourceSet::gather(resources);
    assert_eq!(problems, []);
    set
}

fn compile(resources: Vec<pb::Resource>) -> Compiled {
    set(resources).compile().unwrap()
}

fn problems(resources: Vec<pb::Resource>) -> Vec<String> {
    set(resources).compile().unwrap_err().iter().map(Problem::to_string).collect()
}

fn member_names(compiled: &Compiled, gateway: &str) -> Vec<String> {
    compiled.gateways[gateway].members.iter().map(|m| m.backend.to_string()).collect()
}

#[test]
fn selectors_take_what_nobody_has_named_in_the_order_of_names() {
    let web = [("tier", "web")];
    let compiled = compile(vec![
        backend("c", &web),
        backend("a", &web),
        backend("b", &[]),
        backend("d", &web),
        resource(
            "default",
            &[],
            Spec::Gateway(gateway(vec![
                member(Source::Backends(selector(&web))),
                member(Source::Backend("c".into())),
                member(Source::Backends(selector(&[]))),
            ])),
        ),
    ]);
    assert_eq!(member_names(&compiled, "default"), ["a", "d", "c", "b"]);
}

#[test]
fn what_is_not_said_has_the_documented_default() {
    let compiled = compile(vec![
        backend("time", &[]),
        resource("web", &[], Spec::Backend(http("https://example.com/mcp"))),
        resource("default", &[], Spec::Gateway(gateway(vec![member(Source::Backends(selector(&[])))]))),
    ]);
    let time = &compiled.backends["time"];
    assert_eq!((time.call_timeout, time.concurrent_calls_max), (Duration::from_secs(60), 256));
    let mt_proto::resource::Transport::Stdio(stdio) = &time.transport else { panic!("{time:?}") };
    assert_eq!((stdio.start_timeout, stdio.line_bytes_max), (Duration::from_secs(30), 4 << 20));
    let mt_proto::resource::Transport::Http(http) = &compiled.backends["web"].transport else { panic!() };
    assert_eq!(http.connect_timeout, Duration::from_secs(1));
    let gateway = &compiled.gateways["default"];
    assert_eq!((gateway.page_size, gateway.title.as_deref()), (1000, None));
    assert_eq!(gateway.members[0].template.apply("now"), "time_now");
}

#[test]
fn a_name_template_is_filled_in_for_each_member() {
    let mut wire = gateway(vec![
        member(Source::Backend("time".into())),
        pb::Member { tool_name: "{tool}".into(), ..member(Source::Backends(selector(&[]))) },
    ]);
    wire.tool_name = "{namespace}.{backend}.{tool}".into();
    wire.namespace = "proxy".into();
    let compiled =
        compile(vec![backend("time", &[]), backend("web", &[]), resource("g", &[], Spec::Gateway(wire))]);
    let names: Vec<_> = compiled.gateways["g"].members.iter().map(|m| m.template.apply("now")).collect();
    assert_eq!(names, ["proxy.time.now", "now"]);
}

#[test]
fn there_is_no_modern_protocol_over_http_with_sse() {
    let compiled = |protocol: &str| {
        let transport = pb::HttpTransport { url: "https://a.example.com/sse".into(), ..Default::default() };
        let backend = pb::Backend {
            transport: Some(pb::backend::Transport::Sse(transport)),
            protocol: protocol.into(),
            ..Default::default()
        };
        set(vec![resource("old", &[], Spec::Backend(backend))]).compile()
    };
    for fine in ["", "auto", "legacy", "2024-11-05", "2025-11-25"] {
        assert!(compiled(fine).is_ok(), "{fine}");
    }
    for modern in ["modern", "2026-07-28"] {
        let problems = compiled(modern).unwrap_err();
        assert_eq!(
            problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
            [
                "backend/old:spec.protocol: over HTTP+SSE there is no modern protocol (leave `protocol` out, or reach the server by `http` at the url of its streamable HTTP)"
            ]
        );
    }
}

#[test]
fn every_problem_is_reported_in_the_order_of_kind_and_name() {
    let mut wire = gateway(vec![
        member(Source::Backend("tmie".into())),
        member(Source::ToolSet("files".into())),
        pb::Member::default(),
        member(Source::Backend("time".into())),
        pb::Member {
            include: vec!["get_[".into()],
            rename: [("a", "not legal"), ("b", "x"), ("c", "x")].map(|(k, v)| (k.into(), v.into())).into(),
            ..member(Source::Backend("time".into()))
        },
    ]);
    wire.tool_name = "{server}_{tool}".into();
    wire.page_size = 20_000;
    let mut web = http("ftp://example.com");
    web.protocol = "moden".into();
    web.call_timeout = Some(prost_types::Duration { seconds: 301, nanos: 0 });
    let pb::backend::Transport::Http(transport) = web.transport.as_mut().unwrap() else { unreachable!() };
    transport.headers = vec![
        header("Mcp-Session-Id", Some(pb::value::Source::Text("1".into()))),
        header("Authorization", Some(pb::value::Source::Secret("tokn".into()))),
        header("X-Empty", None),
        header("a b", Some(pb::value::Source::Text("line\nbreak".into()))),
    ];
    let secret = pb::Secret { source: Some(pb::secret::Source::Env("1TOKEN".into())) };
    assert_eq!(
        problems(vec![
            resource("default", &[], Spec::Gateway(wire)),
            backend("time", &[]),
            resource("web", &[("team/..", "a,b")], Spec::Backend(web)),
            resource("shell", &[], Spec::Backend(stdio("npx -y server-time"))),
            resource("nothing", &[], Spec::Backend(pb::Backend::default())),
            resource("token", &[], Spec::Secret(secret)),
            resource("files", &[], Spec::ToolSet(pb::ToolSet::default())),
            resource("later", &[], Spec::Route(pb::Route::default())),
            resource("slow", &[], Spec::Policy(pb::Policy::default())),
        ]),
        [
            r#"gateway/default:spec.members[0].backend: there is no backend "tmie" (did you mean "time"?)"#,
            r#"gateway/default:spec.members[2]: nothing says what the member is (add `backend: name` or `toolSet: name`, or `backends: {matchLabels: {...}}`)"#,
            r#"gateway/default:spec.members[4].backend: backend "time" is already a member (take more of it with `include` of the first)"#,
            r#"gateway/default:spec.members[4].include[0]: "get_[" is not a pattern: unclosed character class; missing ']' (`*` stands for any characters, `?` for one, `[ab]` for one of these)"#,
            r#"gateway/default:spec.members[4].rename.a: "not legal" is not the name of a tool: 1 to 128 of A-Z, a-z, 0-9 and '_.-'"#,
            r#"gateway/default:spec.members[4].rename.c: "x" is already a new name in spec.members[4]"#,
            r#"gateway/default:spec.toolName: "server" is not something a template knows (it knows `{namespace}`, `{backend}` and `{tool}`)"#,
            r#"gateway/default:spec.pageSize: 20000 is out of range, it must be 1 to 10000"#,
            r#"backend/nothing:spec: nothing says how the backend is reached (add `http: {url: ...}`, `stdio: {command: ...}`, `sse: {url: ...}` or `websocket: {url: ...}`)"#,
            r#"backend/shell:spec.stdio.command: the command is a line of several words, and no shell reads it (write `command: npx` and `args: ["-y", "server-time"]`)"#,
            r#"backend/web:metadata.labels["team/.."]: label value "a,b" is not up to 63 of A-Z, a-z, 0-9 and '-_./'"#,
            r#"backend/web:spec.http.url: the url starts with "ftp", it must be http or https (for example `https://mcp.example.com/mcp`)"#,
            r#"backend/web:spec.http.headers[0].name: header "mcp-session-id" is the protocol's own (leave it out; the node sends it as the protocol asks)"#,
            r#"backend/web:spec.http.headers[1].value.secret: there is no secret "tokn" (did you mean "token"?)"#,
            r#"backend/web:spec.http.headers[2].value: the value is missing (write `value: text` or `value: {secret: name}`)"#,
            r#"backend/web:spec.http.headers[3].name: "a b" is not the name of a header"#,
            r#"backend/web:spec.http.headers[3].value: the value of a header is printable ASCII"#,
            r#"backend/web:spec.protocol: "moden" is not a protocol (did you mean "modern"?)"#,
            r#"backend/web:spec.callTimeout: the duration must be 1 ms to 300 s"#,
            r#"route/later:spec.disabled: no node of this version follows routes (set `disabled: true` to keep it for later)"#,
            r#"policy/slow:spec: the policy has no rule (add `timeout: {limit: 10s}`)"#,
            r#"secret/token:spec.env: "1TOKEN" is not the name of an environment variable (letters, digits and '_', not starting with a digit)"#,
        ]
    );
}

#[test]
fn a_resource_without_a_name_or_a_kind_is_a_problem_and_not_lost() {
    let (set, problems) = ResourceSet::gather([
        pb::Resource::default(),
        backend("My_Server", &[]),
        backend("time", &[]),
        backend("time", &[]),
    ]);
    let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(set.len(), 1);
    assert_eq!(
        problems,
        [
            r#"resource/:metadata.name: "" is not a name: 1 to 63 of a-z, 0-9 and '-', first and last a letter or digit"#,
            r#"resource/:spec: the resource says nothing (its kind and its `spec` are missing)"#,
            r#"backend/My_Server:metadata.name: "My_Server" is not a name: 1 to 63 of a-z, 0-9 and '-', first and last a letter or digit ("my-server" would be a name)"#,
            r#"backend/time:metadata.name: there are two resources backend/time (give one of them another name)"#,
        ]
    );
}

#[test]
fn a_key_that_is_not_the_resources_own_is_a_problem() {
    let mut set = ResourceSet::default();
    set.insert(Key::new(Kind::Backend, "web".parse().unwrap()), Arc::new(backend("time", &[])));
    set.insert(Key::new(Kind::Gateway, "g".parse().unwrap()), Arc::new(pb::Resource::default()));
    let problems = set.compile().unwrap_err();
    assert_eq!(problems.len(), 2);
    assert_eq!(
        problems[1].to_string(),
        "backend/web:metadata.name: the resource is kept as backend/web, but says otherwise"
    );
}

#[test]
fn one_key_of_two_principals_is_a_problem() {
    let principal =
        || Spec::Principal(pb::Principal { api_key_sha256: vec!["0".repeat(64)], ..Default::default() });
    let found = problems(vec![resource("alice", &[], principal()), resource("bob", &[], principal())]);
    assert_eq!(found, [r#"principal/bob:spec.apiKeySha256[0]: this key is also one of principal "alice""#]);
}

#[test]
fn a_node_gets_what_it_serves_and_what_that_needs() {
    let mut web = http("https://example.com/mcp");
    let pb::backend::Transport::Http(transport) = web.transport.as_mut().unwrap() else { unreachable!() };
    transport.headers = vec![header("authorization", Some(pb::value::Source::Secret("token".into())))];
    let eu = pb::Gateway {
        nodes: Some(selector(&[("region", "eu")])),
        ..gateway(vec![member(Source::Backends(selector(&[("tier", "web")])))])
    };
    let secret = |name: &str| pb::Secret { source: Some(pb::secret::Source::Env(name.into())) };
    let timeout = |gateways| {
        let limit = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let rule = Some(pb::policy::Rule::Timeout(pb::TimeoutRule { limit }));
        Spec::Policy(pb::Policy { gateways, rule, ..Default::default() })
    };
    let set = set(vec![
        resource("eu", &[("site", "eu")], Spec::Gateway(eu)),
        resource("default", &[], Spec::Gateway(gateway(vec![member(Source::Backend("time".into()))]))),
        resource("web", &[("tier", "web")], Spec::Backend(web)),
        backend("time", &[]),
        backend("unused", &[]),
        resource("token", &[], Spec::Secret(secret("TOKEN"))),
        resource("other", &[], Spec::Secret(secret("OTHER"))),
        resource("all", &[], timeout(None)),
        resource("eu", &[], timeout(Some(selector(&[("site", "eu")])))),
    ]);
    let keys = |labels: &[(&str, &str)]| -> Vec<String> {
        let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        set.subset_for(&labels).iter().map(|(key, _)| key.to_string()).collect()
    };
    assert_eq!(keys(&[]), ["gateway/default", "backend/time", "policy/all"]);
    assert_eq!(
        keys(&[("region", "eu")]),
        [
            "gateway/default",
            "gateway/eu",
            "backend/time",
            "backend/web",
            "policy/all",
            "policy/eu",
            "secret/token"
        ]
    );
}

mod at_random {
    use proptest::prelude::*;

    use super::{generate, *};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn compile_never_panics_and_its_problems_are_always_the_same(resources in generate::wild()) {
            let (set, _) = ResourceSet::gather(resources.clone());
            let (again, _) = ResourceSet::gather(resources);
            prop_assert_eq!(set.compile().err(), again.compile().err());
            let _ = set.subset_for(&BTreeMap::new()).compile();
        }

        #[test]
        fn what_compiles_whole_compiles_in_every_part(resources in generate::sound(), region in "(eu|us|ap)") {
            let set = set(resources);
            let whole = match set.compile() {
                Ok(whole) => whole,
                Err(problems) => return Err(TestCaseError::fail(format!("{problems:#?}"))),
            };
            for labels in [BTreeMap::new(), BTreeMap::from([("region".to_owned(), region)])] {
                let part = set.subset_for(&labels).compile();
                prop_assert!(part.is_ok(), "{part:?}");
                for (name, gateway) in &part.unwrap().gateways {
                    prop_assert_eq!(format!("{gateway:?}"), format!("{:?}", whole.gateways[name]));
                }
            }
        }
    }
}

fn tool_set(text: &str) -> pb::ToolSet {
    let config = [
        ("url".to_owned(), json_text("http://127.0.0.1/{{id}}")),
        ("headers".to_owned(), {
            let secret = [("secret".to_owned(), json_text("token"))].into();
            let headers = [("x-key".to_owned(), json_struct(secret))].into();
            json_struct(headers)
        }),
    ];
    let config = Some(prost_types::Struct { fields: config.into() });
    let routing = pb::Binding { r#type: "http".into(), config };
    let tool = pb::BoundTool {
        name: "get".into(),
        description: text.into(),
        routing: Some(routing),
        ..Default::default()
    };
    pb::ToolSet { tools: vec![tool], ..Default::default() }
}

fn json_text(text: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) }
}

fn json_struct(fields: BTreeMap<String, prost_types::Value>) -> prost_types::Value {
    prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(prost_types::Struct { fields })) }
}

#[test]
fn a_tool_set_that_stays_the_same_is_not_checked_again() {
    let secret = resource(
        "token",
        &[],
        Spec::Secret(pb::Secret { source: Some(pb::secret::Source::Env("T".into())) }),
    );
    let of = |name: &str, text: &str| resource(name, &[], Spec::ToolSet(tool_set(text)));
    let all = |text: &str| set(vec![secret.clone(), of("a", "one"), of("b", text)]);
    let before = all("one").compile().unwrap();
    let after = all("two").compile_after(&before).unwrap();
    let (a, b): (mt_proto::resource::ResourceName, mt_proto::resource::ResourceName) =
        ("a".parse().unwrap(), "b".parse().unwrap());
    assert!(Arc::ptr_eq(&before.backends[&a], &after.backends[&a]));
    assert!(!Arc::ptr_eq(&before.backends[&b], &after.backends[&b]));
}

#[test]
fn what_a_tool_set_refers_to_is_looked_for_every_time() {
    let secret = resource(
        "token",
        &[],
        Spec::Secret(pb::Secret { source: Some(pb::secret::Source::Env("T".into())) }),
    );
    let tools = || resource("a", &[], Spec::ToolSet(tool_set("one")));
    let before = set(vec![secret.clone(), tools()]).compile().unwrap();
    let alone = set(vec![tools()]);
    assert_eq!(alone.compile_after(&before).err(), alone.compile().err());
    assert!(alone.compile().is_err());
    let beside = set(vec![secret, tools(), backend("a", &[])]);
    assert_eq!(beside.compile_after(&before).err(), beside.compile().err());
    assert!(beside.compile().is_err());
}
