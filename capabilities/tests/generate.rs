//! Capability files made of descriptions: small ones word by word, and any at
//! all without a panic.

use std::collections::BTreeSet;

use mt_capabilities::{
    generate::{self, Auth, Filter, GenerateError, Generated, Options},
    parse,
};
use mt_proto::{
    pb::resource::{ToolSet, resource::Spec},
    resource::ResourceSet,
};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

#[path = "generate/graphql.rs"]
mod graphql;
#[path = "generate/grpc.rs"]
mod grpc;

const SHOP: &str = include_str!("generate/shop.yaml");

fn options(name: &str) -> Options {
    Options { name: name.into(), source: format!("{name}.yaml"), ..Options::default() }
}

fn openapi(text: &str, options: &Options) -> Generated {
    generate::openapi("f.yaml", text, options).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The files, and what there is to say.
fn shown(generated: &Generated) -> String {
    let files: Vec<String> =
        generated.files.iter().map(|f| format!("==> {}.yaml\n{}", f.stem, f.text)).collect();
    let notes =
        generated.notes.iter().map(|note| format!("{:?} {}: {}\n", note.outcome, note.entry, note.text));
    format!("{}{}", files.join("\n"), notes.collect::<String>())
}

/// The tools of all files, as a control plane reads them; names are legal and
/// different, and no file is too large for the store.
fn loaded(generated: &Generated) -> Vec<mt_proto::pb::resource::BoundTool> {
    let mut tools = Vec::new();
    let mut resources = Vec::new();
    for file in &generated.files {
        let document = parse(&format!("{}.yaml", file.stem), &file.text);
        assert_eq!(document.diagnostics, [], "{}", file.stem);
        resources.extend(document.resources.into_iter().map(|located| located.resource));
    }
    for resource in &resources {
        assert!(resource.encoded_len() < 1 << 20);
        if let Some(Spec::ToolSet(ToolSet { tools: more, .. })) = &resource.spec {
            tools.extend(more.clone());
        }
    }
    let (set, problems) = ResourceSet::gather(resources);
    assert!(problems.is_empty(), "{problems:?}");
    if let Err(problems) = set.compile() {
        let others = problems.iter().filter(|problem| !problem.message.contains("there is no"));
        assert_eq!(others.count(), 0, "{problems:?}");
    }
    let mut names = BTreeSet::new();
    for tool in &tools {
        let legal = tool.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        assert!(legal && (1..=64).contains(&tool.name.len()), "{}", tool.name);
        assert!(names.insert(&tool.name), "{} is there twice", tool.name);
    }
    assert_eq!(tools.len(), generated.tools.len());
    tools
}

#[test]
fn an_openapi_document_becomes_tools() {
    let generated = openapi(SHOP, &options("shop"));
    loaded(&generated);
    insta::assert_snapshot!(shown(&generated));
}

#[test]
fn what_is_asked_for_is_taken_and_named_so() {
    let filter = |include: &[&str], exclude: &[&str]| {
        let list = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        Filter::new(&list(include), &list(exclude)).unwrap()
    };
    let names = |options: &Options| -> Vec<String> {
        openapi(SHOP, options).tools.into_iter().map(|tool| tool.name).collect()
    };
    let only = Options { filter: filter(&["orders"], &["DELETE *"]), prefix: "x_".into(), ..options("shop") };
    assert_eq!(names(&only), ["x_orders_list", "x_orders_create", "x_orders_upload"]);
    let old = Options { filter: filter(&["/old"], &[]), deprecated: true, ..options("shop") };
    assert_eq!(names(&old), ["get_old"]);
}

#[test]
fn what_the_user_says_about_the_service_counts() {
    let given = Options {
        base_url: Some("http://127.0.0.1:9/x/".into()),
        auth: Some(Auth::Header("X-Key".into())),
        no_output_schema: true,
        ..options("shop")
    };
    let generated = openapi(SHOP, &given);
    let text = &generated.files[0].text;
    assert!(text.contains("url: \"http://127.0.0.1:9/x/orders/{{id}}\""), "{text}");
    assert!(
        text.contains("secret: shop-key") && text.contains("env: SHOP_KEY") && !text.contains("outputSchema")
    );
    assert!(!text.contains("shop-token"), "{text}");
}

#[test]
fn what_is_no_document_says_why() {
    let message = |text: &str| match generate::openapi("f", text, &options("x")) {
        Err(GenerateError::Unusable { message, .. }) => message,
        Err(GenerateError::Unreadable(diagnostics)) => diagnostics[0].message.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(message("{}"), "this is no OpenAPI document");
    assert_eq!(message("swagger: '2.0'"), "this is a document of Swagger 2.0");
    assert_eq!(message("openapi: 4.0.0"), "OpenAPI 4.0.0 is not read");
    assert_eq!(message("openapi: 3.0.0\nservers: [{url: 'http://h'}]"), "the document has no operations");
    assert_eq!(
        message("openapi: 3.0.0\npaths: {/a: {get: {}}}"),
        "the document does not say where the service is"
    );
    assert!(!message("{\"openapi\": ").is_empty());
}

#[test]
fn many_operations_become_several_files_by_tag() {
    let mut paths = serde_json::Map::new();
    let text = "x".repeat(900);
    for i in 0..1500 {
        let operation =
            json!({"operationId": format!("op{i}"), "tags": [format!("Tag {}", i % 3)], "description": text});
        paths.insert(format!("/p{i}"), json!({"get": operation}));
    }
    let document = json!({
        "openapi": "3.1.0", "servers": [{"url": "https://h"}], "paths": paths,
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "k"}}},
    });
    let generated = openapi(&document.to_string(), &options("big"));
    assert_eq!(loaded(&generated).len(), 1500);
    let stems: Vec<&str> = generated.files.iter().map(|file| file.stem.as_str()).collect();
    assert_eq!(stems, ["big-tag-0", "big-tag-1", "big-tag-2", "big-secrets"]);
}

