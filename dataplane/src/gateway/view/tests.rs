use mt_proto::{
    pb::{
        discovery::{Catalog as CatalogPb, ServerFacts},
        resource as pb,
    },
    resource::{Key, Kind, ResourceSet},
};

use super::*;
use crate::gateway::results;

fn backend(set: &mut ResourceSet, name: &str) {
    let http = pb::HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
    let spec = pb::Backend { transport: Some(pb::backend::Transport::Http(http)), ..Default::default() };
    put(set, Kind::Backend, name, pb::resource::Spec::Backend(spec));
}

fn put(set: &mut ResourceSet, kind: Kind, name: &str, spec: pb::resource::Spec) {
    let metadata = Some(pb::Metadata { name: name.into(), ..Default::default() });
    let key = Key::new(kind, name.parse().unwrap());
    set.insert(key, Arc::new(pb::Resource { metadata, spec: Some(spec) }));
}

fn catalog(tools: &[&str], resources: &[&str], capabilities: &'static str) -> Arc<Catalog> {
    Arc::new(Catalog::new(CatalogPb {
        server: Some(ServerFacts {
            legacy_capabilities: Bytes::from_static(capabilities.as_bytes()),
            ..Default::default()
        }),
        tools: tools.iter().map(|name| Bytes::from(format!(r#"{{"x":1E2,"name":"{name}"}}"#))).collect(),
        resources: resources.iter().map(|uri| Bytes::from(format!(r#"{{"uri":"{uri}"}}"#))).collect(),
        ..Default::default()
    }))
}

fn member(backend: &str) -> pb::Member {
    pb::Member { source: Some(pb::member::Source::Backend(backend.into())), ..Default::default() }
}

/// A view of two backends, `a` and `b`.
fn view(gateway: pb::Gateway, a: Arc<Catalog>, b: Arc<Catalog>) -> GatewayView {
    let mut set = ResourceSet::default();
    backend(&mut set, "a");
    backend(&mut set, "b");
    put(&mut set, Kind::Gateway, "default", pb::resource::Spec::Gateway(gateway));
    let config = set.compile().unwrap();
    let catalogs = [("a", a), ("b", b)].map(|(name, c)| (name.parse().unwrap(), c)).into();
    GatewayView::new(&config.gateways["default"], &config, &catalogs)
}

fn page(view: &GatewayView, kind: ListKind, number: usize) -> &str {
    std::str::from_utf8(&view.list(kind).pages[number]).unwrap()
}

#[test]
fn names_get_the_template_and_every_other_byte_stays() {
    let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
    let view = view(gateway, catalog(&["t"], &[], "{}"), catalog(&["t"], &[], "{}"));
    assert_eq!(page(&view, ListKind::Tools, 0), r#"[{"x":1E2,"name":"a_t"},{"x":1E2,"name":"b_t"}]"#);
    let target = Target::new("b".parse().unwrap(), "t");
    assert_eq!(view.tools.get("b_t"), Some(&target));
}

#[test]
fn on_a_clash_the_earlier_member_wins() {
    let gateway = pb::Gateway {
        members: vec![member("b"), member("a")],
        tool_name: "{tool}".into(),
        ..Default::default()
    };
    let view = view(gateway, catalog(&["t"], &[], "{}"), catalog(&["t"], &[], "{}"));
    assert_eq!(view.tools["t"].backend.as_str(), "b");
    assert_eq!(view.list(ListKind::Tools).len, 1);
}

#[test]
fn globs_choose_and_renames_replace_the_template() {
    let mut a = member("a");
    a.include = vec!["get_*".into(), "x".into()];
    a.exclude = vec!["*_secret".into()];
    a.rename = [("x".to_owned(), "better".to_owned())].into();
    let gateway = pb::Gateway { members: vec![a], ..Default::default() };
    let offered = catalog(&["get_one", "get_secret", "put", "x"], &[], "{}");
    let view = view(gateway, offered, catalog(&[], &[], "{}"));
    let mut names: Vec<_> = view.tools.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["a_get_one", "better"]);
}

#[test]
fn uris_are_wrapped_only_where_two_members_serve_resources() {
    let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
    let one = view(gateway.clone(), catalog(&[], &["f:x"], "{}"), catalog(&["t"], &[], "{}"));
    assert_eq!(page(&one, ListKind::Resources, 0), r#"[{"uri":"f:x"}]"#);
    assert_eq!(one.resource("any:thing").unwrap().backend.as_str(), "a");
    let two = view(gateway, catalog(&[], &["f:x"], "{}"), catalog(&[], &[], r#"{"resources":{}}"#));
    assert_eq!(page(&two, ListKind::Resources, 0), r#"[{"uri":"mt+a+f:x"}]"#);
    assert_eq!(two.resource("mt+b+f:y").unwrap().own, "f:y");
    assert_eq!(two.resource("f:x"), None);
}

#[test]
fn long_lists_have_pages_and_a_change_anywhere_changes_the_digest() {
    let gateway = pb::Gateway { members: vec![member("a")], page_size: 2, ..Default::default() };
    let nothing = || catalog(&[], &[], "{}");
    let before = view(gateway.clone(), catalog(&["1", "2", "3"], &[], "{}"), nothing());
    assert_eq!(before.list(ListKind::Tools).pages.len(), 2);
    assert_eq!(page(&before, ListKind::Prompts, 0), "[]");
    let same = view(gateway.clone(), catalog(&["1", "2", "3"], &[], "{}"), nothing());
    assert_eq!(before.list(ListKind::Tools).digest, same.list(ListKind::Tools).digest);
    let after = view(gateway, catalog(&["1", "2", "4"], &[], "{}"), nothing());
    assert_ne!(before.list(ListKind::Tools).digest, after.list(ListKind::Tools).digest);
}

#[test]
fn a_page_is_rendered_once_for_an_era_and_its_cursor_for_each_answer() {
    let gateway = pb::Gateway { members: vec![member("a")], page_size: 2, ..Default::default() };
    let view = view(gateway, catalog(&["1", "2", "3"], &[], "{}"), catalog(&[], &[], "{}"));
    let result = |page, version, next| {
        results::page(&view, view.list(ListKind::Tools).result(page).unwrap(), version, next)
    };
    let (old, new) = (ProtocolVersion::V2025_11_25, ProtocolVersion::V2026_07_28);
    assert_eq!(result(1, old, None), r#"{"tools":[{"x":1E2,"name":"a_3"}]}"#);
    assert_eq!(
        result(0, old, Some("c\"")),
        r#"{"tools":[{"x":1E2,"name":"a_1"},{"x":1E2,"name":"a_2"}],"nextCursor":"c\""}"#
    );
    let said = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap();
    let (last, first) = (said(&result(1, new, None)), said(&result(0, new, Some("c"))));
    assert_eq!(first["nextCursor"], "c");
    for modern in [&last, &first] {
        assert_eq!((&modern["resultType"], &modern["cacheScope"]), (&json!("complete"), &json!("public")));
    }
    for version in [old, new] {
        assert_eq!(result(1, version, None).as_ptr(), result(1, version, None).as_ptr(), "shared");
    }
    let listed = &view.list(ListKind::Tools).pages[1];
    assert!(result(1, old, None).as_ptr_range().contains(&listed.as_ptr()), "held once");
}

#[test]
fn what_clients_hear_first_is_made_once_for_a_version() {
    let gateway = pb::Gateway { members: vec![member("a")], ..Default::default() };
    let view = view(gateway, catalog(&[], &[], "{}"), catalog(&[], &[], "{}"));
    for version in version::LEGACY {
        let (one, two) = (results::initialize(&view, version), results::initialize(&view, version));
        assert!(std::str::from_utf8(&one).unwrap().contains(version.as_str()));
        assert_eq!(one.as_ptr(), two.as_ptr());
    }
    assert_eq!(results::discover(&view).as_ptr(), results::discover(&view).as_ptr());
}

#[test]
fn capabilities_are_united_and_tasks_need_a_sole_member() {
    let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
    let a = catalog(&[], &[], r#"{"logging":{},"tasks":{},"resources":{"subscribe":true}}"#);
    let b = catalog(&[], &[], r#"{"prompts":{},"resources":{"subscribe":false}}"#);
    let both = view(gateway, a.clone(), b.clone());
    let read = |view: &GatewayView| serde_json::from_slice::<Value>(view.capabilities(Era::Legacy)).unwrap();
    assert_eq!(
        read(&both),
        json!({
            "logging": {}, "prompts": {"listChanged": true},
            "resources": {"subscribe": true, "listChanged": true}, "tools": {"listChanged": true},
        })
    );
    let sole = view(pb::Gateway { members: vec![member("a")], ..Default::default() }, a, b);
    assert!(read(&sole).get("tasks").is_some());
}

/// A catalog of a backend that speaks only one era.
fn only(era: Era, capabilities: &'static str, tools: &[&'static str]) -> Arc<Catalog> {
    let capabilities = Bytes::from_static(capabilities.as_bytes());
    let server = match era {
        Era::Legacy => ServerFacts { legacy: true, legacy_capabilities: capabilities, ..Default::default() },
        Era::Modern => ServerFacts {
            modern_versions: vec![version::LATEST_MODERN.to_string()],
            modern_capabilities: capabilities,
            ..Default::default()
        },
    };
    let tools = tools.iter().map(|raw| Bytes::from_static(raw.as_bytes())).collect();
    Arc::new(Catalog::new(CatalogPb { server: Some(server), tools, ..Default::default() }))
}

#[test]
fn members_of_either_era_are_shown_in_both() {
    let gateway = pb::Gateway { members: vec![member("a"), member("b")], ..Default::default() };
    let legacy = only(
        Era::Legacy,
        r#"{"logging":{},"tasks":{},"resources":{"subscribe":true}}"#,
        &[
            r#"{"name":"plain"}"#,
            r#"{"name":"task","execution":{"taskSupport":"required"}}"#,
            r#"{"name":"may","execution":{"taskSupport":"optional"}}"#,
        ],
    );
    let modern = only(
        Era::Modern,
        r#"{"completions":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
        &[r#"{"name":"any","outputSchema":{"type":"array"}}"#],
    );
    let view = view(gateway, legacy, modern);
    assert_eq!(view.versions(), &version::ALL);
    for era in ERAS {
        assert_eq!(
            serde_json::from_slice::<Value>(view.capabilities(era)).unwrap(),
            json!({"logging": {}, "completions": {}, "tools": {"listChanged": true},
                   "resources": {"subscribe": true, "listChanged": true}}),
        );
    }
    let shown = |era| std::str::from_utf8(&view.list_in(era, ListKind::Tools).pages[0]).unwrap();
    assert_eq!(
        shown(Era::Legacy),
        r#"[{"name":"a_plain"},{"name":"a_task","execution":{"taskSupport":"required"}},{"name":"a_may","execution":{"taskSupport":"optional"}},{"name":"b_any"}]"#
    );
    assert_eq!(
        shown(Era::Modern),
        r#"[{"name":"a_plain"},{"name":"a_may"},{"name":"b_any","outputSchema":{"type":"array"}}]"#
    );
    let digest = |era| view.list_in(era, ListKind::Tools).digest;
    assert_eq!(digest(Era::Legacy), digest(Era::Modern));
}

/// A tool set whose tool stands for `t` of a backend.
fn tool_set(backend: &str) -> pb::resource::Spec {
    let text =
        |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) };
    let fields = [("backend".to_owned(), text(backend)), ("tool".to_owned(), text("t"))].into();
    let routing = pb::Binding { r#type: "mcp".into(), config: Some(prost_types::Struct { fields }) };
    let tool = pb::BoundTool { name: "mine".into(), routing: Some(routing), ..Default::default() };
    pb::resource::Spec::ToolSet(pb::ToolSet { tools: vec![tool], ..Default::default() })
}

/// A gateway with only that tool set, before a backend `b` that may be off.
fn standing_for(disabled: bool) -> GatewayView {
    let mut set = ResourceSet::default();
    let http = pb::HttpTransport { url: "http://127.0.0.1:1/mcp".into(), ..Default::default() };
    let transport = Some(pb::backend::Transport::Http(http));
    put(
        &mut set,
        Kind::Backend,
        "b",
        pb::resource::Spec::Backend(pb::Backend { transport, disabled, ..Default::default() }),
    );
    put(&mut set, Kind::ToolSet, "set", tool_set("b"));
    let source = Some(pb::member::Source::ToolSet("set".into()));
    let member = pb::Member { source, ..Default::default() };
    put(
        &mut set,
        Kind::Gateway,
        "default",
        pb::resource::Spec::Gateway(pb::Gateway { members: vec![member], ..Default::default() }),
    );
    let config = set.compile().unwrap();
    let raw =
        r#"{"name":"t","inputSchema":{"type":"object","x":1E2},"execution":{"taskSupport":"optional"}}"#;
    let catalogs = [
        ("b".parse().unwrap(), only(Era::Legacy, "{}", &[raw])),
        (
            "set".parse().unwrap(),
            Arc::new(crate::gateway::offered::catalog(match &config.backends["set"].transport {
                mt_proto::resource::Transport::Agents(tool_set) => tool_set,
                _ => panic!("no tool set"),
            })),
        ),
    ];
    GatewayView::new(&config.gateways["default"], &config, &catalogs.into())
}

#[test]
fn a_tool_that_stands_for_anothers_is_shown_as_that_one_and_in_the_words_of_each_era() {
    let view = standing_for(false);
    let shown = |era| std::str::from_utf8(&view.list_in(era, ListKind::Tools).pages[0]).unwrap().to_owned();
    assert_eq!(
        shown(Era::Legacy),
        r#"[{"inputSchema":{"type":"object","x":1E2},"execution":{"taskSupport":"optional"},"name":"mine"}]"#
    );
    assert_eq!(shown(Era::Modern), r#"[{"inputSchema":{"type":"object","x":1E2},"name":"mine"}]"#);
    let target = &view.tools["mine"];
    assert_eq!((target.backend.as_str(), target.own.as_str()), ("b", "t"));
}

#[test]
fn resources_of_a_backend_that_is_no_member_lead_nowhere() {
    let view = standing_for(false);
    let backend: ResourceName = "b".parse().unwrap();
    assert!(view.wraps_uris_of(&backend) && !view.wraps_uris());
    assert_eq!(view.resource("mt+b+file:///a"), None);
}

#[test]
fn a_tool_of_a_backend_that_is_switched_off_is_not_listed_but_known() {
    let view = standing_for(true);
    assert_eq!(page(&view, ListKind::Tools, 0), "[]");
    assert!(view.tools.contains_key("mine"));
}
