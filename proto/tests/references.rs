//! What a tool set brings along to a node: the backends whose tools it shows
//! under other names, and the secrets of both.

use std::{collections::BTreeMap, sync::Arc};

use mt_proto::{
    pb::resource::{self as pb, member::Source, resource::Spec},
    resource::{Key, Kind, ResourceSet},
};
use prost_types::{Struct, Value, value::Kind as Json};

fn text(text: &str) -> Value {
    Value { kind: Some(Json::StringValue(text.into())) }
}

fn object(fields: Vec<(&str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
}

fn tool(name: &str, agent: &str, config: Vec<(&str, Value)>) -> pb::BoundTool {
    let routing = Some(pb::Binding { r#type: agent.into(), config: Some(object(config)) });
    pb::BoundTool { name: name.into(), routing, ..Default::default() }
}

fn secret() -> Spec {
    Spec::Secret(pb::Secret { source: Some(pb::secret::Source::Env("TOKEN".into())) })
}

fn backend(token: Option<&str>) -> Spec {
    let value = |name: &str| pb::Value { source: Some(pb::value::Source::Secret(name.into())) };
    let header = token.map(|name| pb::Header { name: "x-token".into(), value: Some(value(name)) });
    let url = "http://127.0.0.1:1/mcp".to_owned();
    let http = pb::HttpTransport { url, headers: header.into_iter().collect(), ..Default::default() };
    Spec::Backend(pb::Backend { transport: Some(pb::backend::Transport::Http(http)), ..Default::default() })
}

fn set(specs: Vec<(Kind, &str, Spec)>) -> ResourceSet {
    let mut set = ResourceSet::default();
    for (kind, name, spec) in specs {
        let metadata = Some(pb::Metadata { name: name.into(), ..Default::default() });
        let resource = pb::Resource { metadata, spec: Some(spec) };
        set.insert(Key::new(kind, name.parse().unwrap()), Arc::new(resource));
    }
    set
}

fn with_tools(tools: Vec<pb::BoundTool>, more: Vec<(Kind, &'static str, Spec)>) -> ResourceSet {
    let source = Some(Source::ToolSet("tools".into()));
    let members = vec![pb::Member { source, ..Default::default() }];
    let gateway = Spec::Gateway(pb::Gateway { members, ..Default::default() });
    let tools = Spec::ToolSet(pb::ToolSet { tools, ..Default::default() });
    let mut all = vec![(Kind::Gateway, "default", gateway), (Kind::ToolSet, "tools", tools)];
    all.extend(more);
    set(all)
}

#[test]
fn a_node_gets_the_backends_of_tools_under_other_names_with_their_secrets() {
    for named in ["backend", "server", "server_name"] {
        for agent in ["mcp", "mcp_proxy", "external_mcp"] {
            let key = Struct { fields: [("secret".to_owned(), text("model-key"))].into() };
            let key = Value { kind: Some(Json::StructValue(key)) };
            let set = with_tools(
                vec![
                    tool("now", agent, vec![(named, text("time")), ("tool", text("get_current_time"))]),
                    tool("say", "llm", vec![("model", text("m")), ("prompt", text("hi")), ("apiKey", key)]),
                ],
                vec![
                    (Kind::Backend, "time", backend(Some("time-token"))),
                    (Kind::Backend, "unused", backend(None)),
                    (Kind::Secret, "time-token", secret()),
                    (Kind::Secret, "model-key", secret()),
                    (Kind::Secret, "other", secret()),
                ],
            );
            set.compile().unwrap_or_else(|problems| panic!("{problems:#?}"));
            let part = set.subset_for(&BTreeMap::new());
            let keys: Vec<String> = part.iter().map(|(key, _)| key.to_string()).collect();
            assert_eq!(
                keys,
                [
                    "gateway/default",
                    "backend/time",
                    "tool-set/tools",
                    "secret/model-key",
                    "secret/time-token"
                ]
            );
            let compiled = part.compile().unwrap_or_else(|problems| panic!("{problems:#?}"));
            assert!(compiled.backends.contains_key("time"));
        }
    }
}

#[test]
fn a_tool_of_a_backend_that_is_not_there_is_a_problem_where_it_is_named() {
    let set = with_tools(
        vec![tool("now", "mcp", vec![("backend", text("tiem")), ("tool", text("x"))])],
        vec![(Kind::Backend, "time", backend(None))],
    );
    let problems = set.compile().unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].path, "spec.tools[0].routing.config.backend");
}
