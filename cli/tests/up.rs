//! `mtctl up` as one process with everything in it: what it serves, how it
//! follows its files, and how it is found and ended by the other commands.
#![expect(
    clippy::disallowed_methods,
    reason = "there is no runtime here: the tests wait for other processes"
)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Nothing here takes long; what does is stuck.
const DEADLINE: Duration = Duration::from_secs(60);

/// A home with an `mtctl up` in it.
struct Machine {
    home: TempDir,
    up: Child,
}

impl Machine {
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    fn start_in(home: TempDir, arguments: &[&str]) -> Self {
        let ports =
            ["--listen", "--control", "--http", "--admin"].map(|option| [option, "127.0.0.1:0"]).concat();
        let log = std::fs::File::create(home.path().join("up.log")).unwrap();
        let up = command(home.path())
            .arg("up")
            .args(ports)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { home, up }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        command(self.home.path()).args(arguments).output().unwrap()
    }

    /// What a command prints, once it prints what is wanted.
    fn until(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let output = self.run(arguments);
            let text = stdout(&output);
            if output.status.success() && wanted(&text) {
                return text;
            }
            let log = self.log();
            assert!(start.elapsed() < DEADLINE, "{arguments:?} gave {output:?}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn tools(&self, wanted: &[&str]) {
        self.until(&["tools", "list", "-o", "name"], |text| text.lines().collect::<Vec<_>>() == wanted);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("up.log")).unwrap()
    }

