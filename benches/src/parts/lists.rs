//! A list of 1,000 tools over ten backends, of which none hang, three hang since
//! their tools are known, or three have never answered.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;

use super::closed::{Row, measure};
use crate::{
    child::Guard,
    load::{Case, Era, Sample, Target, What},
    report::{Bound, Line, Section, median_of},
    stats::{ratio, short},
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
    #[arg(long, default_value_t = 0.7)]
    pub seconds: f64,
    #[arg(long, default_value_t = 9)]
    pub rounds: usize,
    /// Connections at once, one measurement for each; the first is what the
    /// ratios are of.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    pub connections: Vec<usize>,
}

/// Some backends and a node before them.
struct Aggregate {
    target: Target,
    backends: Vec<Guard>,
    _fleet: Fleet,
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
        let (_, program) = programs.nodes()?.swap_remove(0);
        let target = fleet.silent_node(name, &program).await?;
        serves(&target, case).await?;
        Ok(Self { target, backends: running, _fleet: fleet })
    }
}

/// # Errors
/// If a list is not whole.
pub async fn run(args: &ListsArgs, programs: &Programs) -> anyhow::Result<Section> {
    let each = TOOLS_EACH.to_string();
    let answers: &[&str] = &["--tools", &each];
    let hangs: &[&str] = &["--hang"];
    let alive = vec![answers; BACKENDS];
    let fewer = vec![answers; BACKENDS - HANGING];
    let never = [fewer.clone(), vec![hangs; HANGING]].concat();
    let (ours, _) = programs.nodes()?.swap_remove(0);
    let none = Aggregate::start(&ours, programs, &alive, &ALL).await?;
    let stopped = Aggregate::start("node, 3 hang", programs, &alive, &ALL).await?;
    for backend in stopped.backends.iter().take(HANGING) {
        backend.signal(Signal::STOP)?;
    }
    let seven = Aggregate::start("node, 7 backends", programs, &fewer, &SOME).await?;
    let never = Aggregate::start("node, 7 and 3 that never answer", programs, &never, &SOME).await?;

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
    Ok(section(&rows, args, &none.target.name))
}

fn section(rows: &[Row], args: &ListsArgs, ours: &str) -> Section {
    let mut section = Section::new(
        "Lists over ten backends",
        &["case", "C", "target", "requests/s", "p50 µs", "p99 µs", "CPU µs"],
    );
    section.note(format!(
        "Backend, minimal proxy and {NGINX} have one backend that holds all tools. The three that hang were stopped after \
         their tools were known."
    ));
    let p50 = |row: &Row| median_of(&row.rounds, |sample| sample.per_mille(500));
    for row in rows {
        let cpu = median_of(&row.rounds, Sample::cpu);
        section.row([
            row.case.name.to_owned(),
            row.connections.to_string(),
            row.target.clone(),
            short(median_of(&row.rounds, Sample::rate)),
            short(p50(row)),
            short(median_of(&row.rounds, |sample| sample.per_mille(990))),
            short(cpu),
        ]);
        if row.case.name == ALL.name && Some(&row.connections) == args.connections.last() {
            section.figure(Line::BigList, &row.target, cpu / 1000.0);
        }
    }
    for (what, hanging, without) in [
        ("3 of 10 backends hang: p50 / none hang", "node, 3 hang", ours),
        (
            "3 of 10 backends have never answered: p50 / 7 backends",
            "node, 7 and 3 that never answer",
            "node, 7 backends",
        ),
    ] {
        let of = |target: &str| rows.iter().find(|row| row.target == target).map_or(0.0, p50);
        section.check(what, ratio(of(hanging), of(without)), Bound::AtMost(RATIO_MAX));
    }
    section
}
