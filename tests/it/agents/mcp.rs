//! Tools of another backend under names of their own: an MCP server that is no
//! member of the gateway, over the same pipeline as every call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{MIB, Served, serve, text_of};
use crate::{
    fixture::{Fixture, Mode},
    manifest, raw,
};

/// How often the server is asked how many slow calls it works on.
const LOOK: Duration = Duration::from_millis(20);

async fn slow_calls(url: &str) -> Option<usize> {
    let params = json!({"name": "cancelled_count", "arguments": {}});
    let response = raw::modern(url, 1, "tools/call", params).send().await.ok()?;
    let counts = raw::answer(response).await["result"]["structuredContent"].clone();
    let count = |name: &str| counts[name].as_u64().and_then(|count| usize::try_from(count).ok());
    count("started")?.checked_sub(count("finished")? + count("cancelled")?)
}

pub async fn start() -> Served {
    start_with(Mode::Dual).await
}

/// Of a server that speaks only the legacy era the slow calls are not counted.
async fn start_with(mode: Mode) -> Served {
    let fixture = Fixture::start(mode).await;
    let running = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let (url, count) = (fixture.url().to_owned(), running.clone());
    tasks.spawn(async move {
        loop {
            if let Some(now) = slow_calls(&url).await {
                count.store(now, Ordering::SeqCst);
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    let tool = |name: &str, of: &str, more: Value| {
        let mut config = json!({"backend": "mcp-target", "tool": of});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": format!("mcp_{name}"), "routing": {"type": "mcp", "config": config}})
    };
    let mut late = tool("late", "slow", json!({"fixed": {"ms": 30_000}}));
    late["timeout"] = "300ms".into();
    let mut echo = tool("echo", "echo", json!({"arguments": {"text": "[{{json text}}]"}}));
    echo["inputSchema"] = json!({"type": "object", "properties": {"text": {"type": "string"}}});
    let tools = json!({"tools": [
        tool("ok", "echo", json!({})),
        tool("fail", "fail", json!({"fixed": {"code": -32603, "message": "not today"}})),
        tool("slow", "slow", json!({"fixed": {"ms": 30_000}})),
        late,
        tool("steps", "test_tool_with_progress", json!({})),
        tool("big", "payload", json!({"fixed": {"bytes": MIB}})),
        echo,
        tool("greet", "echo", json!({"defaults": {"text": "hello", "lang": "en"}, "fixed": {"from": "us"}})),
        tool("dead", "anything", json!({"backend": "mcp-off"})),
    ]});
    let off =
        manifest::backend("mcp-off", &json!({"http": {"url": "http://127.0.0.1:1/mcp"}, "disabled": true}));
    let more = manifest::over_http("mcp-target", fixture.url()) + &off;
    Served { agent: "mcp", tools: tools.to_string(), more, running, keep: Box::new((fixture, tasks)) }
}

async fn listed(url: &str) -> Vec<Value> {
    let answer = raw::ask(url, "tools/list", json!({})).await;
    answer["result"]["tools"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_tool_of_a_backend_that_is_no_member_is_shown_and_called_as_the_file_says() {
    for mode in [Mode::Legacy, Mode::Modern] {
        let served = [start_with(mode).await];
        let cluster = serve(&served).await;
        let url = cluster.nodes[0].url("mcp");
        raw::shows_tool(&url, "mcp_ok").await;
        // The catalog of the backend comes when it has been listed.
        let schema = crate::cluster::eventually("the schema of the other tool", async || {
            let tools = listed(&url).await;
            let slow = tools.iter().find(|tool| tool["name"] == "mcp_slow").cloned().unwrap_or_default();
            let known = slow["inputSchema"]["properties"]["key"].is_object();
            if known { Ok(slow) } else { Err(slow.to_string()) }
        })
        .await;
        assert_eq!(schema["inputSchema"]["properties"].get("ms"), None, "{schema}");
        assert_eq!(schema["description"], "Answers after a while, unless the call is cancelled.");
        let tools = listed(&url).await;
        assert!(tools.iter().all(|tool| tool["name"] != "mcp_dead" && tool["name"] != "echo"), "{tools:?}");

        let call = async |tool: &str, arguments: Value| {
            raw::ask(&url, "tools/call", json!({"name": tool, "arguments": arguments})).await["result"]
                .clone()
        };
        let greeted = call("mcp_greet", json!({"text": "hi", "from": "them"})).await;
        assert_eq!(text_of(&greeted), "hi");
        assert_eq!(greeted["structuredContent"], json!({"lang": "en", "from": "us"}), "{greeted}");
        let dead = call("mcp_dead", json!({})).await;
        assert_eq!(text_of(&dead), "tool \"mcp_dead\": backend mcp-off is switched off", "{dead}");
        let late = call("mcp_late", json!({})).await;
        assert_eq!(late["_meta"]["io.magictunnel/error"]["reason"], "timeout", "{late}");
        assert!(text_of(&late).contains("mcp_late"), "{late}");
    }
}
