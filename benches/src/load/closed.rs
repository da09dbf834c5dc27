//! The closed loop: each connection sends its next request when it has the
//! answer to the one before.

use std::time::Duration;

use anyhow::ensure;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Case, Client, Target};
use crate::{
    process::{self, Usage},
    stats::{Times, micros},
};

/// Before counting.
const WARM_UP: Duration = Duration::from_millis(750);

/// What one measurement gave.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Times of the requests that were answered in the counted time.
    pub times: Times,
    pub elapsed: Duration,
    /// What the target has used in that time.
    pub usage: Usage,
}

impl Sample {
    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Of the target, µs a request.
    pub fn cpu(&self) -> f64 {
        micros(self.usage.all()) / self.times.len().max(1) as f64
    }

    /// As `cpu`, in user space.
    pub fn user_cpu(&self) -> f64 {
        micros(self.usage.user) / self.times.len().max(1) as f64
    }

    /// As `cpu`, without what the target has started.
    pub fn own_cpu(&self) -> f64 {
        micros(self.usage.own) / self.times.len().max(1) as f64
    }

    /// µs.
    pub fn per_mille(&self, quantile: u32) -> f64 {
        micros(self.times.per_mille(quantile))
    }
}

/// Loads one target.
///
/// # Errors
/// If one answer is missing or wrong, or the target ends.
pub async fn run(
    target: &Target,
    case: &Case,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Sample> {
    let mut clients = Vec::new();
    for number in 0..connections {
        clients.push(Client::connect(target, case, number).await?);
    }
    let begin = Instant::now() + WARM_UP.min(length);
    let end = begin + length;
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            let mut times = Vec::new();
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok(times);
                }
                client.once().await?;
                let answered = Instant::now();
                if answered >= begin && answered < end {
                    times.push(answered - sent);
                }
            }
        });
    }
    sleep_until(begin).await;
    let (before, from) = (process::usage(target.pid)?, Instant::now());
    sleep_until(end).await;
    let (after, until) = (process::usage(target.pid)?, Instant::now());
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.extend(done??);
    }
    ensure!(!times.is_empty(), "no answers from {}", target.name);
    // The clock of a busy machine comes late; CPU time is counted over what passed.
    let stretch = (until - from).as_secs_f64() / length.as_secs_f64();
    let usage = after - before;
    let usage = Usage {
        user: usage.user.div_f64(stretch),
        system: usage.system.div_f64(stretch),
        own: usage.own.div_f64(stretch),
    };
    Ok(Sample { times: Times::new(times), elapsed: length, usage })
}
