//! The databases that the tools of one set reach: each once, however many tools
//! ask it.

use std::{sync::Arc, sync::Weak, time::Duration};

use metrics::{Gauge, gauge};
use mt_proto::resource::ResourceName;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::sleep};

use super::{failure, pool::Connections, postgres, sqlite};
use crate::{Failure, Reason};

/// More URLs than this come only from secrets that change; the one that was
/// used longest ago goes.
const POOLS_MAX: usize = 64;
/// Between two looks for connections that nobody uses.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What makes connections the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    pub url: String,
    pub read_only: bool,
    pub connections_max: u32,
    pub idle: Duration,
}

/// The connections to one database.
#[derive(Clone)]
pub enum Pool {
    Postgres(Arc<Connections<postgres::Link>>),
    Sqlite(Arc<Connections<sqlite::Link>>),
}

/// All of a tool set. Opens nothing before it is needed.
pub struct Pools {
    /// The one that was used last is at the end.
    open: Mutex<Vec<(Key, Pool)>>,
    sweeper: Mutex<JoinSet<()>>,
    in_use: Gauge,
}

impl Pools {
    pub fn new(tool_set: &ResourceName) -> Arc<Self> {
        let in_use = gauge!("mt_agent_database_connections_in_use", "tool_set" => tool_set.to_string());
        Arc::new(Self { open: Mutex::default(), sweeper: Mutex::default(), in_use })
    }

    /// The connections that belong to this.
    ///
    /// # Errors
    /// If the URL is not that of a database.
    pub fn of(self: &Arc<Self>, key: Key) -> Result<Pool, Failure> {
        let mut open = self.open.lock();
        let pool = match open.iter().position(|(known, _)| *known == key) {
            Some(at) => open.remove(at).1,
            None => self.start(&key)?,
        };
        if open.len() == POOLS_MAX {
            open.remove(0);
        }
        open.push((key, pool.clone()));
        drop(open);
        self.keep_swept();
        Ok(pool)
    }

    fn start(&self, key: &Key) -> Result<Pool, Failure> {
        let wrong = |error: sqlx::Error| failure::connecting(&error);
        let (max, idle, in_use) = (key.connections_max, key.idle, self.in_use.clone());
        if key.url.starts_with("postgres://") || key.url.starts_with("postgresql://") {
            let options = postgres::options(&key.url).map_err(wrong)?;
            return Ok(Pool::Postgres(Connections::new(options, max, idle, in_use)));
        }
        if key.url.starts_with("sqlite:") {
            let options = sqlite::options(&key.url, key.read_only).map_err(wrong)?;
            return Ok(Pool::Sqlite(Connections::new(options, max, idle, in_use)));
        }
        let message = "the URL of the database begins with neither `postgres://` nor `sqlite:`";
        Err(Failure::new(Reason::Misconfigured, message))
    }

    fn keep_swept(self: &Arc<Self>) {
        let mut sweeper = self.sweeper.lock();
        if sweeper.is_empty() {
            sweeper.spawn(sweep(Arc::downgrade(self)));
        }
    }
}

async fn sweep(pools: Weak<Pools>) {
    loop {
        sleep(SWEEP_INTERVAL).await;
        let Some(pools) = pools.upgrade() else { return };
        let open: Vec<Pool> = pools.open.lock().iter().map(|(_, pool)| pool.clone()).collect();
        for pool in open {
            match pool {
                Pool::Postgres(connections) => connections.sweep(),
                Pool::Sqlite(connections) => connections.sweep(),
            }
        }
    }
}
