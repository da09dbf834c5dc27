//! What goes wrong with a database, for the caller: its own words where they are
//! about the statement, and nothing of addresses or credentials.

use sqlx::{Error, error::DatabaseError};

use crate::{Failure, Reason};

/// A connection that could not be made.
pub fn connecting(error: &Error) -> Failure {
    let failure = match error {
        Error::Configuration(_) => Failure::new(Reason::Misconfigured, "the URL of the database is wrong"),
        Error::Database(database) => match code(database.as_ref()).as_str() {
            "53300" => Failure::new(Reason::Overloaded, "the database takes no more connections"),
            state if state.starts_with("28") => {
                Failure::new(Reason::Misconfigured, "the database does not let the node in")
            }
            "3D000" => Failure::new(Reason::Misconfigured, "there is no such database on the server"),
            // Of SQLite: it cannot open the file, or it is none of its files.
            "14" | "26" => Failure::new(Reason::Unreachable, "the database cannot be opened"),
            _ => unreachable(),
        },
        _ => unreachable(),
    };
    failure.detail(error)
}

pub fn unreachable() -> Failure {
    Failure::new(Reason::Unreachable, "the database cannot be reached")
}

/// A statement that did not come to its end.
pub fn asking(error: Error) -> Failure {
    match &error {
        Error::Database(database) => {
            let code = code(database.as_ref());
            match code.as_str() {
                // Canceled, which at a server is for the time it took.
                "57014" => Failure::new(Reason::Timeout, "the database took too long"),
                "53300" | "53400" => Failure::new(Reason::Overloaded, "the database is at a limit"),
                // It shuts down, or an operator has ended the connection.
                "57P01" | "57P02" | "57P03" => broken().detail(&error),
                // SQLite: another connection writes.
                "5" | "6" | "261" | "517" => {
                    Failure::new(Reason::Overloaded, "the database is locked by another connection")
                }
                _ => Failure::new(
                    Reason::Refused,
                    format!("the database says: {} ({code})", database.message()),
                ),
            }
        }
        Error::ColumnDecode { .. } | Error::Decode(_) | Error::TypeNotFound { .. } => {
            Failure::new(Reason::Broken, "a value of the database cannot be read").detail(&error)
        }
        Error::Encode(source) => Failure::new(Reason::InvalidArguments, source.to_string()),
        _ => broken().detail(&error),
    }
}

fn broken() -> Failure {
    Failure::new(Reason::Broken, "the connection to the database broke off")
}

fn code(error: &dyn DatabaseError) -> String {
    error.code().map(|code| code.into_owned()).unwrap_or_default()
}

/// Whether a connection remembers a statement as it was before a change of the
/// tables: on a new one it works, and nothing has been done on this one.
pub fn is_stale_plan(error: &Error) -> bool {
    matches!(error, Error::Database(database)
        if database.code().as_deref() == Some("0A000") && database.message().contains("cached plan"))
}
