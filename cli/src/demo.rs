//! The demo: a small MCP server that works offline and needs nothing.
//!
//! A pure function from a message to its answer, so that any order of
//! messages in any era is a unit test: a client may probe with
//! `server/discover`, change its mind and send `initialize` to the same process.

use std::time::SystemTime;

use serde_json::{Value, json};

const MODERN: &str = "2026-07-28";
/// Newest first.
const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The sides of a die, and how many dice are rolled at once.
const SIDES_MAX: u64 = 1_000_000;
const DICE_MAX: u64 = 100;
const RESOURCE_URI: &str = "demo://welcome";
const WELCOME: &str = "This resource comes from the demo server of MagicTunnel. It works offline.";
/// What never changes may be kept for an hour.
const TTL_MS: u64 = 3_600_000;

/// What the server may know of the world.
pub struct World<'a> {
    pub now: SystemTime,
    /// A number from 1 to the given one, both included.
    pub roll: &'a mut dyn FnMut(u64) -> u64,
}

type Answer = Result<Value, (i64, String)>;

/// The answer to one message; none to a notification or an answer.
pub fn reply(message: &str, world: &mut World) -> Option<String> {
    let Ok(request) = serde_json::from_str::<Value>(message) else {
        return Some(error(&Value::Null, -32700, "this is not JSON"));
    };
    if !request.is_object() {
        return Some(error(&Value::Null, -32600, "one message at a time"));
    }
    let Some(method) = request["method"].as_str() else {
        let is_answer = request.get("result").is_some() || request.get("error").is_some();
        return (!is_answer).then(|| error(&request["id"], -32600, "a message has a method"));
    };
    let id = request.get("id").filter(|id| !id.is_null())?;
    let params = &request["params"];
    let modern = params["_meta"].get("io.modelcontextprotocol/protocolVersion");
    let answer = match modern {
        Some(version) if version == MODERN => answer_modern(method, params, world),
        Some(version) => {
            let data = json!({"supported": [MODERN], "requested": version});
            let error = json!({"code": -32022, "message": "unsupported protocol version", "data": data});
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string());
        }
        None => answer_legacy(method, params, world),
    };
    Some(match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
        Err((code, text)) => error(id, code, &text),
    })
}

fn error(id: &Value, code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string()
}

fn answer_legacy(method: &str, params: &Value, world: &mut World) -> Answer {
    match method {
        "initialize" => {
            let asked = params["protocolVersion"].as_str().unwrap_or_default();
            let version = LEGACY.into_iter().find(|version| *version == asked).unwrap_or(LEGACY[0]);
            let mut result = about();
            result["protocolVersion"] = version.into();
            result["serverInfo"] = server_info();
            Ok(result)
        }
        "ping" => Ok(json!({})),
        _ => answer_both(method, params, world),
    }
}

fn answer_modern(method: &str, params: &Value, world: &mut World) -> Answer {
    let mut result = match method {
        "server/discover" => {
            let mut result = about();
            result["supportedVersions"] = json!([MODERN]);
            result
        }
        _ => answer_both(method, params, world)?,
    };
    result["resultType"] = "complete".into();
    result["_meta"]["io.modelcontextprotocol/serverInfo"] = server_info();
    if method.ends_with("/list") || matches!(method, "server/discover" | "resources/read") {
        result["ttlMs"] = TTL_MS.into();
        result["cacheScope"] = "public".into();
    }
    Ok(result)
}

fn answer_both(method: &str, params: &Value, world: &mut World) -> Answer {
    match method {
        "tools/list" => Ok(json!({"tools": tools()})),
        "tools/call" => call(params, world),
        "resources/list" => Ok(json!({"resources": [{
            "uri": RESOURCE_URI, "name": "welcome", "title": "Welcome", "mimeType": "text/plain",
            "description": "A short text from the demo server.",
        }]})),
        "resources/templates/list" => Ok(json!({"resourceTemplates": []})),
        "resources/read" if params["uri"] == RESOURCE_URI => {
            Ok(json!({"contents": [{"uri": RESOURCE_URI, "mimeType": "text/plain", "text": WELCOME}]}))
        }
        "resources/read" => Err((-32602, "resource not found".to_owned())),
        "prompts/list" => Ok(json!({"prompts": [{
            "name": "greet", "title": "Greet", "description": "Asks for a greeting.",
            "arguments": [{"name": "name", "description": "Who is greeted.", "required": true}],
        }]})),
        "prompts/get" => prompt(params),
        _ => Err((-32601, format!("method {method:?} not found"))),
    }
}

