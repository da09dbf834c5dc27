//! The closed loop over several targets in turn, a few requests to each: what
//! the machine does in these moments strikes all of them alike, which it does
//! not if one is measured after the other.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use super::{Case, Client, Target};
use crate::stats::Times;

/// Requests to one target before it is the next one's turn.
const TURN: usize = 16;
/// Turns of each target before counting.
const WARM_UP: usize = 32;

/// The times of all targets, in their order; one connection to each, kept.
///
/// # Errors
/// If one answer is missing or wrong, or there was no time for one.
pub async fn in_turn(targets: &[&Target], case: &Case, length: Duration) -> anyhow::Result<Vec<Times>> {
    let mut clients = Vec::new();
    for target in targets {
        clients.push(Client::connect(target, case, 0).await?);
    }
    for _ in 0..WARM_UP {
        for client in &mut clients {
            turn(client).await?;
        }
    }
    let mut times = vec![Vec::new(); clients.len()];
    let end = Instant::now() + length;
    // Another one is first each time, so that none always follows the same.
    for first in (0..clients.len()).cycle() {
        if Instant::now() >= end {
            break;
        }
        for place in 0..clients.len() {
            let at = (first + place) % clients.len();
            times[at].extend(turn(&mut clients[at]).await?);
        }
    }
    ensure!(times.iter().all(|times| !times.is_empty()), "no time for {}", case.name);
    Ok(times.into_iter().map(Times::new).collect())
}

async fn turn(client: &mut Client) -> anyhow::Result<[Duration; TURN]> {
    let mut times = [Duration::ZERO; TURN];
    for time in &mut times {
        let sent = Instant::now();
        client.once().await?;
        *time = sent.elapsed();
    }
    Ok(times)
}
