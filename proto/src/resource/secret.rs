//! Where a secret is found.

use std::path::PathBuf;

/// Where a node finds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    Env(String),
    File(PathBuf),
}
