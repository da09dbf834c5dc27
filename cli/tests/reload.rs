//! Files of tools that are edited, broken, mended, deleted and added while they
//! are served, as a client sees it that stays connected and one that calls all
//! the time.
#![expect(
    clippy::disallowed_methods,
    reason = "there is no runtime here: the tests wait for other processes"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Nothing here takes long; what does is stuck.
const DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends a process when dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

struct Machine {
    home: TempDir,
    _up: Guard,
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

/// A file of one tool that says what it is told to.
fn tool(name: &str, says: &str) -> String {
    format!(
        "tools:\n  - name: {name}\n    description: It says {says}\n    routing:\n      type: subprocess\n      \
         config: {{command: /bin/echo, args: [{says}]}}\n"
    )
}

impl Machine {
    /// Serves the folder `files`, which has these.
    fn start(files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = home.path().join("files").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let up = spawn(home.path(), &["up", "files"], "up.log");
        Self { home, _up: up }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join("files").join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        command(self.home.path()).args(arguments).output().unwrap()
    }

    fn tools(&self, wanted: &[&str]) {
        let start = Instant::now();
        loop {
            let output = self.run(&["tools", "list", "-o", "name"]);
            let text = String::from_utf8(output.stdout.clone()).unwrap();
            if output.status.success() && text.lines().collect::<Vec<_>>() == wanted {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{output:?}\n{}", self.log("up.log"));
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn says(&self, tool: &str, wanted: &str) {
        let start = Instant::now();
        loop {
            let output = self.run(&["call", tool]);
            if output.status.success() && String::from_utf8_lossy(&output.stdout).contains(wanted) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{output:?}\n{}", self.log("up.log"));
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path().join(name)).unwrap()
    }

    fn log_shows(&self, name: &str, text: &str) {
        let start = Instant::now();
        while !self.log(name).contains(text) {
            assert!(start.elapsed() < DEADLINE, "no {text:?} in\n{}", self.log(name));
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn generation(&self) -> usize {
        let output = self.run(&["history", "-o", "name"]);
        String::from_utf8(output.stdout).unwrap().lines().count()
    }
}

fn spawn(home: &Path, arguments: &[&str], log: &str) -> Guard {
    let doors = ["--listen", "--control", "--http", "--admin"].map(|option| [option, "127.0.0.1:0"]).concat();
    let doors = if arguments[0] == "up" { doors } else { Vec::new() };
    let log = std::fs::File::create(home.join(log)).unwrap();
    let mut command = command(home);
    command.arg(arguments[0]).args(doors).args(&arguments[1..]).stdout(Stdio::null()).stderr(log);
    Guard(command.spawn().unwrap())
}

/// A client that stays, with what it is told.
struct Client {
    _stdio: Guard,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Client {
    fn connect(home: &Path) -> Self {
        let mut child = command(home);
        let mut child = child
            .arg("stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut client = Self { _stdio: Guard(child), stdin, lines };
        client.say(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
        );
        client.hears(r#""listChanged":true"#);
        client.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        client
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn hears(&self, text: &str) {
        let start = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("nobody said {text}"));
            if line.contains(text) {
                return;
            }
        }
    }
}

#[test]
fn tools_follow_their_files_and_a_connected_client_is_told() {
    let machine = Machine::start(&[("a.yaml", &tool("alpha", "one")), ("b/c.yaml", &tool("gamma", "two"))]);
    machine.tools(&["alpha", "gamma"]);
    machine.says("alpha", "one");
    let mut client = Client::connect(machine.home.path());

    // Edited.
    std::fs::write(machine.file("a.yaml"), tool("alpha", "three")).unwrap();
    client.hears("notifications/tools/list_changed");
    machine.says("alpha", "three");

    // Broken, while another is edited and one is added.
    std::fs::write(machine.file("a.yaml"), "tools:\n  - name: alpha\n    routing: {type: subproces}\n")
        .unwrap();
    machine.log_shows("up.log", "files/a.yaml:3:21");
    machine.log_shows("up.log", "files/a.yaml has mistakes: what was served before is still served");
    std::fs::write(machine.file("b/c.yaml"), tool("gamma", "four")).unwrap();
    std::fs::write(machine.file("b/d.yaml"), tool("delta", "five")).unwrap();
    client.hears("notifications/tools/list_changed");
    machine.tools(&["alpha", "gamma", "delta"]);
    machine.says("gamma", "four");
    machine.says("alpha", "three");

    // Mended.
    std::fs::write(machine.file("a.yaml"), tool("alpha", "six")).unwrap();
    machine.says("alpha", "six");

    // Two of a name, told with both places; then put right by another name.
    let before = machine.generation();
    std::fs::write(machine.file("b/a.yaml"), tool("other", "seven")).unwrap();
    machine.log_shows("up.log", "files/b/a.yaml:1:1");
    assert_eq!(machine.generation(), before);
    std::fs::rename(machine.file("b/a.yaml"), machine.file("b/e.yaml")).unwrap();
    machine.tools(&["alpha", "gamma", "delta", "other"]);

    // Deleted: what came from it, and nothing else.
    std::fs::remove_file(machine.file("b/c.yaml")).unwrap();
    client.hears("notifications/tools/list_changed");
    machine.tools(&["alpha", "delta", "other"]);
    std::fs::remove_dir_all(machine.file("b")).unwrap();
    machine.tools(&["alpha"]);
    client.say(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#);
    client.hears(r#""id":2"#);
}

#[test]
fn no_call_fails_while_files_change() {
    let machine = Machine::start(&[("a.yaml", &tool("alpha", "one"))]);
    machine.says("alpha", "one");
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let output = machine.run(&["call", "alpha"]);
                    assert!(output.status.success(), "{output:?}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..5 {
            std::fs::write(machine.file("a.yaml"), tool("alpha", &format!("round-{round}"))).unwrap();
            std::fs::write(machine.file(&format!("b{round}.yaml")), tool(&format!("beta{round}"), "x"))
                .unwrap();
            machine.says("alpha", &format!("round-{round}"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(calls.load(Ordering::Relaxed) > 5);
    machine.tools(&["alpha", "beta0", "beta1", "beta2", "beta3", "beta4"]);
}

#[test]
fn apply_goes_on_with_every_change_and_touches_nothing_else() {
    let machine = Machine::start(&[("a.yaml", &tool("alpha", "one"))]);
    machine.tools(&["alpha"]);
    let more = machine.home.path().join("more");
    std::fs::create_dir_all(more.join("drafts")).unwrap();
    std::fs::write(more.join("x.yaml"), tool("xi", "one")).unwrap();
    std::fs::write(more.join("drafts/y.yaml"), tool("ypsilon", "one")).unwrap();
    let arguments = ["apply", "-f", "more/**/*.yaml", "-f", "!more/drafts/**", "--watch"];
    let _watch = spawn(machine.home.path(), &arguments, "watch.log");
    machine.tools(&["alpha", "xi"]);
    std::fs::write(more.join("x.yaml"), tool("xi", "two")).unwrap();
    std::fs::write(more.join("drafts/y.yaml"), tool("ypsilon", "two")).unwrap();
    std::fs::write(more.join("z.yaml"), tool("zeta", "two")).unwrap();
    machine.tools(&["alpha", "xi", "zeta"]);
    machine.says("xi", "two");
    std::fs::write(more.join("x.yaml"), "tools: [\n").unwrap();
    machine.log_shows("watch.log", "more/x.yaml:1:8");
    std::fs::remove_file(more.join("z.yaml")).unwrap();
    machine.tools(&["alpha", "xi"]);
    // That all is gone is more often an accident than a wish.
    std::fs::remove_file(more.join("x.yaml")).unwrap();
    machine.log_shows("watch.log", "the files have no resources any more");
    machine.tools(&["alpha", "xi"]);
}
