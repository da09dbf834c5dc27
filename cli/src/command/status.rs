//! `mtctl status`: the whole fleet on one screen, from facts the control plane has.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use serde_json::{Value, json};

use mt_proto::pb::{
    control as pb,
    node::{BackendState, BackendStatus},
};

use super::Context;
use crate::{
    endpoint,
    output::{BAD, DIM, Exit, Failure, Format, GOOD, STRONG, WARN, age::age, count, escape, shorten},
    sync::Sync,
};

const REASON_CHARS_MAX: usize = 100;
/// So many troubled backends are explained; the rest is counted.
const EXPLAINED_MAX: usize = 10;

/// Everything the screen shows.
pub struct Facts {
    pub url: String,
    pub fleet: pb::ListNodesResponse,
    pub backends: Vec<pb::FleetBackend>,
    pub last: Option<pb::Generation>,
    /// Of each gateway.
    pub stats: Vec<pb::GatewayStats>,
}

pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let url = endpoint::server(&context.global).url;
    let mut client = context.client().await?;
    let facts = Facts {
        url,
        fleet: client.nodes().await?,
        backends: client.backends().await?,
        last: client.history(1).await?.pop(),
        stats: client.stats(None).await?,
    };
    match context.format() {
        Format::Json | Format::Yaml => context.output.value(&to_value(&facts))?,
        Format::Table | Format::Name => context.output.data(&render(&facts, SystemTime::now()))?,
    }
    Ok(Exit::Ok)
}

/// The state of a backend over all nodes that serve it: the worst one, so that
/// trouble on one node is not hidden by the health of another. A node that has
/// not asked it yet says nothing.
pub fn worst(backend: &pb::FleetBackend) -> (BackendState, &str) {
    let severity = |status: &&BackendStatus| match status.state() {
        BackendState::Unspecified => 0,
        BackendState::Ready => 1,
        BackendState::Disabled => 2,
        BackendState::Starting => 3,
        BackendState::Degraded => 4,
        BackendState::NeedsAuth => 5,
        BackendState::Unavailable => 6,
    };
    let worst = backend.nodes.values().max_by_key(severity);
    worst.map_or((BackendState::Unspecified, ""), |status| (status.state(), status.reason.as_str()))
}

/// Whether a backend has shown what it is: it is listed, or it has failed.
pub fn is_settled(backend: &pb::FleetBackend) -> bool {
    match worst(backend).0 {
        BackendState::Unspecified | BackendState::Starting => false,
        BackendState::Ready => backend.tools + backend.prompts + backend.resources > 0,
        _ => true,
    }
}

/// A state as it is printed.
pub fn word(state: BackendState) -> &'static str {
    match state {
        BackendState::Unspecified => "unknown",
        BackendState::Starting => "starting",
        BackendState::Ready => "ready",
        BackendState::Degraded => "degraded",
        BackendState::Unavailable => "unavailable",
        BackendState::Disabled => "disabled",
        BackendState::NeedsAuth => "needs-auth",
    }
}

fn is_trouble(state: BackendState) -> bool {
    matches!(state, BackendState::Degraded | BackendState::Unavailable | BackendState::NeedsAuth)
}

