//! The configuration of the fleets that are measured. Pure.

use std::net::SocketAddr;

/// An API key, and its hash as a principal has it.
pub const KEY: &str = "mt_benchmarks-of-many-sessions";
pub const KEY_SHA256: &str = "63697280a6e5961622ab39c5b5ea965d2348972e2474de1ccbd61e6a18c81d5d";

/// So many calls may run at once: no limit is to be measured by accident.
const CALLS_MAX: usize = 8192;

/// A backend over HTTP.
pub fn http_backend(name: &str, at: SocketAddr, more: &str) -> String {
    format!(
        "apiVersion: magictunnel/v1
kind: Backend
metadata: {{name: {name}}}
spec:
  http: {{url: 'http://{at}/mcp'}}
  concurrentCallsMax: {CALLS_MAX}
{more}---
"
    )
}

/// A gateway of backends.
pub fn gateway(name: &str, tool_name: &str, members: &[&str]) -> String {
    let members =
        members.iter().map(|member| format!("{{backend: {member}}}")).collect::<Vec<_>>().join(", ");
    format!(
        "apiVersion: magictunnel/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  toolName: '{tool_name}'
  members: [{members}]
---
"
    )
}

/// Somebody who has a key.
pub fn principal(name: &str, key_sha256: &str) -> String {
    format!(
        "apiVersion: magictunnel/v1
kind: Principal
metadata: {{name: {name}}}
spec: {{apiKeySha256: [{key_sha256}]}}
---
"
    )
}

/// A gateway for every way in which a call can take: the same era on both sides
/// (`default`), another one (`old`, `new`), a process (`pipe`), one and several
/// members with resources (`one`, `two`).
///
/// # Errors
/// If the path of this program is unknown.
pub fn standard(plain: SocketAddr, things: SocketAddr) -> anyhow::Result<String> {
    let own = std::env::current_exe()?;
    let mut yaml = http_backend("bench", plain, "")
        + &http_backend("bench-old", plain, "  protocol: legacy\n")
        + &http_backend("bench-new", plain, "  protocol: modern\n")
        + &http_backend("things-a", things, "")
        + &http_backend("things-b", things, "")
        + &format!(
            "apiVersion: magictunnel/v1
kind: Backend
metadata: {{name: pipe}}
spec:
  stdio: {{command: '{}', args: [backend, --lines]}}
  concurrentCallsMax: {CALLS_MAX}
---
",
            own.display()
        );
    for (name, members) in [
        ("default", &["bench"][..]),
        ("old", &["bench-old"]),
        ("new", &["bench-new"]),
        ("pipe", &["pipe"]),
        ("one", &["things-a"]),
        ("two", &["things-a", "things-b"]),
    ] {
        yaml += &gateway(name, "{tool}", members);
    }
    Ok(yaml)
}

#[cfg(test)]
mod tests {
    use mt_proto::resource::{Compiled, ResourceSet};

    use super::*;

    #[test]
    fn the_configuration_is_one_that_a_fleet_takes() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let text = standard(address(1), address(2)).unwrap() + &principal("half", &"0a".repeat(32));
        let document = mt_capabilities::parse("bench.yaml", &text);
        assert!(document.diagnostics.is_empty(), "{:?}", document.diagnostics);
        let resources = document.resources.into_iter().map(|located| located.resource);
        let (set, problems) = ResourceSet::gather(resources);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(set.compile_after(&Compiled::default()).is_ok());
    }
}
