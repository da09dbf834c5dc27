//! Settings of the database agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A statement of SQL.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub query: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Database> {
    let query = fields.template("query");
    if query.is_none() {
        fields.missing("query", "for example `query: SELECT name FROM users WHERE id = {{id}}`");
    }
    Some(Database { query: query? })
}