    fn log_shows(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < DEADLINE, "no {text:?} in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it with `mtctl down`, and gives the home back.
    fn down(mut self) -> (TempDir, String) {
        let output = self.run(&["down"]);
        assert!(output.status.success(), "{output:?}\n{}", self.log());
        assert!(self.up.wait().unwrap().success(), "{}", self.log());
        let log = self.log();
        let home = std::mem::replace(&mut self.home, tempfile::tempdir().unwrap());
        (home, log)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        _ = self.up.kill();
        _ = self.up.wait();
    }
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mtctl"));
    command
        .env_remove("XDG_DATA_HOME")
        .env_remove("MT_SERVER")
        .env_remove("MT_DATA_DIR")
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A backend that is the demo under another name.
fn backend(name: &str) -> String {
    let program = env!("CARGO_BIN_EXE_mtctl");
    format!(
        "apiVersion: magictunnel/v1\nkind: Backend\nmetadata: {{name: {name}}}\n\
         spec:\n  stdio: {{command: {program}, args: [demo-server]}}\n---\n"
    )
}

const GATEWAY: &str = "\
apiVersion: magictunnel/v1
kind: Gateway
metadata: {name: default}
spec:
  members:
    - {backends: {}, include: [echo]}
";

fn files(home: &TempDir) -> PathBuf {
    let files = home.path().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a.yaml"), backend("one") + GATEWAY).unwrap();
    files
}

#[test]
fn with_nothing_it_serves_a_demo_that_can_be_called() {
    let machine = Machine::start(&[]);
    machine.tools(&["demo_echo", "demo_add", "demo_now", "demo_roll_dice"]);
    for era in ["legacy", "modern"] {
        let output = machine.run(&["call", "demo_add", "a=2", "b=40", "--era", era, "-o", "json"]);
        assert!(stdout(&output).contains(r#""structuredContent":{"sum":42}"#), "{era}: {output:?}");
    }
    let status = machine.until(&["status"], |text| text.contains("all good"));
    assert!(status.contains("1/1 synced") && status.contains("4 in the catalog"), "{status}");

    let unknown = machine.run(&["call", "demo_ecko", "message=x"]);
    assert_eq!(unknown.status.code(), Some(5), "{unknown:?}");
    let wrong = machine.run(&["call", "demo_roll_dice", "sides=1"]);
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");

    let second = machine.run(&["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(6), "{second:?}");
    machine.log_shows("Ready in");

    // What was configured outlives the process, and so does the demo.
    let (home, _) = machine.down();
    let machine = Machine::start_in(home, &[]);
    machine.tools(&["demo_echo", "demo_add", "demo_now", "demo_roll_dice"]);
    assert_eq!(machine.until(&["history", "-o", "name"], |_| true), "1\n", "starting again changes nothing");
    machine.down();
}

#[test]
fn files_are_followed_and_a_mistake_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let files = files(&home);
    let machine = Machine::start_in(home, &["files"]);
    machine.tools(&["one_echo"]);

    std::fs::write(files.join("b.yaml"), backend("two")).unwrap();
    machine.tools(&["one_echo", "two_echo"]);

    std::fs::write(files.join("b.yaml"), backend("two").replace("Backend", "Backnd")).unwrap();
    machine.log_shows("what was served before is still served");
    assert!(machine.log().contains("files/b.yaml:2:7"), "{}", machine.log());
    machine.tools(&["one_echo", "two_echo"]);

    // A mistake that shows only beside the rest has its place too.
    std::fs::write(
        files.join("b.yaml"),
        backend("two") + &GATEWAY.replace("default", "other").replace("backends: {}", "backend: twoo"),
    )
    .unwrap();
    machine.log_shows("there is no backend \"twoo\"");
    machine.tools(&["one_echo", "two_echo"]);

    // What was applied otherwise is not the files' to delete.
    std::fs::write(machine.home.path().join("three.yaml"), backend("three")).unwrap();
    assert!(machine.run(&["apply", "-f", "three.yaml"]).status.success());
    std::fs::remove_file(files.join("b.yaml")).unwrap();
    machine.tools(&["one_echo", "three_echo"]);
    machine.down();
}

#[test]
fn files_with_mistakes_are_refused_before_anything_is_started() {
    let home = tempfile::tempdir().unwrap();
    let files = files(&home);
    std::fs::write(files.join("b.yaml"), "kind: Backnd\n").unwrap();
    let output = command(home.path()).args(["up", "files"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("files/b.yaml:1:7"), "{output:?}");
    assert!(!home.path().join(".local/share/magictunnel/up.json").exists());
}

#[test]
fn an_import_is_shown_applied_and_not_applied_twice() {
    let machine = Machine::start(&[]);
    machine.tools(&["demo_echo", "demo_add", "demo_now", "demo_roll_dice"]);
    let program = env!("CARGO_BIN_EXE_mtctl");
    let config =
        format!(r#"{{"mcpServers": {{"mine": {{"command": "{program}", "args": ["demo-server"]}}}}}}"#);
    std::fs::write(machine.home.path().join("claude.json"), config).unwrap();

    let shown = machine.run(&["import", "claude.json", "--dry-run"]);
    assert!(stdout(&shown).contains("backend/mine  NEW"), "{shown:?}");
    let first = machine.run(&["import", "claude.json"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(String::from_utf8_lossy(&first.stderr).contains("mine: 4 tools"), "{first:?}");
    let output = machine.run(&["call", "mine_echo", "message=hello"]);
    assert_eq!(stdout(&output), "hello\n", "{output:?}");

    let again = machine.run(&["import", "claude.json"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing to do"), "{again:?}");
    let other = r#"{"mcpServers": {"mine": {"url": "http://127.0.0.1:1/mcp"}}}"#;
    std::fs::write(machine.home.path().join("other.json"), other).unwrap();
    let conflict = machine.run(&["import", "other.json"]);
    assert_eq!(conflict.status.code(), Some(8), "{conflict:?}");
    assert_eq!(stdout(&machine.run(&["call", "mine_echo", "message=still"])), "still\n");
    machine.down();
}

#[test]
fn without_a_running_one_the_record_is_not_believed() {
    let machine = Machine::start(&[]);
    machine.until(&["nodes", "-o", "name"], |text| text == "local\n");
    let mut machine = machine;
    machine.up.kill().unwrap();
    machine.up.wait().unwrap();
    assert!(machine.home.path().join(".local/share/magictunnel/up.json").exists());
    let down = machine.run(&["down"]);
    assert_eq!(down.status.code(), Some(3), "{down:?}");
}
