//! How often progress of one call is told: what comes too fast waits, and a
//! newer step takes its place. The last step is always told.
//!
//! Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Between two steps that are told: nobody sees more.
pub const STEP_MIN: Duration = Duration::from_millis(20);

/// The steps of one call.
#[derive(Debug)]
pub struct Pace<T> {
    told: Option<Instant>,
    held: Option<T>,
}

impl<T> Default for Pace<T> {
    fn default() -> Self {
        Self { told: None, held: None }
    }
}

impl<T> Pace<T> {
    /// The step, if it is to be told now; otherwise it is held.
    pub fn offer(&mut self, step: T, now: Instant) -> Option<T> {
        self.held = Some(step);
        self.take_due(now)
    }

    /// The held step, once its time has come.
    pub fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.told.is_some_and(|told| now < told + STEP_MIN) {
            return None;
        }
        let step = self.held.take()?;
        self.told = Some(now);
        Some(step)
    }

    /// When the held step is to be told; none: nothing is held.
    pub fn due(&self) -> Option<Instant> {
        self.held.as_ref().and(self.told).map(|told| told + STEP_MIN)
    }

    /// The held step: nothing comes after it.
    pub fn finish(&mut self) -> Option<T> {
        self.held.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steps_are_told_in_order_not_too_often_and_to_the_last(
            waits in prop::collection::vec((0_u64..30, any::<bool>()), 1..100),
        ) {
            let mut pace = Pace::default();
            let mut now = Instant::now();
            let mut told: Vec<(usize, Instant)> = Vec::new();
            for (step, (wait, looks)) in waits.iter().enumerate() {
                now += Duration::from_millis(*wait);
                if *looks {
                    told.extend(pace.take_due(now).map(|step| (step, now)));
                }
                told.extend(pace.offer(step, now).map(|step| (step, now)));
                prop_assert!(pace.due().is_none_or(|due| due > now), "what is due is not held");
            }
            prop_assert!(told.is_sorted_by(|(a, at), (b, then)| a < b && *then >= *at + STEP_MIN));
            let last = pace.finish().or(told.last().map(|(step, _)| *step));
            prop_assert_eq!(last, Some(waits.len() - 1));
        }
    }
}
