//! Settings of the GraphQL agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A query or a mutation.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphQl {
    pub endpoint: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<GraphQl> {
    let endpoint = fields.template("endpoint");
    if endpoint.is_none() {
        fields.missing("endpoint", "for example `endpoint: https://api.example.com/graphql`");
    }
    Some(GraphQl { endpoint: endpoint? })
}
