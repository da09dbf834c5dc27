//! PostgreSQL: a statement in a transaction of its own.
//!
//! ```text
//!  BEGIN READ ONLY, time limit ─► prepare: the server says the types ─► bind, run ─► rows ─► COMMIT
//! ```
//!
//! Types that are not known here (intervals, addresses, ranges, ...) pass as
//! text: the server is asked to convert them.

mod decimal;
mod parameter;
mod value;

use std::sync::Arc;

use futures_util::StreamExt as _;
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Either, Executor as _, PgConnection,
    Row as _, SqlSafeStr as _, Statement as _, TypeInfo as _, ValueRef as _,
    postgres::{PgArguments, PgConnectOptions, PgRow, PgStatement, PgTypeInfo, PgTypeKind},
    raw_sql,
};
use tokio::time::Instant;

use super::{
    failure,
    pool::{self, Connections, Lease},
    rows::{Column, Rows},
    statement::{Statement, check_count},
};
use crate::{Failure, Output, Reason};

/// Rows beyond the last one that is kept, up to which it is cheaper to read on
/// than to open another connection.
const ROWS_SKIPPED_MAX: usize = 1_000;
/// The server looks so often whether the node is still there, and stops if not.
const LOOK_FOR_NODE: &str = "SELECT set_config('client_connection_check_interval', '250ms', false) \
     WHERE current_setting('client_connection_check_interval', true) IS NOT NULL";

/// A connection. Closing it ends what the server does for it.
pub struct Link(PgConnection);

impl pool::Link for Link {
    type Options = PgConnectOptions;

    async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        // Servers before 14 and some platforms cannot: there, the time limit of
        // the statement ends it.
        if let Err(error) = raw_sql(LOOK_FOR_NODE).execute(&mut connection).await {
            tracing::debug!(%error, "the database does not look whether its clients are there");
        }
        Ok(Self(connection))
    }
}

/// # Errors
/// If it is no URL of a database.
pub fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("magictunnel") };
    Ok(options.disable_statement_logging())
}

/// Runs a statement. Dropping the future ends it at the server.
///
/// # Errors
/// If a value is not of the type that the server wants, and if the server is not
/// there or refuses.
pub async fn query(
    connections: &Arc<Connections<Link>>,
    statement: &Statement,
    read_only: bool,
    deadline: Instant,
    mut rows: Rows<'_>,
) -> Result<Output, Failure> {
    let mut fresh = false;
    loop {
        let mut lease = connections.take(fresh).await?;
        let used = !std::mem::replace(&mut fresh, true) && lease.is_used;
        if let Err(error) = begin(&mut lease, read_only, deadline).await {
            match error {
                // The server may have closed it since.
                sqlx::Error::Io(_) | sqlx::Error::Database(_) if used => continue,
                error => return Err(failure::asking(error)),
            }
        }
        match ask(&mut lease.0, statement, read_only, &mut rows).await {
            Ok(Flow::Done) => {
                raw_sql("COMMIT").execute(&mut lease.0).await.map_err(failure::asking)?;
                lease.give_back();
                return Ok(rows.into_output());
            }
            // What is left on it would have to be read first.
            Ok(Flow::Left) => return Ok(rows.into_output()),
            Err(Stop::Database(error)) if used && failure::is_stale_plan(&error) => {}
            Err(stop) => {
                let failure = match stop {
                    Stop::Database(error) => failure::asking(error),
                    Stop::Own(failure) => return Err(failure),
                };
                if raw_sql("ROLLBACK").execute(&mut lease.0).await.is_ok() {
                    lease.give_back();
                }
                return Err(failure);
            }
        }
    }
}

async fn begin(lease: &mut Lease<Link>, read_only: bool, deadline: Instant) -> Result<(), sqlx::Error> {
    let mode = if read_only { "READ ONLY" } else { "READ WRITE" };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis().clamp(1, i32::MAX as u128);
    let text = format!("BEGIN {mode}; SET LOCAL statement_timeout = {left}");
    raw_sql(AssertSqlSafe(text)).execute(&mut lease.0).await.map(drop)
}

enum Flow {
    Done,
    /// There are more rows than anybody wants.
    Left,
}

enum Stop {
    Database(sqlx::Error),
    /// The connection may still have something to say.
    Own(Failure),
}

impl From<sqlx::Error> for Stop {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Own(failure)
    }
}

