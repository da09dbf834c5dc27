//! Rules of the layout that the compiler cannot check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every Rust file under a folder, with its text.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// Without the tests at the end of the file.
fn shipped(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(shipped, _)| shipped)
}

fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.contains("/tests/")
}

fn only_in(folder: &str, word: &str, allowed: &[&str]) {
    let offenders: Vec<String> = sources(folder)
        .into_iter()
        .filter(|(name, _)| !is_test(name))
        .filter(|(name, text)| shipped(text).contains(word) && !allowed.iter().any(|a| name.starts_with(a)))
        .map(|(name, _)| name)
        .collect();
    assert!(offenders.is_empty(), "{word:?} belongs to {allowed:?}, but is in {offenders:?}");
}

#[test]
fn the_planes_do_not_know_each_other() {
    for (package, other) in [("controlplane", "mt-dataplane"), ("dataplane", "mt-controlplane")] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains(&format!("{other}.workspace")), "{package} depends on {other}");
    }
}

#[test]
fn only_up_runs_the_planes() {
    only_in("cli/src", "mt_controlplane", &["cli/src/command/up"]);
    only_in("cli/src", "mt_dataplane", &["cli/src/command/up"]);
}

#[test]
fn only_the_store_names_sled() {
    // `lib.rs` chooses the engine; everybody else has the trait.
    only_in("controlplane/src", "sled::", &["controlplane/src/store", "controlplane/src/lib.rs"]);
}

/// A node from the ground up: whoever is above names who is below, and never the
/// other way round.
const LAYERS: [&[&str]; 5] = [
    &["relay"],
    &["upstream"],
    &["gateway", "node", "snapshot"],
    &["downstream"],
    &["lister", "link", "control", "admin", "run"],
];
/// What all layers speak, and what that is made of.
const WAIST: [&str; 4] = ["gateway::call", "gateway::logging", "gateway::rewrite", "gateway::uri"];

#[test]
fn the_layers_of_a_node_name_only_what_is_below_them() {
    let layer_of = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let is_waist =
        |path: &str| WAIST.iter().any(|part| path == *part || path.starts_with(&format!("{part}::")));
    let mut seen = BTreeSet::new();
    for (file, text) in sources("dataplane/src").into_iter().filter(|(file, _)| !is_test(file)) {
        let own = file["dataplane/src/".len()..].trim_end_matches(".rs").replace('/', "::");
        let module = own.split("::").next().unwrap_or_default();
        let Some(layer) = layer_of(module) else { continue };
        seen.insert(module.to_owned());
        for path in named(shipped(&text)) {
            let top = path.split("::").next().unwrap_or_default();
            let named = layer_of(top);
            if is_waist(&own) {
                assert!(named.is_none() || is_waist(&path), "{file}, of the waist, names crate::{path}");
            } else {
                let below = named.is_none_or(|named| named <= layer);
                assert!(below || is_waist(&path), "{file} names crate::{path}, which is above it");
            }
        }
    }
    assert_eq!(
        seen.len(),
        LAYERS.iter().map(|layer| layer.len()).sum::<usize>(),
        "of {seen:?} one was renamed"
    );
}

/// What a file names of its own crate, as paths from the root, those of nested
/// `use` trees joined.
fn named(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in text.split("crate::").skip(1) {
        let end = part.find(';').unwrap_or(part.len());
        if part.starts_with('{') {
            expand("", &part[..end], &mut found);
        } else {
            let path = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
            let path = &part[..part.find(path).unwrap_or(part.len())];
            found.push(path.to_owned());
            expand(path, &part[path.len()..end], &mut found);
        }
    }
    found
}

/// `tree` is `{a, b::{c, d}}`, or nothing of interest.
fn expand(before: &str, tree: &str, found: &mut Vec<String>) {
    let Some(inner) = tree.strip_prefix('{').and_then(|rest| rest.rfind('}').map(|end| &rest[..end])) else {
        return;
    };
    let mut depth = 0;
    let parts = inner.split(|c: char| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let (path, rest) = part.split_at(part.find('{').unwrap_or(part.len()));
        found.push(format!("{before}{path}"));
        expand(&format!("{before}{path}"), rest, found);
    }
}

#[test]
fn what_a_file_names_is_found_in_trees() {
    let text = "use crate::{a::{b, c::d}, e};\nuse crate::f::{g, h};\nfn x() { crate::i::j(1); }";
    let found = named(text);
    for path in ["a::b", "a::c::d", "e", "f::g", "f::h", "i::j"] {
        assert!(found.iter().any(|found| found == path), "{path}: {found:?}");
    }
}

#[test]
fn the_codec_the_snapshot_and_the_machines_do_no_io() {
    for (folder, files) in [
        (
            "dataplane",
            ["dataplane/mcp/src/", "dataplane/src/snapshot.rs", "dataplane/src/discovery/machine.rs"],
        ),
        (
            "controlplane/src",
            [
                "controlplane/src/discovery/machine.rs",
                "controlplane/src/registry/plan.rs",
                "controlplane/src/fleet/lease.rs",
            ],
        ),
    ] {
        for (name, text) in sources(folder) {
            if !files.iter().any(|file| name.starts_with(file)) {
                continue;
            }
            for word in ["tokio::", "std::net", "std::fs", "Instant::now", "SystemTime::now"] {
                assert!(!shipped(&text).contains(word), "{name} is pure, but names {word}");
            }
        }
    }
}

#[test]
fn nobody_compares_revisions_outside_their_table() {
    for (name, text) in sources("dataplane") {
        if name.ends_with("mcp/src/version.rs") || name.ends_with("mcp/src/method.rs") {
            continue;
        }
        for word in ["version ==", "version >=", "version <", "== ProtocolVersion::", ">= ProtocolVersion::"]
        {
            assert!(
                !shipped(&text).contains(word),
                "{name} asks {word:?}: ask a predicate of mt_mcp::version"
            );
        }
    }
}

#[test]
fn files_hold_one_concept() {
    const LINES_MAX: usize = 600;
    for folder in
        ["proto/src", "capabilities/src", "controlplane/src", "dataplane", "cli/src", "tests", "benches/src"]
    {
        for (name, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(
                name.contains("/gen/") || lines <= LINES_MAX,
                "{name} has {lines} lines: find the second concept"
            );
        }
    }
}
