//! Settings of the gRPC agent.

use super::super::fields::Fields;
use crate::template::Template;

/// A method of a gRPC service.
#[derive(Clone, Debug, PartialEq)]
pub struct Grpc {
    pub endpoint: Template,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Grpc> {
    let endpoint = fields.template("endpoint");
    if endpoint.is_none() {
        fields.missing("endpoint", "for example `endpoint: http://127.0.0.1:50051`");
    }
    Some(Grpc { endpoint: endpoint? })
}
