//! Plain capability files, in every shape that people write them.

use mt_capabilities::{check, check_alone, parse, render};
use mt_proto::pb::resource::{self as pb, resource::Spec};

/// What each is called, and its text.
const FILES: [(&str, &str); 12] = [
    // A tool that only says who answers what another tool of its name asks.
    (
        "strategies",
        "tools:\n  - name: \"deep_analysis\"\n    description: \"Analyzes at length\"\n    sampling_strategy: parallel\n    elicitation_strategy: hybrid\n",
    ),
    (
        "older strategies",
        "tools:\n  - name: a\n    samplingStrategy: magictunnel_first\n    elicitationStrategy: client_forwarded\n    routing: {type: subprocess, config: {command: date}}\n",
    ),
    (
        "subprocess",
        "tools:\n  - name: find\n    description: Finds text\n    inputSchema:\n      type: object\n      properties: {pattern: {type: string}, case_sensitive: {type: boolean}, files: {type: array, items: {type: string}}}\n      required: [pattern, files]\n    routing:\n      type: subprocess\n      config:\n        command: grep\n        args: [-r, \"{{case_sensitive ? '' : '-i'}}\", -e, \"{{pattern}}\", \"{{#each files}}--include={{this}} {{/each}}\"]\n",
    ),
    (
        "http with the environment",
        "env: [API_KEY]\ntools:\n  - name: fetch\n    input_schema: {type: object}\n    routing:\n      type: http\n      config: {method: GET, url: 'https://api.example.com/{{id}}', headers: {X-Key: '{{env.API_KEY}}'}}\n",
    ),
    (
        "grpc",
        "tools:\n  - name: g\n    routing: {type: grpc, config: {endpoint: 'http://127.0.0.1:50051', service: a.B, method: C}}\n",
    ),
    ("sse", "tools:\n  - name: s\n    routing: {type: sse, config: {url: 'http://127.0.0.1/events'}}\n"),
    (
        "graphql",
        "tools:\n  - name: q\n    routing:\n      type: graphql\n      config: {endpoint: 'http://127.0.0.1/graphql', query: 'query($id: ID!) { user(id: $id) { name } }', variables: {id: '{{id}}'}}\n",
    ),
    (
        "llm",
        "tools:\n  - name: l\n    routing: {type: llm, config: {provider: ollama, model: m, prompt: 'Say {{text}}'}}\n",
    ),
    (
        "websocket",
        "tools:\n  - name: w\n    routing: {type: websocket, config: {url: 'ws://127.0.0.1/', message: '{{text}}'}}\n",
    ),
    ("mcp", "tools:\n  - name: m\n    routing: {type: mcp_proxy, config: {server: time, tool: now}}\n"),
    (
        "only prompts",
        "metadata: {name: Words of Ours, version: \"1.0\", tags: [a, b], labels: {team: core}}\nprompts:\n  - name: p\n    arguments: [{name: x, required: true}]\n    messages: [{text: 'Say {{x}}'}]\n",
    ),
    ("only resources", "hidden: true\nenabled: false\nresources:\n  - {uri: 'docs://a', name: a, text: A}\n"),
];

fn read(text: &str) -> (pb::Metadata, pb::ToolSet) {
    let document = parse("caps/My_Tools.yaml", text);
    assert_eq!(render(&check_alone(std::slice::from_ref(&document))), "", "{text}");
    let resource = document.resources[0].resource.clone();
    match resource.spec {
        Some(Spec::ToolSet(tool_set)) => (resource.metadata.unwrap(), tool_set),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_shape_of_a_plain_file_loads() {
    for (name, text) in FILES {
        let (metadata, tool_set) = read(text);
        assert_eq!(tool_set.tools.len() + tool_set.prompts.len() + tool_set.resources.len(), 1, "{name}");
        assert!(metadata.name == "my-tools" || name == "only prompts", "{name}");
    }
}

#[test]
fn what_is_said_about_a_file_is_kept() {
    let (metadata, _) = read(FILES[10].1);
    assert_eq!(metadata.name, "words-of-ours");
    assert_eq!(metadata.labels["team"], "core");
    let about = |key: &str| metadata.annotations[&format!("capability-file/{key}")].clone();
    assert_eq!([about("name"), about("version"), about("tags")], ["Words of Ours", "1.0", "a, b"]);
}

#[test]
fn switches_of_a_file_are_those_of_its_tool_set() {
    let (_, tool_set) = read(FILES[11].1);
    assert!(tool_set.hidden && tool_set.disabled);
    let tool = "tools:\n  - {name: a, hidden: true, enabled: false}\n";
    let (_, tool_set) = read(tool);
    assert!(tool_set.tools[0].hidden && tool_set.tools[0].enabled == Some(false));
    let both = parse("a.yaml", &format!("enabled: true\ndisabled: true\n{tool}"));
    assert!(render(&both.diagnostics).contains("exclude each other"), "{:?}", both.diagnostics);
    let wrong = parse("a.yaml", &format!("enabled: sometimes\n{tool}"));
    assert!(render(&wrong.diagnostics).contains("a.yaml:1:10"), "{:?}", wrong.diagnostics);
}

#[test]
fn files_of_one_name_in_two_folders_are_told_apart_or_told() {
    let text = "tools:\n  - {name: a}\n";
    let documents = [parse("x/search.yaml", text), parse("y/search.yaml", text)];
    let told = render(&check(&documents));
    assert!(told.contains("y/search.yaml:1:1") && told.contains("x/search.yaml:1;"), "{told}");
    assert!(told.contains("metadata: {name: ...}"), "{told}");
    let named = format!("metadata: {{name: other}}\n{text}");
    assert_eq!(check(&[parse("x/search.yaml", text), parse("y/search.yaml", &named)]), []);
}

#[test]
fn a_key_that_is_not_known_at_the_top_is_told_with_what_may_be_meant() {
    let document = parse("a.yaml", "toolz: []\ntools:\n  - {name: a}\nprompt: []\n");
    let told = render(&document.diagnostics);
    assert!(told.contains("a.yaml:4:1") && told.contains("did you mean `prompts`?"), "{told}");
}

#[test]
fn what_is_too_deep_for_the_wire_is_told_where_it_stands() {
    let deep = |levels: usize| {
        let (open, close) = ("{a: ".repeat(levels), "}".repeat(levels));
        format!("tools:\n  - name: a\n    annotations: {open}1{close}\n")
    };
    let (_, tool_set) = read(&deep(25));
    assert_eq!(tool_set.tools.len(), 1);
    let document = parse("a.yaml", &deep(40));
    assert!(render(&document.diagnostics).contains("levels deep here"), "{:?}", document.diagnostics);
}
