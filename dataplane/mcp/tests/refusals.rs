//! What is refused because two parsers could read it in two ways, or because
//! reading it would cost too much: one test a rule, at the level of messages.

use bytes::Bytes;
use mt_mcp::Key;
use mt_mcp::envelope::{is_batch, split_batch};
use mt_mcp::scan::{DEPTH_MAX, Limits, Reason, TOKENS_MAX};
use mt_mcp::{Message, RpcError};

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;

fn parse(text: impl AsRef<[u8]>, limits: Limits) -> Result<Message, (Reason, usize, i32)> {
    Message::parse(Bytes::copy_from_slice(text.as_ref()), limits)
        .map_err(|error| (error.reason, error.offset, RpcError::from(&error).code))
}

#[track_caller]
fn refuse(text: impl AsRef<[u8]>, reason: Reason, offset: usize, code: i32) {
    for limits in [Limits::CLIENT, Limits::BACKEND] {
        let found = parse(&text, limits).map(|_| ());
        assert_eq!(found, Err((reason, offset, code)), "{:?}", String::from_utf8_lossy(text.as_ref()));
    }
}

/// A call with this as its arguments, and where they are.
fn call(arguments: &str) -> (String, usize) {
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":"#;
    (format!("{head}{arguments}}}}}"), head.len())
}

