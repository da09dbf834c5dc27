//! All parts in one run, and their budget.

use super::{
    closed::{self, RunArgs},
    idle::{self, IdleArgs},
    instructions::{self, InstructionsArgs},
    lists::{self, ListsArgs},
    modes::{self, ModesArgs},
    open::{self, OpenArgs},
    overload::{self, OverloadArgs},
    payloads::{self, PayloadsArgs},
    startup::{self, StartUpArgs},
};
use crate::{
    place,
    report::{Report, Section},
    targets::Programs,
};

#[derive(clap::Args, Clone)]
pub struct AllArgs {
    /// In a few minutes: shorter, fewer rounds, less load. Good for seeing that
    /// everything works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Leave these out: run, open, modes, instructions, payloads, lists, idle,
    /// overload, start-up.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
}

impl AllArgs {
    fn either<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    fn has(&self, part: &str) -> bool {
        let has = !self.skip.iter().any(|skipped| skipped == part);
        if has {
            eprintln!("== {part}");
        }
        has
    }

    fn closed(&self, cases: &[&str], connections: &[usize]) -> RunArgs {
        RunArgs {
            seconds: self.either(0.7, 2.0),
            connections: connections.to_vec(),
            rounds: self.either(1, 3),
            cases: cases.iter().map(|&case| case.to_owned()).collect(),
            targets: Vec::new(),
        }
    }
}

fn one(section: Section) -> Vec<Section> {
    vec![section]
}

/// Measures everything. A part that fails is said to have failed, and fails the
/// whole at its end; the others are measured all the same.
pub async fn run(args: &AllArgs, programs: &Programs) -> Report {
    let mut report = Report::default();
    let (seconds, rounds) = (args.either(0.7, 2.0), args.either(1, 3));
    if args.has("start-up") {
        let args = StartUpArgs { rounds: args.either(2, 5) };
        report.add("start-up", startup::run(&args, programs).await.map(one));
    }
    if args.has("run") {
        let cases = [
            (&["session"][..], &[1, 16, 128, 512][..]),
            (&["stateless", "list"], args.either(&[16][..], &[1, 16, 128])),
        ];
        for (cases, connections) in cases {
            let done = closed::run(&args.closed(cases, connections), programs).await;
            let done = done.map(|(section, missing)| {
                if report.missing.is_empty() {
                    report.missing = missing;
                }
                one(section)
            });
            report.add("run", done);
        }
    }
    if args.has("open") {
        let rates = args.either(vec![4_000.0], vec![1_000.0, 4_000.0, 8_000.0]);
        let args = OpenArgs { rates, connections: 128, seconds, rounds };
        report.add("open", open::run(&args, programs).await.map(one));
    }
    if args.has("modes") {
        let args = ModesArgs { seconds: args.either(0.5, 1.5), connections: 16, rounds };
        report.add("modes", modes::run(&args, programs).await.map(one));
    }
    if args.has("instructions") {
        if instructions::is_possible() {
            let args =
                InstructionsArgs { cases: args.either(1, usize::MAX), targets: Vec::new(), keep: None };
            report.add("instructions", instructions::run(&args, programs).await.map(one));
        } else {
            report.missing.push("instructions are not counted: valgrind is not installed".to_owned());
        }
    }
    if args.has("payloads") {
        let args = PayloadsArgs { connections: 16, seconds, rounds, watch: args.either(8.0, 30.0) };
        report.add("payloads", payloads::run(&args, programs).await);
    }
    if args.has("lists") {
        let args =
            ListsArgs { seconds: args.either(0.5, 1.0), rounds: args.either(1, 3), connections: vec![1, 4] };
        report.add("lists", lists::run(&args, programs).await);
    }
    if args.has("idle") {
        let args = IdleArgs {
            sessions: args.either(2_000, 9_800),
            streams: args.either(2_000, 8_000),
            rate: 2_000.0,
            seconds: args.either(1.0, 3.0),
            rounds: args.either(3, 5),
        };
        report.add("idle", idle::run(&args, programs).await);
    }
    if args.has("overload") {
        let args = OverloadArgs { seconds: args.either(1.5, 5.0), loads: vec![0.5, 1.0, 2.0] };
        report.add("overload", overload::run(&args, programs).await.map(one));
    }
    if !place::is_pinned() {
        report.missing.push("nothing was pinned to a CPU: compare with care".to_owned());
    }
    report
}
