//! What `mtctl up` says once it serves.

use std::{fmt::Write as _, path::Path, time::Duration};

use mt_proto::pb::{control as pb, node::BackendState};
use tokio::time::Instant;

use crate::{
    client::Client,
    command::status::{by_state, is_settled, tools, word, worst},
    endpoint::Record,
    output::{BAD, DIM, Failure, GOOD, STRONG, WARN, escape, shorten},
    sync::Sync,
};

const POLL: Duration = Duration::from_millis(50);
const REASON_CHARS_MAX: usize = 90;
/// So many troubled backends are named.
const NAMED_MAX: usize = 5;

/// What is known without asking.
pub struct About<'a> {
    pub dir: &'a Path,
    pub record: &'a Record,
    pub followed: Option<String>,
    /// In tool sets that come from what is followed.
    pub tools: usize,
    pub took: Duration,
}

/// What the control plane says.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub nodes: pb::ListNodesResponse,
    pub backends: Vec<pb::FleetBackend>,
}

impl Fleet {
    /// Whether waiting longer would show something else: a node that is not up
    /// to date, or a backend that is still starting or not listed yet.
    fn is_settled(&self, generation: u64) -> bool {
        let head = self.nodes.generation;
        if head < generation {
            return false;
        }
        let synced = self.nodes.nodes.iter().any(|node| Sync::of(node, head) == Sync::Synced);
        synced && self.backends.iter().all(is_settled)
    }
}

/// Waits until a generation is in service and nothing is on its way any more, or
/// the time is up.
///
/// # Errors
/// When the control plane does not answer.
pub async fn settled(client: &mut Client, generation: u64, limit: Duration) -> Result<Fleet, Failure> {
    let start = Instant::now();
    loop {
        let fleet = Fleet { nodes: client.nodes().await?, backends: client.backends().await? };
        if start.elapsed() >= limit || fleet.is_settled(generation) {
            return Ok(fleet);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The screen.
pub fn render(about: &About, fleet: &Fleet) -> String {
    let record = about.record;
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let mut text = format!("\n {STRONG}MagicTunnel {}{STRONG:#}\n\n", record.version);
    let mut line = |good: bool, name: &str, what: &str, note: &str| {
        let mark = if good { format!("{GOOD}✓{GOOD:#}") } else { format!("{WARN}!{WARN:#}") };
        let _ = writeln!(text, " {mark} {name:<14} {what:<28} {DIM}{note}{DIM:#}");
    };
    let generation = format!("generation {}", fleet.nodes.generation);
    line(true, "store", &about.dir.display().to_string(), "");
    line(true, "control plane", &host(&record.control), &generation);
    let synced = fleet.nodes.nodes.iter().any(|node| Sync::of(node, fleet.nodes.generation) == Sync::Synced);
    let note = if synced { "for MCP clients" } else { "still taking its configuration" };
    line(synced, "node", &format!("{}/mcp", record.mcp), note);
    line(true, "health", &host(&record.http), &format!("and {}", host(&record.admin)));
    let troubled: Vec<_> = fleet.backends.iter().filter(|backend| is_troubled(backend)).collect();
    line(troubled.is_empty(), "backends", &by_state(&fleet.backends), "");
    let listed = usize::try_from(tools(&fleet.backends)).unwrap_or(usize::MAX);
    line(true, "tools", &listed.saturating_add(about.tools).to_string(), "");
    for backend in troubled.iter().take(NAMED_MAX) {
        let (state, reason) = worst(backend);
        let name = escape(&backend.backend);
        let reason = shorten(reason, REASON_CHARS_MAX);
        let _ = writeln!(text, "   {BAD}{name}{BAD:#} {}: {reason}", word(state));
    }
    if troubled.len() > NAMED_MAX {
        let _ = writeln!(text, "   … and {} more: mtctl status", troubled.len() - NAMED_MAX);
    }
    let call = if fleet.backends.iter().any(|backend| backend.backend == "demo") {
        "mtctl call demo_echo message=hello"
    } else {
        "mtctl tools list"
    };
    let _ = writeln!(text, "\n Next:  {call}");
    let _ = writeln!(text, "        mtctl import FILE          add the MCP servers of a client");
    let _ = writeln!(text, "        mtctl status               mtctl down");
    if let Some(followed) = &about.followed {
        let _ = writeln!(text, " Changes of {} are followed.", escape(followed));
    }
    let _ = write!(text, " Ready in {:.1} s. Ctrl-C stops it.", about.took.as_secs_f64());
    text
}

fn is_troubled(backend: &pb::FleetBackend) -> bool {
    let state = worst(backend).0;
    matches!(state, BackendState::Degraded | BackendState::Unavailable | BackendState::NeedsAuth)
}

#[cfg(test)]
mod tests {
    use mt_proto::pb::node::BackendStatus;

    use super::*;

    fn backend(name: &str, state: BackendState, tools: u32, reason: &str) -> pb::FleetBackend {
        let status =
            BackendStatus { backend: name.into(), state: state.into(), reason: reason.into(), tools };
        let nodes = [("local".to_owned(), status)].into();
        pb::FleetBackend { backend: name.into(), tools, nodes, ..Default::default() }
    }

    #[test]
    fn a_backend_is_settled_when_it_is_listed_or_has_failed() {
        assert!(!is_settled(&backend("a", BackendState::Starting, 0, "")));
        assert!(!is_settled(&backend("a", BackendState::Ready, 0, "")));
        assert!(is_settled(&backend("a", BackendState::Ready, 1, "")));
        assert!(is_settled(&backend("a", BackendState::Unavailable, 0, "")));
    }

    #[test]
    fn the_summary_names_addresses_troubles_and_what_is_next() {
        let record = Record {
            pid: 1,
            version: "0.1.0".into(),
            mcp: "http://127.0.0.1:3001".into(),
            control: "http://127.0.0.1:7001".into(),
            http: "http://127.0.0.1:7002".into(),
            admin: "http://127.0.0.1:9901".into(),
        };
        let about = About {
            dir: Path::new("/data"),
            record: &record,
            followed: Some("./capabilities".into()),
            tools: 2,
            took: Duration::from_millis(420),
        };
        let node = pb::NodeStatus { connected: true, generation_acked: 1, ..Default::default() };
        let fleet = Fleet {
            nodes: pb::ListNodesResponse { nodes: vec![node], generation: 1, catalog_revision: 1 },
            backends: vec![
                backend("demo", BackendState::Ready, 4, ""),
                backend("git", BackendState::Unavailable, 0, "no program uvx"),
            ],
        };
        let text = anstream::adapter::strip_str(&render(&about, &fleet)).to_string();
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        MagicTunnel 0.1.0

        ✓ store          /data
        ✓ control plane  127.0.0.1:7001               generation 1
        ✓ node           http://127.0.0.1:3001/mcp    for MCP clients
        ✓ health         127.0.0.1:7002               and 127.0.0.1:9901
        ! backends       1 ready · 1 unavailable
        ✓ tools          6
          git unavailable: no program uvx

        Next:  mtctl call demo_echo message=hello
               mtctl import FILE          add the MCP servers of a client
               mtctl status               mtctl down
        Changes of ./capabilities are followed.
        Ready in 0.4 s. Ctrl-C stops it.
        ");
    }
}
