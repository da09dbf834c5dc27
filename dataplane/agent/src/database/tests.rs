//! With SQLite; `tests/it/agents/database.rs` is about PostgreSQL.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection, raw_sql};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::{
    Agents, Content, Failure, Output, Reason,
    testing::{self, Told, agents, problems},
};

const TABLES: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, admin BOOLEAN, score REAL, picture BLOB);
    INSERT INTO users VALUES (1, 'Ada', 1, 1.5, x'00ff'), (2, 'Bob', 0, NULL, NULL);
";
/// Counts for longer than any test runs.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

/// A file with two users.
async fn file() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
    raw_sql(TABLES).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    (folder, url)
}

/// One tool, `ask`.
fn tool(url: &str, more: Value) -> Agents {
    let mut config = json!({"url": url});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    agents("database", &json!({"ask": config}))
}

async fn call(agents: &Agents, arguments: Value) -> Result<Output, Failure> {
    call_with(agents, arguments, &Told::default()).await
}

async fn call_with(agents: &Agents, arguments: Value, told: &Told) -> Result<Output, Failure> {
    testing::call(agents, "ask", arguments, told).await
}

fn text(output: &Output) -> &str {
    match output.content.as_slice() {
        [Content::Text(text)] => text,
        other => panic!("{other:?}"),
    }
}

async fn rows(agents: &Agents, arguments: Value) -> Value {
    structured(call(agents, arguments).await.unwrap())["rows"].take()
}

fn structured(output: Output) -> Value {
    output.structured.unwrap()
}

async fn reason(agents: &Agents, arguments: Value) -> (Reason, String) {
    let failure = call(agents, arguments).await.unwrap_err();
    (failure.reason, failure.message)
}

#[tokio::test]
async fn rows_keep_their_types() {
    let (_folder, url) = file().await;
    let agents = tool(&url, json!({"query": "SELECT * FROM users ORDER BY id"}));
    let output = call(&agents, json!({})).await.unwrap();
    let said: Value = serde_json::from_str(text(&output)).unwrap();
    let result = structured(output);
    assert_eq!(said, result, "the text says the same");
    assert_eq!(result["rowCount"], 2);
    assert_eq!(result["columns"][1], json!({"name": "name", "type": "text"}));
    assert_eq!(
        result["rows"],
        json!([
            {"id": 1, "name": "Ada", "admin": true, "score": 1.5, "picture": "AP8="},
            {"id": 2, "name": "Bob", "admin": false, "score": null, "picture": null},
        ])
    );
}

#[tokio::test]
async fn a_value_is_never_a_part_of_the_statement() {
    let (_folder, url) = file().await;
    let agents = tool(&url, json!({"query": "SELECT {{text}} AS text, (SELECT count(*) FROM users) AS n"}));
    for hostile in ["' OR 1=1 --", "x'; DROP TABLE users; --", "$1", "?1", "/*", "\\' OR 1", "{{text}}"] {
        let rows = rows(&agents, json!({"text": hostile})).await;
        assert_eq!(rows, json!([{"text": hostile, "n": 2}]));
    }
    let typed = rows(&agents, json!({"text": 7})).await;
    assert_eq!(typed[0]["text"], 7);
    let typed = rows(&agents, json!({"text": [1, {"a": null}]})).await;
    assert_eq!(typed[0]["text"], "[1,{\"a\":null}]");
}

#[tokio::test]
async fn parameters_may_be_listed() {
    let (_folder, url) = file().await;
    let query = "SELECT name FROM users WHERE (? IS NULL OR id = ?) ORDER BY id";
    let agents = tool(&url, json!({"query": query, "parameters": ["{{id}}", "{{id}}"]}));
    assert_eq!(rows(&agents, json!({"id": 2})).await, json!([{"name": "Bob"}]));
    assert_eq!(rows(&agents, json!({})).await, json!([{"name": "Ada"}, {"name": "Bob"}]));
    let short = tool(&url, json!({"query": query, "parameters": ["{{id}}"]}));
    let (why, message) = reason(&short, json!({"id": 1})).await;
    assert_eq!(why, Reason::Misconfigured);
    assert_eq!(message, "the tool's query has 2 placeholders and 1 values");
}

#[tokio::test]
async fn what_is_read_only_writes_nothing() {
    let (_folder, url) = file().await;
    for query in ["DELETE FROM users", "CREATE TABLE t (a)", "PRAGMA user_version = 3"] {
        let (why, message) = reason(&tool(&url, json!({"query": query})), json!({})).await;
        assert_eq!(why, Reason::Refused, "{query}: {message}");
    }
    let count = tool(&url, json!({"query": "SELECT count(*) AS n FROM users"}));
    assert_eq!(rows(&count, json!({})).await, json!([{"n": 2}]));
    let writes = tool(&url, json!({"query": "DELETE FROM users WHERE id = {{id}}", "readOnly": false}));
    let result = structured(call(&writes, json!({"id": 1})).await.unwrap());
    assert_eq!((&result["rowsAffected"], &result["rowCount"]), (&json!(1), &json!(0)));
    assert_eq!(rows(&count, json!({})).await, json!([{"n": 1}]));
}

