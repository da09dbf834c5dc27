//! What templates give, and why some are none.

use serde_json::json;

use super::*;

pub(super) fn compile(text: &str) -> Result<Template, TemplateError> {
    let env = ["API_KEY", "HOST", "UNSET"].map(str::to_owned);
    Template::compile(text, Names { env: &env })
}

pub(super) fn env(name: &str) -> Option<String> {
    match name {
        "API_KEY" => Some("k-123".to_owned()),
        "HOST" => Some("api.example.com".to_owned()),
        _ => None,
    }
}

pub(super) fn try_render(text: &str, arguments: &Value) -> Result<Pieces, RenderError> {
    let arguments = arguments.as_object().expect("arguments are an object");
    compile(text).unwrap_or_else(|error| panic!("{text}: {error}")).render(Scope { arguments, env: &env })
}

pub(super) fn render(text: &str, arguments: Value) -> Pieces {
    try_render(text, &arguments).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn check(text: &str, arguments: Value, wanted: &str) {
    assert_eq!(render(text, arguments).text(), wanted, "{text}");
}

/// What is wrong, and the rest of the template from there.
fn wrong(text: &str, at: &str, message: &str) {
    let error = compile(text).expect_err(text);
    assert_eq!(&text[error.offset..], at, "{text}: {error}");
    assert!(error.message.contains(message), "{text}: {error}");
}

#[test]
fn the_published_examples_of_substitution_give_what_they_say() {
    check("echo {{message}}", json!({"message": "hello"}), "echo hello");
    check("{{case_sensitive ? '' : '-i'}}", json!({"case_sensitive": false}), "-i");
    check("{{case_sensitive ? '' : '-i'}}", json!({"case_sensitive": true}), "");
    check(
        "{{#each files}}--include={{this}} {{/each}}",
        json!({"files": ["*.rs", "*.toml"]}),
        "--include=*.rs --include=*.toml ",
    );
    check("{{env.API_KEY}}", json!({}), "k-123");
    check("{{condition ? 'true_value' : 'false_value'}}", json!({"condition": 1}), "true_value");
}

#[test]
fn values_keep_their_types_and_stay_apart() {
    let pieces =
        render("a{{x}}b{{y}}{{{z}}}{{&w}}", json!({"x": 1, "y": [true], "z": {"a": null}, "w": "<&>"}));
    let literal = |text: &str| Piece::Literal(text.to_owned());
    let wanted = vec![
        literal("a"),
        Piece::Value(json!(1)),
        literal("b"),
        Piece::Value(json!([true])),
        Piece::Value(json!({"a": null})),
        Piece::Value(json!("<&>")),
    ];
    assert_eq!(pieces.0, wanted);
}

#[test]
fn texts_of_the_author_and_the_operator_are_literal() {
    let literal = |text: &str| Pieces(vec![Piece::Literal(text.to_owned())]);
    assert_eq!(
        render("https://{{env.HOST}}/{{x ? 'a' : 'b'}}", json!({})),
        literal("https://api.example.com/b")
    );
    assert_eq!(
        render("{{default env.UNSET \"eu\"}}{{default env.HOST 1}}", json!({})),
        literal("euapi.example.com")
    );
    assert_eq!(render("{{x ? y : 'b'}}", json!({"x": 1, "y": 2})).0, [Piece::Value(json!(2))]);
    assert_eq!(render("{{default x \"b\"}}", json!({})).0, [Piece::Value(json!("b"))]);
    assert_eq!(render("{{json x}}", json!({"x": "b"})).0, [Piece::Json(json!("b"))]);
}

#[test]
fn blocks_choose_and_repeat() {
    check("{{#if a}}1{{else}}2{{/if}}", json!({"a": []}), "2");
    check("{{#if a}}1{{else if b}}2{{else if c}}3{{else}}4{{/if}}", json!({"c": "x"}), "3");
    check("{{#if a}}1{{else if b}}2{{else}}4{{/if}}", json!({}), "4");
    check("{{#unless a}}1{{else}}2{{/unless}}", json!({}), "1");
    check(
        "{{#each a}}{{@index}}{{this}}{{#unless @last}},{{/unless}}{{/each}}",
        json!({"a": ["x", "y"]}),
        "0x,1y",
    );
    check(
        "{{#each a}}{{@key}}={{this}}{{#if @first}};{{/if}}{{/each}}",
        json!({"a": {"x": 1, "y": 2}}),
        "x=1;y=2",
    );
    check("{{#each a}}x{{else}}none{{/each}}", json!({}), "none");
    check(
        "{{#each a as |v k|}}{{k}}:{{v.n}}{{../s}}{{/each}}",
        json!({"a": [{"n": 1}, {"n": 2}], "s": ";"}),
        "0:1;1:2;",
    );
    check(
        "{{#each a}}{{#each this}}{{@../index}}{{@index}}{{.}} {{/each}}{{/each}}",
        json!({"a": [["x"], ["y"]]}),
        "00x 10y ",
    );
    check("{{#with a.b}}{{c}}{{../d}}{{@root.d}}{{/with}}", json!({"a": {"b": {"c": 1}}, "d": 2}), "122");
    check("{{#with a as |x|}}{{x.c}}{{/with}}", json!({"a": {"c": 1}}), "1");
    check("{{#with a}}x{{else}}y{{/with}}", json!({}), "y");
}

#[test]
fn paths_reach_into_arguments() {
    let given = json!({"user": {"name": "n", "a b": 1}, "items": [5, [6]], "env": {"x": 3}});
    check("{{user.name}}{{user/name}}{{this.user.name}}{{./user.name}}", given.clone(), "nnnn");
    check("{{items.[0]}}{{items.0}}{{items.1.0}}{{user.[a b]}}", given.clone(), "5561");
    check("{{lookup items 0}}{{lookup user \"name\"}}{{len items}}{{len user.name}}", given.clone(), "5n21");
    check("{{this.env.x}}", given, "3");
}

#[test]
fn conditions_compare() {
    let holds = |expression: &str| {
        let given = json!({"n": 5, "s": "x", "t": true, "l": [1], "z": 0, "e": ""});
        render(&format!("{{{{#if {expression}}}}}y{{{{/if}}}}"), given).text() == "y"
    };
    for yes in [
        "(eq n 5)",
        "(eq n 5.0)",
        "(ne s \"y\")",
        "(gt n 4)",
        "(gte n 5)",
        "(lt n 6)",
        "(lte n 5)",
        "(gt s 'w')",
        "(and n s t)",
        "(or z e n)",
        "(not z)",
        "(not missing)",
        "(eq (len l) 1)",
        "(eq missing null)",
        "(and (gt n 1) (not (eq s \"y\")))",
        "env.HOST",
        "(eq env.HOST \"api.example.com\")",
        "true",
        "eq n 5",
    ] {
        assert!(holds(yes), "{yes}");
    }
    for no in [
        "(eq n \"5\")",
        "(gt s n)",
        "(and n z)",
        "(or z e)",
        "missing",
        "missing.deeper",
        "z",
        "e",
        "env.UNSET",
    ] {
        assert!(!holds(no), "{no}");
    }
}

#[test]
fn ternaries_take_quoted_texts_and_paths() {
    check("{{a ? b : c}}", json!({"a": true, "b": 1, "c": 2}), "1");
    check("{{ a?'x':\"y\" }}", json!({}), "y");
    check("{{eq a 1 ? 'it\\'s' : ''}}", json!({"a": 1}), "it's");
    check("{{(gt a 1) ? 'a?b:c' : ''}}", json!({"a": 2}), "a?b:c");
    check("{{a ? '}}' : '{{'}}", json!({"a": 2}), "}}");
    wrong("x{{a ? 'b'}}", "}}", "needs a `:`");
    wrong("x{{a ? 'b' : 'c' d}}", "d}}", "should end");
    wrong("x{{a ? 'it's' : 'b'}}", "s' : 'b'}}", "needs a `:`");
    wrong("x{{a ? b ? 'c' : 'd' : 'e'}}", "? 'c' : 'd' : 'e'}}", "needs a `:`");
    wrong("{{a ? : 'b'}}", ": 'b'}}", "is missing here");
    wrong("{{ ? 'a' : 'b'}}", "? 'a' : 'b'}}", "says nothing");
    wrong("{{a ? (b) : 'c'}}", "(b) : 'c'}}", "neither a quoted text nor a path");
}

#[test]
fn white_space_goes_as_in_handlebars() {
    check("a\n{{#if x}}\nb\n{{/if}}\nc", json!({"x": 1}), "a\nb\nc");
    check("a\n  {{! note }}\nb", json!({}), "a\nb");
    check("a {{~x~}} b", json!({"x": 1}), "a1b");
    check("a {{~#if x~}} b {{~/if~}} c", json!({"x": 1}), "abc");
    check("a{{!-- {{x}} --}}b", json!({}), "ab");
    check(r"\{{x}} \\{{x}}", json!({"x": 1}), r"{{x}} \1");
}

#[test]
fn a_missing_argument_is_an_error_only_where_it_is_shown() {
    let missing = |text: &str| match try_render(text, &json!({"a": {}})) {
        Err(RenderError::Missing { name }) => name,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(missing("{{x}}"), "x");
    assert_eq!(missing("{{a.b}}"), "a.b");
    assert_eq!(missing("{{json x}}"), "x");
    assert_eq!(missing("{{lookup a \"b\"}}"), "lookup a \"b\"");
    assert_eq!(missing("{{#if (not x)}}{{x}}{{/if}}"), "x");
    check("{{#if x}}{{x}}{{/if}}{{#each x}}1{{/each}}{{#with x}}1{{/with}}{{default x \"\"}}", json!({}), "");
    assert_eq!(try_render("{{env.UNSET}}", &json!({})), Err(RenderError::NoEnv { name: "UNSET".into() }));
}

#[test]
fn what_is_wrong_with_a_template_has_its_place() {
    wrong("a{{", "{{", "not closed");
    wrong("a{{x", "{{x", "not closed");
    wrong("a{{x{{y}}", "{{x{{y}}", "not closed");
    wrong("a{{}}", "}}", "says nothing");
    wrong("a{{ x y }}", "x y }}", "no helper `x`");
    wrong("a{{#if x}}b", "{{#if x}}b", "not closed");
    wrong("a{{#if x}}b{{/each}}", "{{/each}}", "closes `{{#if}}`");
    wrong("a{{/if}}", "{{/if}}", "closes nothing");
    wrong("a{{else}}", "{{else}}", "belongs to no block");
    wrong("{{#if x}}{{else}}{{else}}{{/if}}", "{{else}}{{/if}}", "belongs to no block");
    wrong("{{#if}}{{/if}}", "{{#if}}{{/if}}", "says of nothing");
    wrong("{{#list x}}{{/list}}", "{{#list x}}{{/list}}", "no block `list`");
    wrong("{{> x}}", "{{> x}}", "partials");
    wrong("{{#> x}}{{/x}}", "{{#> x}}{{/x}}", "partials");
    wrong("{{* x}}", "{{* x}}", "decorators");
    wrong("{{#*inline \"x\"}}{{/inline}}", "{{#*inline \"x\"}}{{/inline}}", "decorators");
    wrong("{{{{raw}}}}{{{{/raw}}}}", "{{{{raw}}}}{{{{/raw}}}}", "raw blocks");
    wrong("{{^x}}{{/x}}", "{{^x}}{{/x}}", "inverse blocks");
    wrong("{{eq a}}", "eq a}}", "does not take 1 operands");
    wrong("{{eq a b c=1}}", "eq a b c=1}}", "takes no `c=`");
    wrong("{{#if (eq a)}}{{/if}}", "(eq a)}}{{/if}}", "not take 1");
    wrong("{{@index}}", "@index}}", "outside of `each`");
    wrong("{{../x}}", "../x}}", "leaves the template");
    wrong("{{a..b}}", "a..b}}", "not a path");
    wrong("{{env.SECRET}}", "env.SECRET}}", "variable SECRET");
    wrong("{{#if env.SECRET}}{{/if}}", "env.SECRET}}{{/if}}", "variable SECRET");
    let hint = compile("{{env.SECRET}}").unwrap_err().hint;
    assert_eq!(hint.as_deref(), Some("add it to `env: [SECRET]`"));
}

#[test]
fn what_a_template_gives_and_goes_through_is_bounded() {
    let long: Vec<_> = (0..2_000).collect();
    let error =
        try_render("{{#each a}}{{#each @root.a}}{{/each}}{{/each}}", &json!({"a": long})).unwrap_err();
    assert!(error.to_string().contains("more than 100000 elements"), "{error}");
    let given = json!({"a": long, "big": "x".repeat(100_000)});
    let error = try_render("{{#each a}}{{../big}}{{/each}}", &given).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
    assert!(compile(&"{{#if a}}".repeat(1_000)).is_err());
    assert!(compile(&format!("{{{{#if {}a{}}}}}{{{{/if}}}}", "(".repeat(5_000), ")".repeat(5_000))).is_err());
    assert!(compile(&"x".repeat(300_000)).is_ok());
    assert!(compile(&format!("{{{{x}}}}{}", "x".repeat(300_000))).is_err());
}

#[test]
fn templates_in_values_stay_texts() {
    let given = json!({"x": "{{env.API_KEY}}{{y}}", "y": "secret"});
    check("{{x}}", given, "{{env.API_KEY}}{{y}}");
}

#[test]
fn templates_mean_what_they_mean_to_handlebars() {
    let mut reference = handlebars::Handlebars::new();
    reference.register_escape_fn(handlebars::no_escape);
    let given = json!({
        "t": true, "f": false, "s": "text", "n": 3, "l": ["a", "b"], "o": {"k": "v", "m": {"x": 1}}, "e": [],
        "d": [{"n": "p", "l": [1, 2]}, {"n": "q", "l": []}],
    });
    for text in [
        "{{s}} {{n}} {{t}} {{o.k}} {{o.m.x}} {{l.[0]}} {{l.1}} {{this.s}}",
        "{{#if t}}a{{else}}b{{/if}}{{#if e}}a{{else if n}}c{{else}}b{{/if}}{{#unless f}}d{{/unless}}",
        "{{#each l}}{{@index}}:{{this}}{{#unless @last}},{{/unless}}{{#if @first}}!{{/if}}{{/each}}",
        "{{#each o.m}}{{@key}}={{this}}{{/each}}{{#each e}}x{{else}}none{{/each}}",
        "{{#each d}}{{n}}{{#each l}}{{../n}}{{this}}{{@../index}}{{/each}};{{/each}}",
        "{{#each d as |x i|}}{{x.n}}{{i}}{{/each}}{{#with o}}{{k}}{{../s}}{{@root.n}}{{/with}}",
        "{{#with o as |w|}}{{w.k}}{{/with}}{{lookup o \"k\"}}{{lookup l 1}}{{len l}}",
        "{{#if (and t (gt n 2))}}1{{/if}}{{#if (or f (eq s \"text\"))}}2{{/if}}{{#if (not (lt n 3))}}3{{/if}}",
        "{{#if (ne s 'text')}}1{{else}}{{#if (gte n 3)}}2{{/if}}{{#if (lte n 3)}}3{{/if}}{{/if}}",
        "a {{! c }} b {{!-- {{s}} --}} c {{{s}}} {{&s}} \\{{s}} \\\\{{s}}",
        "a\n{{#each l}}\n- {{this}}\n{{/each}}\nb",
        "{{#if t}}\n  x\n{{else}}\n  y\n{{/if}}\n",
        "a {{~s~}} b {{~#if t~}} c {{~/if~}} d",
    ] {
        let wanted = reference.render_template(text, &given).unwrap();
        assert_eq!(render(text, given.clone()).text(), wanted, "{text}");
    }
}
