//! What becomes of the configurations that people have.

use mt_capabilities::{Import, Outcome, check, default_gateway, import, parse, render, to_yaml_all};
use mt_proto::resource::ResourceSet;
use proptest::prelude::*;

fn fixture(name: &str) -> Import {
    let path = format!("{}/../tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let import = import(name, &text).unwrap();
    compile(&import);
    import
}

/// What is imported can be applied, together with the default gateway.
fn compile(import: &Import) {
    let (set, problems) = ResourceSet::gather(import.resources.iter().cloned().chain([default_gateway()]));
    assert_eq!(problems, []);
    assert_eq!(set.compile().err(), None);
}

fn show(import: &Import) -> String {
    let notes: String = import
        .notes
        .iter()
        .map(|note| {
            format!(
                "# {:?} {}: {}\n",
                note.outcome,
                if note.entry.is_empty() { "-" } else { &note.entry },
                note.text
            )
        })
        .collect();
    format!("# {}\n{notes}{}", import.format, to_yaml_all(&import.resources))
}

#[test]
fn claude_desktop() {
    insta::assert_snapshot!("claude_desktop", show(&fixture("claude_desktop_config.json")));
}

#[test]
fn vscode() {
    insta::assert_snapshot!("vscode", show(&fixture("vscode_mcp.json")));
}

#[test]
fn external_mcp() {
    insta::assert_snapshot!("external_mcp", show(&fixture("external_mcp.yaml")));
}

#[test]
fn external_mcp_servers() {
    insta::assert_snapshot!("external_mcp_servers", show(&fixture("external-mcp-servers.yaml")));
}

#[test]
fn proxy_mode() {
    insta::assert_snapshot!("proxy_mode", show(&fixture("proxy_mode.yaml")));
}

#[test]
fn the_habits_of_many_clients() {
    let text = r#"{
        "mcpServers": {
            "gemini": {"httpUrl": "https://a.example.com/mcp", "timeout": 5000, "trust": true},
            "windsurf": {"serverUrl": "https://b.example.com/mcp", "disabledTools": ["x"]},
            "cline": {"type": "streamableHttp", "url": "https://c.example.com/mcp", "disabled": true, "autoApprove": []},
            "line": {"command": "npx -y pkg", "args": ["--x"]},
            "headers": {"url": "https://d.example.com/mcp", "headers": {"Accept": "*/*", "X-Key": "k", "Mcp-Session-Id": "1"}},
            "ports": {"command": "a", "env": {"PORT": "${PORT:-8080}", "bad-name": "x", "N": 1}},
            "both": {"command": "a", "url": "https://e.example.com"},
            "neither": {},
            "list": ["a"],
            "ws": {"url": "wss://f.example.com"},
            "ftp": {"url": "ftp://g.example.com"},
            "remote": {"url": "https://h.example.com/sse"},
            "said": {"type": "http", "url": "https://h.example.com/sse"},
            "old": {"type": "sse", "url": "https://i.example.com/events", "single_session": true, "max_queue_size": 200, "heartbeat_interval": 15},
            "socket": {"transport": "websocket", "url": "https://j.example.com/ws"},
            "Ünïcode Name": {"command": "a"}
        },
        "projects": {"/home/me/x": {"mcpServers": {"y": {"command": "z"}}}},
        "theme": "dark"
    }"#;
    let import = import("claude.json", text).unwrap();
    compile(&import);
    insta::assert_snapshot!("many_clients", show(&import));
}

#[test]
fn what_is_not_a_configuration_says_so() {
    let error = |name: &str, text: &str| render(&import(name, text).unwrap_err());
    let all = [
        error("empty.yaml", "# nothing\n"),
        error("broken.json", "{\"mcpServers\": {\"a\" 1}}"),
        error("other.json", "{\"name\": \"x\"}"),
        error("ours.yaml", "apiVersion: magictunnel/v1\nkind: Backend\n"),
        error("list.json", "[1]"),
        error("servers.json", "{\"mcpServers\": 7}"),
    ];
    insta::assert_snapshot!("not_a_configuration", all.join("\n"));
}

#[test]
fn no_secret_is_shown_in_a_note() {
    let text = r#"{"mcpServers": {"a": {"url": "https://user:hunter2@x.example.com/mcp?token=hunter2", "headers": {"Authorization": "Bearer hunter2"}},
        "b": {"command": "x", "env": {"API_KEY": "hunter2", "P": "hunter2${X}"}}}}"#;
    let import = import("a.json", text).unwrap();
    assert!(import.notes.iter().all(|note| !note.text.contains("hunter2")), "{:#?}", import.notes);
    assert!(import.notes.iter().any(|note| note.outcome == Outcome::KeptOut && note.entry == "a"));
}

#[test]
fn the_demo_of_the_library_is_right() {
    let text = include_str!("../library/demo.yaml");
    let document = parse("demo.yaml", text);
    assert_eq!(document.resources[1].resource, default_gateway());
    assert_eq!(check(&[document]), []);
}

proptest! {
    #[test]
    fn no_file_makes_an_import_panic_or_give_what_does_not_compile(
        entries in proptest::collection::vec(("(command|args|env|url|headers|type|timeout|auth|disabled|cwd|name)", "(\"([a-z:/.$ ]|\\$\\{[A-Za-z:_-]{1,8}\\}){0,12}\"|\\[\"[a-z ]{0,3}\", 1\\]|\\{\"(A|b c|Host)\": \"(\\$\\{X\\}|y|é)\"\\}|true|7|null)"), 0..5),
        key in "(mcpServers|servers|external_mcp|httpServices|proxy)",
    ) {
        let mut seen = std::collections::BTreeSet::new();
        let fields: Vec<String> =
            entries.iter().filter(|(k, _)| seen.insert(k.clone())).map(|(k, v)| format!("\"{k}\": {v}")).collect();
        let entry = format!("{{\"a b\": {{{}}}, \"A_B\": {{\"command\": \"x\"}}}}", fields.join(", "));
        let text = match key.as_str() {
            "external_mcp" => format!("{{\"external_mcp\": {{\"servers\": {entry}}}}}"),
            "proxy" => format!("{{\"proxy\": {{\"namespace\": \"n s\"}}, \"servers\": {entry}}}"),
            key => format!("{{\"{key}\": {entry}}}"),
        };
        let import = import("a.json", &text).unwrap();
        compile(&import);
        for entry in ["a b", "A_B"] {
            prop_assert!(import.notes.iter().any(|n| n.entry == entry && n.outcome != Outcome::Changed), "{entry}: {text}");
        }
    }
}
