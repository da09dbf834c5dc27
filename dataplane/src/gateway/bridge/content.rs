//! Results for clients of older revisions: content that theirs does not have
//! becomes text, and a visit to a URL that they cannot be asked for is told.
//!
//! Members that a revision does not define (`structuredContent`, `title`, icons)
//! stay: every revision leaves objects open. A `type` of content does not: it is
//! one of a closed set, and many clients refuse the whole result for one that
//! they do not know. A search of the bytes decides whether to look at all.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::{abilities::Abilities, translate::member};
use crate::{
    gateway::call::{Answer, Client},
    mcp::{
        Limits, Method,
        error::code,
        scan::{ParseError, Scanner, Span},
        splice::Object,
    },
};

/// Kinds of content that not every revision has, as they are written.
const AUDIO: &[u8] = b"\"audio\"";
const LINK: &[u8] = b"\"resource_link\"";

/// An answer as a legacy client's revision can show it.
pub fn fit(client: &Client, method: &Method, answer: Answer) -> Answer {
    if !client.version.has_sessions() {
        return answer;
    }
    match answer {
        Answer::Result(result) => Answer::Result(fit_result(client, method, result)),
        Answer::Error(error) => fit_error(client, method, error),
    }
}

fn fit_result(client: &Client, method: &Method, result: Bytes) -> Bytes {
    let version = client.version;
    if version.has_audio() && version.has_resource_links() {
        return result;
    }
    let names = |word: &[u8]| memchr::memmem::find(&result, word).is_some();
    let concerned = (!version.has_audio() && names(AUDIO)) || (!version.has_resource_links() && names(LINK));
    if !concerned {
        return result;
    }
    let mut blocks = Vec::new();
    let found = match method {
        Method::ToolsCall => blocks_of_tool(&result, &mut blocks),
        Method::PromptsGet => blocks_of_prompt(&result, &mut blocks),
        _ => Ok(()),
    };
    if found.is_err() {
        return result;
    }
    let mut out = BytesMut::with_capacity(result.len());
    let mut from = 0;
    for block in blocks {
        let range = block.range();
        if let Some(text) = as_text(client, &result[range.clone()]) {
            out.put_slice(&result[from..range.start]);
            out.put_slice(&text_block(&text));
            from = range.end;
        }
    }
    if from == 0 {
        return result;
    }
    out.put_slice(&result[from..]);
    out.freeze()
}

/// What a block of content is as a text, if the client does not have its kind.
fn as_text(client: &Client, block: &[u8]) -> Option<String> {
    let block: Value = serde_json::from_slice(block).ok()?;
    let said = |key: &str| block[key].as_str().unwrap_or_default();
    match said("type") {
        "audio" if !client.version.has_audio() => {
            let mime = if said("mimeType").is_empty() { "of unknown type" } else { said("mimeType") };
            Some(format!("[audio, {mime}: this client's protocol version cannot carry it]"))
        }
        "resource_link" if !client.version.has_resource_links() => {
            let name = if said("title").is_empty() { said("name") } else { said("title") };
            let about = if said("description").is_empty() {
                String::new()
            } else {
                format!(" ({})", said("description"))
            };
            Some(format!("[resource {name}{about}: {}]", said("uri")))
        }
        _ => None,
    }
}

/// `content[*]`
fn blocks_of_tool(result: &Bytes, found: &mut Vec<Span>) -> Result<(), ParseError> {
    let mut scanner = Scanner::new(result, Limits::BACKEND)?;
    elements(&mut scanner, result, b"\"content\"", |scanner| {
        found.push(scanner.value()?);
        Ok(())
    })
}

/// `messages[*].content`
fn blocks_of_prompt(result: &Bytes, found: &mut Vec<Span>) -> Result<(), ParseError> {
    let mut scanner = Scanner::new(result, Limits::BACKEND)?;
    elements(&mut scanner, result, b"\"messages\"", |scanner| {
        if scanner.peek()? != b'{' {
            return scanner.value().map(drop);
        }
        let mut more = scanner.open_object()?;
        while more {
            let key = scanner.key()?.span;
            let value = scanner.value()?;
            if &result[key.range()] == b"\"content\"" {
                found.push(value);
            }
            more = scanner.next_member()?;
        }
        Ok(())
    })
}

/// Calls `each` at each element of the array that is a member of the object.
fn elements<'a>(
    scanner: &mut Scanner<'a>,
    raw: &[u8],
    key: &[u8],
    mut each: impl FnMut(&mut Scanner<'a>) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let mut more = scanner.open_object()?;
    while more {
        let name = scanner.key()?.span;
        if &raw[name.range()] == key && scanner.peek()? == b'[' {
            let mut more = scanner.open_array()?;
            while more {
                each(scanner)?;
                more = scanner.next_element()?;
            }
        } else {
            scanner.value()?;
        }
        more = scanner.next_member()?;
    }
    Ok(())
}

