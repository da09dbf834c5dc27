//! URIs inside results and notifications, where a gateway has several members
//! that serve resources.
//!
//! Only the places that the specification names are looked at, and only the
//! strings there are replaced; every other byte stays. A search for the names of
//! those places decides whether to look at all.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use mt_proto::resource::ResourceName;

use super::uri;
use crate::mcp::{
    Message, Method,
    scan::{Limits, ParseError, Scanner, Span},
    text,
};

/// A step into a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Key(&'static str),
    /// Every element of an array.
    Each,
}

use Step::{Each, Key};

/// In results of `tools/call`: links and embedded resources.
const TOOL_RESULT: &[&[Step]] = &[
    &[Key("content"), Each, Key("uri")],
    &[Key("content"), Each, Key("resource"), Key("uri")],
    &[Key("_meta"), Key("ui"), Key("resourceUri")],
    &[Key("_meta"), Key("ui/resourceUri")],
];
/// In results of `prompts/get`.
const PROMPT_RESULT: &[&[Step]] = &[
    &[Key("messages"), Each, Key("content"), Key("uri")],
    &[Key("messages"), Each, Key("content"), Key("resource"), Key("uri")],
];
/// In results of `resources/read`.
const READ_RESULT: &[&[Step]] = &[&[Key("contents"), Each, Key("uri")]];
/// In `params` of `notifications/resources/updated`.
const UPDATED: &[&[Step]] = &[&[Key("params"), Key("uri")]];
/// In the definition of a tool.
const TOOL: &[&[Step]] =
    &[&[Key("_meta"), Key("ui"), Key("resourceUri")], &[Key("_meta"), Key("ui/resourceUri")]];

/// What is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    ToolResult,
    PromptResult,
    ReadResult,
    /// A whole `notifications/resources/updated` message.
    Updated,
    /// A tool's definition.
    Tool,
}

/// A member's notification as the client may see it. None: a list of the member
/// has changed, which the node announces itself once its own list has.
pub fn notification(backend: &ResourceName, wraps_uris: bool, message: Bytes) -> Option<Bytes> {
    let names = |word: &[u8]| memchr::memmem::find(&message, word).is_some();
    // Most notifications are progress and log lines: those are not read again.
    let concerned = names(b"list_changed") || (wraps_uris && names(b"updated"));
    if !concerned {
        return Some(message);
    }
    match Message::parse(message.clone(), Limits::BACKEND) {
        Ok(Message::Notification(told)) => match told.method {
            Method::ToolsListChanged | Method::PromptsListChanged | Method::ResourcesListChanged => None,
            Method::ResourcesUpdated if wraps_uris => Some(wrap_uris(Place::Updated, backend, message)),
            _ => Some(message),
        },
        _ => Some(message),
    }
}

/// Wraps every URI of `backend` in `raw`, a JSON object.
pub fn wrap_uris(place: Place, backend: &ResourceName, raw: Bytes) -> Bytes {
    if memchr::memmem::find(&raw, b"uri\"").is_none() && memchr::memmem::find(&raw, b"esourceUri\"").is_none()
    {
        return raw;
    }
    let paths = match place {
        Place::ToolResult => TOOL_RESULT,
        Place::PromptResult => PROMPT_RESULT,
        Place::ReadResult => READ_RESULT,
        Place::Updated => UPDATED,
        Place::Tool => TOOL,
    };
    // What cannot be read is passed on as it is: it was scanned when it came in.
    map_strings(&raw, paths, |found| uri::wrap(backend, found)).unwrap_or(raw)
}

/// Replaces the strings at the paths.
fn map_strings(raw: &Bytes, paths: &[&[Step]], map: impl Fn(&str) -> String) -> Result<Bytes, ParseError> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(raw, Limits::BACKEND)?;
    walk(&mut scanner, raw, paths, &mut found)?;
    if found.is_empty() {
        return Ok(raw.clone());
    }
    let mut out = BytesMut::with_capacity(raw.len() + found.len() * 48);
    let mut from = 0;
    for span in found {
        let range = span.range();
        if let Some(old) = text::decode(&raw[range.clone()]) {
            out.put_slice(&raw[from..range.start]);
            out.put_slice(&text::encode(&map(&old)));
            from = range.end;
        }
    }
    out.put_slice(&raw[from..]);
    Ok(out.freeze())
}

