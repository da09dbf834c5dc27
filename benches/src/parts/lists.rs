//! A list of 1,000 tools over ten backends, of which none hang, three hang since
//! their tools are known, or three have never answered.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;

use super::closed::{Row, measure};
use crate::{
    child::Guard,
    load::{self, Case, Era, Sample, Target, What},
    quiet,
    report::{Bound, Line, Section, median_of},
    stats::{Times, median, micros, ratio, short},
    targets::{
        BACKEND, FLOOR, Fleet, NGINX, Nginx, Programs, backend, find_nginx, gateway, http_backend,
        measured_part, serves,
    },
};

const BACKENDS: usize = 10;
const HANGING: usize = 3;
const TOOLS_EACH: usize = 100;
const TOOLS: usize = BACKENDS * TOOLS_EACH;
/// Half of the lists may come so much later if some backends hang.
const RATIO_MAX: f64 = 1.05;

const ALL: Case = Case::new("1,000 tools", Era::Legacy, What::List(TOOLS));
const SOME: Case = Case::new("700 tools", Era::Legacy, What::List(TOOLS - HANGING * TOOLS_EACH));

#[derive(clap::Args, Clone)]
pub struct ListsArgs {
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Rounds over all targets; of those in turn, three times as many.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Connections at once, one measurement for each. The ratios are measured with
    /// one.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    pub connections: Vec<usize>,
}

/// The targets whose lists are compared, beside the node itself.
const AGAIN: &str = "node, a second one";
const STOPPED: &str = "node, 3 hang";
const SEVEN: &str = "node, 7 backends";
const NEVER: &str = "node, 7 and 3 that never answer";

/// Some backends and a node before them.
struct Aggregate {
    target: Target,
    backends: Vec<Guard>,
    fleet: Fleet,
}

/// The times of some targets that were asked in turn, round by round.
struct Turns {
    case: Case,
    targets: Vec<Target>,
    rounds: Vec<Vec<Times>>,
}

impl Aggregate {
    async fn start(name: &str, programs: &Programs, parts: &[&[&str]], case: &Case) -> anyhow::Result<Self> {
        let mut running = Vec::new();
        let mut yaml = String::new();
        let mut names = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let (guard, address): (Guard, SocketAddr) = backend(part)?;
            let backend = format!("b{number}");
            yaml += &http_backend(&backend, address, "");
            names.push(backend);
            running.push(guard);
        }
        let members: Vec<&str> = names.iter().map(String::as_str).collect();
        yaml += &gateway("default", "{backend}_{tool}", &members);
        let mut fleet = Fleet::start(&yaml).await?;
        let target = node(&mut fleet, name, programs, case).await?;
        Ok(Self { target, backends: running, fleet })
    }
}

async fn node(fleet: &mut Fleet, name: &str, programs: &Programs, case: &Case) -> anyhow::Result<Target> {
    let (_, program) = programs.nodes()?.swap_remove(0);
    let target = fleet.silent_node(name, &program).await?;
    serves(&target, case).await?;
    Ok(target)
}

impl Turns {
    async fn measure(case: Case, targets: &[&Target], args: &ListsArgs) -> anyhow::Result<Self> {
        let length = Duration::from_secs_f64(args.seconds) * u32::try_from(targets.len())?;
        let mut rounds = Vec::new();
        let all = args.rounds * 3;
        for round in 1..=all {
            eprintln!("{} in turn ({round}/{all})", case.name);
            let once = async || load::in_turn(targets, &case, length).await;
            rounds.push(quiet::measured(quiet::MEDIANS, once).await?);
        }
        Ok(Self { case, targets: targets.iter().map(|&target| target.clone()).collect(), rounds })
    }

    /// µs; the median of the rounds.
    fn per_mille(&self, place: usize, quantile: u32) -> f64 {
        median(self.rounds.iter().map(|times| micros(times[place].per_mille(quantile))))
    }

    /// Of p50, to that of the first target in the same round; the median.
    fn beside_first(&self, place: usize) -> f64 {
        let p50 = |times: &Times| micros(times.per_mille(500));
        median(self.rounds.iter().map(|times| ratio(p50(&times[place]), p50(&times[0]))))
    }
}

