//! More calls than a backend can serve: what is still served, how soon the rest
//! is refused, and whether memory stays where it is.

use std::time::Duration;

use super::memory::watched;
use crate::{
    load::{self, Arrivals, Case, Era, What},
    quiet,
    report::{Bound, Section},
    stats::short,
    targets::{Fleet, Programs, backend, gateway, http_backend},
};

/// The backend serves so many calls at once, each for so long.
const SLOTS: usize = 16;
const SERVICE_MS: u64 = 10;
/// What the node lets through at once: `concurrentCallsMax` of the backend. Twice
/// what the backend serves keeps it busy; what nobody sets is 256.
const LIMITS: [usize; 2] = [SATURATING, 256];
/// Of what could be served, so much must be when twice as much is due.
const GOODPUT_MIN: f64 = 0.8;
/// From this share of the time on all sessions are open and each has called;
/// memory may then grow by so much.
const STEADY_AFTER: f64 = 0.4;
const GROWTH_MAX: f64 = 1.1;
const CONNECTIONS: usize = 1024;
/// So many calls at once leave no place of the backend empty.
const SATURATING: usize = 2 * SLOTS;

#[derive(clap::Args, Clone)]
pub struct OverloadArgs {
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// What is due, as multiples of what can be served.
    #[arg(long, value_delimiter = ',', default_values_t = [0.5, 1.0, 2.0])]
    pub loads: Vec<f64>,
}

/// # Errors
/// If an answer is wrong, or missing without a refusal.
pub async fn run(args: &OverloadArgs, programs: &Programs) -> anyhow::Result<Section> {
    let (ours, program) = programs.nodes()?.swap_remove(0);
    let (_guard, at) = backend(&["--service-ms", &SERVICE_MS.to_string(), "--slots", &SLOTS.to_string()])?;
    let length = Duration::from_secs_f64(args.seconds);
    let case = Case::new("call", Era::Legacy, What::Echo(32));
    let mut section = Section::new(
        "Overload",
        &[
            "limit",
            "due/s",
            "× saturation",
            "served/s",
            "refused/s",
            "served p50 ms",
            "served p99 ms",
            "refused p50 ms",
            "refused p99 ms",
            "resident MiB",
        ],
    );
    section.note(format!(
        "The backend serves {SLOTS} calls at once, {SERVICE_MS} ms each. The limit is `concurrentCallsMax` of the \
         backend, by which the node refuses; 256 is its default. Calls are due at a fixed rate over {CONNECTIONS} \
         sessions."
    ));
    for limit in LIMITS {
        let backend = http_backend("slow", at, "")
            .lines()
            .map(|line| match line.trim_start().starts_with("concurrentCallsMax") {
                true => format!("  concurrentCallsMax: {limit}\n"),
                false => format!("{line}\n"),
            })
            .collect::<String>();
        let mut fleet = Fleet::start(&(backend + &gateway("default", "{tool}", &["slow"]))).await?;
        let node = fleet.node(&ours, &program).await?;
        eprintln!("overload: saturation with a limit of {limit}");
        let once = async || load::run(&node, &case, SATURATING, length).await;
        let saturation = quiet::measured(quiet::TAILS, once).await?.rate();
        let mut peak = saturation;
        for &share in &args.loads {
            let rate = saturation * share;
            eprintln!("overload: {share} x {saturation:.0}/s with a limit of {limit}");
            // Growth shows only in time.
            let length = if share > 1.0 { 2 * length } else { length };
            let once = async || watched(&node, load::run_open(&node, &case, CONNECTIONS, rate, length)).await;
            let (arrivals, seen) = quiet::measured(quiet::TAILS, once).await?;
            let served = row(&mut section, limit, share, &arrivals, seen.at_end());
            peak = peak.max(served);
            if share > 1.0 {
                section.check(
                    format!("limit {limit}, {share} x saturation: served / peak"),
                    served / peak,
                    Bound::AtLeast(GOODPUT_MIN),
                );
                let steady = seen.after(STEADY_AFTER);
                section.check(
                    format!(
                        "limit {limit}, {share} x saturation: memory at the end / when all sessions are open"
                    ),
                    seen.at_end() / steady,
                    Bound::AtMost(GROWTH_MAX),
                );
            }
        }
    }
    Ok(section)
}

/// Adds a row; what was served a second.
fn row(section: &mut Section, limit: usize, share: f64, arrivals: &Arrivals, rss: f64) -> f64 {
    let served = arrivals.goodput;
    let seconds = arrivals.served.elapsed.as_secs_f64();
    let refused = |quantile| match arrivals.rejected.len() {
        0 => "–".to_owned(),
        _ => short(arrivals.rejected.per_mille(quantile).as_secs_f64() * 1e3),
    };
    section.row([
        limit.to_string(),
        short(arrivals.due as f64 / seconds),
        short(share),
        short(served),
        short(arrivals.rejected.len() as f64 / seconds),
        short(arrivals.served.per_mille(500) / 1e3),
        short(arrivals.served.per_mille(990) / 1e3),
        refused(500),
        refused(990),
        short(rss),
    ]);
    served
}
