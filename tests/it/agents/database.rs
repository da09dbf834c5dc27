//! PostgreSQL, started for the test, as tools.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Served, serve};
use crate::{
    cluster::{Cluster, PATIENCE, eventually},
    raw::{ask, modern, shows_tool},
};

/// Calls that the server works on.
const WORKING: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep(30)%'";

/// A server on a loopback port, with a folder of its own. It ends with this.
struct Postgres {
    server: Child,
    folder: TempDir,
    user: Option<(u32, u32)>,
    port: u16,
}

/// Where Debian puts the programs of each version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let newest = versions.and_then(|found| found.flatten().map(|entry| entry.path().join("bin")).max());
    newest.expect("PostgreSQL is missing: tests/setup.sh installs it")
}

/// The server does not run as root.
fn user() -> Option<(u32, u32)> {
    if !getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let fields: Vec<&str> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

impl Postgres {
    async fn start() -> Self {
        let (folder, user) = (tempfile::tempdir().unwrap(), user());
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let made = command("initdb", user)
            .args([
                "--auth=trust",
                "--username=postgres",
                "--no-locale",
                "--encoding=UTF8",
                "--no-sync",
                "-D",
            ])
            .arg(&data)
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = serve_on(folder.path(), user, port);
        let mut postgres = Self { server, folder, user, port };
        postgres.ready().await;
        postgres
    }

    async fn ready(&mut self) {
        let since = Instant::now();
        loop {
            if let Ok(Some(status)) = self.server.try_wait() {
                panic!("it ended with {status}: {}", self.log());
            }
            let asked = self.psql(&["-c", "SELECT 1"]).output().await.unwrap();
            if asked.status.success() {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "it does not answer: {}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn psql(&self, arguments: &[&str]) -> Command {
        let mut psql = command("psql", None);
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url()]).args(arguments);
        psql
    }

    async fn execute(&self, text: &str) {
        let done = self.psql(&["-c", text]).output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Ends it as an operator would who is in a hurry.
    async fn stop(&mut self) {
        self.signal(Signal::INT);
        tokio::time::timeout(PATIENCE, self.server.wait()).await.unwrap().unwrap();
    }

    async fn start_again(&mut self) {
        self.server = serve_on(self.folder.path(), self.user, self.port);
        self.ready().await;
    }

    fn signal(&self, signal: Signal) {
        let pid = self.server.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Unlike SIGKILL, this lets it give back its shared memory.
        self.signal(Signal::QUIT);
        let since = Instant::now();
        while matches!(self.server.try_wait(), Ok(None)) && since.elapsed() < Duration::from_secs(5) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn command(program: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(programs().join(program));
    command.stdin(Stdio::null()).kill_on_drop(true).current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

fn serve_on(folder: &Path, user: Option<(u32, u32)>, port: u16) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    command("postgres", user)
        .args(["-h", "127.0.0.1", "-c", "fsync=off", "-p", &port.to_string(), "-k"])
        .arg(folder)
        .arg("-D")
        .arg(folder.join("data"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A conversation with the server that does not go through a node.
struct Onlooker {
    _psql: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Onlooker {
    fn of(postgres: &Postgres) -> Self {
        let mut psql = postgres.psql(&[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = psql.stdin.take().unwrap();
        let lines = BufReader::new(psql.stdout.take().unwrap()).lines();
        Self { _psql: psql, stdin, lines }
    }

    /// The only value of the only row.
    async fn ask(&mut self, query: &str) -> Option<String> {
        self.stdin.write_all(format!("{query};\n").as_bytes()).await.ok()?;
        self.lines.next_line().await.ok()?
    }
}

fn tool(name: &str, postgres: &Postgres, query: &str, more: &Value) -> Value {
    let mut config = json!({"url": postgres.url(), "query": query});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let schema = json!({"type": "object", "properties": {"text": {}}});
    json!({"name": name, "inputSchema": schema, "routing": {"type": "database", "config": config}})
}

pub async fn start() -> Served {
    let postgres = Postgres::start().await;
    let plain = |name: &str, query: &str| tool(&format!("database_{name}"), &postgres, query, &json!({}));
    let mut late = plain("late", "SELECT pg_sleep(30)");
    late["timeout"] = "300ms".into();
    let echo = "SELECT {{text}}::text AS text, to_jsonb({{text}}::text) AS json, ARRAY[{{text}}::text] AS list \
        WHERE {{text}} = {{text}}";
    let tools = json!({"tools": [
        plain("ok", "SELECT {{text}}::text AS text"),
        plain("fail", "SELECT 1 / 0"),
        plain("slow", "SELECT pg_sleep(30)"),
        late,
        plain("steps", "SELECT i, pg_sleep(0.002), repeat('x', 100) FROM generate_series(1, 500) AS i"),
        plain("big", "SELECT repeat('x', 1048576) AS text"),
        plain("echo", echo),
    ]});
    let running = Arc::new(AtomicUsize::new(0));
    let mut counting = JoinSet::new();
    let (count, mut onlooker) = (running.clone(), Onlooker::of(&postgres));
    counting.spawn(async move {
        while let Some(working) = onlooker.ask(WORKING).await {
            count.store(working.parse().unwrap_or(0), Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
        }
    });
    Served {
        agent: "database",
        tools: tools.to_string(),
        more: String::new(),
        running,
        keep: Box::new((counting, postgres)),
    }
}

/// A node with these tools.
async fn node_with(tools: Vec<Value>) -> Cluster {
    let last = tools.last().unwrap()["name"].as_str().unwrap().to_owned();
    let served = Served {
        agent: "database",
        tools: json!({"tools": tools}).to_string(),
        more: String::new(),
        running: Arc::default(),
        keep: Box::new(()),
    };
    let cluster = serve(&[served]).await;
    shows_tool(&cluster.nodes[0].url("database"), &last).await;
    cluster
}

async fn call(cluster: &Cluster, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    let answer = ask(&cluster.nodes[0].url("database"), "tools/call", params).await;
    assert!(answer["result"].is_object(), "{answer}");
    answer["result"].clone()
}

async fn rows(cluster: &Cluster, tool: &str, arguments: Value) -> Value {
    let result = call(cluster, tool, arguments).await;
    assert_eq!(result["isError"], false, "{result}");
    result["structuredContent"]["rows"].clone()
}

/// The reason and the words.
async fn failure(cluster: &Cluster, tool: &str, arguments: Value) -> (String, String) {
    let result = call(cluster, tool, arguments).await;
    assert_eq!(result["isError"], true, "{result}");
    let reason = result["_meta"]["io.magictunnel/error"]["reason"].as_str().unwrap().to_owned();
    (reason, super::text_of(&result))
}

/// A type, a value that is sent for it, and what comes back.
fn types() -> Vec<(&'static str, Value, Value)> {
    let same = |kind, value: Value| (kind, value.clone(), value);
    vec![
        same("bool", json!(true)),
        same("int2", json!(-32768)),
        same("int4", json!(2_147_483_647)),
        same("int8", json!(9_007_199_254_740_993_i64)),
        same("float4", json!(0.1)),
        same("float8", json!(-1.5e300)),
        same("numeric", json!(12.5)),
        same("numeric", json!(7)),
        same("numeric", json!("123456789012345678901234567890.123456789")),
        same("text", json!("Grüße 🙂 ' \" \\ $1")),
        same("varchar(20)", json!("x")),
        same("uuid", json!("0195f3a0-1d2c-7abc-8def-0123456789ab")),
        same("bytea", json!("AP/+")),
        same("date", json!("2026-11-21")),
        same("time", json!("23:59:59.500")),
        same("timestamp", json!("2026-11-21T07:30:00.250")),
        ("timestamptz", json!("2026-11-21T07:30:00+02:00"), json!("2026-11-21T05:30:00Z")),
        same("json", json!({"a": [1, null, "x"]})),
        same("jsonb", json!([1, {"b": true}])),
        same("int4[]", json!([1, null, 3])),
        same("text[]", json!(["a", "b,c", "{\"d\"}", ""])),
        same("int4[]", json!([[1, 2], [3, 4]])),
        same("text[]", json!([])),
        same("mood", json!("happy")),
        same("mood[]", json!(["happy", "sad"])),
        same("positive", json!(5)),
        ("interval", json!("1 day 02:00"), json!("1 day 02:00:00")),
        ("inet", json!("192.0.2.7"), json!("192.0.2.7/32")),
        ("int4range", json!("[1,5)"), json!("[1,5)")),
        same("macaddr", json!("08:00:2b:01:02:03")),
        same("int4", Value::Null),
        same("interval", Value::Null),
    ]
}

#[tokio::test]
async fn values_of_every_type_come_back_as_they_went() {
    let postgres = Postgres::start().await;
    postgres.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')").await;
    postgres.execute("CREATE DOMAIN positive AS int4 CHECK (value > 0)").await;
    postgres.execute("CREATE TYPE pair AS (a int4, b text)").await;
    let mut tools: Vec<Value> = types()
        .iter()
        .enumerate()
        .map(|(i, (kind, _, _))| {
            tool(
                &format!("type{i}"),
                &postgres,
                &format!("SELECT CAST({{{{text}}}} AS {kind}) AS value"),
                &json!({}),
            )
        })
        .collect();
    tools.push(tool(
        "pair",
        &postgres,
        "SELECT ROW(1, 'x')::pair AS value, pg_sleep(0) AS nothing",
        &json!({}),
    ));
    tools.push(tool(
        "special",
        &postgres,
        "SELECT 'NaN'::float8 AS a, 'infinity'::date AS b, now() AS c",
        &json!({}),
    ));
    let cluster = node_with(tools).await;
    for (i, (kind, sent, expected)) in types().into_iter().enumerate() {
        let rows = rows(&cluster, &format!("type{i}"), json!({"text": sent})).await;
        assert_eq!(rows, json!([{"value": expected}]), "{kind}");
    }
    let pair = rows(&cluster, "pair", json!({})).await;
    assert_eq!(pair, json!([{"value": {"a": 1, "b": "x"}, "nothing": null}]));
    let special = rows(&cluster, "special", json!({})).await;
    assert_eq!((&special[0]["a"], &special[0]["b"]), (&json!("NaN"), &json!("infinity")));
    let (reason, said) = failure(&cluster, "type1", json!({"text": "1; DROP TABLE x"})).await;
    assert_eq!(reason, "invalid_arguments");
    assert_eq!(said, "value 1 of the query must be int2, and is \"1; DROP TABLE x\"");
    let (reason, said) = failure(&cluster, "type25", json!({"text": -5})).await;
    assert_eq!(reason, "refused");
    assert!(said.contains("violates check constraint"), "{said}");
}

#[tokio::test]
async fn what_is_read_only_writes_nothing_and_what_writes_is_whole() {
    let postgres = Postgres::start().await;
    postgres.execute("CREATE TABLE users (id int4 PRIMARY KEY, name text)").await;
    postgres.execute("INSERT INTO users VALUES (1, 'Ada')").await;
    let insert = "INSERT INTO users SELECT i, {{text}} FROM generate_series(2, 2001) AS i RETURNING id";
    let cluster = node_with(vec![
        tool("sneaky", &postgres, insert, &json!({})),
        tool("drop", &postgres, "DROP TABLE users", &json!({})),
        tool("mode", &postgres, "SET TRANSACTION READ WRITE", &json!({})),
        tool("two", &postgres, "SELECT 1; DROP TABLE users", &json!({})),
        tool("insert", &postgres, insert, &json!({"readOnly": false, "maxRows": 10})),
        tool("half", &postgres, "UPDATE users SET id = 1", &json!({"readOnly": false})),
        tool("delete", &postgres, "DELETE FROM users WHERE name = {{text}}", &json!({"readOnly": false})),
        tool("count", &postgres, "SELECT count(*) AS n FROM users WHERE name = {{text}}", &json!({})),
    ])
    .await;
    let count = async |name: &str| rows(&cluster, "count", json!({"text": name})).await[0]["n"].clone();
    for tool in ["sneaky", "drop"] {
        let (reason, said) = failure(&cluster, tool, json!({"text": "x"})).await;
        assert_eq!(reason, "refused");
        assert!(said.contains("read-only transaction") && said.contains("25006"), "{said}");
    }
    call(&cluster, "mode", json!({})).await;
    let (reason, said) = failure(&cluster, "two", json!({})).await;
    assert_eq!(reason, "refused");
    assert!(said.contains("multiple commands"), "{said}");
    let hostile = "x'); DROP TABLE users; --";
    let result = call(&cluster, "insert", json!({"text": hostile})).await;
    let told = &result["structuredContent"];
    assert_eq!((&told["rowCount"], &told["truncated"]), (&json!(10), &json!(true)));
    assert_eq!(count(hostile).await, 2_000);
    assert_eq!(failure(&cluster, "half", json!({})).await.0, "refused");
    let result = call(&cluster, "delete", json!({"text": hostile})).await;
    assert_eq!(result["structuredContent"]["rowsAffected"], 2_000);
    assert_eq!((count(hostile).await, count("Ada").await), (json!(0), json!(1)));
}

#[tokio::test]
async fn rows_are_cut_and_the_rest_is_never_sent() {
    let postgres = Postgres::start().await;
    // In this place the server makes rows as they are asked for.
    let series = |last: u64| format!("SELECT generate_series(1, {last}) AS i, repeat('x', 100) AS x");
    let cluster = node_with(vec![
        tool("many", &postgres, &series(10_000), &json!({})),
        tool("endless", &postgres, &series(1_000_000_000_000), &json!({"maxRows": 10})),
    ])
    .await;
    for _ in 0..3 {
        let result = call(&cluster, "many", json!({})).await;
        let told = &result["structuredContent"];
        assert_eq!((&told["rowCount"], &told["truncated"]), (&json!(1_000), &json!(true)));
        assert_eq!(told["rows"].as_array().unwrap().len(), 1_000);
        let result = call(&cluster, "endless", json!({})).await;
        assert_eq!(result["structuredContent"]["rowCount"], 10, "{result}");
    }
    at_rest(&postgres, "generate_series").await;
}

/// Waits until the server does nothing of this kind any more.
async fn at_rest(postgres: &Postgres, what: &str) {
    let mut onlooker = Onlooker::of(postgres);
    let query = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE state <> 'idle' AND pid <> pg_backend_pid() AND query LIKE '%{what}%'"
    );
    eventually("a server at rest", async || match onlooker.ask(&query).await.as_deref() {
        Some("0") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_statement_ends_with_its_call_and_with_its_node() {
    let postgres = Postgres::start().await;
    let mut cluster = node_with(vec![tool("slow", &postgres, "SELECT pg_sleep(30)", &json!({}))]).await;
    let url = cluster.nodes[0].url("database");
    let mut onlooker = Onlooker::of(&postgres);
    for ends_with_call in [true, false] {
        let mut calling = JoinSet::new();
        let url = url.clone();
        calling.spawn(async move {
            _ = modern(&url, 1, "tools/call", json!({"name": "slow", "arguments": {}})).send().await;
        });
        eventually("a statement that runs", async || match onlooker.ask(WORKING).await.as_deref() {
            Some("1") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        let since = Instant::now();
        if ends_with_call {
            calling.shutdown().await;
        } else {
            cluster.nodes[0].process.kill().await;
        }
        at_rest(&postgres, "pg_sleep").await;
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
}

#[tokio::test]
async fn a_database_that_is_gone_is_unreachable_until_it_is_back() {
    let mut postgres = Postgres::start().await;
    let cluster = node_with(vec![tool("one", &postgres, "SELECT 1 AS one", &json!({}))]).await;
    assert_eq!(rows(&cluster, "one", json!({})).await, json!([{"one": 1}]));
    postgres.stop().await;
    let (reason, said) = failure(&cluster, "one", json!({})).await;
    assert_eq!(reason, "unreachable");
    assert!(!said.contains("127.0.0.1") && !said.contains(&postgres.port.to_string()), "{said}");
    postgres.start_again().await;
    assert_eq!(rows(&cluster, "one", json!({})).await, json!([{"one": 1}]));
    // And a connection that the server has closed meanwhile is no failure.
    postgres.stop().await;
    postgres.start_again().await;
    assert_eq!(rows(&cluster, "one", json!({})).await, json!([{"one": 1}]));
    postgres.execute("CREATE TABLE t AS SELECT 1 AS a").await;
}

#[tokio::test]
async fn a_table_that_changes_is_seen_as_it_is() {
    let postgres = Postgres::start().await;
    postgres.execute("CREATE TABLE t AS SELECT 1 AS a").await;
    let cluster = node_with(vec![tool("all", &postgres, "SELECT * FROM t", &json!({"poolMax": 1}))]).await;
    assert_eq!(rows(&cluster, "all", json!({})).await, json!([{"a": 1}]));
    postgres.execute("ALTER TABLE t ADD COLUMN b text DEFAULT 'x'").await;
    assert_eq!(rows(&cluster, "all", json!({})).await, json!([{"a": 1, "b": "x"}]));
}
