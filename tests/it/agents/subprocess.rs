//! Programs of this machine, as tools.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::{Served, serve, text_of};
use crate::{
    cluster::{Cluster, eventually},
    raw::{ask, shows_tool},
};

/// What a program has received, on each of its ways in.
const RECEIVED: &str = "import json, os, sys; \
    given = [os.fsencode(arg).decode() for arg in sys.argv[1:]]; \
    print(json.dumps({'argv': given, 'env': os.environb[b'TEXT'].decode(), \
    'stdin': sys.stdin.buffer.read().decode()}))";

/// Processes that `sleep` for one of these times.
fn sleepers(times: &[String]) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
    });
    lines.filter(|line| times.iter().any(|time| *line == format!("sleep {time}"))).count()
}

/// A time of about half a minute that no other process sleeps.
fn mark(number: u32) -> String {
    format!("30.{}{number}", std::process::id())
}

fn tool(name: &str, config: &Value) -> Value {
    let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    json!({"name": name, "inputSchema": schema, "routing": {"type": "subprocess", "config": config}})
}

fn shell(script: &str) -> Value {
    json!({"command": "/bin/sh", "args": ["-c", script]})
}

pub async fn start() -> Served {
    let time = mark(0);
    // The sleeping process is a grandchild of the node's guard.
    let slow = shell(&format!("sleep {time}; true"));
    let mut late = tool("subprocess_late", &slow);
    late["timeout"] = "300ms".into();
    let mut steps = shell("for i in 1 2 3 4; do echo step $i; sleep 0.05; done");
    steps["stream"] = true.into();
    let mut big = shell("head -c 1048576 /dev/zero | tr '\\0' x");
    big["outputBytesMax"] = (2 << 20).into();
    let echo = json!({
        "command": "python3",
        "args": ["-c", RECEIVED, "{{text}}", "--name={{text}}", "--", "{{text}}"],
        "env": {"TEXT": "{{text}}"},
        "stdin": "{{text}}",
    });
    let tools = json!({"tools": [
        tool("subprocess_ok", &json!({"command": "printf", "args": ["%s", "{{text}}"]})),
        tool("subprocess_fail", &shell("echo not today >&2; exit 7")),
        tool("subprocess_slow", &slow),
        late,
        tool("subprocess_steps", &steps),
        tool("subprocess_big", &big),
        tool("subprocess_echo", &echo),
    ]});
    let running = Arc::new(AtomicUsize::new(0));
    let mut counting = JoinSet::new();
    let count = running.clone();
    counting.spawn(async move {
        loop {
            count.store(sleepers(std::slice::from_ref(&time)), Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
        }
    });
    Served {
        agent: "subprocess",
        tools: tools.to_string(),
        more: String::new(),
        running,
        keep: Box::new(counting),
    }
}

/// A node with one tool, `run`.
async fn node_with(config: &Value) -> Cluster {
    let served = Served {
        agent: "subprocess",
        tools: json!({"tools": [tool("run", config)]}).to_string(),
        more: String::new(),
        running: Arc::default(),
        keep: Box::new(()),
    };
    let cluster = serve(&[served]).await;
    shows_tool(&cluster.nodes[0].url("subprocess"), "run").await;
    cluster
}

async fn run(cluster: &Cluster) -> Value {
    ask(&cluster.nodes[0].url("subprocess"), "tools/call", json!({"name": "run", "arguments": {}})).await
}

async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let url = format!("http://{}/metrics", cluster.nodes[0].admin);
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// One as usual, one that ignores SIGTERM and the like, one in a session of its
/// own, one whose parent is gone as well, and one that is waited for.
fn litter(times: &[String; 5]) -> Value {
    let [plain, deaf, escaped, orphan, awaited] = times;
    shell(&format!(
        "sleep {plain} & (trap '' TERM HUP INT; exec sleep {deaf}) & setsid sleep {escaped} & \
         setsid sh -c 'sleep {orphan} & ' & sleep {awaited}; true"
    ))
}

async fn littered(times: &[String; 5]) -> (Cluster, JoinSet<()>) {
    let cluster = node_with(&litter(times)).await;
    let url = cluster.nodes[0].url("subprocess");
    let mut calling = JoinSet::new();
    calling.spawn(async move {
        // It ends with the node, or is given up.
        let call = crate::raw::modern(&url, 1, "tools/call", json!({"name": "run", "arguments": {}}));
        _ = call.send().await;
    });
    eventually("all that the program starts", async || match sleepers(times) {
        5 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    (cluster, calling)
}

async fn all_gone(times: &[String]) {
    eventually("the end of all of them", async || match sleepers(times) {
        0 => Ok(()),
        left => Err(format!("{left} are left")),
    })
    .await;
}

#[tokio::test]
async fn what_a_program_has_started_dies_with_a_node_that_is_killed() {
    let times = [1, 2, 3, 4, 5].map(mark);
    let (mut cluster, _calling) = littered(&times).await;
    cluster.nodes[0].process.kill().await;
    all_gone(&times).await;
}

#[tokio::test]
async fn what_a_program_has_started_dies_with_its_call() {
    let times = [6, 7, 8, 9, 10].map(mark);
    let (cluster, mut calling) = littered(&times).await;
    assert!(metric(&cluster, "mt_agent_processes{").await >= 1.0);
    // A client of this era cancels by going away.
    calling.shutdown().await;
    all_gone(&times).await;
    eventually("none counted", async || match metric(&cluster, "mt_agent_processes{").await {
        0.0 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
}

#[tokio::test]
async fn many_calls_leave_a_node_as_it_was() {
    const CALLS: usize = 100;
    let cluster = node_with(&json!({"command": "printf", "args": ["done"]})).await;
    let held = |cluster: &Cluster| {
        let pid = cluster.nodes[0].process.pid();
        let children = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
            parent == Some(pid.to_string().as_str())
        });
        (children.count(), std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
    };
    for _ in 0..5 {
        run(&cluster).await;
    }
    let before = held(&cluster);
    for _ in 0..CALLS {
        assert_eq!(text_of(&run(&cluster).await["result"]), "done");
    }
    eventually("as many processes and descriptors as before", async || {
        let now = held(&cluster);
        // Connections of the test may have come.
        if now.0 <= before.0 && now.1 <= before.1 + 4 { Ok(()) } else { Err(format!("{before:?}, {now:?}")) }
    })
    .await;
    let started = metric(&cluster, "mt_agent_processes_started_total").await;
    assert!(started >= CALLS as f64, "{started}");
}
