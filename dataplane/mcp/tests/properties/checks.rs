//! What must hold of the codec for any bytes at all, one function each. Tests
//! call them with generated inputs, fuzzers with what they find; they panic if
//! something does not hold.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use mt_mcp::Key;
use mt_mcp::lines::{self, Framer, Line};
use mt_mcp::meta::{self, Meta};
use mt_mcp::patch::Patch;
use mt_mcp::scan::{Limits, ParseError, Reason, Scanner, Span};
use mt_mcp::sse::{self, Decoder, Event};
use mt_mcp::{Message, Method, Outcome, Params, RawId, headers, splice, text};

use crate::model::{self, Kind, Members, Shape};

fn scan(text: &[u8], limits: Limits) -> Result<Span, ParseError> {
    let mut scanner = Scanner::new(text, limits)?;
    let span = scanner.value()?;
    scanner.end()?;
    Ok(span)
}

/// The scanner accepts what `serde_json` accepts, within its limits, and says
/// why it does not.
pub fn the_same_texts_are_json(data: &[u8]) {
    let few = Limits { depth_max: 5, tokens_max: 20, lone_surrogates: false };
    for limits in [Limits::CLIENT, Limits::BACKEND, few] {
        let found = scan(data, limits);
        assert_eq!(found.is_ok(), model::is_json(data, limits), "{found:?}");
        if let Err(error) = found {
            assert!(error.offset <= data.len());
            check_reason(data, error, limits);
        }
    }
}

fn check_reason(data: &[u8], error: ParseError, limits: Limits) {
    let bom = data.starts_with(b"\xef\xbb\xbf");
    assert_eq!(error.reason == Reason::ByteOrderMark, bom);
    match std::str::from_utf8(data) {
        Err(bad) if !bom => assert_eq!((error.reason, error.offset), (Reason::Utf8, bad.valid_up_to())),
        Err(_) => {}
        Ok(text) => {
            assert_ne!(error.reason, Reason::Utf8);
            if serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok() {
                let shape = Shape::of(text);
                assert!(match error.reason {
                    Reason::Depth => shape.depth > limits.depth_max,
                    Reason::Tokens => shape.tokens > limits.tokens_max,
                    Reason::LoneSurrogate => shape.lone_surrogate && !limits.lone_surrogates,
                    _ => false,
                });
            }
        }
    }
}

/// Members are where `serde_json` finds them.
pub fn members_are_where_they_are(data: &[u8]) {
    if !model::is_json(data, Limits::CLIENT) {
        return;
    }
    let Some(members) = std::str::from_utf8(data).ok().and_then(Members::of) else { return };
    let mut scanner = Scanner::new(data, Limits::CLIENT).unwrap();
    let mut more = scanner.open_object().unwrap();
    for (key, raw) in &members.0 {
        assert!(more);
        let quoted = scanner.key().unwrap();
        assert_eq!(text::decode(&data[quoted.span.range()]).unwrap(), key.as_str());
        assert_eq!(quoted.escaped, quoted.inner(data).contains(&b'\\'));
        assert!(text::is(&data[quoted.span.range()], key));
        let value = scanner.value().unwrap().range();
        assert_eq!(&data[value.clone()], raw.get().as_bytes());
        assert_eq!(value.start, raw.get().as_ptr() as usize - data.as_ptr() as usize);
        more = scanner.next_member().unwrap();
    }
    assert!(!more);
    scanner.end().unwrap();
}

/// A message is read if and only if it keeps the rules, and says what it says.
pub fn messages_say_what_they_say(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    for limits in [Limits::CLIENT, Limits::BACKEND] {
        let parsed = Message::parse(bytes.clone(), limits);
        let expected = if model::is_json(data, limits) {
            std::str::from_utf8(data).ok().filter(|text| !Shape::of(text).lone_surrogate)
        } else {
            assert!(parsed.is_err());
            continue;
        };
        // With half a surrogate pair somewhere, serde_json has no opinion.
        let Some(text) = expected else { continue };
        let kind = model::kind(text);
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                assert_eq!(kind, None, "refused: {error}");
                continue;
            }
        };
        let view = Members::of(text).unwrap();
        let same = |ours: Option<&[u8]>, key| assert_eq!(ours, view.get(key).map(str::as_bytes), "{key}");
        match parsed {
            Message::Request(request) => {
                assert_eq!(kind, Some(Kind::Request));
                same(Some(request.id.as_bytes()), "id");
                check_call(&view, &request.method, &request.params);
            }
            Message::Notification(note) => {
                assert_eq!(kind, Some(Kind::Notification));
                check_call(&view, &note.method, &note.params);
            }
            Message::Response(response) => {
                let id = view.get("id").filter(|id| *id != "null");
                assert_eq!(response.id.as_ref().map(RawId::as_bytes), id.map(str::as_bytes));
                match response.outcome {
                    Outcome::Result(result) => {
                        assert_eq!(kind, Some(Kind::Result));
                        same(Some(&result), "result");
                    }
                    Outcome::Error(error) => {
                        assert_eq!(kind, Some(Kind::Error));
                        same(Some(&error), "error");
                    }
                }
            }
        }
    }
}

