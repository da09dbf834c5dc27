//! When something that keeps failing is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// The first wait; doubled by each failure.
pub const WAIT_MIN: Duration = Duration::from_millis(250);
/// The longest wait. What has lived for longer than this is no repeated failure.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// Failures in a row, and what follows from them.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    why: String,
}

impl Backoff {
    /// It has failed after living for `lived`. `chance` is random: many that
    /// fail together shall not come back together.
    pub fn failed(&mut self, now: Instant, lived: Duration, why: String, chance: u32) {
        self.failures = if lived > WAIT_MAX { 1 } else { self.failures.saturating_add(1) };
        let full = WAIT_MIN.saturating_mul(1 << (self.failures - 1).min(16)).min(WAIT_MAX);
        let share = f64::from(chance) / f64::from(u32::MAX);
        self.not_before = Some(now + full.mul_f64(0.5 + share / 2.0));
        self.why = why;
    }

    /// How often in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When it may be tried again, if it has ever failed.
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// How long to wait from now on.
    pub fn wait(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    pub fn is_waiting(&self, now: Instant) -> bool {
        !self.wait(now).is_zero()
    }

    /// Why it failed last.
    pub fn why(&self) -> &str {
        &self.why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_a_limit_and_start_over_after_a_good_life() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        assert!(!backoff.is_waiting(now));
        let mut waits = Vec::new();
        for _ in 0..9 {
            backoff.failed(now, Duration::ZERO, "crash".into(), u32::MAX);
            waits.push(backoff.wait(now).as_millis());
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        backoff.failed(now, WAIT_MAX * 2, "crash".into(), 0);
        assert_eq!(backoff.wait(now).as_millis(), 125);
        assert!(!backoff.is_waiting(now + WAIT_MIN));
    }
}
