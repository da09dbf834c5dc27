//! Whatever the arguments hold, they stay values: properties of each place.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::{
    tests::{compile, env},
    *,
};

/// Any text, and more often those that mean something somewhere.
fn hostile() -> impl Strategy<Value = String> {
    let signs = prop::sample::select(vec![
        "-",
        "--",
        "'",
        "\"",
        "\\",
        "/",
        "..",
        ".",
        "%2e",
        "%2f",
        "%",
        "?",
        "#",
        "&",
        "=",
        "+",
        ";",
        "|",
        "$(id)",
        "`",
        "\r",
        "\n",
        "\0",
        "{{x}}",
        "{{env.API_KEY}}",
        "{{#if x}}",
        "}}",
        "{",
        "}",
        "[",
        "]",
        ":",
        "@",
        "//",
        " ",
        "\t",
        "é",
        "\u{2028}",
        "\u{202e}",
        "\u{ffff}",
        "-- ",
        "/*",
        "*/",
        "$1",
        "null",
        "\u{7f}",
        "a",
        "0",
    ]);
    prop_oneof![
        prop::collection::vec(signs, 0..8).prop_map(|signs| signs.concat()),
        any::<String>(),
        ".{0,20}",
    ]
}

/// Any text, and more often those that look like templates.
fn template() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "{{",
        "}}",
        "{{{",
        "}}}",
        "{{{{",
        "#if ",
        "#each ",
        "#with ",
        "#unless ",
        "/if",
        "/each",
        "else",
        "^",
        "!",
        "--",
        "~",
        ">",
        "*",
        "&",
        "x",
        "this",
        "@index",
        "@root",
        "../",
        ".",
        "[",
        "]",
        "(",
        ")",
        "'",
        "\"",
        "?",
        ":",
        " ",
        "\n",
        "\\",
        "|",
        "as |a b|",
        "eq ",
        "default ",
        "json ",
        "lookup ",
        "env.API_KEY",
        "=",
        "1",
        "-1",
        "true",
        "é",
        "{{x}}",
        "{{#if x}}",
        "{{/if}}",
        "{{else}}",
        "{{#each x}}",
        "{{/each}}",
    ]);
    prop_oneof![prop::collection::vec(parts, 0..24).prop_map(|parts| parts.concat()), any::<String>()]
}

fn fill(text: &str, arguments: &Value) -> Pieces {
    let arguments = arguments.as_object().unwrap();
    compile(text).unwrap().render(Scope { arguments, env: &env }).unwrap()
}

