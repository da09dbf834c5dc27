//! Resources at random: any that the wire can carry, and such as compile.

use std::collections::BTreeMap;

use mt_proto::pb::resource::{self as pb, resource::Spec};
use proptest::{collection::vec, option, prelude::*};

/// Names near each other, some of which are not names.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abc]", 1 => "[a-zA-Z_.-]{0,5}", 1 => any::<String>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_{}*\\[\\]./:]{0,12}", any::<String>()]
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(
        prop_oneof![Just("tier".to_owned()), text()],
        prop_oneof!["[ab]", text()],
        0..3,
    )
}

fn selector() -> impl Strategy<Value = pb::LabelSelector> {
    labels().prop_map(|match_labels| pb::LabelSelector { match_labels })
}

fn duration() -> impl Strategy<Value = Option<prost_types::Duration>> {
    option::of(
        (prop_oneof![0i64..400, any::<i64>()], any::<i32>())
            .prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }),
    )
}

fn value() -> impl Strategy<Value = Option<pb::Value>> {
    let source =
        prop_oneof![text().prop_map(pb::value::Source::Text), name().prop_map(pb::value::Source::Secret)];
    option::of(option::of(source).prop_map(|source| pb::Value { source }))
}

fn transport() -> BoxedStrategy<pb::backend::Transport> {
    let url = prop_oneof!["https?://[a-z.]{0,6}(/[a-z]{0,4})?", text()];
    let header = (text(), value()).prop_map(|(name, value)| pb::Header { name, value });
    let remote = (url, vec(header, 0..3), duration(), option::of(auth()), 0..6i32).prop_map(
        |(url, headers, connect_timeout, auth, sharing)| pb::HttpTransport {
            url,
            headers,
            connect_timeout,
            auth,
            sharing,
        },
    );
    let var = (text(), value()).prop_map(|(name, value)| pb::EnvVar { name, value });
    let stdio = (text(), vec(text(), 0..3), vec(var, 0..3), text(), any::<i32>(), duration(), any::<u64>())
        .prop_map(|(command, args, env, cwd, sharing, start_timeout, line_bytes_max)| pb::StdioTransport {
            command,
            args,
            env,
            cwd,
            sharing: sharing % 6,
            start_timeout,
            line_bytes_max,
            ..Default::default()
        });
    prop_oneof![
        (remote, 0..3).prop_map(|(remote, kind)| match kind {
            0 => pb::backend::Transport::Sse(remote),
            1 => pb::backend::Transport::Websocket(remote),
            _ => pb::backend::Transport::Http(remote),
        }),
        stdio.prop_map(pb::backend::Transport::Stdio)
    ]
    .boxed()
}

fn auth() -> BoxedStrategy<pb::BackendAuth> {
    let credentials = (text(), text(), value(), vec(text(), 0..2)).prop_map(
        |(token_url, client_id, client_secret, scopes)| pb::ClientCredentials {
            token_url,
            client_id,
            client_secret,
            scopes,
            ..Default::default()
        },
    );
    let method = prop_oneof![
        value().prop_filter_map("a value", |value| value.map(pb::backend_auth::Method::Bearer)),
        (text(), value())
            .prop_map(|(name, value)| pb::backend_auth::Method::ApiKey(pb::Header { name, value })),
        (text(), value())
            .prop_map(|(name, value)| pb::backend_auth::Method::Query(pb::QueryParameter { name, value })),
        credentials.prop_map(pb::backend_auth::Method::ClientCredentials),
    ];
    option::of(method).prop_map(|method| pb::BackendAuth { method }).boxed()
}

