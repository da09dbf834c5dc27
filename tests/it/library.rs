//! The capability files that are shipped: each is right, and what needs no
//! service elsewhere is run.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    agents::text_of,
    cluster::Cluster,
    manifest::gateway,
    raw::{answer, modern, tool_names},
};

/// Every file, by its path.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capabilities/library");
    let documents = mt_capabilities::load(&folder).unwrap();
    let read = documents.into_iter().map(|document| {
        let name = document.source.name().to_owned();
        let text = std::fs::read_to_string(&name).unwrap();
        (name, text)
    });
    read.collect()
}

#[test]
fn every_file_of_the_library_is_right_by_itself() {
    let files = files();
    assert!(files.len() >= 12, "{} files", files.len());
    for (name, text) in files {
        let document = mt_capabilities::parse(&name, &text);
        let found = mt_capabilities::check(std::slice::from_ref(&document));
        let found: Vec<_> = document.diagnostics.iter().cloned().chain(found).collect();
        assert!(found.is_empty(), "{}", mt_capabilities::render(&found));
    }
}

async fn call(url: &str, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    let answered = answer(modern(url, 7, "tools/call", params).send().await.unwrap()).await;
    assert!(answered["result"].is_object(), "{tool}: {answered}");
    answered["result"].clone()
}

fn git(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new("git");
    let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    let status = command.current_dir(folder).args(who).args(arguments).output().unwrap().status;
    assert!(status.success(), "git {arguments:?}");
}

#[tokio::test]
async fn what_works_offline_does_what_it_says() {
    let folder = tempfile::TempDir::new().unwrap();
    let repository = folder.path().join("repository");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "-q", "-b", "main"]);
    std::fs::write(repository.join("poem.txt"), "roses\n").unwrap();
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", "Plant roses"]);
    let cluster = Cluster::with_env(&[("MT_GIT_DIR", repository.to_str().unwrap())]).await;

    let wanted = ["text.yaml", "system.yaml", "network.yaml", "git.yaml", "prompts.yaml"];
    let files = files();
    let mut chosen: Vec<(&str, &str)> = files
        .iter()
        .filter(|(name, _)| wanted.iter().any(|file| name.ends_with(file)))
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    assert_eq!(chosen.len(), wanted.len());
    let default = gateway("default", &json!({"members": [{"toolSets": {}}]}));
    chosen.push(("default.yaml", &default));
    cluster.apply_files(&chosen).await;
    let url = cluster.nodes[0].url("default");

    let text = "pear\napple\npear\n";
    let cases = [
        ("text_count", json!({"text": text}), "3       3      16"),
        ("text_sort", json!({"text": text, "unique": true, "reverse": true}), "pear\napple"),
        ("text_search", json!({"text": text, "pattern": "^P", "ignore_case": true}), "1:pear\n3:pear"),
        ("text_search", json!({"text": text, "pattern": "-v"}), ""),
        (
            "text_sha256",
            json!({"text": "abc"}),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        ("text_base64", json!({"text": "Grüße"}), "R3LDvMOfZQ=="),
        ("text_base64", json!({"text": "R3LDvMOfZQ==", "decode": true}), "Grüße"),
        ("system_time", json!({}), "Z"),
        ("system_info", json!({}), "Linux"),
        ("system_disks", json!({}), "/"),
        ("system_load", json!({}), "/"),
        ("system_memory", json!({}), "MemTotal"),
        ("network_lookup", json!({"host": "localhost"}), "STREAM"),
        ("git_log", json!({}), "Ada: Plant roses"),
        ("git_show", json!({"revision": "HEAD"}), "+roses"),
        ("git_show", json!({"revision": "HEAD", "summary": true}), "1 file changed"),
        ("git_status", json!({}), "## main"),
    ];
    let mut called = BTreeSet::new();
    for (tool, arguments, expected) in cases {
        let result = call(&url, tool, arguments.clone()).await;
        assert!(
            result["isError"] != true && text_of(&result).contains(expected),
            "{tool} {arguments}: {result}"
        );
        called.insert(tool.to_owned());
    }
    let shown: BTreeSet<String> = tool_names(&url).await.unwrap().into_iter().collect();
    assert_eq!(called, shown, "every tool is called");
    for revision in ["--output=/tmp/x", "-1", "a b"] {
        let refused = call(&url, "git_show", json!({"revision": revision})).await;
        assert_eq!(refused["_meta"]["io.magictunnel/error"]["reason"], "invalid_arguments", "{refused}");
    }
}
