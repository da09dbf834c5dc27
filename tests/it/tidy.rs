//! Rules of the layout that the compiler cannot check.

use std::{
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
    text.split_once("#[cfg(test)]").map_or(text, |(shipped, _)| shipped)
}

fn only_in(folder: &str, word: &str, allowed: &[&str]) {
    let offenders: Vec<String> = sources(folder)
        .into_iter()
        .filter(|(name, _)| !name.ends_with("tests.rs") && !name.contains("/tests/"))
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
