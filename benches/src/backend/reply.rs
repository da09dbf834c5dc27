//! What the backend says to each request. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A request or a notification, as far as it is looked at.
#[derive(Deserialize)]
pub struct Message<'a> {
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    pub method: &'a str,
    #[serde(borrow)]
    pub params: Option<Params<'a>>,
}

/// The params of any request.
#[derive(Deserialize)]
pub struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub arguments: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    pub meta: Option<Meta<'a>>,
}

/// Who wants what besides.
#[derive(Deserialize)]
pub struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    pub version: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Wanted<'a> {
    #[serde(borrow)]
    mark: Cow<'a, str>,
    #[serde(default)]
    events: u32,
    #[serde(default)]
    links: u32,
}

/// Progress that a call wants told.
pub struct Report {
    pub token: String,
    pub mark: String,
    pub events: u32,
}

impl<'a> Message<'a> {
    /// Of a call of `progress` by somebody who listens.
    pub fn report(&self) -> Option<Report> {
        let params = self.params.as_ref().filter(|params| params.name.as_deref() == Some("progress"))?;
        let token = params.meta.as_ref()?.progress_token?.get().to_owned();
        let wanted = params.wanted()?;
        Some(Report { token, mark: wanted.mark.into_owned(), events: wanted.events })
    }
}

impl<'a> Params<'a> {
    fn wanted(&self) -> Option<Wanted<'a>> {
        serde_json::from_str(self.arguments?.get()).ok()
    }
}

/// A notification of progress.
pub fn progress(token: &str, step: u32, message: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{step},"message":{message}}}}}"#
    )
}

/// What there is to list.
pub struct Contents {
    tools: String,
    capabilities: &'static str,
}

impl Contents {
    pub fn new(tools: usize, resources: bool) -> Self {
        let tool = |name: String| {
            format!(
                r#"{{"name":"{name}","description":"Answers with its arguments, as they came.","inputSchema":{{"type":"object","properties":{{"text":{{"type":"string","description":"Any text at all"}},"count":{{"type":"integer","minimum":0}}}},"required":["text"]}}}}"#
            )
        };
        let named = ["echo", "progress", "links"].map(str::to_owned).into_iter();
        let names = named.chain((3..tools).map(|n| format!("tool_{n}"))).take(tools);
        Self {
            tools: names.map(tool).collect::<Vec<_>>().join(","),
            capabilities: if resources { r#"{"tools":{},"resources":{}}"# } else { r#"{"tools":{}}"# },
        }
    }

    /// The answer to a request; none to a notification.
    pub fn reply(&self, message: &Message<'_>, modern: bool) -> Option<String> {
        let id = message.id?;
        let complete = if modern { r#","resultType":"complete""# } else { "" };
        let cache = if modern { r#","ttlMs":0,"cacheScope":"public""# } else { "" };
        let capabilities = self.capabilities;
        let params = message.params.as_ref();
        let result = match message.method {
            "initialize" => format!(
                r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities},"serverInfo":{{"name":"bench","version":"1"}}}}"#
            ),
            "server/discover" => format!(
                r#"{{"supportedVersions":["2026-07-28"],"capabilities":{capabilities}{complete}{cache}}}"#
            ),
            "tools/list" => format!(r#"{{"tools":[{}]{complete}{cache}}}"#, self.tools),
            "resources/list" => {
                format!(r#"{{"resources":[{{"uri":"bench://thing/0","name":"thing"}}]{complete}{cache}}}"#)
            }
            "resources/templates/list" => format!(r#"{{"resourceTemplates":[]{complete}{cache}}}"#),
            "resources/read" => {
                let uri = params.and_then(|params| params.uri.as_deref()).unwrap_or_default();
                format!(
                    r#"{{"contents":[{{"uri":"{uri}","mimeType":"text/plain","text":"What is in it."}}]{complete}{cache}}}"#
                )
            }
            "tools/call" => call(params, complete),
            _ => "{}".to_owned(),
        };
        Some(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.get()))
    }
}

fn call(params: Option<&Params<'_>>, complete: &str) -> String {
    let named = |name: &str| params.filter(|params| params.name.as_deref() == Some(name));
    if let Some(wanted) = named("links").and_then(Params::wanted) {
        let link = |number: u32| {
            format!(
                r#"{{"type":"resource_link","uri":"bench://thing/{}/{number}","name":"thing {number}"}}"#,
                wanted.mark
            )
        };
        let links = (0..wanted.links).map(link).collect::<Vec<_>>().join(",");
        return format!(r#"{{"content":[{links}]{complete}}}"#);
    }
    let arguments = params.and_then(|params| params.arguments).map_or("{}", RawValue::get);
    format!(r#"{{"content":[{{"type":"text","text":"ok"}}],"structuredContent":{arguments}{complete}}}"#)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn asked(text: &str, modern: bool) -> Value {
        let message = serde_json::from_str(text).unwrap();
        serde_json::from_str(&Contents::new(5, true).reply(&message, modern).unwrap()).unwrap()
    }

    #[test]
    fn a_call_is_answered_with_its_arguments() {
        let text = r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"echo","arguments":{"mark":"m"}}}"#;
        let answer = asked(text, true);
        assert_eq!(answer["id"], "a");
        assert_eq!(answer["result"]["structuredContent"], json!({"mark": "m"}));
        assert_eq!(answer["result"]["resultType"], "complete");
        assert!(asked(text, false)["result"].get("resultType").is_none());
    }

    #[test]
    fn links_and_contents_have_the_mark_in_their_uris() {
        let text = r#"{"id":1,"method":"tools/call","params":{"name":"links","arguments":{"mark":"mark-1-2.","links":2}}}"#;
        assert_eq!(asked(text, false)["result"]["content"][1]["uri"], "bench://thing/mark-1-2./1");
        let text = r#"{"id":1,"method":"resources/read","params":{"uri":"bench://thing/mark-1-2."}}"#;
        assert_eq!(asked(text, false)["result"]["contents"][0]["uri"], "bench://thing/mark-1-2.");
    }

    #[test]
    fn as_many_tools_are_listed_as_were_asked_for() {
        let tools = asked(r#"{"id":1,"method":"tools/list"}"#, false)["result"]["tools"].clone();
        assert_eq!(tools.as_array().unwrap().len(), 5);
        assert_eq!((&tools[0]["name"], &tools[4]["name"]), (&json!("echo"), &json!("tool_4")));
    }

    #[test]
    fn progress_is_told_to_those_who_have_a_token() {
        let text = r#"{"id":1,"method":"tools/call","params":{"name":"progress","arguments":{"mark":"m","events":20},"_meta":{"progressToken":7}}}"#;
        let message: Message<'_> = serde_json::from_str(text).unwrap();
        let report = message.report().unwrap();
        assert_eq!((report.token.as_str(), report.mark.as_str(), report.events), ("7", "m", 20));
        let silent = text.replace("progressToken", "other");
        assert!(serde_json::from_str::<Message<'_>>(&silent).unwrap().report().is_none());
    }
}
