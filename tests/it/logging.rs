//! Log messages: who wants them, from which level on, and how many are too many.

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, ControlPlane, Node, eventually},
    manifest::gateway,
    matrix::{
        Kind,
        client::{Client, Era},
    },
    raw::http,
};

const CLIENTS: [Kind; 4] = [Kind::HttpLegacy, Kind::HttpModern, Kind::StdioLegacy, Kind::StdioModern];
const LOG: &str = "notifications/message";
const SET: &str = "chatty";
/// What a node lets through by itself.
const LIMIT: usize = 100;
const LINES: usize = 150;

/// A tool that says many lines, and one that says one; each is a warning.
fn chatty() -> String {
    let shell =
        |script: String| json!({"type": "subprocess", "config": {"command": "sh", "args": ["-c", script]}});
    let many = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i >&2; sleep 0.005; done");
    let tools = json!([
        {"name": "many", "description": "Says a lot", "routing": shell(many), "timeout": "60s"},
        {"name": "one", "description": "Says a line", "routing": shell("echo careful >&2; echo done".into())},
    ]);
    let set = json!({
        "apiVersion": "magictunnel/v1", "kind": "ToolSet", "metadata": {"name": SET}, "spec": {"tools": tools},
    });
    format!("{set}\n{}", gateway(SET, &json!({"members": [{"toolSet": SET}]})))
}

/// Calls a tool as a client that wants messages from a level on.
async fn call(client: &Client, tool: &str, level: Option<&str>) -> Value {
    let mut params = json!({"name": tool, "arguments": {}});
    match (client.era(), level) {
        (Era::Legacy, Some(level)) => {
            let set = client.ask("logging/setLevel", json!({"level": level})).await.unwrap();
            assert_eq!(set["error"], Value::Null, "{set}");
        }
        (Era::Modern, Some(level)) => params["_meta"]["io.modelcontextprotocol/logLevel"] = level.into(),
        (_, None) => {}
    }
    let answer = client.ask("tools/call", params).await.unwrap();
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    answer
}

fn lines(client: &Client) -> Vec<Value> {
    client.notices(LOG).into_iter().map(|notice| notice["params"].clone()).collect()
}

fn said(line: &Value, what: &str) -> bool {
    line["data"].as_str().is_some_and(|data| data.contains(what))
}

async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let url = format!("http://{}/metrics", cluster.nodes[0].admin);
    let text = http().get(url).send().await.unwrap().text().await.unwrap();
    let values = text.lines().filter(|line| line.starts_with(name));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_client_gets_what_it_wants_and_nothing_below() {
    let cluster = Cluster::start(1).await;
    cluster.apply(&chatty()).await;
    for kind in CLIENTS {
        let client = kind.open(&cluster, SET, &format!("{}-levels", kind.name())).await.unwrap();
        call(&client, "one", None).await;
        assert_eq!(lines(&client), [Value::Null; 0], "nobody has asked: {}", kind.name());
        call(&client, "one", Some("error")).await;
        assert_eq!(lines(&client), [Value::Null; 0], "{}", kind.name());
        for (level, count) in [("warning", 1), ("debug", 2)] {
            call(&client, "one", Some(level)).await;
            let expected = json!({"level": "warning", "logger": "one", "data": "careful"});
            assert_eq!(lines(&client), vec![expected; count], "{}", kind.name());
        }
        call(&client, "one", Some("alert")).await;
        assert_eq!(lines(&client).len(), 2, "a level holds until the next: {}", kind.name());
        let refused = match client.era() {
            Era::Legacy => client.ask("logging/setLevel", json!({"level": "loud"})).await.unwrap(),
            Era::Modern => client.ask("logging/setLevel", json!({"level": "info"})).await.unwrap(),
        };
        assert!(refused.get("error").is_some(), "{}: {refused}", kind.name());
        assert_eq!(client.take_wrong(), [""; 0], "{}", kind.name());
    }
}

#[tokio::test]
async fn what_is_too_much_is_dropped_and_the_client_is_told_before_the_answer() {
    let cluster = Cluster::start(1).await;
    cluster.apply(&chatty()).await;
    for kind in CLIENTS {
        let client = kind.open(&cluster, SET, &format!("{}-limit", kind.name())).await.unwrap();
        call(&client, "many", Some("info")).await;
        let lines = lines(&client);
        let told: Vec<&Value> = lines.iter().filter(|line| said(line, "dropped")).collect();
        let message = format!("{} messages dropped", LINES - LIMIT);
        let expected = json!({"level": "warning", "logger": "many", "data": message});
        assert_eq!(told, [&expected], "{}", kind.name());
        let passed: Vec<&Value> = lines.iter().filter(|line| said(line, "line ")).collect();
        assert!(passed.len() <= LIMIT && passed.len() > LIMIT / 2, "{}: {}", kind.name(), passed.len());
        assert!(said(passed[0], "line 1"), "{}: {}", kind.name(), passed[0]);
        assert!(said(lines.last().unwrap(), "dropped"), "{}", kind.name());
        // Each logger has its own measure.
        call(&client, "one", Some("info")).await;
        assert!(said(self::lines(&client).last().unwrap(), "careful"), "{}", kind.name());
        assert_eq!(client.take_wrong(), [""; 0], "{}", kind.name());
    }
    // Those on stdin have nodes of their own.
    eventually("the drops counted", async || {
        let dropped = metric(&cluster, "mt_log_messages_dropped_total").await;
        let calls = metric(&cluster, "mt_agent_calls_total{agent=\"subprocess\",outcome=\"result\"}").await;
        let right = dropped == 2.0 * (LINES - LIMIT) as f64 && calls == 4.0;
        if right { Ok(()) } else { Err(format!("{dropped} dropped of {calls} calls")) }
    })
    .await;
}

#[tokio::test]
async fn a_sessions_calls_share_one_measure_and_a_node_may_have_another_or_none() {
    let folder = tempfile::TempDir::new().unwrap();
    let control = ControlPlane::start(folder.path()).await;
    let limited = ["--log-messages-per-minute", "3"];
    let node = Node::start(folder.path(), "node-0", &control.grpc, &limited).await;
    let mut cluster = Cluster { control, nodes: vec![node], folder };
    cluster.apply(&chatty()).await;
    let session = Kind::HttpLegacy.open(&cluster, SET, "session").await.unwrap();
    for _ in 0..5 {
        call(&session, "one", Some("info")).await;
    }
    let heard: Vec<String> =
        lines(&session).iter().map(|line| line["data"].as_str().unwrap().to_owned()).collect();
    assert_eq!(heard, ["careful", "careful", "careful", "1 message dropped"]);

    let more = ["--log-messages-per-minute", "0"];
    let node = Node::start(cluster.folder.path(), "node-1", &cluster.control.grpc, &more).await;
    cluster.nodes = vec![node];
    let generation = cluster.control.head().await;
    cluster.in_service(generation).await;
    let client = Kind::HttpModern.open(&cluster, SET, "unlimited").await.unwrap();
    call(&client, "many", Some("info")).await;
    let lines = lines(&client);
    assert!(lines.len() > LIMIT && !lines.iter().any(|line| said(line, "dropped")), "{}", lines.len());
}
