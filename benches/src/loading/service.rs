//! From an edit of a file to its service, through `mtctl up`: what somebody
//! waits who writes a tool.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::{TOOLS_IN_EDITED, median, path, text};

/// An edit that is not in service by then is lost.
const WAIT_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Ends it when dropped.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended already; either way nothing is left to do.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The median of several edits, each of one file below `dir`.
pub fn edit_to_service(mtctl: &Path, dir: &Path, rounds: usize) -> anyhow::Result<Duration> {
    let data = tempfile::tempdir()?;
    let doors = ["--listen", "--control", "--http", "--admin"].map(|door| [door, "127.0.0.1:0"]).concat();
    let mut child = Command::new(mtctl)
        .args(["up", "-o", "json", "--data-dir"])
        .arg(data.path())
        .args(doors)
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", mtctl.display()))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let _up = Up(child);
    let mut record = String::new();
    for line in BufReader::new(stdout).lines() {
        record.push_str(&line?);
        if record.trim_end().ends_with('}') {
            break;
        }
    }
    let record: serde_json::Value = serde_json::from_str(&record).context("mtctl up has told nothing")?;
    let address = record["mcp"].as_str().and_then(|url| url.strip_prefix("http://")).context("no address")?;
    let mut times = Vec::new();
    for round in 0..rounds {
        let words = format!("for edit number {round}");
        let file = path(dir, 0);
        let start = Instant::now();
        fs::write(&file, text(0, TOOLS_IN_EDITED, &words)?)?;
        while !serves(address, &words)? {
            ensure!(start.elapsed() < WAIT_MAX, "an edit is not in service after {WAIT_MAX:?}");
            sleep();
        }
        times.push(start.elapsed());
    }
    Ok(median(times))
}

#[expect(clippy::disallowed_methods, reason = "there is nothing else to do on this thread")]
fn sleep() {
    std::thread::sleep(LOOK_EVERY);
}

fn serves(address: &str, words: &str) -> anyhow::Result<bool> {
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET /mcp/tools/get_thing_0 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200") && answer.contains(words))
}