fn about() -> Value {
    json!({
        "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
        "instructions": "A demo that works offline: echo, add, now and roll_dice.",
    })
}

fn server_info() -> Value {
    json!({"name": "magictunnel-demo", "title": "MagicTunnel demo", "version": env!("CARGO_PKG_VERSION")})
}

fn tools() -> Value {
    let read_only = json!({"readOnlyHint": true, "openWorldHint": false});
    json!([
        {
            "name": "echo", "title": "Echo", "description": "Gives back the message.",
            "inputSchema": {"type": "object", "required": ["message"], "properties": {
                "message": {"type": "string", "description": "What to give back."},
            }},
            "annotations": read_only,
        },
        {
            "name": "add", "title": "Add", "description": "Adds two numbers.",
            "inputSchema": {"type": "object", "required": ["a", "b"], "properties": {
                "a": {"type": "number"}, "b": {"type": "number"},
            }},
            "outputSchema": {"type": "object", "required": ["sum"], "properties": {"sum": {"type": "number"}}},
            "annotations": read_only,
        },
        {
            "name": "now", "title": "Now", "description": "Tells the time, in UTC.",
            "inputSchema": {"type": "object", "properties": {}},
            "annotations": read_only,
        },
        {
            "name": "roll_dice", "title": "Roll dice", "description": "Rolls dice and adds them up.",
            "inputSchema": {"type": "object", "properties": {
                "sides": {"type": "integer", "minimum": 2, "maximum": SIDES_MAX, "default": 6},
                "count": {"type": "integer", "minimum": 1, "maximum": DICE_MAX, "default": 1},
            }},
            "annotations": read_only,
        },
    ])
}

fn call(params: &Value, world: &mut World) -> Answer {
    let arguments = &params["arguments"];
    let result = match params["name"].as_str().unwrap_or_default() {
        "echo" => arguments["message"].as_str().map(text).ok_or("message must be a text"),
        "add" => add(&arguments["a"], &arguments["b"]),
        "now" => Ok(text(&utc(world.now))),
        "roll_dice" => roll(arguments, world.roll),
        name => return Err((-32602, format!("unknown tool {name:?}"))),
    };
    // What the tool refuses is for the model to read, and so a result.
    Ok(result.unwrap_or_else(|why| {
        let mut result = text(why);
        result["isError"] = true.into();
        result
    }))
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn add(a: &Value, b: &Value) -> Result<Value, &'static str> {
    let sum = match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.checked_add(b).map(Value::from),
        _ => None,
    };
    let sum = match sum {
        Some(sum) => sum,
        None => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a + b).into(),
            _ => return Err("a and b must be numbers"),
        },
    };
    let mut result = text(&sum.to_string());
    result["structuredContent"] = json!({"sum": sum});
    Ok(result)
}

fn roll(arguments: &Value, roll: &mut dyn FnMut(u64) -> u64) -> Result<Value, &'static str> {
    let number = |key: &str, default: u64, range: std::ops::RangeInclusive<u64>| match &arguments[key] {
        Value::Null => Some(default),
        value => value.as_u64().filter(|number| range.contains(number)),
    };
    let sides = number("sides", 6, 2..=SIDES_MAX).ok_or("sides must be a whole number from 2 to 1000000")?;
    let count = number("count", 1, 1..=DICE_MAX).ok_or("count must be a whole number from 1 to 100")?;
    let rolls: Vec<u64> = (0..count).map(|_| roll(sides)).collect();
    let shown: Vec<String> = rolls.iter().map(u64::to_string).collect();
    let sum: u64 = rolls.iter().sum();
    Ok(text(&if count == 1 { shown.join("") } else { format!("{} = {sum}", shown.join(" + ")) }))
}

fn prompt(params: &Value) -> Answer {
    if params["name"] != "greet" {
        return Err((-32602, format!("unknown prompt {}", params["name"])));
    }
    let name =
        params["arguments"]["name"].as_str().ok_or((-32602, "the argument name is required".to_owned()))?;
    let text = format!("Write a short, warm greeting for {name}.");
    Ok(json!({
        "description": "Asks for a greeting.",
        "messages": [{"role": "user", "content": {"type": "text", "text": text}}],
    }))
}

