//! Resources for tests, as the text that `mtctl apply` and the control plane read.

use std::path::Path;

use serde_json::{Value, json};

fn document(kind: &str, name: &str, spec: &Value) -> String {
    let document =
        json!({"apiVersion": "magictunnel/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    format!("---\n{document}\n")
}

/// A backend, by its whole spec.
pub fn backend(name: &str, spec: &Value) -> String {
    document("Backend", name, spec)
}

/// A backend behind a URL.
pub fn over_http(name: &str, url: &str) -> String {
    backend(name, &json!({"http": {"url": url}}))
}

/// A backend that the nodes run.
pub fn over_stdio(name: &str, command: &Path, args: &[&str]) -> String {
    backend(name, &json!({"stdio": {"command": command, "args": args}}))
}

/// A gateway, by its whole spec.
pub fn gateway(name: &str, spec: &Value) -> String {
    document("Gateway", name, spec)
}

/// A policy, by its whole spec.
pub fn policy(name: &str, spec: &Value) -> String {
    document("Policy", name, spec)
}

/// A gateway that shows one backend under the backend's own names.
pub fn plain_gateway(name: &str, backend: &str) -> String {
    gateway(name, &json!({"toolName": "{tool}", "members": [{"backend": backend}]}))
}