#[tokio::test]
async fn rows_are_cut_where_it_was_said() {
    let (_folder, url) = file().await;
    let many =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT i FROM n";
    let agents = tool(&url, json!({"query": many}));
    let told = Told::default();
    let result = structured(call_with(&agents, json!({}), &told).await.unwrap());
    assert_eq!((&result["rowCount"], &result["truncated"]), (&json!(1000), &json!(true)));
    assert_eq!(result["rows"].as_array().unwrap().len(), 1000);
    assert_eq!(told.progress().len(), 10);
    let whole = tool(&url, json!({"query": many, "maxRows": 10_000}));
    let result = structured(call(&whole, json!({})).await.unwrap());
    assert_eq!((&result["rowCount"], result.get("truncated")), (&json!(10_000), None));
    // And the connection of the first is as good as new.
    assert_eq!(rows(&agents, json!({})).await[0]["i"], 1);
}

#[tokio::test]
async fn columns_of_the_same_name_are_told_apart() {
    let (_folder, url) = file().await;
    let agents = tool(&url, json!({"query": "SELECT 1 AS a, 2 AS a, 3 AS a_2"}));
    assert_eq!(rows(&agents, json!({})).await, json!([{"a": 1, "a_2": 2, "a_2_2": 3}]));
}

#[tokio::test]
async fn too_long_a_result_is_refused() {
    let (_folder, url) = file().await;
    let query = "SELECT hex(zeroblob(1000000)) AS a FROM users, users AS b";
    let (why, message) = reason(&tool(&url, json!({"query": query})), json!({})).await;
    assert_eq!(why, Reason::TooLarge, "{message}");
}

#[tokio::test]
async fn a_call_that_is_given_up_stops_the_engine() {
    let (_folder, url) = file().await;
    let agents = tool(&url, json!({"query": ENDLESS, "poolMax": 1}));
    for _ in 0..3 {
        let told = Told::default();
        let calling = call_with(&agents, json!({}), &told);
        assert!(timeout(Duration::from_millis(100), calling).await.is_err());
    }
    let spinning = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.contains("sqlx-sqlite")).count()
    };
    let began = Instant::now();
    while spinning() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "{} threads are left", spinning());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_late_statement_is_a_timeout() {
    let (_folder, url) = file().await;
    let agents = tool(&url, json!({"query": ENDLESS, "timeout": "200ms"}));
    assert_eq!(reason(&agents, json!({})).await.0, Reason::Timeout);
}

#[tokio::test]
async fn what_the_engine_says_is_told() {
    let (_folder, url) = file().await;
    let (why, message) = reason(&tool(&url, json!({"query": "SELECT * FROM nobody"})), json!({})).await;
    assert_eq!(why, Reason::Refused);
    assert!(message.contains("no such table: nobody"), "{message}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_unreachable_and_not_named() {
    let gone = "sqlite:/no/such/secret/place.db";
    let failure = call(&tool(gone, json!({"query": "SELECT 1"})), json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Unreachable, "{failure:?}");
    assert!(!failure.message.contains("secret"), "{failure:?}");
    let gone = "postgres://user:hunter2-password@127.0.0.1:1/db";
    let began = Instant::now();
    let failure = call(&tool(gone, json!({"query": "SELECT 1"})), json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Unreachable, "{failure:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "at once");
    assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    assert!(!failure.message.contains("127.0.0.1"), "{failure:?}");
}

#[tokio::test]
async fn a_secret_that_is_no_url_is_not_shown() {
    let agents = agents("database", &json!({"ask": {"url": {"secret": "key"}, "query": "SELECT 1"}}));
    let failure = call(&agents, json!({})).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Misconfigured);
    assert!(!format!("{failure:?}").contains(testing::SECRET), "{failure:?}");
}

#[tokio::test]
async fn many_calls_share_few_connections() {
    let (_folder, url) = file().await;
    let agents = tool(&url, json!({"query": "SELECT name FROM users WHERE id = {{id}}", "poolMax": 2}));
    let all = futures_util::future::join_all((0..50).map(|_| rows(&agents, json!({"id": 1})))).await;
    assert!(all.iter().all(|rows| *rows == json!([{"name": "Ada"}])));
}

#[test]
fn settings_that_cannot_work_are_problems() {
    let check = |config: Value, path: &str, message: &str| {
        let found = problems("database", &config);
        let path = format!("spec.tools[0].routing.config{path}: ");
        let right = found.lines().any(|line| line.starts_with(&path) && line.contains(message));
        assert!(right, "{config}: {found}");
    };
    let url = "sqlite:x.db";
    check(json!({"query": "SELECT 1"}), ".url", "is missing");
    check(json!({"url": url}), ".query", "is missing");
    check(json!({"url": "mysql://x", "query": "SELECT 1"}), ".url", "not the URL");
    check(json!({"url": "sqlite:{{file}}", "query": "SELECT 1"}), ".url", "arguments of a call");
    check(json!({"url": url, "query": "SELECT '{{text}}'"}), ".query", "");
    check(json!({"url": url, "query": "SELECT {{a}}, ?", "parameters": ["{{a}}"]}), ".query", "parameters");
    check(json!({"url": url, "query": "SELECT ?", "parameters": "{{a}}"}), ".parameters", "a list");
    check(json!({"url": url, "query": "SELECT 1", "maxRows": 0}), ".maxRows", "1 to");
    check(json!({"url": url, "query": "SELECT 1", "readonly": true}), ".readonly", "unknown setting");
}