fn check_call(view: &Members<'_>, method: &Method, params: &Params) {
    assert_eq!(Some(method.as_str()), view.get("method").and_then(model::string).as_deref());
    let raw = view.get("params").filter(|raw| *raw != "null");
    assert_eq!(params.raw().map(|raw| &raw[..]), raw.map(str::as_bytes));
    let members = raw.and_then(Members::of).unwrap_or(Members(Vec::new()));
    for key in Key::ALL {
        let expected = members.get(key.as_str());
        assert_eq!(params.peek(*key), expected.map(str::as_bytes), "{key:?}");
        assert_eq!(params.text(*key).as_deref(), expected.and_then(model::string).as_deref());
    }
    check_meta(members.get("_meta"), params);
}

fn check_meta(raw: Option<&str>, params: &Params) {
    const FIELDS: [&str; 8] = [
        meta::key::PROTOCOL_VERSION,
        meta::key::CLIENT_INFO,
        meta::key::CLIENT_CAPABILITIES,
        meta::key::LOG_LEVEL,
        meta::key::PROGRESS_TOKEN,
        meta::key::TRACEPARENT,
        meta::key::TRACESTATE,
        meta::key::SUBSCRIPTION_ID,
    ];
    let members = raw.map(|raw| Members::of(raw).ok_or(()));
    let twice = |members: &Members<'_>| {
        FIELDS.iter().any(|field| members.0.iter().filter(|(key, _)| key == field).count() > 1)
    };
    let Ok(meta) = Meta::of(params) else {
        assert!(members.is_some_and(|members| members.as_ref().map_or(true, twice)));
        return;
    };
    let members = members.map_or(Members(Vec::new()), Result::unwrap);
    assert!(!twice(&members));
    let text = |key| members.get(key).and_then(model::string);
    assert_eq!(meta.protocol_version().as_deref(), text(meta::key::PROTOCOL_VERSION).as_deref());
    assert_eq!(meta.traceparent().as_deref(), text(meta::key::TRACEPARENT).as_deref());
    assert_eq!(meta.tracestate().as_deref(), text(meta::key::TRACESTATE).as_deref());
    let raw = |key| members.get(key).map(str::as_bytes);
    assert_eq!(meta.client_info().as_deref(), raw(meta::key::CLIENT_INFO));
    assert_eq!(meta.client_capabilities().as_deref(), raw(meta::key::CLIENT_CAPABILITIES));
    for (id, key) in [
        (meta.progress_token(), meta::key::PROGRESS_TOKEN),
        (meta.subscription_id(), meta::key::SUBSCRIPTION_ID),
    ] {
        assert!(id.is_none_or(|id| Some(id.as_bytes()) == raw(key)));
    }
    let _ = meta.modern();
}

