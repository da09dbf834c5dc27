//! Running a fleet from day to day with `mtctl`: what is listed, what is
//! switched on, how much there is.

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, eventually},
    fixture::{Fixture, Mode},
    manifest::{gateway, over_http},
    raw::{answer, modern, tool_names},
};

const TOOLS: &str = r#"
tools:
  - name: now
    routing: {type: subprocess, config: {command: date}}
  - name: secret
    hidden: true
    routing: {type: subprocess, config: {command: date}}
  - name: off
    enabled: false
    routing: {type: subprocess, config: {command: date}}
prompts:
  - name: greet
    messages: [{text: hello}]
"#;

async fn fleet() -> (Cluster, Fixture, String) {
    let fixture = Fixture::start(Mode::Modern).await;
    let cluster = Cluster::start(1).await;
    let members = json!([{"backend": "fixture"}, {"toolSet": "clock"}]);
    let spec = json!({"members": members, "namespace": "proxy", "toolName": "{namespace}.{backend}.{tool}"});
    let resources = over_http("fixture", fixture.url()) + &gateway("default", &spec);
    cluster.apply_files(&[("clock.yaml", TOOLS), ("rest.yaml", &resources)]).await;
    let url = cluster.nodes[0].url("default");
    eventually("the fixture's tools shown", async || match tool_names(&url).await?.len() {
        0..=1 => Err("too few".to_owned()),
        _ => Ok(()),
    })
    .await;
    (cluster, fixture, url)
}

async fn mtctl(cluster: &Cluster, words: &str) -> String {
    let words: Vec<&str> = words.split_whitespace().collect();
    let output = cluster.mtctl(&words).await;
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn call(url: &str, tool: &str) -> Value {
    answer(modern(url, 3, "tools/call", json!({"name": tool, "arguments": {}})).send().await.unwrap()).await
}

async fn lists(url: &str, tool: &str) -> bool {
    tool_names(url).await.unwrap().iter().any(|name| name == tool)
}

#[tokio::test]
async fn what_is_hidden_is_not_listed_and_can_be_called() {
    let (cluster, _fixture, url) = fleet().await;
    assert!(lists(&url, "proxy.clock.now").await && !lists(&url, "proxy.clock.secret").await);
    assert_eq!(call(&url, "proxy.clock.secret").await["result"]["isError"], false);
    assert_eq!(call(&url, "proxy.clock.off").await["error"]["code"], -32602);

    assert!(!mtctl(&cluster, "call proxy.clock.secret").await.is_empty());

    // Each is in service when the command returns.
    mtctl(&cluster, "tools hide proxy.clock.*").await;
    assert!(!lists(&url, "proxy.clock.now").await);
    assert_eq!(call(&url, "proxy.clock.now").await["result"]["isError"], false);
    mtctl(&cluster, "tools show proxy.clock.secret").await;
    assert!(lists(&url, "proxy.clock.secret").await && !lists(&url, "proxy.clock.now").await);
    mtctl(&cluster, "tools show proxy.clock.*").await;
    assert!(lists(&url, "proxy.clock.now").await);
    mtctl(&cluster, "tools hide echo --gateway default").await;
    mtctl(&cluster, "tools hide --tool-set clock now").await;
    let unknown = cluster.mtctl(&["tools", "hide", "--tool-set", "clock", "never"]).await;
    assert_eq!(unknown.status.code(), Some(5));
}

#[tokio::test]
async fn servers_and_tools_are_switched_while_everything_runs() {
    let (cluster, _fixture, url) = fleet().await;
    let many = tool_names(&url).await.unwrap().len();
    mtctl(&cluster, "disable backend fixture").await;
    assert_eq!(tool_names(&url).await.unwrap(), ["proxy.clock.now"]);
    mtctl(&cluster, "enable backend fixture").await;
    assert_eq!(tool_names(&url).await.unwrap().len(), many);
    mtctl(&cluster, "enable tool-set clock --tool off").await;
    assert!(lists(&url, "proxy.clock.off").await);
    mtctl(&cluster, "disable tool-set clock").await;
    assert!(!lists(&url, "proxy.clock.off").await);
    assert_eq!(call(&url, "proxy.clock.now").await["error"]["code"], -32602);
    assert_eq!(cluster.mtctl(&["disable", "backend", "nobody"]).await.status.code(), Some(5));
}

#[tokio::test]
async fn statistics_count_what_clients_see() {
    let (cluster, _fixture, url) = fleet().await;
    let stats: Value = serde_json::from_str(&mtctl(&cluster, "stats default -o json").await).unwrap();
    let listed = tool_names(&url).await.unwrap().len();
    assert_eq!(
        (&stats["enabled"], &stats["namespace"], &stats["servers"], &stats["tool_sets"], &stats["nodes"]),
        (&json!(true), &json!("proxy"), &json!(1), &json!(1), &json!(1))
    );
    assert_eq!((&stats["tools"], &stats["hidden_tools"]), (&json!(listed), &json!(1)));
    assert!(stats["prompts"].as_u64().unwrap() >= 2);
    assert!(mtctl(&cluster, "stats").await.contains("default"));
    assert_eq!(cluster.mtctl(&["stats", "none"]).await.status.code(), Some(5));
}

#[tokio::test]
async fn a_name_that_two_members_want_is_told_to_those_who_ask() {
    let cluster = Cluster::start(1).await;
    let says = |word: &str| {
        format!(
            "tools:\n  - name: who\n    routing: {{type: subprocess, config: {{command: echo, args: [{word}]}}}}\n"
        )
    };
    let spec = json!({"members": [{"toolSet": "one"}, {"toolSet": "two"}]});
    let files =
        [("one.yaml", says("first")), ("two.yaml", says("second")), ("rest.yaml", gateway("default", &spec))];
    cluster.apply_files(&files.each_ref().map(|(name, text)| (*name, text.as_str()))).await;
    let url = cluster.nodes[0].url("default");
    eventually("the tool served", async || match lists(&url, "who").await {
        true => Ok(()),
        false => Err("not yet".to_owned()),
    })
    .await;
    assert!(call(&url, "who").await.to_string().contains("first"));

    let clash = json!({"kind": "tool", "name": "who", "winner": "one", "loser": "two"});
    let described = mtctl(&cluster, "describe gateway default -o json").await;
    let described: Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["status"]["clashes"], json!([clash]));
    let stats: Value = serde_json::from_str(&mtctl(&cluster, "stats default -o json").await).unwrap();
    assert_eq!((&stats["clashes"], &stats["clash_count"]), (&json!([clash]), &json!(1)));
    assert!(mtctl(&cluster, "status").await.contains("who (one, not two)"));
    let said = cluster.mtctl(&["stats"]).await.stderr;
    assert!(String::from_utf8_lossy(&said).contains("1 names that an earlier member has"));
    assert!(mtctl(&cluster, "describe gateway default").await.contains("NOT OF"));
}