async fn ask(
    connection: &mut PgConnection,
    statement: &Statement,
    read_only: bool,
    rows: &mut Rows<'_>,
) -> Result<Flow, Stop> {
    let (prepared, arguments) = prepare(connection, statement).await?;
    rows.set_columns(prepared.columns().iter().map(|column| Column {
        name: column.name().to_owned(),
        kind: column.type_info().name().to_lowercase(),
    }));
    let prepared = readable(connection, prepared).await?;
    let mut skipped = 0;
    let mut results = connection.fetch_many(prepared.query_with(arguments));
    while let Some(result) = results.next().await {
        match result? {
            Either::Left(done) => rows.add_affected(done.rows_affected()),
            Either::Right(_) if rows.is_full() => {
                skipped += 1;
                // What writes must come to its end.
                if read_only && skipped > ROWS_SKIPPED_MAX {
                    return Ok(Flow::Left);
                }
            }
            Either::Right(row) => rows.push(values(&row)?).await?,
        }
    }
    Ok(Flow::Done)
}

/// The statement, and its values as the server wants them.
async fn prepare(
    connection: &mut PgConnection,
    statement: &Statement,
) -> Result<(PgStatement, PgArguments), Stop> {
    let (text, values) = statement.sql(|number| format!("${number}"));
    let prepared = connection.prepare(AssertSqlSafe(text).into_sql_str()).await?;
    let types = types_of(&prepared);
    check_count(types.len(), values.len())?;
    if types.iter().all(parameter::is_known) {
        return Ok((prepared, parameter::bind(&types, &values)?));
    }
    if statement.has_own_placeholders() {
        let unknown = types.iter().position(|kind| !parameter::is_known(kind)).unwrap_or_default();
        let (number, kind) = (unknown + 1, types[unknown].name().to_lowercase());
        let message = format!("the tool's query wants {kind} for ${number}: write ${number}::text::{kind}");
        return Err(Failure::new(Reason::Misconfigured, message).into());
    }
    let (text, values) = statement.sql(|number| match types.get(number - 1) {
        Some(kind) if !parameter::is_known(kind) => format!("CAST(${number}::text AS {})", kind.name()),
        _ => format!("${number}"),
    });
    let prepared = connection.prepare(AssertSqlSafe(text).into_sql_str()).await?;
    let types = types_of(&prepared);
    let arguments = parameter::bind(&types, &values)?;
    Ok((prepared, arguments))
}

fn types_of(prepared: &PgStatement) -> Vec<PgTypeInfo> {
    match prepared.parameters() {
        Some(Either::Left(types)) => types.to_vec(),
        _ => Vec::new(),
    }
}

/// The statement itself if its columns can be read; else one around it that has
/// the server convert them.
async fn readable(connection: &mut PgConnection, prepared: PgStatement) -> Result<PgStatement, Stop> {
    let columns = prepared.columns();
    if columns.iter().all(|column| value::is_known(column.type_info())) {
        return Ok(prepared);
    }
    let names: Vec<String> = (1..=columns.len()).map(|number| format!("c{number}")).collect();
    let read = columns.iter().zip(&names).map(|(column, name)| match column.type_info().kind() {
        _ if value::is_known(column.type_info()) => name.clone(),
        PgTypeKind::Composite(_) => format!("to_jsonb({name})"),
        _ => format!("{name}::text"),
    });
    let read: Vec<String> = read.collect();
    let own = prepared.sql().as_str().trim_end().trim_end_matches(';');
    // On lines of its own, because it may end with a comment.
    let text =
        format!("WITH mt_rows ({}) AS (\n{own}\n) SELECT {} FROM mt_rows", names.join(", "), read.join(", "));
    let unreadable = columns.iter().find(|column| !value::is_known(column.type_info()));
    let unreadable = unreadable.map(|column| (column.name(), column.type_info().name().to_lowercase()));
    match connection.prepare(AssertSqlSafe(text).into_sql_str()).await {
        Ok(around) => Ok(around),
        Err(error) => {
            let (name, kind) = unreadable.unwrap_or_default();
            let message = format!("column {name:?} is of type {kind}, which cannot be read: cast it to text");
            Err(Failure::new(Reason::Misconfigured, message).detail(error).into())
        }
    }
}

fn values(row: &PgRow) -> Result<Vec<serde_json::Value>, Failure> {
    let mut values = Vec::with_capacity(row.len());
    for (at, column) in row.columns().iter().enumerate() {
        let unreadable = || {
            let message = format!("a value of column {:?} cannot be read", column.name());
            Failure::new(Reason::Broken, message)
        };
        let raw = row.try_get_raw(at).map_err(|error| unreadable().detail(error))?;
        values.push(if raw.is_null() {
            serde_json::Value::Null
        } else {
            let bytes = raw.as_bytes().map_err(|error| unreadable().detail(error))?;
            value::read(column.type_info(), bytes).ok_or_else(unreadable)?
        });
    }
    Ok(values)
}
