//! With real programs.

use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Agents, Content, Failure, Level, Output, Reason, Reporter,
    testing::{self, agents, problems},
};

/// Hears everything.
#[derive(Default)]
struct Listener {
    progress: Mutex<Vec<(f64, String)>>,
    log: Mutex<Vec<(Level, Value)>>,
}

impl Reporter for Listener {
    fn wants_progress(&self) -> bool {
        true
    }

    fn progress<'a>(&'a self, progress: f64, _: Option<f64>, message: Option<&'a str>) -> BoxFuture<'a, ()> {
        self.progress.lock().push((progress, message.unwrap_or_default().to_owned()));
        Box::pin(ready(()))
    }

    fn log(&self, level: Level, data: Value) {
        self.log.lock().push((level, data));
    }
}

/// One tool, `run`.
fn tool(config: Value) -> Agents {
    agents("subprocess", &json!({"run": config}))
}

async fn call(agents: &Agents, arguments: Value) -> Result<Output, Failure> {
    call_with(agents, arguments, &Listener::default()).await
}

async fn call_with(agents: &Agents, arguments: Value, listener: &Listener) -> Result<Output, Failure> {
    testing::call(agents, "run", arguments, listener).await
}

fn text(output: &Output) -> String {
    let texts = output.content.iter().map(|block| match block {
        Content::Text(text) => text.as_str(),
        _ => "",
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn shell(script: &str) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", script]})
}

fn with(mut config: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!() };
    config.as_object_mut().unwrap().extend(more);
    config
}

async fn said(agents: &Agents, arguments: Value) -> String {
    text(&call(agents, arguments).await.unwrap())
}

async fn reason(agents: &Agents, arguments: Value) -> (Reason, String) {
    let failure = call(agents, arguments).await.unwrap_err();
    (failure.reason, failure.message)
}

/// Processes that `sleep` for so many seconds.
fn sleepers(seconds: &str) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
    });
    lines.filter(|line| *line == format!("sleep {seconds}")).count()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    timeout(Duration::from_secs(5), async {
        while !done() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never: {what}"));
}

/// A time that no other process sleeps.
fn mark(test: u32) -> String {
    (1_100_000_000 + u64::from(std::process::id()) * 100 + u64::from(test)).to_string()
}

#[tokio::test]
async fn each_template_is_one_argument_whatever_is_in_it() {
    let agents = tool(json!({"command": "printf", "args": ["[%s]", "{{a}}", "x{{b}}y", "--", "{{a}}"]}));
    let hostile = "a b; rm -rf / $(id) `id` \"'\n*";
    let output = said(&agents, json!({"a": hostile, "b": hostile})).await;
    assert_eq!(output, format!("[{hostile}][x{hostile}y][--][{hostile}]"));
}

#[tokio::test]
async fn no_value_becomes_an_option() {
    let agents = tool(json!({"command": "ls", "args": ["{{path}}"]}));
    for option in ["-la", "--help", "-", "--color=always"] {
        let (reason, message) = reason(&agents, json!({"path": option})).await;
        assert_eq!(reason, Reason::InvalidArguments, "{option}: {message}");
    }
    let behind = tool(json!({"command": "printf", "args": ["--", "[%s]", "{{text}}"]}));
    assert_eq!(said(&behind, json!({"text": "-n --help"})).await, "[-n --help]");
}

#[tokio::test]
async fn a_shell_gets_values_as_words() {
    let agents = tool(json!({"command": "printf '[%s]' {{text}} | tr a b", "shell": true}));
    for hostile in ["a'; touch /tmp/x; '", "$(id)", "`id`", "a\nb", "\\", "$HOME", "*", "a && id", "' \"'"] {
        let output = said(&agents, json!({"text": hostile})).await;
        assert_eq!(output, format!("[{}]", hostile.replace('a', "b")));
    }
}

#[tokio::test]
async fn a_program_gets_only_the_variables_that_it_is_given() {
    let config = json!({"command": "env", "env": {
        "OWN": "{{own}}", "KEY": {"secret": "key"}, "PLACE": "{{env.PATH}}"}});
    let agents = tool(config);
    let output = said(&agents, json!({"own": "a=b c"})).await;
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines.contains(&"OWN=a=b c") && lines.contains(&"KEY=s3cret-value"), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("PLACE=/")), "{output}");
    let foreign = lines.iter().filter(|line| line.starts_with("CARGO") || line.starts_with("RUST"));
    assert_eq!(foreign.count(), 0, "{output}");
}

#[tokio::test]
async fn input_is_a_text_or_json() {
    let agents = tool(json!({"command": "cat", "stdin": "to {{name}}"}));
    assert_eq!(said(&agents, json!({"name": "you"})).await, "to you");
    let tree =
        json!({"command": "cat", "stdin": {"name": "{{name}}", "deep": ["{{list}}"]}, "output": "json"});
    let output = call(&tool(tree), json!({"name": "x\"y", "list": [1, 2]})).await.unwrap();
    assert_eq!(output.structured, Some(json!({"name": "x\"y", "deep": [[1, 2]]})));
    // A program need not read it.
    let deaf = tool(with(shell("exec 0<&-; sleep 0.1; echo done"), json!({"stdin": "{{text}}"})));
    assert_eq!(said(&deaf, json!({"text": "x".repeat(1 << 20)})).await, "done");
    // Without any, there is an end at once.
    assert_eq!(said(&tool(json!({"command": "cat"})), json!({})).await, "");
}