/// # Errors
/// If a list is not whole.
pub async fn run(args: &ListsArgs, programs: &Programs) -> anyhow::Result<Vec<Section>> {
    let each = TOOLS_EACH.to_string();
    let answers: &[&str] = &["--tools", &each];
    let hangs: &[&str] = &["--hang"];
    let alive = vec![answers; BACKENDS];
    let fewer = vec![answers; BACKENDS - HANGING];
    let never = [fewer.clone(), vec![hangs; HANGING]].concat();
    let (ours, _) = programs.nodes()?.swap_remove(0);
    let mut none = Aggregate::start(&ours, programs, &alive, &ALL).await?;
    let again = node(&mut none.fleet, AGAIN, programs, &ALL).await?;
    let stopped = Aggregate::start(STOPPED, programs, &alive, &ALL).await?;
    for backend in stopped.backends.iter().take(HANGING) {
        backend.signal(Signal::STOP)?;
    }
    let seven = Aggregate::start(SEVEN, programs, &fewer, &SOME).await?;
    let never = Aggregate::start(NEVER, programs, &never, &SOME).await?;

    let whole = TOOLS.to_string();
    let (_whole, at) = backend(&["--tools", &whole])?;
    let (direct, direct_at) = measured_part(&["backend", "--tools", &whole])?;
    let (floor, floor_at) = measured_part(&["floor", "--to", &at.to_string()])?;
    let mut targets =
        vec![Target::new(BACKEND, direct_at, direct.pid()), Target::new(FLOOR, floor_at, floor.pid())];
    let nginx = match find_nginx(programs.nginx.as_deref()) {
        Some(program) => Some(Nginx::start(&program, at).await?),
        None => None,
    };
    targets.extend(nginx.as_ref().map(Nginx::target));
    targets.extend([none.target.clone(), stopped.target.clone()]);

    let length = Duration::from_secs_f64(args.seconds);
    let loads = |case| args.connections.iter().map(|&connections| (case, connections)).collect::<Vec<_>>();
    let mut rows = measure(&targets, &loads(ALL), args.rounds, length).await?;
    let targets = [seven.target.clone(), never.target.clone()];
    rows.extend(measure(&targets, &loads(SOME), args.rounds, length).await?);
    let turns = [
        Turns::measure(ALL, &[&none.target, &again, &stopped.target], args).await?,
        Turns::measure(SOME, &[&seven.target, &never.target], args).await?,
    ];
    Ok(vec![section(&rows, args), compared(&turns)])
}

fn section(rows: &[Row], args: &ListsArgs) -> Section {
    let mut section = Section::new(
        "Lists over ten backends",
        &["case", "C", "target", "requests/s", "p50 µs", "p99 µs", "CPU µs"],
    );
    section.note(format!(
        "Backend, minimal proxy and {NGINX} have one backend that holds all tools. The three that hang were stopped after \
         their tools were known."
    ));
    for row in rows {
        let cpu = median_of(&row.rounds, Sample::cpu);
        section.row([
            row.case.name.to_owned(),
            row.connections.to_string(),
            row.target.clone(),
            short(median_of(&row.rounds, Sample::rate)),
            short(median_of(&row.rounds, |sample| sample.per_mille(500))),
            short(median_of(&row.rounds, |sample| sample.per_mille(990))),
            short(cpu),
        ]);
        if row.case.name == ALL.name && Some(&row.connections) == args.connections.last() {
            section.figure(Line::BigList, &row.target, cpu / 1000.0);
        }
    }
    section
}

fn compared(turns: &[Turns]) -> Section {
    let mut section = Section::new(
        "Lists beside backends that hang",
        &["case", "target", "p50 µs", "p99 µs", "p50 × the first"],
    );
    section.note(
        "One connection to each, asked in turn. The second node of the same system shows how far apart two that are alike \
         come out.",
    );
    for turns in turns {
        for (place, target) in turns.targets.iter().enumerate() {
            section.row([
                turns.case.name.to_owned(),
                target.name.clone(),
                short(turns.per_mille(place, 500)),
                short(turns.per_mille(place, 990)),
                format!("{:.3}", turns.beside_first(place)),
            ]);
            let what = match target.name.as_str() {
                STOPPED => "3 of 10 backends hang: p50 / none hang",
                NEVER => "3 of 10 backends have never answered: p50 / 7 backends",
                _ => continue,
            };
            section.check(what, turns.beside_first(place), Bound::AtMost(RATIO_MAX));
        }
    }
    section
}
