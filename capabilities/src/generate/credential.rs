//! Secrets for credentials: named after the tool set, read from a variable of
//! the environment.

use serde_json::{Value, json};

use super::{Auth, SecretDraft};
use crate::names::legal_name;

/// The credential that the user has chosen, and the secrets that it needs.
pub fn chosen(auth: &Auth, set: &str) -> (Value, Vec<SecretDraft>) {
    let reference = |secret: &SecretDraft| json!({"secret": secret.name});
    match auth {
        Auth::Bearer => {
            let token = secret(set, "token");
            (json!({"bearer": reference(&token)}), vec![token])
        }
        Auth::Basic => {
            let (username, password) = (secret(set, "username"), secret(set, "password"));
            let pair = json!({"username": reference(&username), "password": reference(&password)});
            (json!({"basic": pair}), vec![username, password])
        }
        Auth::Header(name) => {
            let key = secret(set, "key");
            (json!({"header": {"name": name, "value": reference(&key)}}), vec![key])
        }
        Auth::Query(name) => {
            let key = secret(set, "key");
            (json!({"query": {"name": name, "value": reference(&key)}}), vec![key])
        }
    }
}

/// A secret of a tool set.
pub fn secret(set: &str, part: &str) -> SecretDraft {
    let name = legal_name(&format!("{set}-{part}")).unwrap_or_else(|| "secret".to_owned());
    let digit = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    let variable = format!("{digit}{}", name.to_ascii_uppercase().replace('-', "_"));
    SecretDraft { name, variable }
}
