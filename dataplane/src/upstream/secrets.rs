//! How the values of secrets are had.

use std::sync::Arc;

use mt_proto::resource::{ResourceName, Value};

/// Resolves a secret to its value; the error names it and never holds a value.
pub type Secrets = Arc<dyn Fn(&ResourceName) -> Result<String, String> + Send + Sync>;

/// The value of a setting that may be a secret.
///
/// # Errors
/// Of the secret; without its value.
pub fn resolve(secrets: &Secrets, value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Secret(secret) => secrets(secret),
    }
}
