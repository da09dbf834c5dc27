//! What a request costs: the closed loop, over all targets, kinds of requests
//! and numbers of connections. Rounds go over all targets in turn, so that what
//! else the machine does strikes all of them.

use std::time::Duration;

use crate::{
    load::{self, Case, Era, Sample, Target, What},
    quiet,
    report::{Line, Section, median_of},
    stats::{median, ratio, short},
    targets::{BACKEND, FLOOR, NGINX, Programs, System},
};

/// What `run` sends, by the names that it knows.
const CASES: &[(&str, Case)] = &[
    ("session", Case::new("call, session", Era::Legacy, What::Echo(32))),
    ("stateless", Case::new("call, stateless", Era::Modern, What::Echo(32))),
    ("64k", Case::new("call of 64 KiB, session", Era::Legacy, What::Echo(64 << 10))),
    ("64k-stateless", Case::new("call of 64 KiB, stateless", Era::Modern, What::Echo(64 << 10))),
    ("1m", Case::new("call of 1 MiB, session", Era::Legacy, What::Echo(1 << 20))),
    ("list", Case::new("list of 4 tools, session", Era::Legacy, What::List(4))),
    ("list-stateless", Case::new("list of 4 tools, stateless", Era::Modern, What::List(4))),
    ("sse", Case::new("call with 20 events, session", Era::Legacy, What::Progress(20))),
    ("sse-stateless", Case::new("call with 20 events, stateless", Era::Modern, What::Progress(20))),
    ("sse-1000", Case::new("call with 1,000 events, session", Era::Legacy, What::Progress(1000))),
];

/// Those that are sent if none are named.
const USUAL: [&str; 5] = ["session", "stateless", "64k", "list", "list-stateless"];

#[derive(clap::Args, Clone)]
pub struct RunArgs {
    /// Seconds each measurement lasts, after a warm-up.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Connections at once, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 128])]
    pub connections: Vec<usize>,
    /// Rounds over all targets; medians are printed.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// What is sent: session, stateless, 64k, 64k-stateless, 1m, list,
    /// list-stateless, sse, sse-stateless, sse-1000.
    #[arg(long, value_delimiter = ',', default_values_t = USUAL.map(str::to_owned))]
    pub cases: Vec<String>,
    /// Only these targets.
    #[arg(long, value_delimiter = ',')]
    pub targets: Vec<String>,
}

/// All rounds of one target under one load.
pub struct Row {
    pub case: Case,
    pub connections: usize,
    pub target: String,
    pub rounds: Vec<Sample>,
}

/// Measures and makes the table.
///
/// # Errors
/// If an answer is wrong or missing.
pub async fn run(args: &RunArgs, programs: &Programs) -> anyhow::Result<(Section, Vec<String>)> {
    let system = System::start(programs).await?;
    let mut loads = Vec::new();
    for name in &args.cases {
        let case = CASES.iter().find(|(known, _)| known == name).map(|(_, case)| *case);
        let case = case.ok_or_else(|| anyhow::anyhow!("there is no case {name:?}"))?;
        loads.extend(args.connections.iter().map(|&connections| (case, connections)));
    }
    let wanted = |target: &&Target| args.targets.is_empty() || args.targets.contains(&target.name);
    let targets: Vec<Target> = system.targets().iter().filter(wanted).cloned().collect();
    let rows = measure(&targets, &loads, args.rounds, Duration::from_secs_f64(args.seconds)).await?;
    let mut section = section("Closed loop", &rows);
    figures(&mut section, &rows);
    Ok((section, system.missing.clone()))
}

