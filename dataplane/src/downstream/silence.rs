//! When a stream has been silent for long.
//!
//! A stream may say thousands of things a second, and a timer that were set again
//! for each would cost more than the rest: this one is set when it fires, and only
//! then looks at when something was said last.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// Measures how long nothing has been said.
#[derive(Debug)]
pub struct Silence {
    limit: Duration,
    since: Instant,
    /// Never due before it might be too long; none until somebody has waited.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// Nothing has been said from now on.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: Instant::now(), timer: None }
    }

    /// Something has been said.
    pub fn break_now(&mut self) {
        self.since = Instant::now();
    }

    /// What comes of the work; none once it has lasted for the limit, which then
    /// begins anew. The work is dropped then.
    pub async fn around<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let limit = self.limit;
        let (timer, since) = (&mut self.timer, &mut self.since);
        let too_long = async {
            loop {
                let due = *since + limit;
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
                if timer.is_elapsed() {
                    timer.as_mut().reset(due);
                }
                timer.as_mut().await;
                if *since + limit <= Instant::now() {
                    *since = Instant::now();
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            done = &mut work => Some(done),
            () = too_long => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn what_is_said_in_time_is_no_silence_and_what_is_not_ends_it_again_and_again() {
        let mut silence = Silence::new(LIMIT);
        let began = Instant::now();
        for _ in 0..10 {
            assert!(silence.around(sleep(LIMIT / 2)).await.is_some());
            silence.break_now();
        }
        for _ in 0..3 {
            assert!(silence.around(pending::<()>()).await.is_none());
        }
        assert_eq!(began.elapsed().as_secs(), (LIMIT * 5 + LIMIT * 3).as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_pieces_counts_from_the_last_word() {
        let mut silence = Silence::new(LIMIT);
        assert!(silence.around(sleep(LIMIT * 2 / 3)).await.is_some());
        let began = Instant::now();
        assert!(silence.around(pending::<()>()).await.is_none(), "nothing was said meanwhile");
        assert_eq!(began.elapsed().as_secs(), (LIMIT / 3).as_secs());
    }
}
