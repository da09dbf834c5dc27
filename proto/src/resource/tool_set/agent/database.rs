//! Settings of the database agent.

use std::time::Duration;

use serde_json::Map;

use super::super::{fields::Fields, text::Text};
use crate::template::{Scope, Template, Tree};

const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Of one result, if nothing else is said.
const ROWS_DEFAULT: u64 = 1_000;
const ROWS_MAX: u64 = 100_000;
/// Connections to one database at once, if nothing else is said.
const POOL_DEFAULT: u64 = 5;
const POOL_MAX: u64 = 100;
/// How long a connection that nobody uses stays open, if nothing else is said.
const IDLE_DEFAULT: Duration = Duration::from_secs(300);
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const PARAMETERS_MAX: usize = 1_000;
const SCHEMES: [&str; 3] = ["postgres://", "postgresql://", "sqlite:"];

/// One statement of SQL on a database.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// `postgres://...` or `sqlite:PATH`. Holds no argument of a call.
    pub url: Text,
    pub query: Query,
    /// Whether the database refuses whatever writes.
    pub read_only: bool,
    pub rows_max: usize,
    /// Connections at once, together with the tools of the same set that have
    /// the same URL and the same value here.
    pub pool_max: u32,
    pub idle: Duration,
    /// A limit of its own, besides the tool's.
    pub timeout: Option<Duration>,
}

/// The statement, and where its values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Values stand where they belong; each becomes a bound parameter.
    Inline(Template),
    /// The statement has placeholders (`$1` or `?`) of its own, and these are
    /// the values, in order.
    Listed { statement: Template, parameters: Vec<Tree> },
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Database> {
    let url = url(fields);
    let query = query(fields);
    let read_only = fields.bool("readOnly").unwrap_or(true);
    let rows_max = fields.count("maxRows", 1..=ROWS_MAX, ROWS_DEFAULT);
    let pool_max = fields.count("poolMax", 1..=POOL_MAX, POOL_DEFAULT);
    let idle = fields.duration("idle", Duration::from_secs(1)..=IDLE_MAX, IDLE_DEFAULT);
    let timeout = fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, Duration::ZERO);
    Some(Database {
        url: url?,
        query: query?,
        read_only,
        rows_max: usize::try_from(rows_max).unwrap_or(usize::MAX),
        pool_max: u32::try_from(pool_max).unwrap_or(u32::MAX),
        idle,
        timeout: (!timeout.is_zero()).then_some(timeout),
    })
}

fn url(fields: &mut Fields<'_, '_>) -> Option<Text> {
    if !fields.has("url") {
        fields.missing("url", "`postgres://...`, `sqlite:PATH`, or `{secret: name}`");
    }
    let url = fields.text_or_secret("url")?;
    let Text::Template(template) = &url else { return Some(url) };
    if !is_the_authors(template) {
        let hint = "only `{{env.NAME}}` may stand here";
        fields.problem("url", "the URL is filled in from the arguments of a call", Some(hint.to_owned()));
        return None;
    }
    if let Some(text) = template.literal()
        && !SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    {
        let hint = "it begins with `postgres://` or `sqlite:`";
        fields.problem("url", "is not the URL of a database", Some(hint.to_owned()));
        return None;
    }
    Some(url)
}

fn query(fields: &mut Fields<'_, '_>) -> Option<Query> {
    if !fields.has("query") {
        fields.missing("query", "for example `query: SELECT name FROM users WHERE id = {{id}}`");
    }
    let statement = fields.template("query");
    let is_listed = fields.has("parameters");
    let parameters = fields.tree("parameters");
    let statement = statement?;
    if statement.literal().is_some_and(|text| text.trim().is_empty()) {
        fields.problem("query", "is empty", None);
        return None;
    }
    if !is_listed {
        let fits = fields.fits("query", &statement, statement.check_sql());
        return fits.then_some(Query::Inline(statement));
    }
    let parameters = parameters?;
    let Tree::List(parameters) = parameters else {
        fields.problem("parameters", "must be a list", None);
        return None;
    };
    if parameters.len() > PARAMETERS_MAX {
        fields.problem("parameters", format!("at most {PARAMETERS_MAX} parameters"), None);
    }
    if !is_the_authors(&statement) {
        let hint = "write `$1` or `?` in the query, or leave `parameters` out";
        fields.problem("query", "values stand in the query and in `parameters`", Some(hint.to_owned()));
        return None;
    }
    Some(Query::Listed { statement, parameters })
}

/// Whether nothing in a template is a caller's. What a condition picks is
/// looked at again where it is filled in.
fn is_the_authors(template: &Template) -> bool {
    let set = |_: &str| Some(String::new());
    let no_arguments = Map::new();
    template.render(Scope { arguments: &no_arguments, env: &set }).is_ok_and(|pieces| pieces.is_literal())
}