/// Rounds over targets, one load after the other.
///
/// # Errors
/// If an answer is wrong or missing.
pub async fn measure(
    targets: &[Target],
    loads: &[(Case, usize)],
    rounds: usize,
    length: Duration,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (case, connections) in loads {
        let first = rows.len();
        rows.extend(targets.iter().map(|target| Row {
            case: *case,
            connections: *connections,
            target: target.name.clone(),
            rounds: Vec::new(),
        }));
        for round in 0..rounds {
            for (place, target) in targets.iter().enumerate() {
                eprintln!("{} C={connections} {} ({}/{rounds})", case.name, target.name, round + 1);
                let once = async || load::run(target, case, *connections, length).await;
                rows[first + place].rounds.push(quiet::measured(quiet::MEDIANS, once).await?);
            }
        }
    }
    Ok(rows)
}

/// Of one target under the same load.
fn of<'a>(rows: &'a [Row], row: &Row, target: &str) -> Option<&'a Row> {
    rows.iter().find(|other| {
        (other.case.name, other.connections, other.target.as_str())
            == (row.case.name, row.connections, target)
    })
}

fn section(title: &str, rows: &[Row]) -> Section {
    let mut section = Section::new(
        title,
        &[
            "case",
            "C",
            "target",
            "requests/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "CPU µs",
            "of it user",
            "× backend",
            "× minimal proxy",
            "× nginx",
            "p50 added µs",
        ],
    );
    for row in rows {
        let cpu = median_of(&row.rounds, Sample::cpu);
        let beside = |target| {
            of(rows, row, target)
                .map_or("–".to_owned(), |other| short(ratio(cpu, median_of(&other.rounds, Sample::cpu))))
        };
        section.row([
            row.case.name.to_owned(),
            row.connections.to_string(),
            row.target.clone(),
            short(median_of(&row.rounds, Sample::rate)),
            short(median_of(&row.rounds, |sample| sample.per_mille(500))),
            short(median_of(&row.rounds, |sample| sample.per_mille(990))),
            short(median_of(&row.rounds, |sample| sample.per_mille(999))),
            short(cpu),
            short(median_of(&row.rounds, Sample::user_cpu)),
            beside(BACKEND),
            beside(FLOOR),
            beside(NGINX),
            added(rows, row).map_or("–".to_owned(), short),
        ]);
    }
    section
}

/// How much later half of the answers come than from the bare backend, µs: the
/// median of the differences of the rounds.
fn added(rows: &[Row], row: &Row) -> Option<f64> {
    let bare = of(rows, row, BACKEND).filter(|_| row.target != BACKEND)?;
    let pairs = row.rounds.iter().zip(&bare.rounds);
    Some(median(pairs.map(|(own, bare)| own.per_mille(500) - bare.per_mille(500))))
}

/// What of it is in the budget.
fn figures(section: &mut Section, rows: &[Row]) {
    for row in rows {
        let cpu = median_of(&row.rounds, Sample::cpu);
        let other = |connections| {
            let same = rows.iter().find(|other| {
                (other.case.name, other.connections, other.target.as_str())
                    == (row.case.name, connections, row.target.as_str())
            });
            same.map(|other| median_of(&other.rounds, Sample::cpu))
        };
        match (row.case.what, row.case.era, row.connections) {
            (What::Echo(32), Era::Legacy, 1) => {
                if let Some(added) = added(rows, row) {
                    section.figure(Line::P50Added, &row.target, added);
                }
            }
            (What::Echo(32), Era::Legacy, 16) => {
                section.figure(Line::Cpu16, &row.target, cpu);
                if let Some(nginx) = of(rows, row, NGINX) {
                    let nginx = median_of(&nginx.rounds, Sample::cpu);
                    section.figure(Line::Cpu16ToNginx, &row.target, ratio(cpu, nginx));
                }
            }
            (What::Echo(32), Era::Legacy, 128) => {
                section.figure(Line::Cpu128, &row.target, cpu);
                section.figure(Line::OneCore, &row.target, ratio(1e6, cpu));
                if let Some(many) = other(512) {
                    section.figure(Line::ManySessions, &row.target, ratio(many, cpu));
                }
            }
            (What::Echo(65_536), Era::Legacy, 16) => section.figure(Line::Cpu64K, &row.target, cpu),
            _ => {}
        }
    }
}
