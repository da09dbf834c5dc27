//! README's commands work as they are written.
//!
//! The first block (`mtctl up`) runs for as long as the others need it; the one
//! that runs the tests is this very run. Blocks run one after the other in one
//! shell each, in a copy of what they need.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, process::Command};

use crate::cluster::{eventually, mtctl, program};

/// The `sh` blocks under each heading.
fn blocks() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (mut blocks, mut heading, mut block) = (Vec::new(), String::new(), None::<String>);
    for line in text.lines() {
        match &mut block {
            Some(code) if line == "```" => blocks.push((heading.clone(), std::mem::take(code))),
            Some(code) => {
                code.push_str(line);
                code.push('\n');
            }
            None => {}
        }
        if line == "```" {
            block = None;
        } else if line == "```sh" {
            block = Some(String::new());
        } else if block.is_none() && line.starts_with('#') {
            heading = line.trim_start_matches(['#', ' ']).to_owned();
        }
    }
    blocks
}

fn under(heading: &str) -> Vec<String> {
    blocks().into_iter().filter(|(h, _)| h == heading).map(|(_, code)| code).collect()
}

/// A shell in the folder, with the programs on its path.
fn shell(folder: &Path, code: &str) -> Command {
    let programs = program("mtctl").parent().unwrap().display().to_string();
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", code])
        .current_dir(folder)
        .env("HOME", folder)
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .env_remove("XDG_DATA_HOME")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What README's commands find in a checkout.
fn checkout(folder: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in ["tests", "capabilities", "target"] {
        std::os::unix::fs::symlink(root.join(name), folder.join(name)).unwrap();
    }
}

#[tokio::test]
async fn the_two_commands_are_what_they_were() {
    assert_eq!(under("Two commands"), ["cargo run -p mtctl -- up\n", "tests/run\n"]);
}

#[tokio::test]
async fn five_minutes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path());
    // As `cargo run -p mtctl -- up`, on ports of its own: the default ones may be taken.
    let free = "--listen 127.0.0.1:0 --control 127.0.0.1:0 --http 127.0.0.1:0 --admin 127.0.0.1:0";
    let mut up =
        shell(folder.path(), &format!("exec mtctl up {free}")).stderr(Stdio::piped()).spawn().unwrap();
    eventually("a running demo", async || {
        let status = mtctl(folder.path(), &[], &["status"]).await;
        let tools = mtctl(folder.path(), &[], &["tools", "list", "-o", "name"]).await;
        let ready = status.status.success() && String::from_utf8_lossy(&tools.stdout).contains("demo_add");
        if ready { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    for code in under("Five minutes with it") {
        let output = shell(folder.path(), &code).output().await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{code}\n--- gave\n{out}\n{err}");
        if code.contains("call plus") {
            assert!(out.contains("42"), "{out}");
        }
    }
    let mut said = String::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        up.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        up.wait().await.unwrap()
    });
    assert!(ended.await.expect("`mtctl down` ends it").success(), "{said}");
}

#[tokio::test]
async fn a_fleet() {
    let folder = tempfile::tempdir().unwrap();
    checkout(folder.path());
    let code = under("A fleet").concat();
    let ports: Vec<u16> = (0..6)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
        .collect();
    // The ports of the text may be taken here; everything else is as written.
    let mut own = code.replace(
        "--data-dir fleet/control",
        &format!("--data-dir fleet/control --http 127.0.0.1:{}", ports[5]),
    );
    for (from, to) in ["7001", "3001", "3002", "9901", "9902"].iter().zip(&ports) {
        own = own.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"));
    }
    // The programs need a moment that a person gives them without thinking.
    let server = format!("http://127.0.0.1:{}", ports[0]);
    let wait = format!(
        "for i in $(seq 100); do mtctl --server {server} nodes >/dev/null 2>&1 && break; sleep 0.1; done\n"
    );
    let own = own.replace("mtctl apply", &format!("{wait}mtctl --server {server} apply"));
    let own = own.replace("mtctl nodes", &format!("sleep 2\nmtctl --server {server} nodes"));
    let script = format!("trap 'kill $(jobs -p)' EXIT\n{own}");
    let output = tokio::time::timeout(Duration::from_secs(60), shell(folder.path(), &script).output());
    let output = output.await.expect("it ends").unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for node in ["eu-1", "us-1"] {
        let line = out
            .lines()
            .find(|line| line.contains(node))
            .unwrap_or_else(|| panic!("no {node} in\n{out}\n{err}"));
        assert!(line.contains("synced"), "{out}\n{err}");
    }
}
