//! What is written reads back as the same resource.

use std::collections::BTreeMap;

use mt_capabilities::{parse, to_json, to_json_all, to_yaml, to_yaml_all};
use mt_proto::pb::resource::{self as pb, resource::Spec};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};

fn text() -> impl Strategy<Value = String> {
    let tricky = prop_oneof![
        Just("yes"),
        Just("null"),
        Just("~"),
        Just("0x1f"),
        Just("1_000"),
        Just("2025-06-18"),
        Just("12:30"),
        Just("- a"),
        Just("a: b"),
        Just("a #b"),
        Just("<<"),
        Just("*a"),
        Just("line\nbreak\n"),
        Just("two\n\nlines"),
        Just("end \nof line"),
        Just("  indented\nline"),
        Just("a\n  b\n\tc"),
        Just("{backend}_{tool}"),
        Just(" "),
        Just("\u{feff}x"),
        Just("a\u{85}b\u{2028}c\nd"),
    ];
    prop_oneof![tricky.prop_map(str::to_owned), "[ -~]{0,100}", "[a-z\n :#'\"-]{0,20}", any::<String>()]
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3)
}

fn selector() -> impl Strategy<Value = Option<pb::LabelSelector>> {
    option::of(labels().prop_map(|match_labels| pb::LabelSelector { match_labels }))
}

fn duration() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let nanos = prop_oneof![Just(0), Just(500_000_000), 0i32..1_000_000_000];
    option::of((0i64..1_000_000, nanos).prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }))
}

fn value() -> impl Strategy<Value = Option<pb::Value>> {
    let source =
        prop_oneof![text().prop_map(pb::value::Source::Text), text().prop_map(pb::value::Source::Secret)];
    option::of(option::of(source).prop_map(|source| pb::Value { source }))
}

fn structure() -> impl Strategy<Value = Option<prost_types::Struct>> {
    use prost_types::value::Kind;
    let value = |kind| prost_types::Value { kind: Some(kind) };
    let number = prop_oneof![
        any::<i32>().prop_map(f64::from),
        any::<f64>().prop_filter("JSON has no others", |n| n.is_finite()),
        Just(-0.0),
    ];
    let leaf = prop_oneof![
        Just(Kind::NullValue(0)),
        any::<bool>().prop_map(Kind::BoolValue),
        number.prop_map(Kind::NumberValue),
        text().prop_map(Kind::StringValue),
    ];
    let tree = leaf.prop_map(value).prop_recursive(3, 12, 3, move |inner| {
        let list = vec(inner.clone(), 0..3)
            .prop_map(move |values| value(Kind::ListValue(prost_types::ListValue { values })));
        let object = btree_map(text(), inner, 0..3)
            .prop_map(move |fields| value(Kind::StructValue(prost_types::Struct { fields })));
        prop_oneof![list, object]
    });
    option::of(btree_map(text(), tree, 0..3).prop_map(|fields| prost_types::Struct { fields }))
}

