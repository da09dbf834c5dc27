//! What people and scripts see: stdout, stderr and the exit code of the real
//! program, where no control plane is needed.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// Runs `mtctl` in an empty home, and shows everything that came of it.
fn screen(home: &Path, arguments: &[&str], stdin: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mtctl"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("USER", "ada")
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end without reading it all.
    _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let mut shown = format!("exit: {}\n", output.status.code().unwrap());
    for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
        if !text.is_empty() {
            let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
            shown.push_str(&format!("--- {name}\n{}\n", lines.join("\n")));
        }
    }
    shown.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

/// A screen that needs no files.
fn bare(arguments: &[&str]) -> String {
    screen(tempfile::tempdir().unwrap().path(), arguments, "")
}

#[test]
fn the_overview_groups_the_commands() {
    insta::assert_snapshot!(bare(&["--help"]));
}

#[test]
fn help_for_a_command_has_examples() {
    insta::assert_snapshot!(bare(&["help", "call"]));
}

#[test]
fn the_exit_codes_are_documented() {
    let screen = bare(&["help", "exit-codes"]);
    insta::assert_snapshot!(screen);
    let documented = include_str!("../../docs/mtctl.md");
    for code in ["| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |", "| 5 |", "| 6 |", "| 7 |", "| 8 |", "| 130 |"] {
        assert!(documented.contains(code), "docs/mtctl.md does not have {code}");
    }
}

#[test]
fn a_mistyped_command_is_answered_with_the_near_one() {
    insta::assert_snapshot!(bare(&["stauts"]));
}

#[test]
fn an_unreachable_control_plane_says_what_still_works_and_what_to_try() {
    insta::assert_snapshot!(bare(&["get", "backends", "--server", "http://127.0.0.1:1"]));
}

#[test]
fn programs_get_failures_as_json() {
    insta::assert_snapshot!(bare(&["status", "--server", "http://127.0.0.1:1", "-o", "json"]));
}

#[test]
fn a_server_that_needs_tls_is_refused_with_the_reason() {
    insta::assert_snapshot!(bare(&["nodes", "--server", "https://127.0.0.1:1"]));
}

#[test]
fn stopping_what_does_not_run_is_a_no() {
    let home = tempfile::tempdir().unwrap();
    let screen = screen(home.path(), &["down"], "").replace(&home.path().display().to_string(), "HOME");
    insta::assert_snapshot!(screen);
}

#[test]
fn opening_doors_to_strangers_takes_a_word() {
    insta::assert_snapshot!(bare(&["up", "--listen", "0.0.0.0:3001"]));
}

#[test]
fn every_mistake_in_a_file_is_shown_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("broken.yaml"), BROKEN).unwrap();
    insta::assert_snapshot!(screen(home.path(), &["validate", "-f", "broken.yaml"], ""));
}

#[test]
fn programs_get_the_places_of_mistakes() {
    let screen = screen(tempfile::tempdir().unwrap().path(), &["validate", "-f", "-", "-o", "json"], BROKEN);
    let json = screen.split("--- stderr\n").nth(1).unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let first = &value["error"]["diagnostics"][0];
    assert_eq!((&first["file"], &first["line"]), (&"<stdin>".into(), &7.into()), "{first}");
}

#[test]
fn valid_files_are_counted() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("files")).unwrap();
    std::fs::write(home.path().join("files/a.yaml"), BACKEND).unwrap();
    insta::assert_snapshot!(screen(home.path(), &["validate", "-f", "files", "-o", "name"], ""));
}

#[test]
fn a_file_that_is_not_there_is_not_found() {
    insta::assert_snapshot!(bare(&["apply", "-f", "nowhere.yaml"]));
}

#[test]
fn errors_of_diff_are_not_taken_for_differences() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("broken.yaml"), "kind: [").unwrap();
    assert!(screen(home.path(), &["diff", "-f", "broken.yaml"], "").starts_with("exit: 2\n"));
}

#[test]
fn an_import_shows_the_commands_it_will_run() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"{"mcpServers": {
        "time": {"command": "uvx", "args": ["mcp-server-time", "--local-timezone=Europe/Berlin"]},
        "docs": {"type": "http", "url": "https://example.com/mcp", "headers": {"Authorization": "Bearer hunter2"}}
    }}"#;
    std::fs::write(home.path().join("claude.json"), config).unwrap();
    let screen =
        screen(home.path(), &["import", "claude.json", "--dry-run", "--server", "http://127.0.0.1:1"], "");
    assert!(!screen.contains("hunter2"), "values are never shown");
    insta::assert_snapshot!(screen);
}

#[test]
fn the_demo_server_answers_both_eras() {
    let messages = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#,
        "\n",
        r#"{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
        "\n",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        "\n\n",
        r#"{"jsonrpc":"2.0","id":"three","method":"tools/call","params":{"name":"add","arguments":{"a":2,"b":40}}}"#,
        "\nnonsense\n",
    );
    insta::assert_snapshot!(screen(tempfile::tempdir().unwrap().path(), &["demo-server"], messages));
}

#[test]
fn a_closed_stdout_is_no_error() {
    for arguments in [&["exit-codes"][..], &["completion", "bash"], &["--help"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mtctl"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    }
}

#[test]
fn nothing_but_data_is_on_stdout() {
    let screen = bare(&["completion", "zsh"]);
    assert!(screen.starts_with("exit: 0\n--- stdout\n#compdef mtctl\n"), "{screen}");
    assert!(!screen.contains("--- stderr"));
}

const BACKEND: &str = "\
apiVersion: magictunnel/v1
kind: Backend
metadata:
  name: time
spec:
  http:
    url: http://127.0.0.1:9/mcp
";

const BROKEN: &str = "\
apiVersion: magictunnel/v1
kind: Backend
metadata:
  name: time
spec:
  http:
    ulr: http://127.0.0.1:9/mcp
---
apiVersion: magictunnel/v1
kind: Gatway
metadata:
  name: default
spec:
  members:
    - backend: tme
";