#[tokio::test]
async fn the_folder_is_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let agents = tool(json!({"command": "pwd", "cwd": path.to_str().unwrap()}));
    assert_eq!(said(&agents, json!({})).await, path.to_str().unwrap());
    let gone = tool(json!({"command": "pwd", "cwd": "/no/such/folder"}));
    let (reason, message) = reason(&gone, json!({})).await;
    assert_eq!(reason, Reason::Misconfigured);
    assert!(!message.contains("/no/such"), "{message}");
}

#[tokio::test]
async fn what_a_program_ends_with_is_what_becomes_of_the_call() {
    let (why, message) = reason(&tool(shell("echo no such user >&2; exit 3")), json!({})).await;
    assert_eq!(
        (why, message.as_str()),
        (Reason::Refused, "the program ended with exit code 3: no such user")
    );
    let (why, message) = reason(&tool(shell("echo wrong; exit 1")), json!({})).await;
    assert_eq!((why, message.as_str()), (Reason::Refused, "the program ended with exit code 1: wrong"));
    let (why, message) = reason(&tool(shell("kill -SEGV $$")), json!({})).await;
    assert_eq!(why, Reason::Broken, "{message}");
    let (why, message) = reason(&tool(json!({"command": "no-such-program-anywhere"})), json!({})).await;
    assert_eq!(why, Reason::Misconfigured);
    assert!(!message.contains("no-such"), "{message}");
    let differs = tool(with(shell("echo differs; exit 1"), json!({"successCodes": [0, 1]})));
    assert_eq!(said(&differs, json!({})).await, "differs");
}

#[tokio::test]
async fn the_words_of_a_program_go_to_the_log_without_secrets() {
    let config = with(
        shell("echo first >&2; echo the key is $KEY >&2; echo of $PLACE >&2; exit 1"),
        json!({"env": {"KEY": {"secret": "key"}, "PLACE": "a {{env.PATH}}"}}),
    );
    let agents = tool(config);
    let listener = Listener::default();
    let failure = call_with(&agents, json!({}), &listener).await.unwrap_err();
    assert_eq!(failure.message, "the program ended with exit code 1: first\nthe key is ***\nof a ***");
    let log = listener.log.lock().clone();
    let lines = ["first", "the key is ***", "of a ***"].map(|line| (Level::Warning, json!(line)));
    assert_eq!(log, lines);
}

#[tokio::test]
async fn output_has_a_form() {
    let lines = tool(with(shell("echo a; echo; echo b"), json!({"output": "lines"})));
    let output = call(&lines, json!({})).await.unwrap();
    assert_eq!(output.structured, Some(json!({"lines": ["a", "", "b"]})));
    assert_eq!(text(&output), "a\n\nb");
    let not = tool(with(shell("echo '{\"a\":'"), json!({"output": "json"})));
    let (why, message) = reason(&not, json!({})).await;
    assert_eq!(why, Reason::Broken);
    assert!(message.contains("should write JSON"), "{message}");
}

#[tokio::test]
async fn too_much_output_ends_the_program() {
    let mark = mark(1);
    let script = format!("yes; sleep {mark}");
    let agents = tool(with(shell(&script), json!({"outputBytesMax": 10_000})));
    let (why, message) = reason(&agents, json!({})).await;
    assert_eq!((why, message.as_str()), (Reason::TooLarge, "the program wrote more than 10000 bytes"));
    let cut = tool(with(shell("yes ä"), json!({"outputBytesMax": 1_000, "truncate": true})));
    let output = call(&cut, json!({})).await.unwrap();
    let said = text(&output);
    assert!(said.starts_with("ä\nä\n") && said.contains("cut off") && !said.contains('\u{fffd}'), "{said}");
    assert_eq!(sleepers(&mark), 0);
    let whole = tool(with(shell("head -c 1000 /dev/zero | tr '\\0' x"), json!({"outputBytesMax": 1_000})));
    assert_eq!(text(&call(&whole, json!({})).await.unwrap()).len(), 1_000);
}

