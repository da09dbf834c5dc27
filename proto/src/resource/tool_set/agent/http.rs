//! Settings of the HTTP agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub url: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Http> {
    let url = fields.template("url");
    if url.is_none() {
        fields.missing("url", "for example `url: https://api.example.com/users/{{id}}`");
    }
    Some(Http { url: url? })
}
