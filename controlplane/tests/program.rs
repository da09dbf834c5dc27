//! `mt-controlplane` as a process: its ready file, its signals and exit codes.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
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
