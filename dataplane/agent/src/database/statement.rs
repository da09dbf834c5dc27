//! A statement with the values of one call beside it.

use mt_proto::{
    resource::agent::database::Query,
    template::{Pieces, RenderError},
};
use serde_json::Value;

use crate::{Failure, Reason, Run};

/// What a database is asked.
pub enum Statement {
    /// Values stand in the text.
    Inline(Pieces),
    /// The author has put the placeholders.
    Listed { text: String, values: Vec<Value> },
}

impl Statement {
    /// # Errors
    /// If an argument is missing that stands in the text, or if the text itself
    /// would come from a call.
    pub fn of(query: &Query, run: &Run<'_>) -> Result<Self, Failure> {
        match query {
            Query::Inline(template) => Ok(Self::Inline(template.render(run.scope())?)),
            Query::Listed { statement, parameters } => {
                let text = statement.render(run.scope())?;
                if !text.is_literal() {
                    let message = "the text of a query must not come from the arguments of a call";
                    return Err(Failure::new(Reason::Misconfigured, message));
                }
                let value = |tree: &mt_proto::template::Tree| match tree.render(run.scope()) {
                    // An argument that need not be there is NULL in the database.
                    Err(RenderError::Missing { .. }) => Ok(Value::Null),
                    other => other,
                };
                let values = parameters.iter().map(value).collect::<Result<_, _>>()?;
                Ok(Self::Listed { text: text.text(), values })
            }
        }
    }

    /// The text with a mark for each value, which is made from its number, and
    /// the values.
    pub fn sql(&self, placeholder: impl Fn(usize) -> String) -> (String, Vec<Value>) {
        match self {
            Self::Inline(pieces) => pieces.sql(placeholder),
            Self::Listed { text, values } => (text.clone(), values.clone()),
        }
    }

    /// Whether the marks in the text are the author's.
    pub fn has_own_placeholders(&self) -> bool {
        matches!(self, Self::Listed { .. })
    }
}

/// # Errors
/// If the text has another number of marks than there are values.
pub fn check_count(marks: usize, values: usize) -> Result<(), Failure> {
    if marks == values {
        return Ok(());
    }
    let message = format!("the tool's query has {marks} placeholders and {values} values");
    Err(Failure::new(Reason::Misconfigured, message))
}
