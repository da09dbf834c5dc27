use proptest::prelude::*;

use super::*;

fn scan(text: &[u8], limits: Limits) -> Result<Span, ParseError> {
    let mut scanner = Scanner::new(text, limits)?;
    let span = scanner.value()?;
    scanner.end()?;
    Ok(span)
}

fn check(text: impl AsRef<[u8]>, expected: Result<(), (Reason, usize)>) {
    let found = scan(text.as_ref(), Limits::CLIENT);
    let found = found.map(|_| ()).map_err(|error| (error.reason, error.offset));
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(text.as_ref()));
}

#[test]
fn json_is_accepted() {
    for text in [
        "null",
        " true\r\n",
        "-0",
        "0.10e-7",
        "1E2",
        "[]",
        "[ [ ] , { } ]",
        r#"{"a":{"b":[1,"x",null]}}"#,
        r#""\"\\\/\b\f\n\r\t\u00e9""#,
        r#""\ud83d\ude00""#,
        "\"\u{2028}\u{ffff}\"",
        "12345678901234567890123",
    ] {
        check(text, Ok(()));
    }
}

#[test]
fn what_is_not_json_is_refused_where_it_goes_wrong() {
    check("", Err((Reason::End, 0)));
    check("[1,]", Err((Reason::Syntax, 3)));
    check("[1 2]", Err((Reason::Syntax, 3)));
    check("{\"a\":1,}", Err((Reason::Syntax, 7)));
    check("{a:1}", Err((Reason::Syntax, 1)));
    check("[1}", Err((Reason::Syntax, 2)));
    check("[\"a", Err((Reason::End, 3)));
    check("01", Err((Reason::Trailing, 1)));
    check("-", Err((Reason::End, 1)));
    check("1.", Err((Reason::End, 2)));
    check("+1", Err((Reason::Syntax, 0)));
    check("NaN", Err((Reason::Syntax, 0)));
    check("nul", Err((Reason::Syntax, 0)));
    check("{} x", Err((Reason::Trailing, 3)));
    check("\u{feff}{}", Err((Reason::ByteOrderMark, 0)));
    check(b"[\"a\xff\"]", Err((Reason::Utf8, 3)));
    check(b"\"\xed\xa0\x80\"", Err((Reason::Utf8, 1)));
    check("\"a\nb\"", Err((Reason::ControlCharacter, 2)));
    check(r#""\x""#, Err((Reason::Syntax, 2)));
    check(r#""\u12g4""#, Err((Reason::Syntax, 1)));
    check(r#""\ud83d""#, Err((Reason::LoneSurrogate, 1)));
    check(r#""\ude00\ud83d""#, Err((Reason::LoneSurrogate, 1)));
    check(r#""\ud83d\u0041""#, Err((Reason::LoneSurrogate, 1)));
}

#[test]
fn a_cut_emoji_of_a_backend_passes() {
    assert!(scan(br#"["\ud83d", "\ude00x", "\ud83d\u0041"]"#, Limits::BACKEND).is_ok());
}

#[test]
fn nesting_and_values_are_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    check(nested(64), Ok(()));
    check(nested(65), Err((Reason::Depth, 64)));
    check("{\"a\":".repeat(100_000), Err((Reason::Depth, 64 * 5)));
    let limits = Limits { tokens_max: 4, ..Limits::CLIENT };
    assert!(scan(b"[1,2,3]", limits).is_ok());
    assert_eq!(scan(b"[1,2,3,4]", limits).unwrap_err().reason, Reason::Tokens);
    assert_eq!(scan(b"{\"a\":1,\"b\":2}", limits).unwrap_err().reason, Reason::Tokens);
}

#[test]
fn a_stop_is_found_at_every_place_of_a_long_string() {
    for at in 0..100 {
        let mut text = format!("\"{}\"", "é".repeat(50)).into_bytes();
        text[1 + at] = 7;
        // Breaks the character, so the check of the encoding is left out.
        let mut scanner = Scanner::resume(&text, 0);
        assert_eq!(scanner.value().unwrap_err().offset, 1 + at);
    }
}

/// JSON and near misses of it.
fn jsonish() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"a\"",
        "\"\\u0041\"",
        "\"\\ud800\"",
        "0",
        "-1",
        "1.5",
        "e3",
        ".",
        "true",
        "null",
        " ",
        "\n",
        "é",
        "\u{1}",
    ]);
    prop::collection::vec(atom, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn serde_json_accepts_the_same_texts(text in jsonish()) {
        let ours = scan(text.as_bytes(), Limits::CLIENT).is_ok();
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let ours = scan(&bytes, Limits::CLIENT).is_ok();
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok();
        prop_assert_eq!(ours, theirs);
    }
}