proptest! {
    #[test]
    fn no_text_makes_compiling_or_rendering_panic(text in template(), x in hostile()) {
        match compile(&text) {
            Err(error) => prop_assert!(text.is_char_boundary(error.offset), "{error:?}"),
            Ok(template) => {
                let arguments = json!({"x": [x.clone(), {"x": x}, [1]], "this": 1});
                let scope = Scope { arguments: arguments.as_object().unwrap(), env: &env };
                if let Ok(pieces) = template.render(scope) {
                    let _ = (pieces.text(), pieces.argv(false), pieces.header(), pieces.url(), pieces.json_text());
                    let _ = (pieces.shell(), pieces.sql(|number| format!("${number}")));
                }
                let _ = (template.check_url(), template.check_sql());
                let empty = Map::new();
                let _ = template.render(Scope { arguments: &empty, env: &|_| None });
            }
        }
    }

    #[test]
    fn a_text_without_tags_is_itself(text in any::<String>()) {
        prop_assume!(!text.contains("{{"));
        let template = compile(&text).unwrap();
        prop_assert_eq!(template.literal(), Some(text.as_str()));
    }

    #[test]
    fn white_space_goes_as_in_the_reference(parts in prop::collection::vec(prop::sample::select(vec![
        "a", " ", "  ", "\n", "\r\n", "\t", "{{x}}", "{{! c }}", "{{!-- c --}}", "{{#if x}}b{{/if}}",
        "{{#if x}}\nb\n{{/if}}", "\n{{#if y}}\nb\n{{else}}\nc\n{{/if}}\n", "{{#each l}}\n{{this}}\n{{/each}}",
    ]), 0..8)) {
        // Spaces after the last block go with it, as in JavaScript's Handlebars; the reference keeps them.
        let text = parts.concat() + ".";
        let given = json!({"x": 1, "l": [1, 2]});
        let wanted = handlebars::Handlebars::new().render_template(&text, &given).unwrap();
        prop_assert_eq!(fill(&text, &given).text(), wanted);
    }

    #[test]
    fn a_value_is_never_a_template(x in hostile()) {
        let given = json!({"x": x});
        prop_assert_eq!(fill("a{{x}}b", &given).text(), format!("a{x}b"));
        prop_assert_eq!(fill("{{x}}", &given).0, vec![Piece::Value(json!(x))]);
    }

    #[test]
    fn one_element_of_argv_stays_one(x in hostile(), y in hostile()) {
        let given = json!({"x": x, "y": y});
        for operand in [false, true] {
            if let Ok(elements) = fill("{{x}}{{y}}", &given).argv(operand) {
                prop_assert_eq!(&elements, &[format!("{x}{y}")]);
                prop_assert!(operand || !elements[0].starts_with('-'));
            }
        }
        let option = fill("--a={{x}}", &given).argv(false);
        let wanted = (!x.contains('\0')).then(|| vec![["--a=", &x].concat()]);
        prop_assert_eq!(option.ok(), wanted);
    }

    #[test]
    fn a_url_has_the_segments_and_pairs_of_its_template(x in hostile(), y in hostile(), z in hostile()) {
        let given = json!({"x": x, "y": y, "z": z, "l": [y, z]});
        if let Ok(url) = fill("https://h:1/a/{{x}}/b-{{y}}?q={{y}}&r=1&{{x}}={{z}}&l={{l}}#f{{z}}", &given).url() {
            prop_assert_eq!(url.origin().ascii_serialization(), "https://h:1");
            let decoded = |text: &str| percent_decoded(text);
            let segments: Vec<_> = url.path_segments().unwrap().map(decoded).collect();
            prop_assert_eq!(segments, vec!["a".to_owned(), x.clone(), format!("b-{y}")]);
            let pairs: Vec<_> = url.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
            let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            prop_assert_eq!(pairs, vec![pair("q", &y), pair("r", "1"), pair(&x, &z), pair("l", &y), pair("l", &z)]);
            prop_assert_eq!(decoded(url.fragment().unwrap()), format!("f{z}"));
        }
        // The query takes anything.
        let query = fill("https://h/?q={{x}}", &given).url();
        prop_assert!(query.is_ok());
    }

    #[test]
    fn no_value_chooses_a_server(x in hostile(), before in "https?://[a-z.]{0,5}") {
        let text = format!("{before}{{{{x}}}}/a");
        let url = fill(&text, &json!({"x": x})).url();
        prop_assert!(url.is_err());
    }

    #[test]
    fn json_has_the_values_that_were_meant(x in hostile(), y in hostile(), n in any::<i64>()) {
        let given = json!({"x": x, "o": {"k": [y, n]}, "n": n});
        let body = fill(r#"{"a": "<{{x}}{{n}}>", "b": {{x}}, "c": [{{o}}, {{n}}, "{{json o}}"]}"#, &given).json_text().unwrap();
        let o = given["o"].clone();
        let wanted = json!({"a": format!("<{x}{n}>"), "b": x, "c": [o, n, o.to_string()]});
        prop_assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), wanted);
    }

    #[test]
    fn sql_never_changes_with_the_values(x in hostile(), y in hostile()) {
        let text = "SELECT a FROM t WHERE b = {{x}} AND c IN ({{y}}) -- end";
        let (statement, values) = fill(text, &json!({"x": x, "y": y})).sql(|_| "?".to_owned());
        prop_assert_eq!(statement, "SELECT a FROM t WHERE b = ? AND c IN (?) -- end");
        prop_assert_eq!(values, vec![json!(x), json!(y)]);
    }

    #[test]
    fn a_header_has_no_control_character(x in hostile()) {
        if let Ok(header) = fill("v {{x}}", &json!({"x": x})).header() {
            prop_assert_eq!(&header, &format!("v {x}"));
            prop_assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }

    #[test]
    fn a_shell_sees_the_words_that_were_meant(x in hostile(), y in hostile()) {
        if let Ok(command) = fill("f {{x}} a={{y}};g", &json!({"x": x, "y": y})).shell() {
            let (words, rest) = words(&command);
            prop_assert_eq!(words, vec!["f".to_owned(), x, format!("a={y}")]);
            prop_assert_eq!(rest, ";g");
        }
    }
}

fn percent_decoded(text: &str) -> String {
    // A query of one name reads the same but for `+`, which is never there.
    let whole = text.replace('+', "%2B").replace('=', "%3D").replace('&', "%26");
    ::url::form_urlencoded::parse(whole.as_bytes()).map(|(name, _)| name.into_owned()).collect()
}

/// The words of a command made of plain characters and single quotes, read as
/// POSIX §2.2 says, and what is left from the first `;`.
fn words(command: &str) -> (Vec<String>, String) {
    let mut words = vec![String::new()];
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().unwrap();
        match c {
            '\'' => word.extend(chars.by_ref().take_while(|c| *c != '\'')),
            '\\' => word.extend(chars.next()),
            ' ' => words.push(String::new()),
            ';' => return (words, format!(";{}", chars.as_str())),
            _ => word.push(c),
        }
    }
    (words, String::new())
}
