//! What a node costs, beside the bare backend and beside the least that a proxy
//! can cost, measured in one run.
//!
//! ```text
//! cargo build --release --workspace --bins && target/release/mt-benches run
//! ```
//!
//! Absolute figures of a shared machine mean little; the ratios are what counts.
//! The load is a closed loop over keep-alive connections: it measures cost, not
//! behavior under overload.

mod backend;
mod floor;
mod listen;
mod load;
mod loading;
mod process;
mod report;
mod system;

use std::{net::SocketAddr, time::Duration};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of whole systems, as ratios in one run")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything and print a table.
    Run(RunArgs),
    /// Let clients whose ids and progress tokens collide call through a node, and
    /// count what reaches the wrong one.
    Misroutes(MisroutesArgs),
    /// Load capability files, beside a bare parse of them.
    Load(loading::LoadArgs),
    /// Serve the backend that is measured (started by `run`).
    Backend {
        #[arg(long, default_value_t = 4)]
        tools: usize,
        /// On stdin and stdout instead of HTTP.
        #[arg(long)]
        lines: bool,
    },
    /// Serve the minimal proxy (started by `run`).
    Floor {
        #[arg(long)]
        to: SocketAddr,
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

#[derive(clap::Args)]
struct RunArgs {
    /// Seconds each measurement lasts, after one of warm-up.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Connections at once, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 128])]
    connections: Vec<usize>,
    /// Rounds over all targets; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.command {
        Command::Backend { tools, lines: true } => runtime.block_on(backend::serve_lines(tools)),
        Command::Backend { tools, lines: false } => runtime.block_on(backend::serve(tools)),
        Command::Load(args) => loading::run(&args),
        Command::Misroutes(args) => runtime.block_on(misroutes(&args)),
        Command::Floor { to } => runtime.block_on(floor::serve(to)),
        Command::Run(run) => runtime.block_on(measure(run)),
    }
}

async fn misroutes(args: &MisroutesArgs) -> anyhow::Result<()> {
    let system = system::System::start().await?;
    let node = &system.targets()[2];
    let mut wrong = 0;
    let share = args.calls.div_ceil(load::COLLISIONS.len() as u64);
    for case in load::COLLISIONS {
        let counted = load::collide(node, case, args.clients, share).await?;
        println!("{:<32} {:>9} calls {:>6} misrouted", case.name, counted.calls, counted.misrouted);
        wrong += counted.misrouted;
    }
    anyhow::ensure!(wrong == 0, "{wrong} answers or reports reached the wrong client");
    Ok(())
}

async fn measure(args: RunArgs) -> anyhow::Result<()> {
    let system = system::System::start().await?;
    let length = Duration::from_secs_f64(args.seconds);
    let mut rows = Vec::new();
    for case in load::CASES {
        for &connections in &args.connections {
            for round in 0..args.rounds {
                for target in system.targets() {
                    eprintln!(
                        "{} C={connections} {} ({}/{})",
                        case.name,
                        target.name,
                        round + 1,
                        args.rounds
                    );
                    let cpu = process::cpu(target.pid)?;
                    let sample = load::run(target, case, connections, length).await?;
                    let cpu = process::cpu(target.pid)?.saturating_sub(cpu);
                    rows.push(report::Row { case: case.name, connections, target: target.name, sample, cpu });
                }
            }
        }
    }
    let memory = system.memory()?;
    report::print(&rows, &memory, args.json);
    Ok(())
}