#[tokio::test]
async fn lines_are_progress_as_they_come() {
    let script = "for i in 1 2 3; do echo step $i; sleep 0.05; done";
    let agents = tool(with(shell(script), json!({"stream": true})));
    let listener = Listener::default();
    let output = call_with(&agents, json!({}), &listener).await.unwrap();
    assert_eq!(text(&output), "step 1\nstep 2\nstep 3");
    let told = listener.progress.lock().clone();
    let expected = [(1.0, "step 1".to_owned()), (2.0, "step 2".to_owned()), (3.0, "step 3".to_owned())];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_flood_of_lines_is_few_messages() {
    let agents = tool(with(shell("seq 1 100000"), json!({"stream": true})));
    let listener = Listener::default();
    call_with(&agents, json!({}), &listener).await.unwrap();
    let told = listener.progress.lock().clone();
    assert!((2..=200).contains(&told.len()), "{}", told.len());
    assert_eq!(told.last().unwrap().0, 100_000.0);
    assert!(told.is_sorted_by(|a, b| a.0 < b.0));
}

/// One as usual, one that ignores SIGTERM, and one that the shell waits for.
fn litter(mark: &str) -> Value {
    shell(&format!(
        "sleep {mark} & (trap '' TERM HUP INT; exec sleep {mark}) & (trap '' TERM; sleep {mark}; true)"
    ))
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_no_process() {
    let mark = mark(2);
    let agents = tool(litter(&mark));
    let listener = Listener::default();
    let calling = call_with(&agents, json!({}), &listener);
    assert!(timeout(Duration::from_millis(300), calling).await.is_err());
    until("all gone", || sleepers(&mark) == 0).await;
}

#[tokio::test]
async fn a_call_that_is_late_leaves_no_process() {
    let mark = mark(3);
    let agents = tool(with(litter(&mark), json!({"timeout": 0.3})));
    let began = Instant::now();
    let (why, message) = reason(&agents, json!({})).await;
    assert_eq!((why, message.as_str()), (Reason::Timeout, "no answer within 300ms"));
    assert!(began.elapsed() < Duration::from_secs(5));
    until("all gone", || sleepers(&mark) == 0).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let mark = mark(4);
    // It has the pipes open, which would otherwise never end.
    let agents = tool(shell(&format!("sleep {mark} & echo started")));
    assert_eq!(said(&agents, json!({})).await, "started");
    until("all gone", || sleepers(&mark) == 0).await;
}

#[tokio::test]
async fn only_so_many_run_at_once() {
    let mark = mark(5);
    let agents = tool(with(shell(&format!("sleep {mark}")), json!({"processesMax": 2})));
    let listeners = [Listener::default(), Listener::default()];
    let both = futures_util::future::join_all(
        listeners.iter().map(|listener| call_with(&agents, json!({}), listener)),
    );
    let third = async {
        until("two", || sleepers(&mark) == 2).await;
        reason(&agents, json!({})).await
    };
    tokio::select! {
        _ = both => panic!("they sleep"),
        (why, _) = third => assert_eq!(why, Reason::Overloaded),
    }
    until("all gone", || sleepers(&mark) == 0).await;
    let (why, _) = timeout(Duration::from_secs(5), async {
        let agents = tool(with(shell("exit 9"), json!({"processesMax": 1})));
        reason(&agents, json!({})).await;
        reason(&agents, json!({})).await
    })
    .await
    .unwrap();
    assert_eq!(why, Reason::Refused, "room is given back");
}

#[tokio::test]
async fn ended_programs_are_waited_for() {
    let agents = tool(json!({"command": "true"}));
    for _ in 0..20 {
        said(&agents, json!({})).await;
    }
    let own = std::process::id().to_string();
    let zombies = || {
        let stats = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats
            .filter(|stat| {
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
                fields.first() == Some(&"Z") && fields.get(1) == Some(&own.as_str())
            })
            .count()
    };
    until("none is left", || zombies() == 0).await;
}

#[test]
fn settings_that_cannot_work_are_problems() {
    let check = |config: Value, path: &str, message: &str| {
        let found = problems("subprocess", &config);
        let path = format!("spec.tools[0].routing.config{path}: ");
        let right = found.lines().any(|line| line.starts_with(&path) && line.contains(message));
        assert!(right, "{config}: {found}");
    };
    check(json!({}), ".command", "is missing");
    check(json!({"command": "{{program}}"}), ".command", "arguments of a call");
    check(json!({"command": "ls -la"}), ".command", "one program");
    check(json!({"command": ""}), ".command", "not a program");
    check(json!({"command": "pwd", "cwd": "{{folder}}"}), ".cwd", "arguments of a call");
    check(json!({"command": "pwd", "shell": true, "args": ["x"]}), ".args", "shell");
    check(json!({"command": "pwd", "output": "yaml"}), ".output", "not a `output`");
    check(json!({"command": "pwd", "successCodes": [256]}), ".successCodes", "0 to 255");
    check(json!({"command": "pwd", "env": {"A=B": "x"}}), ".env", "not the name");
    check(json!({"command": "pwd", "output": "json", "truncate": true}), ".truncate", "half");
    check(json!({"command": "pwd", "processesMax": 0}), ".processesMax", "1 to");
    check(json!({"command": "pwd", "comand": "x"}), ".comand", "unknown setting");
    let fine = json!({"command": "/opt/my tools/run", "args": ["{{x}}"], "timeout": 30});
    assert_eq!(problems("subprocess", &fine), "");
}
