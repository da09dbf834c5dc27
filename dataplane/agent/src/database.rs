//! The database agent: one statement of SQL for each call, on PostgreSQL or
//! SQLite.
//!
//! ```text
//!  settings + arguments ─► Statement: text with placeholders, values beside it
//!      ─► Pools: a connection, lent for this call ─► postgres.rs or sqlite.rs ─► Rows ─► Output
//! ```
//!
//! A value of a call is never part of a statement's text. A connection that is
//! not given back is closed, and its database stops what it was doing: so a
//! canceled call ends there too.

mod failure;
mod pool;
mod pools;
mod postgres;
mod rows;
mod sqlite;
mod statement;

use std::sync::Arc;

use mt_proto::resource::{Database, Text};
use tokio::time::{Instant, timeout_at};

use self::{
    pools::{Key, Pool},
    rows::Rows,
    statement::Statement,
};
use crate::{Failure, Output, Reason, Run};

pub use self::pools::Pools;

/// What a tool of this kind keeps between calls.
pub struct Runner {
    config: Arc<Database>,
    pools: Arc<Pools>,
}

impl Runner {
    /// One of the tools that share these connections.
    pub fn new(config: &Arc<Database>, pools: &Arc<Pools>) -> Self {
        Self { config: config.clone(), pools: pools.clone() }
    }

    /// Runs the statement. Dropping the future ends it at the database.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let Some(limit) = self.config.timeout else { return self.until(run.deadline, run).await };
        let deadline = run.deadline.min(Instant::now() + limit);
        let ran = timeout_at(deadline, Box::pin(self.until(deadline, run))).await;
        ran.unwrap_or_else(|_| Err(Failure::timeout(limit)))
    }

    async fn until(&self, deadline: Instant, run: &Run<'_>) -> Result<Output, Failure> {
        let statement = Statement::of(&self.config.query, run)?;
        let key = Key {
            url: self.url(run)?,
            read_only: self.config.read_only,
            connections_max: self.config.pool_max,
            idle: self.config.idle,
        };
        let rows = Rows::new(self.config.rows_max, run.reporter);
        let read_only = self.config.read_only;
        match self.pools.of(key)? {
            Pool::Postgres(pool) => {
                Box::pin(postgres::query(&pool, &statement, read_only, deadline, rows)).await
            }
            Pool::Sqlite(pool) => Box::pin(sqlite::query(&pool, &statement, read_only, rows)).await,
        }
    }

    fn url(&self, run: &Run<'_>) -> Result<String, Failure> {
        if let Text::Template(template) = &self.config.url
            && !template.render(run.scope())?.is_literal()
        {
            let message = "the URL of a database must not come from the arguments of a call";
            return Err(Failure::new(Reason::Misconfigured, message));
        }
        run.text(&self.config.url)
    }
}

#[cfg(test)]
mod tests;