fn spec() -> impl Strategy<Value = Spec> {
    let source = prop_oneof![
        text().prop_map(pb::member::Source::Backend),
        labels().prop_map(|match_labels| pb::member::Source::Backends(pb::LabelSelector { match_labels })),
        text().prop_map(pb::member::Source::ToolSet),
    ];
    let member = (option::of(source), vec(text(), 0..3), vec(text(), 0..3), labels(), text()).prop_map(
        |(source, include, exclude, rename, tool_name)| pb::Member {
            source,
            include,
            exclude,
            rename,
            tool_name,
        },
    );
    let gateway = (vec(member, 0..3), text(), text(), selector(), text(), text(), any::<u32>()).prop_map(
        |(members, tool_name, namespace, nodes, title, instructions, page_size)| {
            Spec::Gateway(pb::Gateway {
                members,
                tool_name,
                namespace,
                nodes,
                title,
                instructions,
                page_size,
                ..Default::default()
            })
        },
    );
    let header = (text(), value()).prop_map(|(name, value)| pb::Header { name, value });
    let http = (text(), vec(header, 0..3), duration()).prop_map(|(url, headers, connect_timeout)| {
        pb::HttpTransport { url, headers, connect_timeout, ..Default::default() }
    });
    let var = (text(), value()).prop_map(|(name, value)| pb::EnvVar { name, value });
    let stdio = (text(), vec(text(), 0..4), vec(var, 0..3), text(), 0..5i32, duration(), any::<u64>())
        .prop_map(|(command, args, env, cwd, sharing, start_timeout, line_bytes_max)| pb::StdioTransport {
            command,
            args,
            env,
            cwd,
            sharing,
            start_timeout,
            line_bytes_max,
            ..Default::default()
        });
    let transport = prop_oneof![
        http.prop_map(pb::backend::Transport::Http),
        stdio.prop_map(pb::backend::Transport::Stdio)
    ];
    let backend =
        (option::of(transport), text(), duration(), any::<u32>(), any::<bool>(), text(), any::<bool>())
            .prop_map(
                |(
                    transport,
                    protocol,
                    call_timeout,
                    concurrent_calls_max,
                    disabled,
                    description,
                    trust_hints,
                )| {
                    Spec::Backend(pb::Backend {
                        transport,
                        protocol,
                        call_timeout,
                        concurrent_calls_max,
                        disabled,
                        description,
                        trust_hints,
                        ..Default::default()
                    })
                },
            );
    let routing = (text(), structure()).prop_map(|(r#type, config)| pb::Binding { r#type, config });
    let tool = (text(), text(), structure(), option::of(routing), any::<bool>(), option::of(any::<bool>()))
        .prop_map(|(name, description, input_schema, routing, hidden, enabled)| pb::BoundTool {
            name,
            description,
            input_schema,
            routing,
            hidden,
            enabled,
            ..Default::default()
        });
    let tool_set =
        vec(tool, 0..3).prop_map(|tools| Spec::ToolSet(pb::ToolSet { tools, ..Default::default() }));
    let weighted =
        (text(), option::of(0u32..3)).prop_map(|(backend, weight)| pb::WeightedBackend { backend, weight });
    let route = (vec(text(), 0..3), vec(text(), 0..3), text(), vec(weighted, 0..3), any::<bool>()).prop_map(
        |(gateways, tools, when, backends, disabled)| {
            Spec::Route(pb::Route { gateways, tools, when, backends, disabled })
        },
    );
    let rule = option::of(duration().prop_map(|limit| pb::policy::Rule::Timeout(pb::TimeoutRule { limit })));
    let policy =
        (selector(), selector(), vec(text(), 0..3), rule).prop_map(|(gateways, backends, tools, rule)| {
            Spec::Policy(pb::Policy { gateways, backends, tools, rule })
        });
    let source =
        prop_oneof![text().prop_map(pb::secret::Source::Env), text().prop_map(pb::secret::Source::File)];
    let secret = option::of(source).prop_map(|source| Spec::Secret(pb::Secret { source }));
    let principal =
        (vec(text(), 0..3), vec(text(), 0..3), text()).prop_map(|(groups, api_key_sha256, display_name)| {
            Spec::Principal(pb::Principal { groups, api_key_sha256, display_name })
        });
    prop_oneof![gateway, backend, tool_set, route, policy, secret, principal]
}

fn resource() -> impl Strategy<Value = pb::Resource> {
    ("[a-z0-9]{1,5}", labels(), labels(), spec()).prop_map(|(name, labels, annotations, spec)| {
        let metadata = Some(pb::Metadata { name, labels, annotations });
        pb::Resource { metadata, spec: Some(spec) }
    })
}

fn read(name: &str, text: &str) -> Vec<pb::Resource> {
    let document = parse(name, text);
    assert_eq!(document.diagnostics, [], "{text}");
    document.resources.into_iter().map(|located| located.resource).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn yaml_reads_back_as_the_same_resource(resource in resource()) {
        let text = to_yaml(&resource);
        prop_assert_eq!(&read("a.yaml", &text), std::slice::from_ref(&resource), "{}", text);
    }

    #[test]
    fn json_reads_back_as_the_same_resource(resource in resource()) {
        prop_assert_eq!(read("a.json", &to_json(&resource)), [resource]);
    }

    #[test]
    fn many_resources_read_back_in_their_order(resources in vec(resource(), 0..4)) {
        prop_assert_eq!(&read("a.yaml", &to_yaml_all(&resources)), &resources);
        prop_assert_eq!(&read("a.json", &to_json_all(&resources)), &resources);
    }
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "((apiVersion|kind|metadata|spec|name|Backend|http|stdio|magictunnel/v1|[a-z{}\\[\\]\"&*-])(: |:\n +|\n|, ?| )){0,30}") {
        for name in ["a.yaml", "a.json"] {
            let documents = [parse(name, &text)];
            for diagnostic in mt_capabilities::check(&documents) {
                prop_assert!(diagnostic.to_string().starts_with("error: "));
            }
        }
    }
}

#[test]
fn what_is_written_is_what_people_would_write() {
    let stdio = pb::StdioTransport {
        command: "npx".into(),
        args: vec!["-y".into(), "@scope/server".into(), "/data".into()],
        env: vec![
            pb::EnvVar {
                name: "MODE".into(),
                value: Some(pb::Value { source: Some(pb::value::Source::Text("on".into())) }),
            },
            pb::EnvVar {
                name: "TOKEN".into(),
                value: Some(pb::Value { source: Some(pb::value::Source::Secret("token".into())) }),
            },
        ],
        sharing: pb::Sharing::PerSession.into(),
        start_timeout: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
        ..Default::default()
    };
    let backend = pb::Backend {
        transport: Some(pb::backend::Transport::Stdio(stdio)),
        call_timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        description: "Files of\nthe team\n".into(),
        ..Default::default()
    };
    let labels = [("team".to_owned(), "core".to_owned())].into();
    let metadata = pb::Metadata { name: "files".into(), labels, ..Default::default() };
    let resource = pb::Resource { metadata: Some(metadata), spec: Some(Spec::Backend(backend)) };
    insta::assert_snapshot!("backend_yaml", to_yaml(&resource));
    insta::assert_snapshot!("default_gateway_json", to_json(&mt_capabilities::default_gateway()));
}
