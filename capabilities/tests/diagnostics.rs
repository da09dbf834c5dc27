//! What people are told about their mistakes.

use mt_capabilities::{Document, check, check_onto, parse, place, render};
use mt_proto::resource::{Key, Problem, ResourceSet};

const HEAD: &str = "apiVersion: magictunnel/v1\nkind: Backend\nmetadata: {name: time}\nspec:\n";

fn found(text: &str) -> String {
    render(&check(&[parse("fleet.yaml", text)]))
}

#[test]
fn ten_mistakes_give_ten_diagnostics_with_places_and_hints() {
    let text = include_str!("../../tests/fixtures/ten_mistakes.yaml");
    let diagnostics = check(&[parse("ten_mistakes.yaml", text)]);
    insta::assert_snapshot!("ten_mistakes", render(&diagnostics));
    assert_eq!(diagnostics.len(), 10);
    for d in &diagnostics {
        assert!(d.line > 0 && d.column > 0 && d.end_column > d.column, "{d:?}");
        assert!(d.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{d:?}");
    }
    let mut messages: Vec<_> = diagnostics.iter().map(|d| &d.message).collect();
    messages.dedup();
    assert_eq!(messages.len(), 10);
}

#[test]
fn fields_of_the_wrong_shape() {
    let spec = "  stdio:\n    command: [npx]\n    args: -y\n    env: {TOKEN: x}\n    startTimeout: soon\n    lineBytesMax: \"4096\"\n  disabled: yes\n  description: {a: 1}\n";
    insta::assert_snapshot!("wrong_shapes", found(&format!("{HEAD}{spec}")));
}

#[test]
fn an_envelope_with_nothing_right() {
    insta::assert_snapshot!(
        "wrong_envelope",
        found(
            "apiVersion: v2\nkind: gateway\nmetdata:\n  name: default\nextra: 1\n---\nkind: 1\n---\njust text\n"
        )
    );
}

#[test]
fn a_mistake_in_json_has_its_place_too() {
    let text = "{\n  \"apiVersion\": \"magictunnel/v1\",\n  \"kind\": \"Backend\",\n  \"metadata\": {\"name\": \"time\"},\n  \"spec\": {\"stdio\": {\"command\": \"\"}} // none\n}\n";
    insta::assert_snapshot!("json", render(&check(&[parse("fleet.json", text)])));
    insta::assert_snapshot!(
        "broken_json",
        render(&check(&[parse("fleet.json", &text.replace("\"kind\"", "kind"))]))
    );
}

#[test]
fn another_programs_file_names_the_command_that_takes_it() {
    insta::assert_snapshot!("foreign", render(&check(&[parse("mcp.json", "{\"mcpServers\": {}}")])));
}

#[test]
fn the_second_of_two_resources_is_told_where_the_first_is() {
    let one = format!("{HEAD}  stdio: {{command: a}}\n");
    let documents = [parse("a.yaml", &one), parse("b.yaml", &one)];
    insta::assert_snapshot!("two_of_a_name", render(&check(&documents)));
}

#[test]
fn a_field_that_is_missing_is_shown_where_it_belongs() {
    let d = check(&[parse("f.yaml", &format!("{HEAD}  http:\n    headers:\n      - name: X-A\n"))]);
    let places: Vec<_> = d.iter().map(|d| (d.path.as_str(), d.line, d.column)).collect();
    assert_eq!(places, [("spec.http.url", 5, 3), ("spec.http.headers[0].value", 7, 9)]);
}

#[test]
fn the_short_and_the_long_form_of_a_value_are_one() {
    let text = format!(
        "{HEAD}  stdio:\n    command: a\n    env:\n      - {{name: A, value: x}}\n      - {{name: B, value: {{text: x}}}}\n      - {{name: C, value: {{secret: s}}}}\n      - {{name: D, value: 8080}}\n"
    );
    let document = parse("f.yaml", &text);
    assert_eq!(document.diagnostics, []);
    let written = mt_capabilities::to_yaml(&document.resources[0].resource);
    assert_eq!(written.matches("value: x").count(), 2, "{written}");
    assert!(written.contains("value: \"8080\""), "{written}");
}

#[test]
fn enums_and_durations_have_several_spellings() {
    let with = |sharing: &str, timeout: &str| {
        let text = format!("{HEAD}  call_timeout: {timeout}\n  stdio: {{command: a, sharing: {sharing}}}\n");
        let document = parse("f.yaml", &text);
        assert_eq!(document.diagnostics, [], "{text}");
        document.resources.into_iter().next().unwrap().resource
    };
    let first = with("per_session", "90s");
    for (sharing, timeout) in [
        ("perSession", "1m30s"),
        ("PER_SESSION", "90000ms"),
        ("SHARING_PER_SESSION", "1.5m"),
        ("per-session", "0h90s"),
    ] {
        assert_eq!(with(sharing, timeout), first);
    }
}

#[test]
fn a_plain_file_of_tools_is_a_tool_set_named_after_it() {
    let text = "metadata:\n  description: Network tools\ntools:\n  - name: ping\n    description: Ping a host\n    inputSchema:\n      type: object\n      properties: {host: {type: string}}\n      required: [host]\n    routing:\n      type: subprocess\n      config: {command: ping, args: [\"-c\", \"4\", \"{{host}}\"]}\n";
    let documents = [parse("capabilities/Network_Tools.yaml", text)];
    assert_eq!(check(&documents), []);
    insta::assert_snapshot!("plain_tools", mt_capabilities::to_yaml(&documents[0].resources[0].resource));
    let wrong = text.replace("subprocess", "subproces").replace("    routing", "    rotuing");
    insta::assert_snapshot!("plain_tools_wrong", render(&check(&[parse("net.yaml", &wrong)])));
}

#[test]
fn references_may_go_to_what_is_already_there() {
    let backend = parse("a.yaml", &format!("{HEAD}  stdio: {{command: a}}\n"));
    let gateway = "apiVersion: magictunnel/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  members: [{backend: time}]\n";
    let documents = [parse("b.yaml", gateway)];
    assert_eq!(check(&documents).len(), 1);
    let (base, problems) = ResourceSet::gather(backend.resources.into_iter().map(|l| l.resource));
    assert_eq!(problems, []);
    assert_eq!(check_onto(&documents, &base), []);
}

#[test]
fn what_a_control_plane_finds_is_put_at_its_place() {
    let documents: [Document; 1] = [parse("a.yaml", &format!("{HEAD}  stdio: {{command: a}}\n"))];
    let key = Key::of(&documents[0].resources[0].resource).unwrap();
    let problem = |name: &str| Problem {
        kind: Some(key.kind),
        name: name.into(),
        path: "spec.stdio.command".into(),
        message: "no such command".into(),
        hint: None,
    };
    insta::assert_snapshot!("placed", render(&place(&documents, &[problem("time"), problem("other")])));
}

const REFERENCE: [&str; 3] = [
    include_str!("../../docs/resources.md"),
    include_str!("../../docs/capabilities.md"),
    include_str!("../../docs/prompts-and-resources.md"),
];

#[test]
fn the_examples_of_the_reference_read_without_a_mistake() {
    let blocks: Vec<&str> = REFERENCE
        .iter()
        .flat_map(|text| text.split("```yaml\n").skip(1))
        .map(|block| block.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() > 3);
    for document in blocks.iter().flat_map(|block| block.split("---\n")) {
        let envelope = if document.contains("apiVersion") || !document.contains("kind:") {
            ""
        } else {
            "apiVersion: magictunnel/v1\nmetadata: {name: example}\n"
        };
        assert_eq!(parse("example.yaml", &format!("{envelope}{document}")).diagnostics, []);
    }
}

#[test]
fn the_reference_names_every_field() {
    let pool = prost_reflect::DescriptorPool::decode(mt_proto::pb::FILE_DESCRIPTOR_SET).unwrap();
    let messages =
        pool.all_messages().filter(|m| m.package_name() == "magictunnel.resource.v1" && !m.is_map_entry());
    for field in messages.filter(|m| m.name() != "Resource").flat_map(|m| m.fields().collect::<Vec<_>>()) {
        let name = field.json_name();
        // In a table, or in the text of a kind, or in an example.
        let word = |c: char| !c.is_ascii_alphanumeric();
        assert!(
            REFERENCE.iter().any(|text| text.split(word).any(|found| found == name)),
            "{} is not in the reference",
            field.full_name()
        );
    }
}
