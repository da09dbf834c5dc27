//! Several backends behind one gateway: how they are named, listed and told
//! apart, and that one that dies hurts only itself.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::fixture::{Fixture, Mode};
use crate::manifest::{gateway, over_http, plain_gateway};
use crate::raw::{Events, Session, answer, ask, modern, shows_tool, tool_names};

const LEGACY: &str = "2025-11-25";

/// Two fixtures, `a` and `b`, one node, and more configuration.
async fn two(more: &str) -> (Fixture, Fixture, Cluster) {
    let (a, b) = (Fixture::start(Mode::Dual).await, Fixture::start(Mode::Dual).await);
    let cluster = Cluster::start(1).await;
    let members = json!({"members": [{"backend": "a"}, {"backend": "b"}]});
    let text = over_http("a", a.url()) + &over_http("b", b.url()) + &gateway("default", &members) + more;
    cluster.apply(&text).await;
    let url = cluster.nodes[0].url("default");
    shows_tool(&url, "a_echo").await;
    shows_tool(&url, "b_echo").await;
    (a, b, cluster)
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

async fn call(url: &str, tool: &str) -> Value {
    ask(url, "tools/call", json!({"name": tool, "arguments": {}})).await
}

#[tokio::test]
async fn tools_are_named_chosen_and_renamed_as_the_gateway_says() {
    let chosen = json!({"members": [
        {"backend": "a", "include": ["test_*_content", "echo"], "exclude": ["test_audio*"], "rename": {"echo": "say"}},
        {"backend": "b", "include": ["slow"], "toolName": "{tool}"},
    ]});
    let spaced = json!({
        "namespace": "acme",
        "toolName": "{namespace}.{backend}.{tool}",
        "members": [{"backend": "a", "include": ["echo"]}, {"backend": "b", "include": ["slow"]}],
    });
    let more = gateway("chosen", &chosen) + &gateway("spaced", &spaced);
    let (_a, _b, cluster) = two(&more).await;
    let url = |gateway: &str| cluster.nodes[0].url(gateway);

    let all = tool_names(&url("default")).await.unwrap();
    let half = all.len() / 2;
    assert!(all[..half].iter().all(|name| name.starts_with("a_")), "{all:?}");
    assert!(all[half..].iter().all(|name| name.starts_with("b_")), "{all:?}");

    assert_eq!(tool_names(&url("chosen")).await.unwrap(), ["a_test_image_content", "say", "slow"]);
    let said = json!({"name": "say", "arguments": {"text": "renamed"}});
    assert_eq!(text(&ask(&url("chosen"), "tools/call", said).await), "renamed");
    assert_eq!(call(&url("chosen"), "echo").await["error"]["code"], -32602, "it has another name here");
    assert_eq!(call(&url("chosen"), "a_crash").await["error"]["code"], -32602, "it was not taken");

    assert_eq!(tool_names(&url("spaced")).await.unwrap(), ["acme.a.echo", "acme.b.slow"]);
    let said = json!({"name": "acme.a.echo", "arguments": {"text": "spaced"}});
    assert_eq!(text(&ask(&url("spaced"), "tools/call", said).await), "spaced");
}

#[tokio::test]
async fn the_earlier_member_wins_a_name_that_two_want() {
    let order = |first: &str, second: &str| json!({"toolName": "{tool}", "members": [{"backend": first}, {"backend": second}]});
    let more = gateway("ab", &order("a", "b")) + &gateway("ba", &order("b", "a"));
    let (_a, _b, cluster) = two(&more).await;
    let url = |gateway: &str| cluster.nodes[0].url(gateway);
    let tool = "test_trigger_resource_update";
    assert_eq!(text(&call(&url("default"), "a_test_trigger_resource_update").await), "revision 1");
    assert_eq!(text(&call(&url("ab"), tool).await), "revision 2");
    assert_eq!(text(&call(&url("ba"), tool).await), "revision 1");
    let names = tool_names(&url("ab")).await.unwrap();
    assert_eq!(names.iter().filter(|name| *name == tool).count(), 1, "{names:?}");
}

#[tokio::test]
async fn pages_are_walked_with_cursors_that_nobody_can_make() {
    let members = json!([{"backend": "a"}, {"backend": "b"}]);
    let paged = json!({"pageSize": 7, "members": members});
    let more = gateway("paged", &paged) + &gateway("twin", &paged);
    let (_a, _b, cluster) = two(&more).await;
    let url = |gateway: &str| cluster.nodes[0].url(gateway);
    assert_eq!(
        tool_names(&url("paged")).await.unwrap(),
        tool_names(&url("default")).await.unwrap(),
        "pages are the list, in its order"
    );
    let first = ask(&url("paged"), "tools/list", json!({})).await;
    assert_eq!(first["result"]["tools"].as_array().unwrap().len(), 7);
    let cursor = first["result"]["nextCursor"].as_str().unwrap();
    let refused = [
        ("paged", "tools/list", ""),
        ("paged", "tools/list", "garbage"),
        ("paged", "tools/list", "7"),
        ("paged", "prompts/list", cursor),
        ("twin", "tools/list", cursor),
        ("paged", "tools/list", &cursor[1..]),
        ("paged", "tools/list", &format!("{cursor}A")),
    ];
    for (gateway, method, cursor) in refused {
        let answer = ask(&url(gateway), method, json!({"cursor": cursor})).await;
        assert_eq!(answer["error"]["code"], -32602, "{gateway} {method} {cursor:?}: {answer}");
    }
    let mut session = Session::open(&url("paged"), LEGACY, json!({})).await;
    let listed = session.ask("tools/list", json!({"cursor": cursor})).await;
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 7, "both eras list alike: {listed}");
    assert_eq!(session.ask("tools/list", json!({"cursor": ""})).await["error"]["code"], -32602);
}

