//! The gateway that people start with.

use mt_proto::pb::resource::{self as pb, member::Source, resource::Spec};

/// The gateway `default`: every backend, its tools named `{backend}_{tool}`, and
/// every tool set, its tools by their own names.
pub fn default_gateway() -> pb::Resource {
    let member = |source| pb::Member { source: Some(source), ..Default::default() };
    let members = vec![
        member(Source::Backends(pb::LabelSelector::default())),
        member(Source::ToolSets(pb::LabelSelector::default())),
    ];
    let gateway = pb::Gateway { members, ..Default::default() };
    let metadata = pb::Metadata { name: "default".into(), ..Default::default() };
    pb::Resource { metadata: Some(metadata), spec: Some(Spec::Gateway(gateway)) }
}