/// An edited object has the members that it should have, each other one in its
/// place and byte for byte; an edit of one member leaves all other bytes.
pub fn edits_change_what_they_name(data: &[u8]) {
    const KEYS: [&str; 5] = ["name", "_meta", "x", "progressToken", "uri"];
    let Some((choice, object)) = data.split_first() else { return };
    let (key, known) = (KEYS[usize::from(choice % 5)], choice & 32 != 0);
    let value = choice & 64 != 0;
    // What is put in adds a token or two.
    if !model::is_json(object, Limits { tokens_max: 1000, ..Limits::CLIENT }) {
        return;
    }
    let Some(before) = std::str::from_utf8(object).ok().and_then(Members::of) else { return };
    let bytes = Bytes::copy_from_slice(object);
    let patch = if known {
        let Ok(params) = Params::scan(&bytes, Limits::CLIENT) else { return };
        params.patch()
    } else {
        Patch::of(&bytes).unwrap()
    };
    let new = r#"{"new": 1E2}"#;
    let edited = if value { patch.set(key, new) } else { patch.remove(key) };
    let size = splice::Raw::size(&edited);
    let edited = edited.finish();
    assert!(edited.len() <= size);
    assert!(
        model::is_json(&edited, Limits { depth_max: 64, ..Limits::CLIENT })
            || Shape::of(std::str::from_utf8(object).unwrap()).depth >= 63
    );

    let mut expected: Vec<(String, String)> = Vec::new();
    let mut done = !value;
    for (name, raw) in &before.0 {
        if name != key {
            expected.push((name.clone(), raw.get().to_owned()));
        } else if !done {
            expected.push((name.clone(), new.to_owned()));
            done = true;
        }
    }
    if !done {
        expected.insert(0, (key.to_owned(), new.to_owned()));
    }
    let after = Members::of(std::str::from_utf8(&edited).unwrap()).unwrap();
    let after: Vec<_> = after.0.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect();
    assert_eq!(after, expected);

    let places: Vec<_> = before.0.iter().filter(|(name, _)| name == key).collect();
    if let (true, [(_, raw)]) = (value, &places[..]) {
        let start = raw.get().as_ptr() as usize - object.as_ptr() as usize;
        let exact = [&object[..start], new.as_bytes(), &object[start + raw.get().len()..]].concat();
        assert_eq!(edited.trim_ascii(), exact.trim_ascii());
    }
}

/// What is written around a value does not touch it.
pub fn spliced_values_stay_as_they_are(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    if !model::is_json(data, Limits { depth_max: 63, ..Limits::BACKEND }) {
        return;
    }
    let value = Bytes::copy_from_slice(value.trim_ascii().as_bytes());
    let id = RawId::from_json(&value).filter(|id| id.as_bytes().len() < 200).unwrap_or(RawId::number(7));
    let Ok(Message::Response(response)) = Message::parse(splice::response(&id, &value), Limits::BACKEND)
    else {
        panic!("our own responses are responses");
    };
    assert_eq!(response.id.as_ref(), Some(&id));
    assert!(matches!(response.outcome, Outcome::Result(result) if result == value));
    if let Ok(params) = Params::scan(&value, Limits::BACKEND) {
        let method = Method::Other("x/\"y".into());
        let written = splice::request(&id, &method, Some(&params));
        let Ok(Message::Request(read)) = Message::parse(written, Limits::BACKEND) else {
            panic!("our own requests are requests");
        };
        assert_eq!((&read.id, &read.method), (&id, &method));
        assert_eq!(read.params.raw(), Some(&value));
    }
}

/// Strings are written as `serde_json` writes them, and come back, also out of
/// a header.
pub fn texts_come_back(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let encoded = text::encode(&text);
    assert_eq!(encoded, serde_json::to_vec(&text).unwrap());
    assert_eq!(text::decode(&encoded).unwrap(), text);
    let header = headers::value(&text);
    assert_eq!(headers::decode(header.to_str().unwrap()).unwrap(), text);
}

/// A body's headers agree with it, no other's do, and garbage is told.
pub fn headers_agree_with_one_body(data: &[u8]) {
    let name = String::from_utf8_lossy(data);
    let params = |name: &str| {
        let object = splice::Object::default().set_text("name", name).finish();
        Params::scan(&object, Limits::CLIENT).unwrap()
    };
    let check = |map: &HeaderMap, name: &str| {
        headers::check(map, "2026-07-28", &Method::ToolsCall, &params(name)).is_ok()
    };
    let mut map = HeaderMap::new();
    headers::write(&mut map, "2026-07-28", &Method::ToolsCall, Some(&name));
    assert!(check(&map, &name));
    assert!(!check(&map, &format!("{name}x")));
    if let Ok(value) = HeaderValue::from_bytes(data) {
        map.insert(headers::NAME, value.clone());
        let decoded = headers::get(&map, &headers::NAME).map(|value| value.unwrap().into_owned());
        assert!(decoded.is_err() || check(&map, &decoded.unwrap()));
        map.insert(http::header::ACCEPT, value.clone());
        let accepts = headers::accepts(&map);
        map.append(http::header::ACCEPT, headers::ACCEPT_BOTH);
        assert!(headers::accepts(&map).json && headers::accepts(&map).sse);
        let has = |word: &str| name.to_ascii_lowercase().contains(word);
        assert!(!accepts.json || has("json") || has("*"));
        map.insert(http::header::CONTENT_TYPE, value);
        assert!(!headers::is_json(&map) || has("application/json"));
    }
}