#[test]
fn a_backend_becomes_tools_that_stay_what_they_are() {
    let tools = [
        json!({"name": "get.now", "title": "Now", "description": "The time.", "inputSchema": {
            "type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
            "annotations": {"readOnlyHint": true}}),
        json!({"name": "bare"}),
        json!({"title": "nameless"}),
    ];
    let generated = generate::mcp("time", &tools, &options("time-tools")).unwrap();
    insta::assert_snapshot!(shown(&generated));
}

/// JSON that often looks like a document, and often does not.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "paths",
        "/a/{b}",
        "get",
        "post",
        "parameters",
        "name",
        "in",
        "schema",
        "type",
        "properties",
        "items",
        "$ref",
        "requestBody",
        "content",
        "application/json",
        "multipart/form-data",
        "allOf",
        "oneOf",
        "enum",
        "required",
        "responses",
        "200",
        "security",
        "components",
        "schemas",
        "A",
        "servers",
        "url",
        "operationId",
        "nullable",
        "additionalProperties",
        "default",
        "pattern",
        "description",
        "style",
        "explode",
        "securitySchemes",
    ]);
    let word = prop::sample::select(vec![
        "query",
        "path",
        "header",
        "cookie",
        "object",
        "array",
        "string",
        "#/components/schemas/A",
        "#/paths",
        "#",
        "b",
        "https://h/{x}",
        "deepObject",
        "{{x}}",
        "(",
        "a\nb",
        "http",
        "bearer",
        "apiKey",
        "日本",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 96, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| Value::Object(
                entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

/// Puts something else at a place of a value.
fn mutated(value: &mut Value, path: &[prop::sample::Index], put: Value) {
    let Some((step, rest)) = path.split_first() else {
        *value = put;
        return;
    };
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            let at = step.index(entries.len());
            let (_, inner) = entries.iter_mut().nth(at).unwrap();
            mutated(inner, rest, put);
        }
        Value::Array(items) if !items.is_empty() => {
            let at = step.index(items.len());
            mutated(&mut items[at], rest, put);
        }
        other => *other = put,
    }
}

/// What is made of a value compiles, or there is a reason.
fn survives(document: &Value) {
    match generate::openapi("f.json", &document.to_string(), &options("any")) {
        Ok(generated) => _ = loaded(&generated),
        Err(GenerateError::Broken(diagnostics)) => panic!("{diagnostics:?}"),
        Err(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_json_makes_the_generator_panic(paths in any_json(), components in any_json(), whole in any_json()) {
        survives(&whole);
        let servers = json!([{"url": "https://h"}]);
        survives(&json!({"openapi": "3.0.1", "servers": servers, "paths": paths, "components": components}));
        survives(&json!({"openapi": "3.1.0", "servers": servers, "paths": {"/a/{b}": {"post": paths}},
            "components": {"schemas": {"A": components}}, "security": [{"A": []}]}));
    }

    #[test]
    fn no_change_of_a_document_makes_the_generator_panic(
        changes in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..12), any_json()), 1..6),
    ) {
        let yaml = parse_yaml(SHOP);
        let mut document = yaml;
        for (path, put) in changes {
            mutated(&mut document, &path, put);
        }
        survives(&document);
    }

    #[test]
    fn no_text_makes_any_generator_panic(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let given = Options { base_url: Some("http://h".into()), ..options("x") };
        let _ = generate::openapi("f", &text, &given);
        let _ = generate::graphql("f", &text, &given);
        let _ = generate::grpc(&bytes, &given);
    }
}

/// The same document as JSON: what a mutation needs.
fn parse_yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}
