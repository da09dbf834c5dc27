//! The logs of calls, for those who follow them on another connection.
//!
//! A call over a plain door has no session whose stream could carry its log. Who
//! follows `/mcp/stream` (or `Subscribe`) with a level hears the logs of the
//! calls that the same principal makes at the same gateway over the plain doors
//! of this node. Callers without a name share one principal, so they follow
//! only from this machine. Nobody waits for a follower: what finds its queue
//! full is dropped and counted.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use metrics::{Counter, Gauge, counter, gauge};
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::said::Log;
use crate::{
    gateway::call::{Identity, Shown},
    mcp::meta::LogLevel,
};

/// Followers of one principal at one gateway.
pub const PRINCIPAL_FOLLOWERS_MAX: usize = 64;
/// Followers on one node.
pub const FOLLOWERS_MAX: usize = 2_048;
/// Messages that wait for one follower.
pub const QUEUE_MESSAGES_MAX: usize = 256;
/// The longest message that is told; longer ones are dropped, or a queue could
/// hold gigabytes.
pub const LOG_BYTES_MAX: usize = 64 << 10;

/// Whose calls: a gateway and a principal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Whose {
    gateway: Arc<str>,
    principal: Arc<str>,
}

impl Whose {
    /// None for somebody without a name from another machine, who may be anybody.
    /// `local`: the caller is known to be on this machine.
    pub fn of(gateway: &ResourceName, caller: &Identity, local: bool) -> Option<Self> {
        let named = caller.shown != Shown::Nothing;
        (named || local)
            .then(|| Self { gateway: gateway.as_str().into(), principal: caller.principal.clone() })
    }
}

/// Everybody who follows logs on a node.
pub struct Tails {
    followers: Mutex<HashMap<Whose, Vec<Follower>>>,
    numbers: AtomicUsize,
    count: AtomicUsize,
    following: Gauge,
    dropped: Counter,
    refused: Counter,
}

struct Follower {
    number: usize,
    level: Option<LogLevel>,
    queue: mpsc::Sender<Log>,
}

/// There are too many already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many streams are open")]
pub struct Full;

impl Tails {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            followers: Mutex::default(),
            numbers: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            following: gauge!("mt_downstream_followers"),
            dropped: counter!("mt_downstream_follower_logs_dropped_total"),
            refused: counter!("mt_downstream_followers_refused_total"),
        })
    }

    /// From which level on anybody follows these calls.
    pub fn level(&self, whose: &Whose) -> Option<LogLevel> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.followers.lock().get(whose)?.iter().filter_map(|follower| follower.level).min()
    }

    /// Tells those who follow.
    pub fn publish(&self, whose: &Whose, log: &Log) {
        let bytes = log.data.len() + log.logger.as_ref().map_or(0, String::len);
        let followers = self.followers.lock();
        for follower in followers.get(whose).into_iter().flatten() {
            if follower.level.is_none_or(|level| log.level < level) {
                continue;
            }
            if bytes > LOG_BYTES_MAX || follower.queue.try_send(log.clone()).is_err() {
                self.dropped.increment(1);
            }
        }
    }

    /// Follows from a level on, which may be set later.
    ///
    /// # Errors
    /// [`Full`]
    pub fn follow(self: &Arc<Self>, whose: Whose, level: Option<LogLevel>) -> Result<Following, Full> {
        let (queue, logs) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut followers = self.followers.lock();
        let of_principal = followers.get(&whose).map_or(0, Vec::len);
        if of_principal >= PRINCIPAL_FOLLOWERS_MAX || self.count.load(Ordering::Relaxed) >= FOLLOWERS_MAX {
            self.refused.increment(1);
            return Err(Full);
        }
        followers.entry(whose.clone()).or_default().push(Follower { number, level, queue });
        self.count.fetch_add(1, Ordering::Relaxed);
        self.following.increment(1.0);
        drop(followers);
        Ok(Following { tails: self.clone(), whose, number, logs })
    }

    /// Sets the level of all who follow these calls; how many they are.
    pub fn set_level(&self, whose: &Whose, level: LogLevel) -> usize {
        let mut followers = self.followers.lock();
        let Some(followers) = followers.get_mut(whose) else { return 0 };
        for follower in followers.iter_mut() {
            follower.level = Some(level);
        }
        followers.len()
    }
}

/// Follows until it is dropped.
pub struct Following {
    tails: Arc<Tails>,
    whose: Whose,
    number: usize,
    logs: mpsc::Receiver<Log>,
}

impl Following {
    /// The next message. Safe to drop while it waits.
    pub async fn next(&mut self) -> Log {
        match self.logs.recv().await {
            Some(log) => log,
            // The sender goes with this value, and not before.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followers = self.tails.followers.lock();
        if let Some(list) = followers.get_mut(&self.whose) {
            list.retain(|follower| follower.number != self.number);
            if list.is_empty() {
                followers.remove(&self.whose);
            }
        }
        self.tails.count.fetch_sub(1, Ordering::Relaxed);
        self.tails.following.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn whose(principal: &str) -> Whose {
        Whose { gateway: "default".into(), principal: principal.into() }
    }

    fn log(level: LogLevel) -> Log {
        Log { level, logger: None, data: Bytes::from_static(b"1") }
    }

    #[tokio::test]
    async fn a_follower_hears_its_own_principals_calls_from_its_level_on() {
        let tails = Tails::new();
        let mut mine = tails.follow(whose("me"), Some(LogLevel::Warning)).unwrap();
        let mut theirs = tails.follow(whose("they"), Some(LogLevel::Debug)).unwrap();
        assert_eq!(tails.level(&whose("me")), Some(LogLevel::Warning));
        for level in [LogLevel::Info, LogLevel::Error] {
            tails.publish(&whose("me"), &log(level));
        }
        assert_eq!(mine.next().await.level, LogLevel::Error);
        assert!(theirs.logs.try_recv().is_err());
        assert_eq!(tails.set_level(&whose("me"), LogLevel::Debug), 1);
        tails.publish(&whose("me"), &log(LogLevel::Debug));
        assert_eq!(mine.next().await.level, LogLevel::Debug);
        drop((mine, theirs));
        assert_eq!((tails.level(&whose("me")), tails.followers.lock().len()), (None, 0));
    }

    #[tokio::test]
    async fn followers_and_what_waits_for_them_are_bounded() {
        let tails = Tails::new();
        let all: Vec<_> = (0..PRINCIPAL_FOLLOWERS_MAX)
            .map(|_| tails.follow(whose("me"), Some(LogLevel::Debug)).unwrap())
            .collect();
        assert!(tails.follow(whose("me"), None).is_err());
        let other = tails.follow(whose("they"), None).unwrap();
        for _ in 0..2 * QUEUE_MESSAGES_MAX {
            tails.publish(&whose("me"), &log(LogLevel::Info));
        }
        assert!(all.iter().all(|following| following.logs.len() == QUEUE_MESSAGES_MAX));
        assert!(other.logs.is_empty());
    }
}
