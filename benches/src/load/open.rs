//! The open loop: requests arrive at a fixed rate whether or not those before
//! are answered, and an answer takes as long as it comes after the time at which
//! its request was due. Nobody waits for a slow target unseen.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use rustix::thread::{Timespec, nanosleep, set_current_timer_slack};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Case, Client, Sample, Target, Verdict};
use crate::{process, stats::Times};

/// Before counting.
const WARM_UP: Duration = Duration::from_millis(750);
/// After the last arrival, answers may take so long.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// What came of the arrivals in the counted time.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// Those that were served, from the time they were due.
    pub served: Sample,
    /// Times until those that were refused were told so.
    pub rejected: Times,
    /// How many there were.
    pub due: usize,
    /// Served in that time, a second, whenever they were due.
    pub goodput: f64,
}

/// What became of one.
struct Outcome {
    verdict: Verdict,
    intended: Instant,
    answered: Instant,
}

/// Requests that are due and that nobody has sent yet.
#[derive(Default)]
struct Due {
    times: Mutex<VecDeque<Instant>>,
    more: Notify,
    over: AtomicBool,
}

/// Sends `rate` requests a second over at most `connections`.
///
/// # Errors
/// If one answer is wrong, or is missing without a refusal.
pub async fn run(
    target: &Target,
    case: &Case,
    connections: usize,
    rate: f64,
    length: Duration,
) -> anyhow::Result<Arrivals> {
    let mut clients = Vec::new();
    for number in 0..connections {
        clients.push(Client::connect(target, case, number).await?);
    }
    let due = Arc::new(Due::default());
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(work(client, due.clone()));
    }
    let mut arriving = JoinSet::new();
    let arrivals = due.clone();
    arriving.spawn_blocking(move || arrive(&arrivals, rate, end));
    sleep_until(begin).await;
    let before = process::usage(target.pid)?;
    sleep_until(end).await;
    let usage = process::usage(target.pid)? - before;
    while let Some(done) = arriving.join_next().await {
        done??;
    }
    let (mut served, mut rejected, mut good) = (Vec::new(), Vec::new(), 0u32);
    let counted = |at: Instant| at >= begin && at < end;
    let drained = tokio::time::timeout(DRAIN_MAX, async {
        while let Some(done) = running.join_next().await {
            for outcome in done?? {
                let is_served = outcome.verdict == Verdict::Served;
                good += u32::from(is_served && counted(outcome.answered));
                if counted(outcome.intended) {
                    let times = if is_served { &mut served } else { &mut rejected };
                    times.push(outcome.answered - outcome.intended);
                }
            }
        }
        anyhow::Ok(())
    });
    drained.await.context("requests stay without an answer")??;
    ensure!(!served.is_empty(), "nothing is served by {}", target.name);
    let due = served.len() + rejected.len();
    let served = Sample { times: Times::new(served), elapsed: length, usage };
    let goodput = f64::from(good) / length.as_secs_f64();
    Ok(Arrivals { served, rejected: Times::new(rejected), due, goodput })
}

async fn work(mut client: Client, due: Arc<Due>) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    loop {
        // Before the look, so that nothing is missed between the two.
        let more = due.more.notified();
        let next = due.times.lock().pop_front();
        let Some(intended) = next else {
            if due.over.load(Ordering::Acquire) {
                return Ok(outcomes);
            }
            more.await;
            continue;
        };
        let verdict = client.attempt().await?;
        outcomes.push(Outcome { verdict, intended, answered: Instant::now() });
    }
}

/// Makes requests due until `end`. Sleeps by itself, for the timers of the
/// runtime are good to a millisecond only.
fn arrive(due: &Due, rate: f64, end: Instant) -> anyhow::Result<()> {
    set_current_timer_slack(NonZeroU64::new(1))?;
    let start = Instant::now();
    for number in 1u32.. {
        let next = start + Duration::from_secs_f64(f64::from(number) / rate);
        if next >= end || due.over.load(Ordering::Acquire) {
            break;
        }
        let wait = next.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            let wait =
                Timespec { tv_sec: i64::try_from(wait.as_secs())?, tv_nsec: i64::from(wait.subsec_nanos()) };
            // A signal only makes it come early.
            _ = nanosleep(&wait);
        }
        due.times.lock().push_back(next);
        due.more.notify_one();
    }
    due.over.store(true, Ordering::Release);
    due.more.notify_waiters();
    Ok(())
}