fn issuer() -> BoxedStrategy<pb::JwtIssuer> {
    let url = || prop_oneof!["https://[a-z]{1,3}", text()];
    let keys = option::of(prop_oneof![
        url().prop_map(pb::jwt_issuer::Keys::JwksUrl),
        text().prop_map(pb::jwt_issuer::Keys::JwksFile)
    ]);
    (url(), vec(text(), 0..3), keys, text(), text(), text())
        .prop_map(|(issuer, audiences, keys, principal_claim, groups_claim, principal_prefix)| {
            pb::JwtIssuer { issuer, audiences, keys, principal_claim, groups_claim, principal_prefix }
        })
        .boxed()
}

fn member() -> BoxedStrategy<pb::Member> {
    let source = prop_oneof![
        name().prop_map(pb::member::Source::Backend),
        selector().prop_map(pb::member::Source::Backends),
        name().prop_map(pb::member::Source::ToolSet),
    ];
    (option::of(source), vec(text(), 0..3), vec(text(), 0..3), labels(), text())
        .prop_map(|(source, include, exclude, rename, tool_name)| pb::Member {
            source,
            include,
            exclude,
            rename,
            tool_name,
        })
        .boxed()
}

fn spec() -> impl Strategy<Value = Spec> {
    let gateway = (vec(member(), 0..4), text(), text(), option::of(selector()), any::<u32>()).prop_map(
        |(members, tool_name, namespace, nodes, page_size)| {
            Spec::Gateway(pb::Gateway {
                members,
                tool_name,
                namespace,
                nodes,
                page_size,
                ..Default::default()
            })
        },
    );
    let backend = (option::of(transport()), text(), duration(), any::<u32>()).prop_map(
        |(transport, protocol, call_timeout, concurrent_calls_max)| {
            Spec::Backend(pb::Backend {
                transport,
                protocol,
                call_timeout,
                concurrent_calls_max,
                ..Default::default()
            })
        },
    );
    let tool = (text(), option::of(text())).prop_map(|(name, r#type)| {
        let routing = r#type.map(|r#type| pb::Binding { r#type, config: None });
        pb::BoundTool { name, routing, ..Default::default() }
    });
    let tool_set =
        vec(tool, 0..3).prop_map(|tools| Spec::ToolSet(pb::ToolSet { tools, ..Default::default() }));
    let weighted =
        (name(), option::of(0u32..3)).prop_map(|(backend, weight)| pb::WeightedBackend { backend, weight });
    let route = (vec(name(), 0..3), vec(text(), 0..3), vec(weighted, 0..3), any::<bool>()).prop_map(
        |(gateways, tools, backends, disabled)| {
            Spec::Route(pb::Route { gateways, tools, backends, disabled, ..Default::default() })
        },
    );
    let rule = option::of(prop_oneof![
        duration().prop_map(|limit| pb::policy::Rule::Timeout(pb::TimeoutRule { limit })),
        (vec(issuer(), 0..3), 0..5i32)
            .prop_map(|(jwt, anonymous)| pb::policy::Rule::Authn(pb::AuthnRule { jwt, anonymous })),
    ]);
    let policy = (option::of(selector()), option::of(selector()), vec(text(), 0..3), rule).prop_map(
        |(gateways, backends, tools, rule)| Spec::Policy(pb::Policy { gateways, backends, tools, rule }),
    );
    let source =
        prop_oneof![text().prop_map(pb::secret::Source::Env), text().prop_map(pb::secret::Source::File)];
    let secret = option::of(source).prop_map(|source| Spec::Secret(pb::Secret { source }));
    let principal = (vec(text(), 0..3), vec(prop_oneof!["[0-9a-f]{64}", text()], 0..3)).prop_map(
        |(groups, api_key_sha256)| {
            Spec::Principal(pb::Principal { groups, api_key_sha256, ..Default::default() })
        },
    );
    // Boxed, like the larger parts: as one type they would not fit on the stack of a test.
    proptest::strategy::Union::new([
        gateway.boxed(),
        backend.boxed(),
        tool_set.boxed(),
        route.boxed(),
        policy.boxed(),
        secret.boxed(),
        principal.boxed(),
    ])
}

