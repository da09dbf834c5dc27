//! SQLite: a statement on a file of the node.
//!
//! Its engine runs in a thread of each connection. It looks at a flag now and
//! then, and stops when the connection is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use futures_util::StreamExt as _;
use serde_json::{Number, Value};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, ConnectOptions as _, Connection as _, Decode, Either,
    Executor as _, Row as _, SqlSafeStr as _, Sqlite, SqliteConnection, Statement as _, TypeInfo as _,
    ValueRef as _,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow, SqliteValueRef},
};

use super::{
    failure,
    pool::{self, Connections},
    rows::{Column, Rows},
    statement::{Statement, check_count},
};
use crate::{Failure, Output, Reason};

/// How long another connection may write.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// Steps of the engine between two looks at the flag: well below a millisecond.
const STEPS_PER_LOOK: i32 = 1_000;

/// A connection. Dropping it stops what its engine does.
pub struct Link {
    connection: SqliteConnection,
    stop: Arc<AtomicBool>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl pool::Link for Link {
    type Options = SqliteConnectOptions;

    async fn open(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = SqliteConnection::connect_with(options).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(STEPS_PER_LOOK, move || !seen.load(Ordering::Relaxed));
        drop(handle);
        Ok(Self { connection, stop })
    }
}

/// # Errors
/// If it is no URL of a database.
pub fn options(url: &str, read_only: bool) -> Result<SqliteConnectOptions, sqlx::Error> {
    let mut options: SqliteConnectOptions = url.parse()?;
    if read_only {
        options = options.read_only(true).create_if_missing(false).pragma("query_only", "on");
    }
    Ok(options.busy_timeout(BUSY_MAX).disable_statement_logging())
}

/// Runs a statement. Dropping the future stops it.
///
/// # Errors
/// If the database is not there, is locked or refuses.
pub async fn query(
    connections: &Arc<Connections<Link>>,
    statement: &Statement,
    read_only: bool,
    mut rows: Rows<'_>,
) -> Result<Output, Failure> {
    let mut lease = connections.take(false).await?;
    let (text, values) = statement.sql(|number| format!("?{number}"));
    let asked = ask(&mut lease.connection, text, &values, read_only, &mut rows).await;
    // Whatever became of it, nothing is under way now: each statement is a
    // transaction of its own, and a result that is left alone ends.
    lease.give_back();
    asked?;
    Ok(rows.into_output())
}

async fn ask(
    connection: &mut SqliteConnection,
    text: String,
    values: &[Value],
    read_only: bool,
    rows: &mut Rows<'_>,
) -> Result<(), Failure> {
    let prepared = connection.prepare(AssertSqlSafe(text).into_sql_str()).await.map_err(failure::asking)?;
    if let Some(Either::Right(marks)) = prepared.parameters() {
        check_count(marks, values.len())?;
    }
    rows.set_columns(prepared.columns().iter().map(|column| Column {
        name: column.name().to_owned(),
        kind: column.type_info().name().to_lowercase(),
    }));
    let arguments = bind(values)?;
    let mut results = connection.fetch_many(prepared.query_with(arguments));
    while let Some(result) = results.next().await {
        match result.map_err(failure::asking)? {
            Either::Left(done) => rows.add_affected(done.rows_affected()),
            Either::Right(_) if rows.is_full() => {
                // What writes must come to its end.
                if read_only {
                    break;
                }
            }
            Either::Right(row) => rows.push(read(&row)?).await?,
        }
    }
    Ok(())
}

/// SQLite has no types for parameters: a value is of the type that it has.
fn bind(values: &[Value]) -> Result<SqliteArguments, Failure> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Bool(truth) => arguments.add(*truth),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => arguments.add(whole),
                None => arguments.add(number.as_f64()),
            },
            Value::String(text) => arguments.add(text.clone()),
            other => arguments.add(other.to_string()),
        };
        added.map_err(|error| {
            Failure::new(Reason::InvalidArguments, "a value cannot be sent to the database").detail(error)
        })?;
    }
    Ok(arguments)
}

fn read(row: &SqliteRow) -> Result<Vec<Value>, Failure> {
    let mut values = Vec::with_capacity(row.len());
    for (at, column) in row.columns().iter().enumerate() {
        let unreadable = |detail: String| {
            let message = format!("a value of column {:?} cannot be read", column.name());
            Failure::new(Reason::Broken, message).detail(detail)
        };
        let raw = row.try_get_raw(at).map_err(|error| unreadable(error.to_string()))?;
        let declared_bool = column.type_info().name() == "BOOLEAN";
        values.push(value(raw, declared_bool).map_err(|error| unreadable(error.to_string()))?);
    }
    Ok(values)
}

fn value(raw: SqliteValueRef<'_>, declared_bool: bool) -> Result<Value, sqlx::error::BoxDynError> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" | "BOOLEAN" => match <i64 as Decode<Sqlite>>::decode(raw)? {
            truth @ (0 | 1) if declared_bool => (truth == 1).into(),
            whole => whole.into(),
        },
        "REAL" => {
            let double = <f64 as Decode<Sqlite>>::decode(raw)?;
            Number::from_f64(double).map_or_else(|| double.to_string().into(), Value::Number)
        }
        "BLOB" => BASE64.encode(<&[u8] as Decode<Sqlite>>::decode(raw)?).into(),
        _ => String::from_utf8_lossy(<&[u8] as Decode<Sqlite>>::decode(raw)?).into_owned().into(),
    })
}