/// Recursion is bounded by the length of the paths.
fn walk(
    scanner: &mut Scanner<'_>,
    raw: &[u8],
    paths: &[&[Step]],
    found: &mut Vec<Span>,
) -> Result<(), ParseError> {
    match scanner.peek()? {
        b'{' => {
            let mut more = scanner.open_object()?;
            while more {
                let quoted = scanner.key()?;
                let key = text::decode(&raw[quoted.span.range()]).unwrap_or(Cow::Borrowed(""));
                descend(scanner, raw, paths, found, |step| matches!(step, Key(name) if *name == key))?;
                more = scanner.next_member()?;
            }
        }
        b'[' => {
            let mut more = scanner.open_array()?;
            while more {
                descend(scanner, raw, paths, found, |step| *step == Each)?;
                more = scanner.next_element()?;
            }
        }
        first => {
            let value = scanner.value()?;
            if first == b'"' && paths.iter().any(|path| path.is_empty()) {
                found.push(value);
            }
        }
    }
    Ok(())
}

fn descend(
    scanner: &mut Scanner<'_>,
    raw: &[u8],
    paths: &[&[Step]],
    found: &mut Vec<Span>,
    fits: impl Fn(&Step) -> bool,
) -> Result<(), ParseError> {
    let deeper: Vec<&[Step]> = paths
        .iter()
        .filter_map(|path| path.split_first().filter(|(first, _)| fits(first)).map(|(_, rest)| rest))
        .collect();
    if deeper.is_empty() { scanner.value().map(|_| ()) } else { walk(scanner, raw, &deeper, found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: Place, input: &'static str, expected: &str) {
        let out = wrap_uris(place, &"b".parse().unwrap(), Bytes::from_static(input.as_bytes()));
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn links_and_embedded_resources_of_a_tool_are_wrapped_and_nothing_else() {
        check(
            Place::ToolResult,
            r#"{ "content":[{"type":"resource_link","uri":"f:\/x"},{"resource":{"uri":"ui://a","n":1E2}},{"text":"\"uri\""}],"structuredContent":{"uri":"f:y"}}"#,
            r#"{ "content":[{"type":"resource_link","uri":"mt+b+f:/x"},{"resource":{"uri":"ui://b+a","n":1E2}},{"text":"\"uri\""}],"structuredContent":{"uri":"f:y"}}"#,
        );
    }

    #[test]
    fn a_members_lists_are_not_announced_and_its_updates_name_it() {
        let told = |wraps, text: &'static str| {
            notification(&"b".parse().unwrap(), wraps, Bytes::from_static(text.as_bytes()))
        };
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        assert_eq!(told(false, changed), None);
        let updated =
            r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"f:x"}}"#;
        assert_eq!(told(false, updated).as_deref(), Some(updated.as_bytes()));
        let wrapped = updated.replace("f:x", "mt+b+f:x");
        assert_eq!(told(true, updated).as_deref(), Some(wrapped.as_bytes()));
        let log = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","uri":"f:x","data":"list_changed updated"}}"#;
        assert_eq!(told(true, log).as_deref(), Some(log.as_bytes()));
    }

    #[test]
    fn other_places_have_their_own_paths() {
        check(Place::ReadResult, r#"{"contents":[{"uri":"f:x"}]}"#, r#"{"contents":[{"uri":"mt+b+f:x"}]}"#);
        check(
            Place::PromptResult,
            r#"{"messages":[{"content":{"resource":{"uri":"f:x"}}}]}"#,
            r#"{"messages":[{"content":{"resource":{"uri":"mt+b+f:x"}}}]}"#,
        );
        check(
            Place::Updated,
            r#"{"method":"notifications/resources/updated","params":{"uri":"f:x"}}"#,
            r#"{"method":"notifications/resources/updated","params":{"uri":"mt+b+f:x"}}"#,
        );
        check(
            Place::Tool,
            r#"{"_meta":{"ui":{"resourceUri":"ui://x"}}}"#,
            r#"{"_meta":{"ui":{"resourceUri":"ui://b+x"}}}"#,
        );
        check(
            Place::Tool,
            r#"{"_meta":{"ui/resourceUri":"ui://x"}}"#,
            r#"{"_meta":{"ui/resourceUri":"ui://b+x"}}"#,
        );
    }

    #[test]
    fn what_has_no_uri_is_the_same_memory() {
        let raw = Bytes::from_static(br#"{"content":[{"type":"text","text":"x"}]}"#);
        let out = wrap_uris(Place::ToolResult, &"b".parse().unwrap(), raw.clone());
        assert_eq!(out.as_ptr(), raw.as_ptr());
    }
}