/// Whatever the wire can carry.
pub fn wild() -> impl Strategy<Value = Vec<pb::Resource>> {
    let metadata = (name(), labels(), labels()).prop_map(|(name, labels, annotations)| pb::Metadata {
        name,
        labels,
        annotations,
    });
    let resource = (option::weighted(0.95, metadata), option::weighted(0.95, spec()))
        .prop_map(|(metadata, spec)| pb::Resource { metadata, spec });
    vec(resource, 0..12)
}

/// A set that compiles: three backends of which one needs a secret, and
/// gateways and policies over them.
pub fn sound() -> impl Strategy<Value = Vec<pb::Resource>> {
    let region = || option::of("(eu|us)").prop_map(one_label("region"));
    let tier = || option::of("(web|db)").prop_map(one_label("tier"));
    let backend = (tier(), any::<bool>()).prop_map(|(labels, secret)| {
        let secret = secret.then(|| pb::Value { source: Some(pb::value::Source::Secret("token".into())) });
        let headers =
            secret.into_iter().map(|v| pb::Header { name: "x-token".into(), value: Some(v) }).collect();
        let http = pb::HttpTransport { url: "http://localhost/mcp".into(), headers, ..Default::default() };
        let transport = Some(pb::backend::Transport::Http(http));
        (labels, Spec::Backend(pb::Backend { transport, ..Default::default() }))
    });
    let selected =
        || tier().prop_map(|match_labels| pb::member::Source::Backends(pb::LabelSelector { match_labels }));
    let gateway = (option::of(0..3usize), vec(selected(), 0..3), region(), "(\\{backend\\}_|)").prop_map(
        |(named, selectors, match_labels, prefix)| {
            let named = named.map(|i| pb::member::Source::Backend(format!("backend-{i}")));
            let sources = named.into_iter().chain(selectors);
            let members = sources.map(|s| pb::Member { source: Some(s), ..Default::default() }).collect();
            let nodes = Some(pb::LabelSelector { match_labels });
            let tool_name = format!("{prefix}{{tool}}");
            (BTreeMap::new(), Spec::Gateway(pb::Gateway { members, tool_name, nodes, ..Default::default() }))
        },
    );
    let policy = option::of(tier()).prop_map(|labels| {
        let limit = Some(prost_types::Duration { seconds: 5, nanos: 0 });
        let rule = Some(pb::policy::Rule::Timeout(pb::TimeoutRule { limit }));
        let backends = labels.map(|match_labels| pb::LabelSelector { match_labels });
        (BTreeMap::new(), Spec::Policy(pb::Policy { backends, rule, ..Default::default() }))
    });
    let named = |prefix: &'static str| {
        move |specs: Vec<(BTreeMap<String, String>, Spec)>| -> Vec<pb::Resource> {
            let named = specs.into_iter().enumerate().map(|(i, (labels, spec))| {
                let metadata = pb::Metadata { name: format!("{prefix}-{i}"), labels, ..Default::default() };
                pb::Resource { metadata: Some(metadata), spec: Some(spec) }
            });
            named.collect()
        }
    };
    let parts = (
        vec(backend, 3).prop_map(named("backend")),
        vec(gateway, 0..4).prop_map(named("gateway")),
        vec(policy, 0..3).prop_map(named("policy")),
    );
    parts.prop_map(|(mut all, gateways, policies)| {
        all.extend(gateways);
        all.extend(policies);
        let secret = pb::Secret { source: Some(pb::secret::Source::Env("TOKEN".into())) };
        let metadata = pb::Metadata { name: "token".into(), ..Default::default() };
        all.push(pb::Resource { metadata: Some(metadata), spec: Some(Spec::Secret(secret)) });
        all
    })
}

fn one_label(key: &'static str) -> impl Fn(Option<String>) -> BTreeMap<String, String> {
    move |value| value.into_iter().map(|value| (key.to_owned(), value)).collect()
}