/// The events of a stream, and whether it ended for being too long.
fn decode<'a>(bytes_max: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, bool) {
    let mut decoder = Decoder::new(bytes_max);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
    }
    (events, false)
}

/// Sizes for chunks, out of a seed.
fn cut(mut data: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut size = usize::from(seed % 13);
    while !data.is_empty() {
        size = (size * 5 + 3) % 17 + 1;
        let (chunk, rest) = data.split_at(size.min(data.len()));
        chunks.push(chunk);
        data = rest;
    }
    chunks
}

/// However a stream is cut, its events are those that a reader of whole lines
/// finds.
pub fn events_do_not_depend_on_chunks(data: &[u8]) {
    let Some((seed, wire)) = data.split_first() else { return };
    let whole = decode(1 << 20, [wire]);
    assert_eq!(whole.0, events_of(wire));
    assert_eq!(decode(1 << 20, cut(wire, *seed)), whole);
    let bytes_max = usize::from(*seed);
    assert_eq!(decode(bytes_max, cut(wire, *seed)), decode(bytes_max, [wire]));
}

/// CR and CR LF are line ends as well.
fn with_line_feeds(wire: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (at, byte) in wire.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && wire[at - 1] == b'\r' => {}
            b'\r' => text.push(b'\n'),
            byte => text.push(*byte),
        }
    }
    text
}

fn events_of(wire: &[u8]) -> Vec<Event> {
    let wire = wire.strip_prefix(b"\xef\xbb\xbf").unwrap_or(wire);
    let text = with_line_feeds(wire);
    let mut events = Vec::new();
    let (mut event, mut dirty) = (Event::default(), false);
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.pop();
    for line in lines {
        if line.is_empty() {
            if std::mem::take(&mut dirty) {
                events.push(std::mem::take(&mut event));
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = colon.map_or((line, &b""[..]), |colon| (&line[..colon], &line[colon + 1..]));
        let value = Bytes::copy_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        match name {
            b"data" => {
                let data = event.data.take().map(|data| [&data[..], b"\n", &value].concat().into());
                event.data = Some(data.unwrap_or(value));
            }
            b"event" => event.name = Some(value),
            b"id" if !value.contains(&0) => event.id = Some(value),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let Ok(retry) = std::str::from_utf8(&value).unwrap().parse() else { continue };
                event.retry_ms = Some(retry);
            }
            _ => continue,
        }
        dirty = true;
    }
    events
}

/// What is written as events is read as the same events, however it is cut;
/// line ends of any kind arrive as line feeds.
pub fn events_come_back(data: &[u8]) {
    let Some((seed, rest)) = data.split_first() else { return };
    let id = format!("{seed}");
    let messages: Vec<&[u8]> = rest.split(|byte| *byte == 0xff).collect();
    let mut wire = Vec::new();
    for message in &messages {
        sse::encode(Some(&id), message, &mut wire);
    }
    let (events, failed) = decode(1 << 20, cut(&wire, *seed));
    assert!(!failed);
    assert_eq!(events.len(), messages.len());
    for (event, message) in events.iter().zip(messages) {
        assert_eq!(event.data.as_deref(), Some(&with_line_feeds(message)[..]));
        assert_eq!(event.id.as_deref(), Some(id.as_bytes()));
    }
}

/// Lines are those between line feeds, however the pipe is cut; those that are
/// too long are told once each.
pub fn lines_do_not_depend_on_chunks(data: &[u8]) {
    let Some((seed, wire)) = data.split_first() else { return };
    let limit = usize::from(seed % 29) + 1;
    let read = |chunks: Vec<&[u8]>| {
        let mut framer = Framer::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            framer.push(Bytes::copy_from_slice(chunk));
            found.extend(std::iter::from_fn(|| framer.next_line()));
        }
        found.extend(framer.finish());
        found
    };
    let mut expected = Vec::new();
    for line in wire.split(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\r").unwrap_or(line);
        if whole.len() > limit {
            expected.push(Line::TooLong { bytes: line.len() });
        } else if !whole.is_empty() {
            expected.push(Line::Whole(Bytes::copy_from_slice(whole)));
        }
    }
    assert_eq!(read(vec![wire]), expected);
    assert_eq!(read(cut(wire, *seed)), expected);
    let mut written = Vec::new();
    lines::encode(wire, &mut written);
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(written.len(), wire.len() + 1);
}
