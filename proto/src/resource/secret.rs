//! Where a secret is found.

use std::path::PathBuf;

use super::check::{Checker, is_env_name, quoted};
use crate::pb::resource as pb;

/// Where a node finds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Env(String),
    File(PathBuf),
}

pub(super) fn check(checker: &mut Checker<'_>, secret: &pb::Secret) -> Option<SecretSource> {
    match &secret.source {
        Some(pb::secret::Source::Env(name)) => {
            if !is_env_name(name) {
                let message = format!("{} is not the name of an environment variable", quoted(name));
                checker.problem_with_hint(
                    "spec.env",
                    message,
                    "letters, digits and '_', not starting with a digit",
                );
            }
            Some(SecretSource::Env(name.clone()))
        }
        Some(pb::secret::Source::File(path)) => {
            if path.is_empty() {
                checker.problem("spec.file", "the path is empty");
            }
            checker.no_nul("spec.file", path);
            Some(SecretSource::File(path.into()))
        }
        None => {
            checker.problem_with_hint(
                "spec",
                "the secret has no source",
                "add `env: VARIABLE` or `file: /path`",
            );
            None
        }
    }
}