#[test]
fn a_message_nested_deeper_than_the_limit_is_refused_at_the_bracket() {
    let nested = |depth: usize| call(&("[".repeat(depth) + &"]".repeat(depth)));
    // The message and its params are two levels.
    let allowed = DEPTH_MAX as usize - 2;
    assert!(parse(nested(allowed).0, Limits::CLIENT).is_ok());
    let (text, at) = nested(allowed + 1);
    refuse(text, Reason::Depth, at + allowed, PARSE_ERROR);
    // However much follows, nobody reads it.
    let (text, at) = nested(1 << 20);
    refuse(text, Reason::Depth, at + allowed, PARSE_ERROR);
    let (text, at) = call(&r#"{"a":"#.repeat(1 << 18));
    refuse(text, Reason::Depth, at + 5 * allowed, PARSE_ERROR);
}

#[test]
fn a_message_of_too_many_values_is_refused() {
    let (text, _) = call(&format!("[0{}]", ",0".repeat(TOKENS_MAX as usize)));
    assert!(matches!(parse(text, Limits::CLIENT), Err((Reason::Tokens, _, PARSE_ERROR))));
    let (text, _) = call(&format!("[0{}]", ",0".repeat(TOKENS_MAX as usize - 100)));
    assert!(parse(text, Limits::CLIENT).is_ok());
}

#[test]
fn a_key_of_the_envelope_may_occur_once_however_it_is_written() {
    for key in ["jsonrpc", "id", "method", "params", "result", "error"] {
        let escaped = format!("\\u{:04x}{}", key.as_bytes()[0], &key[1..]);
        for again in [key, escaped.as_str()] {
            let first = format!(r#"{{"{key}":null,"#);
            refuse(format!(r#"{first}"{again}":null}}"#), Reason::DuplicateKey, first.len(), INVALID_REQUEST);
        }
    }
}

#[test]
fn a_key_of_the_envelope_in_another_case_is_refused() {
    let message = r#"{"jsonrpc":"2.0","method":"ping","#;
    for key in ["JSONRPC", "Id", "Method", "pArams", "RESULT", "Error", "param\u{17f}", "re\u{17f}ult"] {
        refuse(format!(r#"{message}"{key}":1}}"#), Reason::KeyCase, message.len(), INVALID_REQUEST);
    }
    for key in ["ids", "i", "methods", "para\u{17f}", "résult", "err\u{f6}r"] {
        assert!(parse(format!(r#"{message}"{key}":1}}"#), Limits::CLIENT).is_ok(), "{key}");
    }
}

#[test]
fn a_member_of_params_that_we_look_at_may_occur_once_and_in_its_own_case() {
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"#;
    for key in Key::ALL {
        let key = key.as_str();
        let twice = format!(r#"{head}"{key}":1,"{key}":2}}}}"#);
        refuse(twice, Reason::DuplicateKey, head.len() + key.len() + 5, INVALID_REQUEST);
        let upper = key.to_uppercase();
        refuse(format!(r#"{head}"{upper}":1}}}}"#), Reason::KeyCase, head.len(), INVALID_REQUEST);
    }
    let kelvin = format!("{head}\"tas\u{212a}Id\":1}}}}");
    refuse(kelvin, Reason::KeyCase, head.len(), INVALID_REQUEST);
    // Deeper down, keys are the business of who called.
    assert!(parse(call(r#"{"name":1,"name":2,"NAME":3}"#).0, Limits::CLIENT).is_ok());
}

#[test]
fn what_is_not_utf_8_is_refused_before_anything_else_is_said() {
    for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80"] {
        let (text, at) = call("\"x\"");
        let mut inside = text.clone().into_bytes();
        inside.splice(at + 1..at + 2, bad.iter().copied());
        refuse(inside, Reason::Utf8, at + 1, PARSE_ERROR);
        refuse([text.as_bytes(), bad].concat(), Reason::Utf8, text.len(), PARSE_ERROR);
        refuse([bad, text.as_bytes()].concat(), Reason::Utf8, 0, PARSE_ERROR);
        let twice = br#"{"id":1,"id":2,"x":"#;
        refuse([&twice[..], bad].concat(), Reason::Utf8, twice.len(), PARSE_ERROR);
        let long = "é".repeat(500);
        let (text, at) = call(&format!("\"{long}\""));
        let mut late = text.into_bytes();
        late.splice(at + 1 + long.len()..at + 1 + long.len(), bad.iter().copied());
        refuse(late, Reason::Utf8, at + 1 + long.len(), PARSE_ERROR);
    }
}

#[test]
fn a_byte_order_mark_is_refused() {
    refuse(format!("\u{feff}{}", call("{}").0), Reason::ByteOrderMark, 0, PARSE_ERROR);
}

#[test]
fn half_a_surrogate_pair_is_refused_from_clients_and_passes_from_backends() {
    for half in [r"\ud83d", r"\udc00", r"\ud83d\u0041", r"\ud83dx", r"\udc00\ud83d"] {
        let (text, at) = call(&format!("\"{half}\""));
        assert_eq!(
            parse(&text, Limits::CLIENT).map(|_| ()),
            Err((Reason::LoneSurrogate, at + 1, PARSE_ERROR))
        );
        assert!(parse(&text, Limits::BACKEND).is_ok(), "{half}");
    }
    assert!(parse(call(r#""\ud83d\ude00""#).0, Limits::CLIENT).is_ok());
    // Not even a backend's method or id may hold one.
    let text = r#"{"jsonrpc":"2.0","id":"\ud83d","result":{}}"#;
    refuse_backend(text, Reason::Id, 22);
    refuse_backend(r#"{"jsonrpc":"2.0","id":1,"method":"\ud83d"}"#, Reason::Method, 33);
}

#[track_caller]
fn refuse_backend(text: &str, reason: Reason, offset: usize) {
    assert_eq!(parse(text, Limits::BACKEND).map(|_| ()), Err((reason, offset, INVALID_REQUEST)));
}

#[test]
fn text_after_the_message_is_refused() {
    let (text, _) = call("{}");
    for more in ["x", "{}", "]", "\0", "\u{b}"] {
        refuse(format!("{text}{more}"), Reason::Trailing, text.len(), PARSE_ERROR);
    }
    assert!(parse(format!(" \t\r\n{text} \t\r\n"), Limits::CLIENT).is_ok());
}

#[test]
fn what_only_lenient_parsers_take_is_refused() {
    for value in
        ["NaN", "Infinity", "-Infinity", "0x10", "+1", ".5", "'a'", "undefined", "True", "/**/1", "\u{a0}1"]
    {
        let (text, at) = call(value);
        let at = at + usize::from(value.starts_with('-') || value.starts_with("0x"));
        refuse(text, Reason::Syntax, at, PARSE_ERROR);
    }
    for control in ["\u{0}", "\u{1f}", "\n", "\t"] {
        let (text, at) = call(&format!("\"a{control}\""));
        refuse(text, Reason::ControlCharacter, at + 2, PARSE_ERROR);
    }
}

#[test]
fn a_batch_is_no_message_and_its_messages_are_judged_one_by_one() {
    let (text, _) = call("{}");
    let batch = format!("[{text},{{\"id\":1,\"id\":2}}]");
    assert!(is_batch(batch.as_bytes()));
    refuse(&batch, Reason::NotAnObject, 0, INVALID_REQUEST);
    let messages = split_batch(&Bytes::from(batch), Limits::CLIENT).unwrap();
    assert!(parse(&messages[0], Limits::CLIENT).is_ok());
    refuse(&messages[1], Reason::DuplicateKey, 8, INVALID_REQUEST);
}
