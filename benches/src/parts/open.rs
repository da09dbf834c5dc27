//! How long answers take at a rate that is given from outside: the same for all
//! targets, so that a slow one cannot slow down who asks.

use std::time::Duration;

use crate::{
    load::{self, Case, Era, What},
    quiet,
    report::{Section, median_of},
    stats::short,
    targets::{Programs, System},
};

#[derive(clap::Args, Clone)]
pub struct OpenArgs {
    /// Requests a second, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000.0, 4_000.0, 8_000.0])]
    pub rates: Vec<f64>,
    /// Connections, with a session each, over which they are sent.
    #[arg(long, default_value_t = 128)]
    pub connections: usize,
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
}

/// # Errors
/// If an answer is wrong or missing.
pub async fn run(args: &OpenArgs, programs: &Programs) -> anyhow::Result<Section> {
    let system = System::start(programs).await?;
    let mut section = Section::new(
        "Open loop",
        &["case", "target", "due/s", "served/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs"],
    );
    section.note("Times begin when a request was due, not when it could be sent.");
    let length = Duration::from_secs_f64(args.seconds);
    let case = Case::new("call, session", Era::Legacy, What::Echo(32));
    for &rate in &args.rates {
        let mut all: Vec<Vec<load::Arrivals>> = vec![Vec::new(); system.targets().len()];
        for round in 0..args.rounds {
            for (target, rounds) in system.targets().iter().zip(&mut all) {
                eprintln!("{} {rate}/s {} ({}/{})", case.name, target.name, round + 1, args.rounds);
                let once = async || load::run_open(target, &case, args.connections, rate, length).await;
                rounds.push(quiet::measured(quiet::MEDIANS, once).await?);
            }
        }
        for (target, rounds) in system.targets().iter().zip(&all) {
            section.row([
                case.name.to_owned(),
                target.name.clone(),
                short(rate),
                short(median_of(rounds, |arrivals| arrivals.goodput)),
                short(median_of(rounds, |arrivals| arrivals.served.per_mille(500))),
                short(median_of(rounds, |arrivals| arrivals.served.per_mille(990))),
                short(median_of(rounds, |arrivals| arrivals.served.per_mille(999))),
                short(median_of(rounds, |arrivals| arrivals.served.cpu())),
            ]);
        }
    }
    Ok(section)
}