fn utc(now: SystemTime) -> String {
    // A clock before 1970 is a broken clock.
    let now = now.max(SystemTime::UNIX_EPOCH);
    chrono::DateTime::<chrono::Utc>::from(now).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ask(message: Value) -> Option<Value> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let reply = reply(&message.to_string(), &mut World { now, roll: &mut |sides| sides - 1 });
        reply.map(|text| serde_json::from_str(&text).unwrap())
    }

    fn legacy(method: &str, params: Value) -> Value {
        ask(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).unwrap()
    }

    fn modern(method: &str, mut params: Value) -> Value {
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": MODERN});
        legacy(method, params)
    }

    fn run(tool: &str, arguments: Value) -> Value {
        legacy("tools/call", json!({"name": tool, "arguments": arguments}))["result"].take()
    }

    #[test]
    fn initialize_agrees_on_the_version_or_offers_the_latest() {
        for (asked, agreed) in
            [("2025-03-26", "2025-03-26"), (MODERN, "2025-11-25"), ("1999-01-01", "2025-11-25")]
        {
            assert_eq!(
                legacy("initialize", json!({"protocolVersion": asked}))["result"]["protocolVersion"],
                agreed
            );
        }
    }

    #[test]
    fn both_eras_are_answered_in_any_order() {
        assert_eq!(modern("server/discover", json!({}))["result"]["supportedVersions"], json!([MODERN]));
        assert!(legacy("initialize", json!({"protocolVersion": "2025-06-18"})).get("result").is_some());
        assert_eq!(modern("tools/list", json!({}))["result"]["resultType"], "complete");
        assert!(legacy("tools/list", json!({}))["result"].get("resultType").is_none());
        assert_eq!(modern("initialize", json!({}))["error"]["code"], -32601);
        assert_eq!(legacy("server/discover", json!({}))["error"]["code"], -32601);
    }

    #[test]
    fn an_unknown_modern_version_is_told_what_is_spoken() {
        let params = json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}});
        let error = legacy("tools/list", params)["error"].take();
        assert_eq!((&error["code"], &error["data"]["supported"]), (&json!(-32022), &json!([MODERN])));
    }

    #[test]
    fn the_tools_do_what_they_say() {
        assert_eq!(run("echo", json!({"message": "hi"}))["content"][0]["text"], "hi");
        assert_eq!(run("add", json!({"a": 2, "b": 40}))["structuredContent"]["sum"], 42);
        assert_eq!(run("add", json!({"a": 0.5, "b": 1}))["content"][0]["text"], "1.5");
        assert_eq!(run("now", json!({}))["content"][0]["text"], "2023-11-14T22:13:20Z");
        assert_eq!(run("roll_dice", json!({}))["content"][0]["text"], "5");
        assert_eq!(run("roll_dice", json!({"sides": 4, "count": 2}))["content"][0]["text"], "3 + 3 = 6");
    }

    #[test]
    fn wrong_arguments_are_a_result_and_an_unknown_tool_is_an_error() {
        assert_eq!(run("add", json!({"a": "x"}))["isError"], true);
        assert_eq!(run("roll_dice", json!({"sides": 1}))["isError"], true);
        assert_eq!(run("roll_dice", json!({"count": 101}))["isError"], true);
        assert_eq!(legacy("tools/call", json!({"name": "x"}))["error"]["code"], -32602);
    }

    #[test]
    fn the_resource_and_the_prompt_can_be_read() {
        assert_eq!(
            legacy("resources/read", json!({"uri": RESOURCE_URI}))["result"]["contents"][0]["text"],
            WELCOME
        );
        assert_eq!(legacy("resources/read", json!({"uri": "demo://x"}))["error"]["code"], -32602);
        let prompt = legacy("prompts/get", json!({"name": "greet", "arguments": {"name": "Ada"}}));
        assert!(prompt["result"]["messages"][0]["content"]["text"].as_str().unwrap().contains("Ada"));
        assert_eq!(legacy("prompts/get", json!({"name": "greet"}))["error"]["code"], -32602);
    }

    #[test]
    fn notifications_and_answers_get_no_answer_and_garbage_gets_an_error() {
        assert_eq!(ask(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})), None);
        assert_eq!(ask(json!({"jsonrpc": "2.0", "id": 4, "result": {}})), None);
        assert_eq!(ask(json!([])).unwrap()["error"]["code"], -32600);
        let mut world = World { now: SystemTime::UNIX_EPOCH, roll: &mut |_| 1 };
        assert!(reply("{", &mut world).unwrap().contains("-32700"));
    }

    #[test]
    fn ids_come_back_as_they_were() {
        for id in [json!("a"), json!(0), json!(u64::MAX)] {
            let answer = ask(json!({"jsonrpc": "2.0", "id": id, "method": "ping"})).unwrap();
            assert_eq!(answer["id"], id);
        }
    }
}