#[tokio::test]
async fn a_uri_tells_which_member_it_belongs_to() {
    let (_a, _b, cluster) = two("").await;
    let url = cluster.nodes[0].url("default");
    let listed = ask(&url, "resources/list", json!({})).await;
    let resources = listed["result"]["resources"].as_array().unwrap();
    let uris: Vec<&str> = resources.iter().map(|resource| resource["uri"].as_str().unwrap()).collect();
    assert!(
        uris.contains(&"mt+a+test://static-text") && uris.contains(&"mt+b+test://static-text"),
        "{uris:?}"
    );
    let listed = ask(&url, "resources/templates/list", json!({})).await;
    assert_eq!(listed["result"]["resourceTemplates"][1]["uriTemplate"], "mt+b+test://template/{id}/data");

    call(&url, "b_test_trigger_resource_update").await;
    for (uri, content) in [
        ("mt+a+test://watched-resource", "revision 0"),
        ("mt+b+test://watched-resource", "revision 1"),
        ("mt+b+test://template/7/data", r#"{"id":"7","templateTest":true,"data":"Data for ID: 7"}"#),
    ] {
        let read = ask(&url, "resources/read", json!({"uri": uri})).await;
        let contents = &read["result"]["contents"][0];
        assert_eq!(
            (contents["uri"].as_str(), contents["text"].as_str()),
            (Some(uri), Some(content)),
            "{read}"
        );
    }

    let embedded = call(&url, "b_test_embedded_resource").await;
    assert_eq!(embedded["result"]["content"][0]["resource"]["uri"], "mt+b+test://embedded-resource");
    let prompt =
        json!({"name": "a_test_prompt_with_embedded_resource", "arguments": {"resourceUri": "test://x"}});
    let prompt = ask(&url, "prompts/get", prompt).await;
    assert_eq!(prompt["result"]["messages"][0]["content"]["resource"]["uri"], "mt+a+test://x", "{prompt}");

    let mut session = Session::open(&url, LEGACY, json!({})).await;
    for uri in ["test://static-text", "mt+c+test://static-text", "mt+a+test://nothing"] {
        let modern = ask(&url, "resources/read", json!({"uri": uri})).await;
        assert_eq!(modern["error"]["code"], -32602, "{uri}: {modern}");
        let legacy = session.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(legacy["error"]["code"], -32002, "{uri}: {legacy}");
    }
}

#[tokio::test]
async fn updates_of_resources_name_their_member() {
    let (_a, _b, cluster) = two("").await;
    let url = cluster.nodes[0].url("default");
    let uri = "mt+b+test://watched-resource";

    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let mut own = Events::of(session.stream().await);
    assert_eq!(session.ask("resources/subscribe", json!({"uri": uri})).await["error"], Value::Null);
    let wanted = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let listening = modern(&url, 7, "subscriptions/listen", wanted).send().await.unwrap();
    let mut listening = Events::of(listening);
    let acknowledged = listening.next().await;
    assert_eq!(acknowledged["params"]["notifications"]["resourceSubscriptions"][0], uri, "{acknowledged}");

    call(&url, "a_test_trigger_resource_update").await;
    call(&url, "b_test_trigger_resource_update").await;
    let updated = own.next().await;
    assert_eq!(updated["method"], "notifications/resources/updated", "{updated}");
    assert_eq!(updated["params"]["uri"], uri);
    let updated = listening.next().await;
    assert_eq!(updated["method"], "notifications/resources/updated", "{updated}");
    assert_eq!(updated["params"]["uri"], uri);
    assert_eq!(updated["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7, "{updated}");
}

#[tokio::test]
async fn prompts_and_completions_find_their_member() {
    let (_a, _b, cluster) = two("").await;
    let url = cluster.nodes[0].url("default");
    let prompt = json!({"name": "b_test_prompt_with_arguments", "arguments": {"arg1": "x", "arg2": "y"}});
    let got = ask(&url, "prompts/get", prompt).await;
    assert_eq!(
        got["result"]["messages"][0]["content"]["text"], "Prompt with arguments: arg1='x', arg2='y'",
        "{got}"
    );
    let unknown = ask(&url, "prompts/get", json!({"name": "test_prompt_with_arguments"})).await;
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");

    let complete = |reference: Value, name: &str, value: &str| json!({"ref": reference, "argument": {"name": name, "value": value}});
    let prompt = json!({"type": "ref/prompt", "name": "b_test_prompt_with_arguments"});
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let by_name = complete(prompt, "arg1", "par");
    let by_uri =
        complete(json!({"type": "ref/resource", "uri": "mt+a+test://template/{id}/data"}), "id", "1");
    for (params, values) in [(by_name, json!(["paris", "park", "party"])), (by_uri, json!(["1", "12"]))] {
        let modern = ask(&url, "completion/complete", params.clone()).await;
        assert_eq!(modern["result"]["completion"]["values"], values, "{modern}");
        let legacy = session.ask("completion/complete", params).await;
        assert_eq!(legacy["result"]["completion"]["values"], values, "{legacy}");
    }
}

#[tokio::test]
async fn a_dead_backend_hurts_only_itself() {
    let (_a, b, cluster) = two(&plain_gateway("only-b", "b")).await;
    let url = cluster.nodes[0].url("default");
    let before = tool_names(&url).await.unwrap();
    b.kill().await;
    assert_eq!(tool_names(&url).await.unwrap(), before, "lists are answered from the catalog");
    let alive = json!({"name": "a_echo", "arguments": {"text": "alive"}});
    assert_eq!(text(&ask(&url, "tools/call", alive).await), "alive");

    let dead = call(&url, "b_echo").await;
    assert!(dead["error"]["message"].as_str().is_some_and(|said| said.contains("backend b")), "{dead}");
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let dead = session.ask("tools/call", json!({"name": "b_echo", "arguments": {}})).await;
    assert!(dead["error"]["message"].as_str().is_some_and(|said| said.contains("backend b")), "{dead}");
    assert!(!dead.to_string().contains("127.0.0.1"), "clients are told no addresses: {dead}");
    assert!(tool_names(&cluster.nodes[0].url("only-b")).await.is_ok());
}

#[tokio::test]
async fn an_unknown_tool_is_an_invalid_parameter() {
    let (_a, _b, cluster) = two("").await;
    let url = cluster.nodes[0].url("default");
    let response = modern(&url, 1, "tools/call", json!({"name": "nope"})).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let modern = answer(response).await;
    assert_eq!(modern["error"]["code"], -32602, "{modern}");
    let mut session = Session::open(&url, LEGACY, json!({})).await;
    let legacy = session.ask("tools/call", json!({"name": "nope"})).await;
    assert_eq!(legacy["error"]["code"], -32602, "{legacy}");
}