/// A demand to visit URLs goes only to clients that can take it.
fn fit_error(client: &Client, method: &Method, error: Bytes) -> Answer {
    let demanded = member(&error, "code")
        .is_some_and(|raw| *raw == *code::URL_ELICITATION_REQUIRED.to_string().as_bytes());
    if !demanded || *method != Method::ToolsCall || Abilities::of(client).url {
        return Answer::Error(error);
    }
    let read: Value = serde_json::from_slice(&error).unwrap_or_default();
    let visits = read["data"]["elicitations"].as_array().cloned().unwrap_or_default();
    let said: Vec<String> = visits
        .iter()
        .filter_map(|visit| {
            Some(visit_text(visit["message"].as_str().unwrap_or_default(), visit["url"].as_str()?))
        })
        .collect();
    if said.is_empty() { Answer::Error(error) } else { Answer::Result(failed_tool(&said.join("\n\n"))) }
}

/// How a user is told to visit a URL, where the client has no other way.
pub fn visit_text(message: &str, url: &str) -> String {
    format!("{message}\n\nTo go on, open this address and then call the tool again: {url}")
        .trim_start()
        .to_owned()
}

/// The result of a tool that has failed, in any legacy revision.
pub fn failed_tool(text: &str) -> Bytes {
    let content = [b"[", &text_block(text)[..], b"]"].concat();
    Object::default().set("content", &content[..]).set("isError", &b"true"[..]).finish()
}

fn text_block(text: &str) -> Bytes {
    Object::default().set_text("type", "text").set_text("text", text).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        gateway::call::{Identity, Scope},
        mcp::{ProtocolVersion, version::ProtocolVersion::*},
    };

    fn client(version: ProtocolVersion, capabilities: &'static str) -> Client {
        Client {
            identity: Identity::anonymous(),
            version,
            info: Bytes::new(),
            capabilities: Bytes::from_static(capabilities.as_bytes()),
            scope: Scope::Stateless,
            events: None,
        }
    }

    fn check(version: ProtocolVersion, method: Method, from: &str, to: &str) {
        let answer = fit(&client(version, "{}"), &method, Answer::Result(Bytes::from(from.to_owned())));
        assert_eq!(answer, Answer::Result(Bytes::from(to.to_owned())), "{version}");
    }

    const SOUND: &str = r#"{"x":1E2,"content":[{"type":"text","text":"\"audio\""},{"type":"audio","data":"AA==","mimeType":"audio/wav"}],"structuredContent":{"type":"audio"}}"#;
    const LINKED: &str =
        r#"{"content":[{"type":"resource_link","uri":"f:x","name":"n","description":"d"}],"isError":false}"#;

    #[test]
    fn content_that_a_revision_does_not_have_becomes_text() {
        let told = r#"{"x":1E2,"content":[{"type":"text","text":"\"audio\""},{"type":"text","text":"[audio, audio/wav: this client's protocol version cannot carry it]"}],"structuredContent":{"type":"audio"}}"#;
        check(V2024_11_05, Method::ToolsCall, SOUND, told);
        check(V2025_03_26, Method::ToolsCall, SOUND, SOUND);
        let link = r#"{"content":[{"type":"text","text":"[resource n (d): f:x]"}],"isError":false}"#;
        check(V2025_03_26, Method::ToolsCall, LINKED, link);
        check(V2024_11_05, Method::ToolsCall, LINKED, link);
        check(V2025_06_18, Method::ToolsCall, LINKED, LINKED);
        check(V2026_07_28, Method::ToolsCall, LINKED, LINKED);
        check(
            V2024_11_05,
            Method::PromptsGet,
            r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"f:x","title":"T"}},7]}"#,
            r#"{"messages":[{"role":"user","content":{"type":"text","text":"[resource T: f:x]"}},7]}"#,
        );
    }

    #[test]
    fn a_url_is_told_to_who_cannot_be_sent_there() {
        const DEMAND: &str = r#"{"code":-32042,"message":"m","data":{"elicitations":[{"mode":"url","message":"Sign in","url":"https://x/y","elicitationId":"1"}]}}"#;
        let ask = |version, capabilities, method| {
            fit(&client(version, capabilities), &method, Answer::Error(Bytes::from_static(DEMAND.as_bytes())))
        };
        let passed = Answer::Error(Bytes::from_static(DEMAND.as_bytes()));
        assert_eq!(ask(V2025_11_25, r#"{"elicitation":{"url":{}}}"#, Method::ToolsCall), passed);
        assert_eq!(ask(V2025_11_25, "{}", Method::PromptsGet), passed);
        for (version, capabilities) in
            [(V2025_11_25, r#"{"elicitation":{}}"#), (V2025_06_18, r#"{"elicitation":{"url":{}}}"#)]
        {
            let Answer::Result(told) = ask(version, capabilities, Method::ToolsCall) else { panic!() };
            let told: Value = serde_json::from_slice(&told).unwrap();
            assert_eq!(told["isError"], true);
            let text = told["content"][0]["text"].as_str().unwrap();
            assert!(text.starts_with("Sign in") && text.ends_with("https://x/y"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_needs_no_change_keeps_its_bytes(text in any::<String>(), kind in "[a-z_]{1,14}") {
            prop_assume!(kind != "audio" && kind != "resource_link");
            let block = json!({"type": kind, "text": text, "also": "audio", "and": "resource_link"});
            for (method, whole) in [
                (Method::ToolsCall, json!({"content": [block.clone()]})),
                (Method::PromptsGet, json!({"messages": [{"content": block}]})),
            ] {
                let whole = whole.to_string();
                check(V2024_11_05, method, &whole, &whole);
            }
        }
    }
}
