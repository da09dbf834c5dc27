//! What every cell has to do. Each check says what was wrong, not that something was.

use std::{path::Path, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::client::{Client, Era};

const MIB: usize = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longer than a check may take, so that it never ends by itself.
const NEVER_MS: u64 = 500_000;

/// One client's conversation with one backend.
pub struct Cell<'a> {
    pub client: &'a Client,
    /// Of this cell alone: what comes from another one is seen.
    pub key: &'a str,
    /// Where the fixtures note and watch.
    pub folder: &'a Path,
}

type Outcome = Result<(), String>;

pub struct Check {
    /// What it is in the table.
    pub letter: char,
    pub name: &'static str,
    /// How it is done, where transports and eras differ.
    pub how: &'static str,
    pub run: for<'a> fn(&'a Cell<'a>) -> BoxFuture<'a, Outcome>,
}

pub const CHECKS: [Check; 10] = [
    Check { letter: 'C', name: "call", how: "", run: |cell| Box::pin(call(cell)) },
    Check {
        letter: 'L',
        name: "list",
        how: "tools, prompts, resources, templates; a prompt and a resource",
        run: |cell| Box::pin(list(cell)),
    },
    Check { letter: 'P', name: "progress", how: "", run: |cell| Box::pin(progress(cell)) },
    Check {
        letter: 'X',
        name: "cancel",
        how: "modern over HTTP has no message for it: the client ends the response; all others send a notification",
        run: |cell| Box::pin(cancel(cell)),
    },
    Check { letter: 'M', name: "1 MiB", how: "there and back", run: |cell| Box::pin(payload(cell)) },
    Check {
        letter: 'U',
        name: "unicode",
        how: "in names, arguments, URIs and results",
        run: |cell| Box::pin(unicode(cell)),
    },
    Check {
        letter: 'E',
        name: "error",
        how: "of a tool and of the protocol",
        run: |cell| Box::pin(error(cell)),
    },
    Check {
        letter: 'Q',
        name: "elicitation",
        how: "modern has no requests of servers: a result asks, and the client calls again",
        run: |cell| Box::pin(elicitation(cell)),
    },
    Check { letter: 'S', name: "sampling", how: "likewise", run: |cell| Box::pin(sampling(cell)) },
    Check {
        letter: 'R',
        name: "resource subscription",
        how: "legacy subscribes to each; modern has no sessions: it listens on a request that stays open",
        run: |cell| Box::pin(subscription(cell)),
    },
];

