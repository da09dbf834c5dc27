//! Settings of the SSE agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A stream of events that is read for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Sse {
    pub url: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Sse> {
    let url = fields.template("url");
    if url.is_none() {
        fields.missing("url", "for example `url: https://api.example.com/events`");
    }
    Some(Sse { url: url? })
}
