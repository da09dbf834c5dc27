//! Descriptors of services that others have written: read so that none of them
//! can end the process.

use prost::Message as _;
use prost_reflect::{DescriptorError, DescriptorPool};
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// The syntaxes that can be read; the pool would panic on any other.
const SYNTAXES: [&str; 2] = ["proto2", "proto3"];
const TEXT_CHARS_MAX: usize = 100;

/// Why descriptors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{file} is written in {syntax:?}, and only proto2 and proto3 are read")]
    Syntax { file: String, syntax: String },
    #[error("the descriptors are not whole: {0}")]
    Broken(#[from] DescriptorError),
    #[error("these bytes are no descriptor set: {0}")]
    Bytes(#[from] prost::DecodeError),
}

/// The types of an encoded descriptor set.
///
/// # Errors
/// If it is none, is not whole, or in a syntax that is not read.
pub fn decode(set: &[u8]) -> Result<DescriptorPool, Unreadable> {
    let mut pool = DescriptorPool::new();
    add(&mut pool, FileDescriptorSet::decode(set)?.file)?;
    Ok(pool)
}

/// Adds files to a pool; those that are in it already are left as they are.
///
/// # Errors
/// As [`decode`]; then nothing is added.
pub fn add(pool: &mut DescriptorPool, files: Vec<FileDescriptorProto>) -> Result<(), Unreadable> {
    let unknown = |file: &&FileDescriptorProto| {
        file.syntax.as_deref().is_some_and(|syntax| !SYNTAXES.contains(&syntax))
    };
    if let Some(file) = files.iter().find(unknown) {
        let bounded = |text: &str| text.chars().take(TEXT_CHARS_MAX).collect();
        return Err(Unreadable::Syntax { file: bounded(file.name()), syntax: bounded(file.syntax()) });
    }
    Ok(pool.add_file_descriptor_protos(files)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_editions_is_refused_and_ends_nothing() {
        for (syntax, read) in
            [("proto3", true), ("proto2", true), ("", false), ("editions", false), ("x", false)]
        {
            let file = FileDescriptorProto {
                name: Some("a.proto".into()),
                syntax: Some(syntax.into()),
                ..Default::default()
            };
            let set = FileDescriptorSet { file: vec![file] }.encode_to_vec();
            assert_eq!(decode(&set).is_ok(), read, "{syntax}");
        }
        assert!(matches!(decode(b"\xff\xff"), Err(Unreadable::Bytes(_))));
    }
}
