//! The gateway that people start with.

use mt_proto::pb::resource::{self as pb, resource::Spec};

/// The gateway `default`: every backend, its tools named `{backend}_{tool}`.
pub fn default_gateway() -> pb::Resource {
    let everything = pb::Member {
        source: Some(pb::member::Source::Backends(pb::LabelSelector::default())),
        ..Default::default()
    };
    let gateway =
        pb::Gateway { members: vec![everything], tool_name: "{backend}_{tool}".into(), ..Default::default() };
    let metadata = pb::Metadata { name: "default".into(), ..Default::default() };
    pb::Resource { metadata: Some(metadata), spec: Some(Spec::Gateway(gateway)) }
}
