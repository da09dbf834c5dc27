//! The rows of a result on their way to the caller: counted, and within limits.

use serde_json::{Map, Value, json};

use crate::{Failure, OUTPUT_BYTES_MAX, Output, Reason, Reporter};

/// Rows from one word of progress to the next.
const PROGRESS_ROWS: usize = 100;

/// A column of a result.
pub struct Column {
    pub name: String,
    /// As the database calls it, in lower case.
    pub kind: String,
}

/// Rows that come.
pub struct Rows<'a> {
    reporter: &'a dyn Reporter,
    max: usize,
    columns: Vec<Column>,
    rows: Vec<Value>,
    bytes: usize,
    truncated: bool,
    affected: Option<u64>,
}

impl<'a> Rows<'a> {
    /// At most so many are kept.
    pub fn new(max: usize, reporter: &'a dyn Reporter) -> Self {
        let (columns, rows) = (Vec::new(), Vec::new());
        Self { reporter, max, columns, rows, bytes: 0, truncated: false, affected: None }
    }

    /// A name that two columns have is told apart by a number.
    pub fn set_columns(&mut self, columns: impl Iterator<Item = Column>) {
        self.columns.clear();
        for mut column in columns {
            let taken = |name: &str, known: &[Column]| known.iter().any(|known| known.name == name);
            let plain = column.name.clone();
            let mut number = 2;
            while taken(&column.name, &self.columns) {
                column.name = format!("{plain}_{number}");
                number += 1;
            }
            self.columns.push(column);
        }
    }

    /// Whether no further row is kept. There is one more, then.
    pub fn is_full(&self) -> bool {
        self.truncated
    }

    /// One more, with a value for each column.
    ///
    /// # Errors
    /// If all of them together are too long.
    pub async fn push(&mut self, values: Vec<Value>) -> Result<(), Failure> {
        if self.rows.len() == self.max {
            self.truncated = true;
            return Ok(());
        }
        let names = self.columns.iter().map(|column| column.name.clone());
        let row = Value::Object(names.zip(values).collect::<Map<_, _>>());
        self.bytes += row.to_string().len() + 1;
        if self.bytes > OUTPUT_BYTES_MAX {
            let (count, limit) = (self.rows.len(), OUTPUT_BYTES_MAX);
            let message = format!("the first {count} rows are already {limit} bytes long: ask for fewer");
            return Err(Failure::new(Reason::TooLarge, message));
        }
        self.rows.push(row);
        if self.rows.len().is_multiple_of(PROGRESS_ROWS) && self.reporter.wants_progress() {
            let count = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
            self.reporter.progress(f64::from(count), None, Some(&format!("{count} rows"))).await;
        }
        Ok(())
    }

    /// So many rows have been written, or read.
    pub fn add_affected(&mut self, rows: u64) {
        self.affected = Some(self.affected.unwrap_or_default() + rows);
    }

    pub fn into_output(self) -> Output {
        let columns: Vec<Value> =
            self.columns.iter().map(|column| json!({"name": column.name, "type": column.kind})).collect();
        let mut result = Map::new();
        result.insert("rowCount".to_owned(), self.rows.len().into());
        // What says something about the rows stands before them, where a model
        // reads it.
        if self.truncated {
            result.insert("truncated".to_owned(), true.into());
        }
        if let Some(affected) = self.affected.filter(|_| self.columns.is_empty()) {
            result.insert("rowsAffected".to_owned(), affected.into());
        }
        result.insert("columns".to_owned(), columns.into());
        result.insert("rows".to_owned(), self.rows.into());
        Output::value(Value::Object(result))
    }
}
