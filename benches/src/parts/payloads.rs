//! Long bodies and long streams of events: what passes through, what it costs,
//! and whether memory stays where it is.

use std::time::Duration;

use super::{closed::measure, memory::watched};
use crate::{
    load::{self, Case, Era, Sample, Target, What},
    process,
    report::{Bound, Line, Section, median_of},
    stats::{ratio, short},
    targets::{Programs, System},
};

const CASES: &[Case] = &[
    Case::new("call of 64 KiB", Era::Legacy, What::Echo(64 << 10)),
    Case::new("call of 1 MiB", Era::Legacy, What::Echo(1 << 20)),
    Case::new("call with 20 events", Era::Legacy, What::Progress(20)),
    Case::new("call with 1,000 events", Era::Legacy, What::Progress(1000)),
];
/// What memory is watched under.
const WATCHED: [usize; 3] = [0, 1, 3];
/// From then on memory should stay where it is, and may grow by so much.
const STEADY_AFTER: Duration = Duration::from_secs(5);
const GROWTH_MAX: f64 = 1.1;
/// Of each second the highest counts.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(clap::Args, Clone)]
pub struct PayloadsArgs {
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// For so many seconds memory is watched under each load.
    #[arg(long, default_value_t = 30.0)]
    pub watch: f64,
}

/// # Errors
/// If an answer is wrong or missing.
pub async fn run(args: &PayloadsArgs, programs: &Programs) -> anyhow::Result<Vec<Section>> {
    let system = System::start(programs).await?;
    let passed = through(args, &system).await?;
    let memory = memory(args, &system.nodes()).await?;
    Ok(vec![passed, memory])
}

async fn through(args: &PayloadsArgs, system: &System) -> anyhow::Result<Section> {
    let loads: Vec<(Case, usize)> = CASES.iter().map(|case| (*case, args.connections)).collect();
    let length = Duration::from_secs_f64(args.seconds);
    let rows = measure(system.targets(), &loads, args.rounds, length).await?;
    let mut section = Section::new(
        format!("Payloads, C={}", args.connections),
        &[
            "case",
            "target",
            "requests/s",
            "MiB/s",
            "events/s",
            "p50 µs",
            "p99 µs",
            "CPU µs",
            "CPU µs an event",
        ],
    );
    section.note("MiB/s counts what is sent in one direction; it goes both ways.");
    for row in &rows {
        let (rate, cpu) = (median_of(&row.rounds, Sample::rate), median_of(&row.rounds, Sample::cpu));
        let (mut volume, mut events, mut each) = ("–".to_owned(), "–".to_owned(), "–".to_owned());
        match row.case.what {
            What::Echo(bytes) => {
                volume = short(rate * bytes as f64 / f64::from(1 << 20));
                if bytes == 64 << 10 {
                    section.figure(Line::Cpu64K, &row.target, cpu);
                }
            }
            What::Progress(number) => {
                events = short(rate * f64::from(number));
                let cpu = cpu / f64::from(number);
                each = short(cpu);
                if number >= 1000 {
                    section.figure(Line::CpuEvent, &row.target, cpu);
                }
            }
            _ => {}
        }
        section.row([
            row.case.name.to_owned(),
            row.target.clone(),
            short(rate),
            volume,
            events,
            short(median_of(&row.rounds, |sample| sample.per_mille(500))),
            short(median_of(&row.rounds, |sample| sample.per_mille(990))),
            short(cpu),
            each,
        ]);
    }
    Ok(section)
}

async fn memory(args: &PayloadsArgs, nodes: &[Target]) -> anyhow::Result<Section> {
    let mut section = Section::new(
        format!("Resident memory under load, C={}", args.connections),
        &["case", "target", "before MiB", "steady MiB", "at the end MiB", "highest MiB", "end / steady"],
    );
    let length = Duration::from_secs_f64(args.watch);
    let steady = STEADY_AFTER.min(length / 3);
    section.note(format!(
        "{} s under each load. Steady is the highest of the second before {} s have passed, the end the highest of \
         the last second.",
        short(args.watch),
        short(steady.as_secs_f64())
    ));
    for node in nodes {
        for case in WATCHED.map(|place| &CASES[place]) {
            eprintln!("memory: {} {}", case.name, node.name);
            let before = process::rss_kib(node.pid)?;
            let (_, seen) = watched(node, load::run(node, case, args.connections, length)).await?;
            let settled = seen.highest(steady.saturating_sub(WINDOW), steady);
            let end = seen.at_end();
            let grown = ratio(end, settled);
            section.row([
                case.name.to_owned(),
                node.name.clone(),
                short(before as f64 / 1024.0),
                short(settled),
                short(end),
                short(seen.highest(Duration::ZERO, Duration::MAX)),
                format!("{grown:.3}"),
            ]);
            section.check(
                format!("memory of {} under {}, end / steady", node.name, case.name),
                grown,
                Bound::AtMost(GROWTH_MAX),
            );
        }
    }
    Ok(section)
}
