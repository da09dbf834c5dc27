//! Stdin and stdout of a program that serves a gateway: one message in each line.

use std::{path::Path, process::Stdio, sync::Arc};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
};

use super::{Inbox, Opened, Wire};

pub struct Pipe {
    stdin: tokio::sync::Mutex<ChildStdin>,
    _reading: JoinSet<()>,
    _process: Child,
}

impl Pipe {
    /// What the program logs goes to a file.
    pub fn open(program: &Path, arguments: &[String], log: &Path, inbox: Inbox) -> Opened {
        let log = std::fs::File::create(log).map_err(|error| error.to_string())?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| error.to_string())?;
        let stdin = tokio::sync::Mutex::new(process.stdin.take().expect("stdin is piped"));
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut reading = JoinSet::new();
        reading.spawn(read(BufReader::new(stdout).lines(), inbox));
        Ok(Arc::new(Self { stdin, _reading: reading, _process: process }))
    }
}

async fn read(mut lines: Lines<BufReader<ChildStdout>>, inbox: Inbox) {
    while let Ok(Some(line)) = lines.next_line().await {
        let message = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in line {line:?}"));
        if inbox.send(message).await.is_err() {
            return;
        }
    }
}

impl Wire for Pipe {
    fn send<'a>(&'a self, message: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let line = format!("{message}\n");
            self.stdin.lock().await.write_all(line.as_bytes()).await.map_err(|error| error.to_string())
        })
    }
}
