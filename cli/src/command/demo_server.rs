//! `mtctl demo-server`: the demo on stdin and stdout.

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    time::SystemTime,
};

use crate::{
    demo::{self, World},
    output::{Exit, Failure},
};

/// The longest message that is read; the demo needs far less.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub fn run() -> Result<Exit, Failure> {
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, "the demo server lost its client").cause(error);
    let mut stdin = io::stdin().lock();
    let mut stdout = io::stdout().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
        if read == 0 {
            return Ok(Exit::Ok);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut world = World { now: SystemTime::now(), roll: &mut |sides| rand::random_range(1..=sides) };
        let text = String::from_utf8_lossy(&line);
        let Some(answer) = demo::reply(&text, &mut world) else { continue };
        match writeln!(stdout, "{answer}").and_then(|()| stdout.flush()) {
            // The client has gone; so do we.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
            written => written.map_err(failed)?,
        }
    }
}
