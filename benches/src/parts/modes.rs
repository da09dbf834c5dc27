//! The ways in which a call can take through a node: eras, carriers, and
//! members whose resources are told apart.

use std::time::Duration;

use super::closed::{Row, measure};
use crate::{
    load::{Case, Era, Sample, Target, Via, What},
    report::{Section, median_of},
    stats::{ratio, short},
    targets::{Programs, System, serves},
};

const ECHO: What = What::Echo(32);
const LINKS: What = What::Links(20);
const WRAPPED: &str = "mt+things-a+";

const fn through_two(case: Case) -> Case {
    Case { wrapped: WRAPPED, ..case.at("/g/two/mcp") }
}

/// The first is what the others are compared with.
const CASES: &[Case] = &[
    Case::new("session, legacy backend", Era::Legacy, ECHO),
    Case::new("stateless, modern backend", Era::Modern, ECHO),
    Case::new("stateless, legacy backend (bridged)", Era::Modern, ECHO).at("/g/old/mcp"),
    Case::new("session, modern backend (bridged)", Era::Legacy, ECHO).at("/g/new/mcp"),
    Case::new("session, stdio backend", Era::Legacy, ECHO).at("/g/pipe/mcp"),
    Case::new("stateless, stdio backend", Era::Modern, ECHO).at("/g/pipe/mcp"),
    Case { via: Via::WebSocket, ..Case::new("WebSocket client", Era::Legacy, ECHO) },
    Case { via: Via::Grpc, ..Case::new("gRPC client", Era::Modern, ECHO) },
    Case::new("resource, one member has any", Era::Legacy, What::Read).at("/g/one/mcp"),
    through_two(Case::new("resource, two members have some", Era::Legacy, What::Read)),
    Case::new("call with 20 links, one member", Era::Legacy, LINKS).at("/g/one/mcp"),
    through_two(Case::new("call with 20 links, two members", Era::Legacy, LINKS)),
    Case::new("call of 64 KiB, one member", Era::Legacy, What::Echo(64 << 10)).at("/g/one/mcp"),
    Case::new("call of 64 KiB, two members", Era::Legacy, What::Echo(64 << 10)).at("/g/two/mcp"),
];

#[derive(clap::Args, Clone)]
pub struct ModesArgs {
    /// Seconds each measurement lasts, after a warm-up.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
}

/// # Errors
/// If an answer is wrong or missing.
pub async fn run(args: &ModesArgs, programs: &Programs) -> anyhow::Result<Section> {
    let system = System::start(programs).await?;
    let nodes: Vec<Target> = system.nodes();
    for node in &nodes {
        for case in CASES {
            serves(node, case).await?;
        }
    }
    let loads: Vec<(Case, usize)> = CASES.iter().map(|case| (*case, args.connections)).collect();
    let rows = measure(&nodes, &loads, args.rounds, Duration::from_secs_f64(args.seconds)).await?;
    Ok(section(&rows, args.connections))
}

fn section(rows: &[Row], connections: usize) -> Section {
    let mut section = Section::new(
        format!("Modes of a node, C={connections}"),
        &["case", "target", "requests/s", "p50 µs", "p99 µs", "CPU µs", "of it the node", "× the first"],
    );
    section.note(
        "The CPU of a stdio backend is in the first column and not in the second: it is a child of the node, on \
         the node's CPU.",
    );
    for row in rows {
        let own = median_of(&row.rounds, Sample::own_cpu);
        let first = rows.iter().find(|other| other.target == row.target);
        let first = first.map_or(0.0, |first| median_of(&first.rounds, Sample::own_cpu));
        section.row([
            row.case.name.to_owned(),
            row.target.clone(),
            short(median_of(&row.rounds, Sample::rate)),
            short(median_of(&row.rounds, |sample| sample.per_mille(500))),
            short(median_of(&row.rounds, |sample| sample.per_mille(990))),
            short(median_of(&row.rounds, Sample::cpu)),
            short(own),
            short(ratio(own, first)),
        ]);
    }
    section
}
