//! Which content a resource has, as a short name for it.

use prost::Message;

use crate::pb::resource as pb;

/// The version of a resource: the BLAKE3 hash of its content, as 64 lower-case
/// hexadecimal digits.
///
/// Equal resources have equal versions, in every process: the bindings keep maps
/// sorted, so that a message has one encoding. Fields that this version does not
/// know are not part of it, because decoding has dropped them.
pub fn version_of(resource: &pb::Resource) -> String {
    blake3::hash(&resource.encode_to_vec()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(labels: &[(&str, &str)]) -> pb::Resource {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let metadata = pb::Metadata { name: "time".into(), labels, ..Default::default() };
        let spec = pb::resource::Spec::Backend(pb::Backend::default());
        pb::Resource { metadata: Some(metadata), spec: Some(spec) }
    }

    #[test]
    fn the_order_of_labels_does_not_change_the_version() {
        let (ab, ba) = (labelled(&[("a", "1"), ("b", "2")]), labelled(&[("b", "2"), ("a", "1")]));
        assert_eq!(version_of(&ab), version_of(&ba));
        assert_ne!(version_of(&ab), version_of(&labelled(&[("a", "2"), ("b", "1")])));
    }

    #[test]
    fn the_version_is_the_same_in_every_build() {
        let version = version_of(&labelled(&[("team", "core"), ("stage", "live")]));
        assert_eq!(version, "1db6754a389d32edd3164288d8b590c105a94c012e6d74eb9a89652548b9638d");
    }
}
