//! Hostile arguments against every agent: what a service gets is exactly what
//! was sent, where it was meant to be, or the call is refused before anything
//! happens.
//!
//! Each agent's echo tool puts its argument into every place that an agent has
//! for arguments, and answers with what the service received there. Its answer
//! for a harmless word shows the places; for any other argument the answer must
//! be the same with that argument in those places, and nothing more.

mod corpus;

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use self::corpus::{CANARY, HOSTILE};
use crate::{
    agents::{AGENTS, Served, serve, text_of},
    raw,
};

/// Two words that are nowhere else, of different lengths.
const HARMLESS: [&str; 2] = ["mtHarmlessWord7", "mtOtherHarmlessWord42"];
/// Of the calls to one agent.
const CALLS_AT_ONCE: usize = 4;
/// How many must get through unchanged, or the echo tool shows nothing.
const EXACT_MIN: usize = 10;

/// What became of an argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Exact,
    Refused,
    Wrong(String),
}

/// What the service received, or that the call was refused.
async fn echo(url: &str, agent: &str, text: &str) -> Result<Option<Value>, String> {
    let params = json!({"name": format!("{agent}_echo"), "arguments": {"text": text}});
    let answer = raw::ask(url, "tools/call", params).await;
    let result = answer.get("result").ok_or_else(|| answer.to_string())?;
    if result["isError"] == true {
        let reason = &result["_meta"]["io.magictunnel/error"]["reason"];
        return if reason == "invalid_arguments" { Ok(None) } else { Err(result.to_string()) };
    }
    let text = text_of(result);
    serde_json::from_str(&text).map(Some).map_err(|error| format!("{error}: {text:?}"))
}

/// The same with another text in the places of the harmless word.
fn with(shown: &Value, text: &str) -> Value {
    let put = |place: &str| place.replace(HARMLESS[0], text);
    match shown {
        Value::String(place) => put(place).into(),
        Value::Array(items) => items.iter().map(|item| with(item, text)).collect(),
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (put(key), with(value, text))).collect())
        }
        other => other.clone(),
    }
}

/// The places that an echo tool shows.
async fn places(url: &str, agent: &str) -> Result<Value, String> {
    let mut shown = Vec::new();
    for word in HARMLESS {
        shown.push(echo(url, agent, word).await?.ok_or("a harmless word is refused")?);
    }
    if !shown[0].to_string().contains(HARMLESS[0]) {
        return Err(format!("the service does not show what it received: {}", shown[0]));
    }
    let expected = with(&shown[0], HARMLESS[1]);
    if shown[1] == expected {
        Ok(shown.swap_remove(0))
    } else {
        Err(format!("{} is not {expected}", shown[1]))
    }
}

async fn attack(url: &str, agent: &str, places: &Value, text: &str) -> Outcome {
    match echo(url, agent, text).await {
        Ok(None) => Outcome::Refused,
        Ok(Some(received)) if received == with(places, text) => Outcome::Exact,
        Ok(Some(received)) => Outcome::Wrong(format!("it received {received}")),
        Err(reason) => Outcome::Wrong(reason),
    }
}

/// A line of the table, and what is wrong.
async fn row(url: &str, served: &Served, canary: &Path) -> (String, Vec<String>) {
    let agent = served.agent;
    raw::shows_tool(url, &format!("{agent}_echo")).await;
    let places = match places(url, agent).await {
        Ok(places) => places,
        Err(reason) => return (format!("{agent:<12}  -"), vec![format!("{agent}: {reason}")]),
    };
    let places = &places;
    let outcomes: Vec<(&str, String, Outcome)> = stream::iter(HOSTILE)
        .map(|(kind, text)| async move {
            let text = text.replace(CANARY, canary.to_str().expect("the path is a text"));
            let outcome = attack(url, agent, places, &text).await;
            (*kind, text, outcome)
        })
        .buffered(CALLS_AT_ONCE)
        .collect()
        .await;
    let mut failures = Vec::new();
    let mut refused = BTreeMap::<&str, usize>::new();
    let (mut exact, mut wrong) = (0, 0);
    for (kind, text, outcome) in outcomes {
        match outcome {
            Outcome::Exact => exact += 1,
            Outcome::Refused => *refused.entry(kind).or_default() += 1,
            Outcome::Wrong(reason) => {
                wrong += 1;
                let reason: String = reason.chars().take(500).collect();
                failures.push(format!("{agent}: {kind}: {text:?}: {reason}"));
            }
        }
    }
    if exact < EXACT_MIN {
        failures.push(format!("{agent}: only {exact} arguments got through at all"));
    }
    if attack(url, agent, places, HARMLESS[0]).await != Outcome::Exact {
        failures.push(format!("{agent}: a harmless word does not get through afterwards"));
    }
    let total: usize = refused.values().sum();
    let kinds: Vec<String> = refused.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    (format!("{agent:<12}  {exact:>5}  {total:>7}  {wrong:>5}  {}", kinds.join(", ")), failures)
}

/// `MT_AGENTS=http,grpc` attacks only these.
#[tokio::test]
async fn no_hostile_argument_becomes_anything_but_an_argument() {
    let only = std::env::var("MT_AGENTS").ok();
    let chosen = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|wanted| wanted == name));
    let starting = AGENTS.iter().filter(|(name, _)| chosen(name)).map(|(_, start)| start());
    let services = futures_util::future::join_all(starting).await;
    let cluster = serve(&services).await;
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");

    let mut table = format!("\n{:<12}  exact  refused  wrong  refused by kind", "");
    let mut failures = Vec::new();
    for served in &services {
        let (line, wrong) = row(&cluster.nodes[0].url(served.agent), served, &canary).await;
        write!(table, "\n{line}").unwrap();
        failures.extend(wrong);
    }
    println!("{table}\n\n{} hostile arguments for each agent", HOSTILE.len());
    assert!(failures.is_empty(), "{table}\n{}", failures.join("\n"));
    assert!(!canary.exists(), "a hostile argument was run");
}

#[test]
fn the_corpus_is_large_and_holds_nothing_twice() {
    let texts: std::collections::BTreeSet<_> = HOSTILE.iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), HOSTILE.len());
    assert!(HOSTILE.len() >= 100);
    for kind in ["option", "shell", "lines", "path", "url", "sql", "json", "template", "unicode"] {
        assert!(HOSTILE.iter().filter(|(own, _)| *own == kind).count() >= 8, "{kind}");
    }
}
