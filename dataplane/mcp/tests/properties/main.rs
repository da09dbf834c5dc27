//! The codec against slower readers that others wrote, on generated inputs. The
//! fuzz targets (`fuzz/`) put the same questions with inputs of their own.

mod checks;
mod model;

use proptest::prelude::*;

/// Bytes that look like what the codec reads, in any order.
fn pieces(of: &'static [&'static str], count: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        20 => prop::sample::select(of).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..count).prop_map(|pieces| pieces.concat())
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\"a\":",
    "\"\\u0041\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "0",
    "-1",
    "1.5e3",
    ".",
    "true",
    "null",
    " ",
    "\n",
    "    ",
    "é",
    "日本語",
    "\u{1}",
    "\"a longer text, of some words\"",
    "[[[[[[",
    "]]]]]]",
    "{\"b\":[1]}",
    "1234567890123",
];

const MEMBERS: &[&str] = &[
    r#""jsonrpc":"2.0""#,
    r#""jsonrpc":"1.0""#,
    r#""id":1"#,
    r#""id":"a\u0062""#,
    r#""id":null"#,
    r#""id":1.50"#,
    r#""\u0069d":-0.0"#,
    r#""ID":1"#,
    r#""method":"tools/call""#,
    r#""method":"tools\/list""#,
    r#""method":"x""#,
    r#""Method":"x""#,
    r#""params":null"#,
    r#""params":[]"#,
    r#""result":{}"#,
    r#""result":"é""#,
    r#""error":{"code":1}"#,
    r#""param\u017f":1"#,
    r#""extra" : [ {"id":1} ] "#,
    r#""x":"\ud800""#,
];

const PARAMS: &[&str] = &[
    r#""name":"t""#,
    r#""name":"t\u002fé""#,
    r#""Name":"t""#,
    r#""tas\u212aId":1"#,
    r#""uri":7"#,
    r#""arguments":{"name":1}"#,
    r#""_meta":{}"#,
    r#""_meta":[]"#,
    r#""_meta":{"progressToken":1,"x":{"traceparent":1},"traceparent":"00-1"}"#,
    r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":"\u0061"}"#,
    r#""_meta":{"progressToken":1,"progress\u0054oken":2}"#,
    r#""level":"info""#,
    r#""x":1"#,
    r#""cursor":"""#,
];

/// An object of a few of these members.
fn object(members: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(members), 0..6)
        .prop_map(|members| format!("{{{}}}", members.join(", ")))
}

/// A message: mostly right, often not.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let right =
        (prop::sample::select(MEMBERS), object(PARAMS), any::<bool>()).prop_map(|(more, params, id)| {
            let id = if id { r#""id":"7","# } else { "" };
            format!(r#"{{"jsonrpc":"2.0",{id}"method":"tools/call", "params" : {params} ,{more}}}"#)
        });
    let plain =
        (object(PARAMS), prop::sample::select(&["x/y", "tools/call"][..])).prop_map(|(params, method)| {
            format!(r#" {{"params":{params},"id":1,"method":"{method}","jsonrpc":"2.\u0030"}} "#)
        });
    (
        prop_oneof![object(MEMBERS), right, plain],
        prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    )
        .prop_map(|(text, damage)| {
            let mut bytes = text.into_bytes();
            if let Some((at, byte)) = damage.filter(|(_, byte)| byte % 4 == 0) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        })
}

const STREAM: &[&str] = &[
    "data:",
    "data: ",
    "id: ",
    "id",
    "event: x",
    "retry: 12",
    "retry:",
    ":",
    "{\"a\":1}",
    "abc",
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "\u{feff}",
    "\0",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_same_texts_are_json(text in prop_oneof![pieces(JSON, 14), message()]) {
        checks::the_same_texts_are_json(&text);
    }

    #[test]
    fn long_texts_are_json_up_to_the_damage(filler in prop::sample::select(&["a", "é", "\\n", " "][..]), count in 0usize..300, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = format!("[\"{}\" , 1]", filler.repeat(count)).into_bytes();
        checks::the_same_texts_are_json(&text);
        let at = at.index(text.len());
        text[at] = byte;
        checks::the_same_texts_are_json(&text);
    }

    #[test]
    fn members_are_where_they_are(text in prop_oneof![message(), object(PARAMS).prop_map(String::into_bytes)]) {
        checks::members_are_where_they_are(&text);
    }

    #[test]
    fn messages_say_what_they_say(text in message()) {
        checks::messages_say_what_they_say(&text);
    }

    #[test]
    fn edits_change_what_they_name(choice in any::<u8>(), text in prop_oneof![object(PARAMS), object(MEMBERS)]) {
        checks::edits_change_what_they_name(&[&[choice], text.as_bytes()].concat());
    }

    #[test]
    fn spliced_values_stay_as_they_are(text in prop_oneof![pieces(JSON, 5), object(PARAMS).prop_map(String::into_bytes)]) {
        checks::spliced_values_stay_as_they_are(&text);
    }

    #[test]
    fn texts_come_back(text in prop_oneof![".{0,80}".prop_map(String::into_bytes), pieces(JSON, 20)]) {
        checks::texts_come_back(&text);
    }

    #[test]
    fn headers_agree_with_one_body(text in prop_oneof![".{0,20}", "[ -~]{0,20}", "=\\?base64\\?[A-Za-z0-9=]{0,8}\\?=", "(application|text)/(json|event-stream)[;, a-z*/]{0,9}"]) {
        checks::headers_agree_with_one_body(text.as_bytes());
    }

    #[test]
    fn events_do_not_depend_on_chunks(seed in any::<u8>(), wire in pieces(STREAM, 30)) {
        checks::events_do_not_depend_on_chunks(&[&[seed], &wire[..]].concat());
    }

    #[test]
    fn events_come_back(seed in any::<u8>(), data in pieces(STREAM, 20)) {
        checks::events_come_back(&[&[seed], &data[..]].concat());
    }

    #[test]
    fn lines_do_not_depend_on_chunks(seed in any::<u8>(), wire in pieces(STREAM, 20)) {
        checks::lines_do_not_depend_on_chunks(&[&[seed], &wire[..]].concat());
    }
}