/// `2 ready · 1 starting`.
pub fn by_state(backends: &[pb::FleetBackend]) -> String {
    let mut counts: BTreeMap<i32, (usize, &str)> = BTreeMap::new();
    for (state, _) in backends.iter().map(worst) {
        // Ready first, then in the order of the contract.
        let order = if state == BackendState::Ready { 0 } else { state as i32 + 1 };
        counts.entry(order).or_insert((0, word(state))).0 += 1;
    }
    let parts: Vec<String> = counts.values().map(|(count, word)| format!("{count} {word}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(" · ") }
}

/// Whether everything is as it should be.
fn all_good(facts: &Facts) -> bool {
    let head = facts.fleet.generation;
    !facts.fleet.nodes.is_empty()
        && facts.fleet.nodes.iter().all(|node| Sync::of(node, head) == Sync::Synced)
        && !facts.backends.iter().any(|backend| is_trouble(worst(backend).0))
}

fn render(facts: &Facts, now: SystemTime) -> String {
    let head = facts.fleet.generation;
    let nodes = &facts.fleet.nodes;
    let mut text = format!("{STRONG}{}{STRONG:#} · generation {head}", escape(&facts.url));
    if let Some(last) = &facts.last {
        let ago = age(last.commit_time.as_ref(), now);
        let _ = write!(text, " · {ago} ago by {}", escape(&last.author));
    }
    let verdict = if all_good(facts) {
        format!("{GOOD}all good{GOOD:#}")
    } else {
        format!("{WARN}needs a look{WARN:#}")
    };
    let _ = writeln!(text, "   {verdict}");
    let with = |sync: Sync| nodes.iter().filter(|node| Sync::of(node, head) == sync).count();
    let _ = write!(text, "nodes     {}/{} synced", with(Sync::Synced), nodes.len());
    for sync in [Sync::Updating, Sync::Refused, Sync::Offline] {
        match with(sync) {
            0 => {}
            number => _ = write!(text, " · {number} {}", sync.word()),
        }
    }
    text.push('\n');
    let _ = writeln!(text, "backends  {}", by_state(&facts.backends));
    let troubled: Vec<_> = facts.backends.iter().filter(|backend| is_trouble(worst(backend).0)).collect();
    let explained = &troubled[..troubled.len().min(EXPLAINED_MAX)];
    let width = explained.iter().map(|backend| backend.backend.len()).max().unwrap_or(0);
    for backend in explained {
        let (state, reason) = worst(backend);
        let name = escape(&backend.backend);
        let _ = write!(text, "          {BAD}{name:width$}  {}{BAD:#}", word(state));
        let _ = writeln!(text, "  {}", shorten(reason, REASON_CHARS_MAX));
    }
    if troubled.len() > EXPLAINED_MAX {
        let _ = writeln!(text, "          … and {} more", troubled.len() - EXPLAINED_MAX);
    }
    let _ = writeln!(text, "tools     {} in the catalog", tools(&facts.backends));
    for stats in facts.stats.iter().filter(|stats| stats.clash_count > 0) {
        let gateway = escape(&stats.gateway);
        let _ = write!(text, "clashes   {} in gateway {gateway}: ", stats.clash_count);
        let _ = writeln!(text, "{}", shorten(&named(stats), REASON_CHARS_MAX));
    }
    for node in nodes.iter().filter(|node| node.connected) {
        let url = node.node.as_ref().map_or("", |hello| hello.mcp_url.as_str());
        let _ = writeln!(text, "{DIM}endpoint{DIM:#}  {}/mcp", escape(url.trim_end_matches('/')));
    }
    text
}

/// The names that clash, as many as are told.
fn named(stats: &pb::GatewayStats) -> String {
    let names =
        stats.clashes.iter().map(|clash| format!("{} ({}, not {})", clash.name, clash.winner, clash.loser));
    names.collect::<Vec<_>>().join(", ")
}

/// How many tools the catalog has.
pub fn tools(backends: &[pb::FleetBackend]) -> u64 {
    backends.iter().map(|backend| u64::from(backend.tools)).sum()
}

fn to_value(facts: &Facts) -> Value {
    let head = facts.fleet.generation;
    let nodes = facts.fleet.nodes.iter().map(|node| {
        let hello = node.node.clone().unwrap_or_default();
        json!({"node": hello.node_id, "state": Sync::of(node, head).word(), "mcp_url": hello.mcp_url})
    });
    let backends = facts.backends.iter().map(|backend| {
        let (state, reason) = worst(backend);
        json!({"backend": backend.backend, "state": word(state), "reason": reason, "tools": backend.tools})
    });
    json!({
        "server": facts.url,
        "generation": head,
        "catalog_revision": facts.fleet.catalog_revision,
        "all_good": all_good(facts),
        "nodes": nodes.collect::<Vec<_>>(),
        "backends": backends.collect::<Vec<_>>(),
        "tools": tools(&facts.backends),
        "clash_count": facts.stats.iter().map(|stats| u64::from(stats.clash_count)).sum::<u64>(),
        "summary": count(facts.backends.len(), "backend"),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mt_proto::pb::node::Hello;

    use super::*;

    fn backend(name: &str, states: &[BackendState], tools: u32) -> pb::FleetBackend {
        let status = |state: &BackendState| BackendStatus {
            backend: name.into(),
            state: (*state).into(),
            reason: if is_trouble(*state) { "no such program".into() } else { String::new() },
            tools,
        };
        let nodes = states.iter().enumerate().map(|(i, state)| (format!("n{i}"), status(state))).collect();
        pb::FleetBackend { backend: name.into(), tools, nodes, ..Default::default() }
    }

    fn facts(backends: Vec<pb::FleetBackend>) -> Facts {
        Facts {
            url: "http://127.0.0.1:7001".into(),
            fleet: pb::ListNodesResponse {
                nodes: vec![pb::NodeStatus {
                    node: Some(Hello { mcp_url: "http://127.0.0.1:3001".into(), ..Default::default() }),
                    connected: true,
                    generation_sent: 2,
                    generation_acked: 2,
                    ..Default::default()
                }],
                generation: 2,
                catalog_revision: 1,
            },
            backends,
            last: Some(pb::Generation {
                number: 2,
                commit_time: Some(prost_types::Timestamp { seconds: 100, nanos: 0 }),
                author: "a@b".into(),
                ..Default::default()
            }),
            stats: Vec::new(),
        }
    }

    fn screen(facts: &Facts) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(112);
        anstream::adapter::strip_str(&render(facts, now)).to_string()
    }

    #[test]
    fn a_healthy_fleet_is_all_good() {
        insta::assert_snapshot!(screen(&facts(vec![backend("demo", &[BackendState::Ready], 4)])), @r"
        http://127.0.0.1:7001 · generation 2 · 12s ago by a@b   all good
        nodes     1/1 synced
        backends  1 ready
        tools     4 in the catalog
        endpoint  http://127.0.0.1:3001/mcp
        ");
    }

    #[test]
    fn a_name_that_two_members_want_is_shown() {
        let mut facts = facts(vec![backend("demo", &[BackendState::Ready], 4)]);
        let clash = |name: &str| pb::NameClash {
            name: name.into(),
            winner: "a".into(),
            loser: "b".into(),
            ..Default::default()
        };
        facts.stats = vec![
            pb::GatewayStats { gateway: "team".into(), ..Default::default() },
            pb::GatewayStats {
                gateway: "default".into(),
                clashes: vec![clash("now"), clash("evil\u{1b}[2J")],
                clash_count: 2,
                ..Default::default()
            },
        ];
        insta::assert_snapshot!(screen(&facts), @r"
        http://127.0.0.1:7001 · generation 2 · 12s ago by a@b   all good
        nodes     1/1 synced
        backends  1 ready
        tools     4 in the catalog
        clashes   2 in gateway default: now (a, not b), evil\u{1b}[2J (a, not b)
        endpoint  http://127.0.0.1:3001/mcp
        ");
    }

    #[test]
    fn trouble_on_one_node_is_not_hidden_by_another() {
        let sick = backend("git", &[BackendState::Ready, BackendState::Unavailable], 0);
        insta::assert_snapshot!(screen(&facts(vec![sick, backend("demo", &[BackendState::Ready], 4)])), @r"
        http://127.0.0.1:7001 · generation 2 · 12s ago by a@b   needs a look
        nodes     1/1 synced
        backends  1 ready · 1 unavailable
                  git  unavailable  no such program
        tools     4 in the catalog
        endpoint  http://127.0.0.1:3001/mcp
        ");
    }
}