fn ensure(right: bool, what: impl FnOnce() -> String) -> Outcome {
    if right { Ok(()) } else { Err(what()) }
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 600 {
        let end = text.floor_char_boundary(600);
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Cell<'_> {
    async fn tool(&self, name: &str, arguments: Value) -> Result<Value, String> {
        let answer = self.client.ask("tools/call", json!({"name": name, "arguments": arguments})).await?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{name}: {}", short(&answer))),
        }
    }

    /// As `tool`, for those that answer with a text.
    async fn text(&self, name: &str, arguments: Value) -> Result<String, String> {
        let result = self.tool(name, arguments).await?;
        let text = result["content"][0]["text"].as_str().filter(|_| result["isError"] != true);
        text.map(str::to_owned).ok_or_else(|| format!("{name}: {}", short(&result)))
    }

    /// Every item of a list.
    async fn all(&self, method: &str, of: &str) -> Result<Vec<Value>, String> {
        let (mut items, mut params) = (Vec::new(), json!({}));
        loop {
            let answer = self.client.ask(method, params).await?;
            let page =
                answer["result"][of].as_array().ok_or_else(|| format!("{method}: {}", short(&answer)))?;
            items.extend(page.iter().cloned());
            match answer["result"].get("nextCursor") {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Ok(items),
            }
        }
    }

    /// Waits until the fixture has noted a line about this cell's slow call.
    async fn noted(&self, line: &str) {
        let file = self.folder.join(format!("slow-{}", self.key));
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.lines().any(|noted| noted == line)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn call(cell: &Cell<'_>) -> Outcome {
    let text = cell.text("echo", json!({"text": cell.key})).await?;
    ensure(text == cell.key, || format!("{text:?} came back"))
}

async fn list(cell: &Cell<'_>) -> Outcome {
    for (method, of, field, wanted) in [
        ("tools/list", "tools", "name", "echo"),
        ("prompts/list", "prompts", "name", "test_simple_prompt"),
        ("resources/list", "resources", "uri", "test://static-text"),
        ("resources/templates/list", "resourceTemplates", "uriTemplate", "test://template/{id}/data"),
    ] {
        let items = cell.all(method, of).await?;
        ensure(items.iter().any(|item| item[field] == wanted), || {
            format!("{method} has {} items, and no {wanted}", items.len())
        })?;
    }
    let arguments = json!({"arg1": "one", "arg2": cell.key});
    let prompt = json!({"name": "test_prompt_with_arguments", "arguments": arguments});
    let answer = cell.client.ask("prompts/get", prompt).await?;
    let text = answer["result"]["messages"][0]["content"]["text"].as_str().unwrap_or_default();
    ensure(text.contains(cell.key), || short(&answer))?;
    let answer = cell.client.ask("resources/read", json!({"uri": "test://static-text"})).await?;
    let text = answer["result"]["contents"][0]["text"].as_str().unwrap_or_default();
    ensure(text == "This is the content of the static text resource.", || short(&answer))
}

async fn progress(cell: &Cell<'_>) -> Outcome {
    let params =
        json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": cell.key}});
    let answer = cell.client.ask("tools/call", params).await?;
    ensure(answer["result"]["content"][0]["text"] == "Progress reported", || short(&answer))?;
    let notices = cell.client.notices("notifications/progress");
    let seen: Vec<(&Value, Option<f64>)> = notices
        .iter()
        .map(|notice| (&notice["params"]["progressToken"], notice["params"]["progress"].as_f64()))
        .collect();
    let token = json!(cell.key);
    let wanted = [0.0, 50.0, 100.0].map(|progress| (&token, Some(progress)));
    ensure(seen == wanted, || format!("before the answer: {seen:?}"))
}

async fn cancel(cell: &Cell<'_>) -> Outcome {
    let arguments = json!({"ms": NEVER_MS, "key": cell.key});
    let params = json!({"name": "slow", "arguments": arguments});
    let pending = cell.client.begin("tools/call", params).await?;
    cell.noted("started").await;
    cell.client.cancel(&pending).await?;
    cell.noted("cancelled").await;
    call(cell).await.map_err(|reason| format!("and afterwards: {reason}"))
}

async fn payload(cell: &Cell<'_>) -> Outcome {
    let text: String = cell.key.chars().cycle().take(MIB).collect();
    let echoed = cell.text("echo", json!({"text": text})).await?;
    ensure(echoed == text, || format!("{} bytes came back, and not the same", echoed.len()))
}

async fn unicode(cell: &Cell<'_>) -> Outcome {
    let odd = "\u{1F9EA} ｗｉｄｅ \u{202E}rtl\u{202C} e\u{301} \u{2028}\u{7f}\u{0}\"\\/\n\t — שלום 世界";
    let arguments = json!({"ключ": odd, "🙂": [odd, {odd: null}], "": ""});
    let result = cell.tool("grüße_世界", arguments.clone()).await?;
    ensure(result["structuredContent"] == arguments, || short(&result))?;
    ensure(result["content"][0]["text"] == "grüße_世界", || short(&result))?;
    let arguments = json!({"arg1": odd, "arg2": "ü"});
    let prompt = json!({"name": "test_prompt_with_arguments", "arguments": arguments});
    let answer = cell.client.ask("prompts/get", prompt).await?;
    let text = answer["result"]["messages"][0]["content"]["text"].as_str().unwrap_or_default();
    ensure(text.contains(odd), || short(&answer))?;
    let uri = "test://template/größe-世界/data";
    let answer = cell.client.ask("resources/read", json!({"uri": uri})).await?;
    let content = &answer["result"]["contents"][0];
    let text = content["text"].as_str().unwrap_or_default();
    ensure(content["uri"] == uri && text.contains("größe-世界"), || short(&answer))
}

async fn error(cell: &Cell<'_>) -> Outcome {
    let result = cell.tool("test_error_handling", json!({})).await?;
    ensure(result["isError"] == true && result["content"][0]["text"].is_string(), || short(&result))?;
    let data = json!({"of": cell.key});
    let arguments = json!({"code": 4242, "message": "nö", "data": data});
    let answer = cell.client.ask("tools/call", json!({"name": "fail", "arguments": arguments})).await?;
    let error = &answer["error"];
    ensure(error["code"] == 4242 && error["message"] == "nö" && error["data"] == data, || short(&answer))?;
    let answer = cell.client.ask("tools/call", json!({"name": "no_such_tool", "arguments": {}})).await?;
    ensure(answer["error"]["code"] == -32602, || short(&answer))?;
    let uri = "test://no-such-resource";
    let answer = cell.client.ask("resources/read", json!({"uri": uri})).await?;
    // Each era has its own code for it.
    let code = if cell.client.era() == Era::Legacy { -32002 } else { -32602 };
    ensure(answer["error"]["code"] == code, || short(&answer))
}

/// Fails unless exactly one question was asked, and it is this one's.
fn asked_once(cell: &Cell<'_>, method: &str) -> Outcome {
    let questions = cell.client.take_questions();
    let own = |question: &Value| question["method"] == method && question.to_string().contains(cell.key);
    ensure(questions.len() == 1 && own(&questions[0]), || format!("asked was {questions:?}"))
}

async fn elicitation(cell: &Cell<'_>) -> Outcome {
    let text = cell.text("test_elicitation", json!({"message": cell.key})).await?;
    ensure(text.contains("action=accept") && text.contains("Ada 🙂"), || text.clone())?;
    asked_once(cell, "elicitation/create")
}

async fn sampling(cell: &Cell<'_>) -> Outcome {
    let text = cell.text("test_sampling", json!({"prompt": cell.key})).await?;
    ensure(text == "LLM response: Großes Paris", || text.clone())?;
    asked_once(cell, "sampling/createMessage")
}

async fn subscription(cell: &Cell<'_>) -> Outcome {
    let uri = format!("test://watched/{}", cell.key);
    let file = cell.folder.join(format!("watched-{}", cell.key));
    let change = || std::fs::write(&file, format!("changed for {}", cell.key)).map_err(|e| e.to_string());
    let updated = |notice: &Value| {
        notice["method"] == "notifications/resources/updated" && notice["params"]["uri"] == uri
    };
    match cell.client.era() {
        Era::Legacy => {
            let answer = cell.client.ask("resources/subscribe", json!({"uri": uri})).await?;
            ensure(answer["result"].is_object(), || short(&answer))?;
            change()?;
            cell.client.notice(updated).await;
        }
        Era::Modern => {
            let wanted = json!({"resourceSubscriptions": [uri]});
            let listening =
                cell.client.begin("subscriptions/listen", json!({"notifications": wanted})).await?;
            let own = |notice: &Value| {
                notice["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening.id
            };
            let acknowledged = |notice: &Value| {
                notice["method"] == "notifications/subscriptions/acknowledged" && own(notice)
            };
            let acknowledged = cell.client.notice(acknowledged).await;
            ensure(acknowledged["params"]["notifications"] == wanted, || short(&acknowledged))?;
            change()?;
            let updated = cell.client.notice(updated).await;
            ensure(own(&updated), || short(&updated))?;
            cell.client.cancel(&listening).await?;
        }
    }
    let answer = cell.client.ask("resources/read", json!({"uri": uri})).await?;
    let text = answer["result"]["contents"][0]["text"].as_str().unwrap_or_default();
    ensure(text.ends_with(cell.key), || short(&answer))?;
    if cell.client.era() == Era::Legacy {
        let answer = cell.client.ask("resources/unsubscribe", json!({"uri": uri})).await?;
        ensure(answer["result"].is_object(), || short(&answer))?;
    }
    Ok(())
}
