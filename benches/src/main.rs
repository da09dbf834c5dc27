//! What a node costs, beside the bare backend, the least that a proxy can cost,
//! nginx and other gateways, measured in one run.
//!
//! ```text
//! benches/run
//! ```
//!
//! Absolute figures of a shared machine mean little; the ratios are what counts.

mod backend;
mod child;
mod floor;
mod listen;
mod load;
mod loading;
mod parts;
mod place;
mod process;
mod quiet;
mod report;
mod stats;
mod targets;

use std::{ffi::OsString, net::SocketAddr};

use clap::{Parser, Subcommand};
use parts::{
    closed::{self, RunArgs},
    idle::{self, IdleArgs},
    instructions::{self, InstructionsArgs},
    lists::{self, ListsArgs},
    modes::{self, ModesArgs},
    open::{self, OpenArgs},
    overload::{self, OverloadArgs},
    payloads::{self, PayloadsArgs},
    startup::{self, StartUpArgs},
    whole::{self, AllArgs},
};
use report::Report;
use targets::{Programs, System};

#[derive(Parser)]
#[command(about = "Benchmarks of whole systems, as ratios in one run")]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: place::Place,
    #[command(flatten)]
    programs: Programs,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Everything, with the budget at the end.
    All(AllArgs),
    /// What a request costs, in a closed loop.
    Run(RunArgs),
    /// How long answers take at a fixed rate of requests.
    Open(OpenArgs),
    /// What a call costs in each way through a node.
    Modes(ModesArgs),
    /// User instructions a request, counted by valgrind.
    Instructions(InstructionsArgs),
    /// Long bodies and streams of events, and memory under them.
    Payloads(PayloadsArgs),
    /// Lists over ten backends, of which some hang.
    Lists(ListsArgs),
    /// Idle sessions and streams: their memory, and what active calls feel of them.
    Idle(IdleArgs),
    /// More calls than a backend can serve.
    Overload(OverloadArgs),
    /// How soon a node serves.
    StartUp(StartUpArgs),
    /// Let clients whose ids and progress tokens collide call through a node, and
    /// count what reaches the wrong one.
    Misroutes(MisroutesArgs),
    /// Load capability files, beside a bare parse of them.
    Load(loading::LoadArgs),
    /// Serve the backend that is measured (started by the others).
    #[command(hide = true)]
    Backend(backend::Options),
    /// Serve the minimal proxy (started by the others).
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        to: SocketAddr,
    },
    /// Become another program on a CPU (started by the others).
    #[command(hide = true)]
    Pinned {
        #[arg(long)]
        cpu: usize,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

#[derive(clap::Args)]
struct MisroutesArgs {
    /// Calls in all, over the cases.
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.command {
        Command::Backend(options) => runtime.block_on(backend::serve(options)),
        Command::Floor { to } => runtime.block_on(floor::serve(to)),
        Command::Pinned { cpu, command } => place::become_pinned(cpu, &command),
        Command::Load(load) => loading::run(&load),
        command => {
            place::settle(args.place);
            runtime.block_on(compare(command, &args.programs, args.json))
        }
    }
}

async fn compare(command: Command, programs: &Programs, json: bool) -> anyhow::Result<()> {
    let mut report = Report::default();
    match command {
        Command::Misroutes(args) => return misroutes(&args, programs).await,
        Command::Run(args) => {
            let (section, missing) = closed::run(&args, programs).await?;
            report.sections.push(section);
            report.missing.extend(missing);
        }
        Command::All(args) => report = whole::run(&args, programs).await,
        Command::Open(args) => report.sections.push(open::run(&args, programs).await?),
        Command::Modes(args) => report.sections.push(modes::run(&args, programs).await?),
        Command::Instructions(args) => report.sections.push(instructions::run(&args, programs).await?),
        Command::Payloads(args) => report.sections.extend(payloads::run(&args, programs).await?),
        Command::Lists(args) => report.sections.extend(lists::run(&args, programs).await?),
        Command::Idle(args) => report.sections.extend(idle::run(&args, programs).await?),
        Command::Overload(args) => report.sections.push(overload::run(&args, programs).await?),
        Command::StartUp(args) => report.sections.push(startup::run(&args, programs).await?),
        Command::Load(_) | Command::Backend(_) | Command::Floor { .. } | Command::Pinned { .. } => {}
    }
    report.missing.extend(quiet::note());
    let ours = programs.nodes()?.swap_remove(0).0;
    report.print(&ours, json)
}

async fn misroutes(args: &MisroutesArgs, programs: &Programs) -> anyhow::Result<()> {
    let system = System::start(programs).await?;
    let node = system.nodes().swap_remove(0);
    let mut wrong = 0;
    let share = args.calls.div_ceil(load::COLLISIONS.len() as u64);
    for case in load::COLLISIONS {
        targets::serves(&node, case).await?;
        let counted = load::collide(&node, case, args.clients, share).await?;
        println!("{:<32} {:>9} calls {:>6} misrouted", case.name, counted.calls, counted.misrouted);
        wrong += counted.misrouted;
    }
    anyhow::ensure!(wrong == 0, "{wrong} answers or reports reached the wrong client");
    Ok(())
}
