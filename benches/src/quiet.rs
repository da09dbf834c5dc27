//! What the hypervisor takes from the CPUs while something is measured. It says
//! so to the kernel (`steal` in /proc/stat); on a machine of one's own it is 0.
//!
//! A measurement that lost too much is made again after a pause, whatever came
//! out of it, and the one that lost the least counts: nothing is chosen by its
//! result.

use std::{fs, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::place;

/// How quiet it has to be, and how often that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The share of the time of one CPU that may be taken.
    taken_max: f64,
    tries_max: usize,
}

/// For CPU time, throughput and medians.
pub const MEDIANS: Need = Need { taken_max: 0.05, tries_max: 3 };
/// For the slowest of a hundred answers, which a few lost moments decide, and for
/// ratios of two rates that are measured one after the other.
pub const TAILS: Need = Need { taken_max: 0.01, tries_max: 6 };

/// Before the second try; before each further one twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// Of one run, so much may be spent on pauses and on measuring again.
const EXTRA_MAX: Duration = Duration::from_secs(15 * 60);

/// What one run has met so far.
#[derive(Debug, Default)]
struct Met {
    extra: Duration,
    again: usize,
    /// Measurements that count although too much was taken.
    noisy: usize,
    /// The most that was taken from one that counts.
    worst: f64,
}

static MET: Mutex<Met> = Mutex::new(Met { extra: Duration::ZERO, again: 0, noisy: 0, worst: 0.0 });

/// Measures while it is as quiet as it has to be, or as it gets.
///
/// # Errors
/// Those of the measurement.
pub async fn measured<T>(
    need: Need,
    mut measure: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (mut best, mut least) = once(&mut measure).await?;
    let mut pause = PAUSE;
    for _ in 1..need.tries_max {
        if least <= need.taken_max || MET.lock().extra >= EXTRA_MAX {
            break;
        }
        eprintln!("{:.0} % of a CPU was taken: again in {} s", least * 100.0, pause.as_secs());
        let began = Instant::now();
        sleep(pause).await;
        pause *= 2;
        let (value, taken) = once(&mut measure).await?;
        if taken < least {
            (best, least) = (value, taken);
        }
        let mut met = MET.lock();
        met.extra += began.elapsed();
        met.again += 1;
    }
    let mut met = MET.lock();
    met.noisy += usize::from(least > need.taken_max);
    met.worst = met.worst.max(least);
    Ok(best)
}

async fn once<T>(measure: &mut impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let before = ticks();
    let value = measure().await?;
    Ok((value, taken(&before, &ticks())))
}

/// What a reader of the figures has to know; none if it was quiet.
pub fn note() -> Option<String> {
    let met = MET.lock();
    (met.again > 0 || met.noisy > 0).then(|| {
        format!(
            "the hypervisor took CPU time: {} measurements were made again for it, and {} that count lost more than \
             they should have, at most {:.0} % of a CPU",
            met.again,
            met.noisy,
            met.worst * 100.0
        )
    })
}

/// Ticks of one CPU: those that were taken, and all.
type Ticks = (u64, u64);

/// Of the CPUs that are used; of all together if nothing is pinned.
fn ticks() -> Vec<Ticks> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    match place::cpus() {
        Some(cpus) => cpus.iter().filter_map(|cpu| of(&stat, &format!("cpu{cpu}"))).collect(),
        None => of(&stat, "cpu").into_iter().collect(),
    }
}

/// Of one line of /proc/stat: user, nice, system, idle, iowait, irq, softirq,
/// steal; what follows is contained in the first two. Pure.
fn of(stat: &str, name: &str) -> Option<Ticks> {
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    let mut ticks = [0; 8];
    let fields = line.split_whitespace().skip(1);
    for (tick, field) in ticks.iter_mut().zip(fields) {
        *tick = field.parse().ok()?;
    }
    Some((ticks[7], ticks.iter().sum()))
}

/// The share that was taken from the CPU that lost most. Pure.
fn taken(before: &[Ticks], after: &[Ticks]) -> f64 {
    let shares = before.iter().zip(after).map(|(before, after)| {
        let all = after.1.saturating_sub(before.1).max(1);
        after.0.saturating_sub(before.0) as f64 / all as f64
    });
    shares.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_read_for_each_cpu() {
        let stat = "cpu  10 0 10 70 0 0 0 10 5 0\ncpu1 1 2 3 4 5 6 7 8 9 10\ncpu10 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(of(stat, "cpu"), Some((10, 100)));
        assert_eq!(of(stat, "cpu1"), Some((8, 36)));
        assert_eq!(of(stat, "cpu2"), None);
        assert_eq!(of("cpu1 x", "cpu1"), None);
        // A kernel that does not know it yet.
        assert_eq!(of("cpu1 1 2 3 4", "cpu1"), Some((0, 10)));
    }

    #[test]
    fn the_cpu_that_lost_most_counts() {
        let (before, after) = ([(0, 0), (10, 100)], [(1, 100), (60, 200)]);
        assert!((taken(&before, &after) - 0.5).abs() < 1e-9);
        assert!(taken(&before, &before).abs() < 1e-9);
        assert!(taken(&[], &[]).abs() < 1e-9);
    }

    #[tokio::test]
    async fn what_fails_is_not_tried_again() {
        let mut calls = 0;
        let failed = measured(TAILS, async || {
            calls += 1;
            anyhow::bail!("refused")
        });
        let failed: anyhow::Result<()> = failed.await;
        assert!(failed.is_err());
        assert_eq!(calls, 1);
    }
}
