//! Resident memory while something else happens.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{load::Target, process};

/// Memory is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of so long the highest counts.
const WINDOW: Duration = Duration::from_secs(1);

/// What was seen, KiB by the time since the begin.
pub struct Seen(Vec<(Duration, u64)>);

impl Seen {
    /// The highest in a span of time, MiB.
    pub fn highest(&self, from: Duration, to: Duration) -> f64 {
        let within = self.0.iter().filter(|(at, _)| *at >= from && *at < to);
        within.map(|(_, kib)| *kib as f64 / 1024.0).fold(0.0, f64::max)
    }

    /// The highest of the last second, MiB.
    pub fn at_end(&self) -> f64 {
        self.highest(self.length().saturating_sub(WINDOW), Duration::MAX)
    }

    /// The highest of the second before a share of the time had passed, MiB.
    pub fn after(&self, share: f64) -> f64 {
        let until = self.length().mul_f64(share);
        self.highest(until.saturating_sub(WINDOW), until)
    }

    fn length(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |(at, _)| *at)
    }
}

/// Watches a target until the work is done.
///
/// # Errors
/// Those of the work, or that the target has ended.
pub async fn watched<T>(
    target: &Target,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Seen)> {
    let start = Instant::now();
    let mut seen = Vec::new();
    tokio::pin!(work);
    loop {
        let next = Instant::now() + LOOK_EVERY;
        tokio::select! {
            done = &mut work => return Ok((done?, Seen(seen))),
            () = sleep_until(next) => seen.push((start.elapsed(), process::rss_kib(target.pid)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_last_second_and_not_the_peak() {
        let mib = |seconds: f64, mib: u64| (Duration::from_secs_f64(seconds), mib * 1024);
        let seen = Seen(vec![mib(0.5, 10), mib(1.5, 40), mib(2.5, 20), mib(3.4, 22)]);
        assert_eq!((seen.at_end(), seen.after(0.5)), (22.0, 40.0));
        assert_eq!(seen.highest(Duration::ZERO, Duration::MAX), 40.0);
        assert_eq!(seen.highest(Duration::ZERO, Duration::from_secs(1)), 10.0);
    }
}
