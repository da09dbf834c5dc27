//! The headers of a modern request, made from its body.
//!
//! In revision 2026-07-28 every POST repeats its method, its name and marked
//! arguments as headers, so that proxies can route without reading the body;
//! a server refuses where the two differ. Pure.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
pub const SESSION_ID: &str = "mcp-session-id";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";
const PARAM_PREFIX: &str = "mcp-param-";
/// Tools whose marks are remembered; more than any client can use.
const TOOLS_MAX: usize = 10_000;
/// Marks of one tool that are followed.
const MARKS_MAX: usize = 64;

/// The arguments of each tool that must be repeated as headers.
#[derive(Debug, Default)]
pub struct Marks {
    tools: HashMap<String, Vec<Mark>>,
}

#[derive(Debug)]
struct Mark {
    header: HeaderName,
    path: Vec<String>,
}

impl Marks {
    /// Learns from the result of a `tools/list`.
    pub fn learn(&mut self, result: &Value) {
        for tool in result["tools"].as_array().into_iter().flatten() {
            let Some(name) = tool["name"].as_str() else { continue };
            let mut marks = Vec::new();
            collect(&tool["inputSchema"], &mut Vec::new(), &mut marks);
            if marks.is_empty() {
                self.tools.remove(name);
            } else if self.tools.len() < TOOLS_MAX || self.tools.contains_key(name) {
                self.tools.insert(name.to_owned(), marks);
            }
        }
    }

    /// The headers of one message.
    pub fn headers(&self, method: &str, params: &Value, version: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        insert(&mut headers, HeaderName::from_static(PROTOCOL_VERSION), version);
        insert(&mut headers, HeaderName::from_static(METHOD), method);
        let name = match method {
            "tools/call" | "prompts/get" => params["name"].as_str(),
            "resources/read" => params["uri"].as_str(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params["taskId"].as_str(),
            _ => None,
        };
        if let Some(name) = name {
            insert(&mut headers, HeaderName::from_static(NAME), name);
        }
        if method == "tools/call" {
            let marks = params["name"].as_str().and_then(|name| self.tools.get(name));
            for mark in marks.into_iter().flatten() {
                let found = mark.path.iter().try_fold(&params["arguments"], |value, key| value.get(key));
                let text = match found {
                    Some(Value::String(text)) => text.clone(),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                    _ => continue,
                };
                insert(&mut headers, mark.header.clone(), &text);
            }
        }
        headers
    }
}

/// Marks are only reachable through chains of `properties`.
fn collect(schema: &Value, path: &mut Vec<String>, marks: &mut Vec<Mark>) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        if marks.len() >= MARKS_MAX || path.len() >= MARKS_MAX {
            return;
        }
        path.push(key.clone());
        let name = property["x-mcp-header"]
            .as_str()
            .map(|name| format!("{PARAM_PREFIX}{name}").to_ascii_lowercase());
        if let Some(header) = name.and_then(|name| name.parse().ok()) {
            marks.push(Mark { header, path: path.clone() });
        }
        collect(property, path, marks);
        path.pop();
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Base64 is visible ASCII, so this cannot fail.
    if let Ok(value) = HeaderValue::from_str(&encode(text)) {
        headers.insert(name, value);
    }
}

/// As it is where that is safe, else in base64 between markers.
fn encode(text: &str) -> String {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b)) && text.trim() == text;
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    if plain && !looks_encoded { text.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(text)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn the_method_and_the_name_are_repeated() {
        let headers = Marks::default().headers("tools/call", &json!({"name": "a_b"}), "2026-07-28");
        assert_eq!(get(&headers, "mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(get(&headers, "mcp-method"), Some("tools/call"));
        assert_eq!(get(&headers, "mcp-name"), Some("a_b"));
        let headers = Marks::default().headers("resources/read", &json!({"uri": "file:///x"}), "2026-07-28");
        assert_eq!(get(&headers, "mcp-name"), Some("file:///x"));
        let headers = Marks::default().headers("tools/list", &json!({"name": "x"}), "2026-07-28");
        assert_eq!(get(&headers, "mcp-name"), None);
    }

    #[test]
    fn unsafe_values_travel_in_base64() {
        assert_eq!(encode("plain text"), "plain text");
        assert_eq!(encode("ü"), "=?base64?w7w=?=");
        assert_eq!(encode(" x"), "=?base64?IHg=?=");
        assert_eq!(encode("=?base64?x?="), format!("=?base64?{}?=", STANDARD.encode("=?base64?x?=")));
    }

    #[test]
    fn marked_arguments_are_repeated_when_present() {
        let mut marks = Marks::default();
        marks.learn(&json!({"tools": [{"name": "t", "inputSchema": {"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
            "gone": {"type": "string", "x-mcp-header": "Gone"},
        }}}]}));
        let params = json!({"name": "t", "arguments": {"region": "eu", "deep": {"n": 3}, "gone": null}});
        let headers = marks.headers("tools/call", &params, "2026-07-28");
        assert_eq!(get(&headers, "mcp-param-region"), Some("eu"));
        assert_eq!(get(&headers, "mcp-param-n"), Some("3"));
        assert_eq!(get(&headers, "mcp-param-gone"), None);
    }

    #[test]
    fn a_tool_that_lost_its_marks_is_forgotten() {
        let mut marks = Marks::default();
        marks.learn(
            &json!({"tools": [{"name": "t", "inputSchema": {"properties": {"a": {"x-mcp-header": "A"}}}}]}),
        );
        marks.learn(&json!({"tools": [{"name": "t", "inputSchema": {}}]}));
        let headers =
            marks.headers("tools/call", &json!({"name": "t", "arguments": {"a": "1"}}), "2026-07-28");
        assert_eq!(get(&headers, "mcp-param-a"), None);
    }
}
