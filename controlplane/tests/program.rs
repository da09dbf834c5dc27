//! `mt-controlplane` as a process: its ready file, its signals and exit codes.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use mt_proto::pb::{
    control::{ApplyRequest, config_service_client::ConfigServiceClient},
    resource as pb,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mt-controlplane"));
    command.env_clear().stderr(Stdio::null()).arg("--data-dir").arg(dir.join("data"));
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file"]).arg(dir.join("ready"));
    command
}

/// Looks until there is something to see.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look() {
                Some(seen) => return seen,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("it happens in time")
}

async fn end(child: &mut Child) -> ExitStatus {
    until(|| child.try_wait().unwrap()).await
}

async fn started(dir: &Path) -> (Child, Value) {
    let child = command(dir).spawn().unwrap();
    let ready = until(|| std::fs::read(dir.join("ready")).ok()).await;
    (child, serde_json::from_slice(&ready).unwrap())
}

#[tokio::test]
async fn it_says_where_it_serves_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let (mut child, ready) = started(dir.path()).await;
        for door in ["grpc", "http"] {
            let address = ready[door].as_str().unwrap();
            tokio::net::TcpStream::connect(address).await.unwrap();
        }
        let mut second = command(dir.path()).spawn().unwrap();
        assert_eq!(end(&mut second).await.code(), Some(6), "the store is held");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(end(&mut child).await.code(), Some(0));
        std::fs::remove_file(dir.path().join("ready")).unwrap();
    }
}

#[tokio::test]
async fn a_door_to_strangers_needs_insecure() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mt-controlplane"));
    command.env_clear().arg("--data-dir").arg(dir.path().join("data"));
    let output = command.args(["--listen", "0.0.0.0:0", "--http", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("--insecure"), "{said}");
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

/// Commits one resource.
async fn apply(address: &str) {
    let secret = pb::Secret { source: Some(pb::secret::Source::Env("TOKEN".into())) };
    let resource = pb::Resource {
        metadata: Some(pb::Metadata { name: "token".into(), ..Default::default() }),
        spec: Some(pb::resource::Spec::Secret(secret)),
    };
    let mut client = ConfigServiceClient::connect(format!("http://{address}")).await.unwrap();
    client.apply(ApplyRequest { resources: vec![resource], ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_the_way_out_and_opens_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, ready) = started(dir.path()).await;
    apply(ready["grpc"].as_str().unwrap()).await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(end(&mut child).await.code(), Some(0));
    std::fs::remove_file(dir.path().join("ready")).unwrap();

    // The journal is gone, but what was acknowledged is on record beside it.
    for entry in std::fs::read_dir(dir.path().join("data/store/journal")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"not a journal").unwrap();
    }
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut refused = command(dir.path()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let code = end(&mut refused).await.code();
    let said = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--salvage-store"), "{said}");

    let mut child = command(dir.path()).arg("--salvage-store").spawn().unwrap();
    until(|| std::fs::read(dir.path().join("ready")).ok()).await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(end(&mut child).await.code(), Some(0));
}
