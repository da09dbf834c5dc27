//! The subprocess agent: a program that is run for each call.
//!
//! ```text
//!  settings + arguments ─► command (all texts are ready) ─► mt_process::launch
//!       stdin ◄─ fed        stdout ─► stdout.rs: up to its limit, as progress
//!                           stderr ─► stderr.rs: log lines, last words
//! ```
//!
//! There is no shell unless the author asks for one, the program itself never
//! comes from a call, and nothing that it starts outlives the call: not when it
//! is canceled or late, and, where guards are installed, not when the node is
//! killed.

mod command;
mod slots;
mod stderr;
mod stdout;

use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::Arc};

use mt_process::{Process, Program, Started, launch};
use mt_proto::resource::{Subprocess, agent::subprocess::OutputForm};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    process::ChildStdin,
    time::{Instant, timeout_at},
};

use self::{command::Command, stderr::LastWords, stdout::Stop};
use crate::{Failure, Output, Reason, Run};

pub use self::slots::Slots;

/// Of a JSON value that a program should have written, in an error.
const EXCERPT_CHARS_MAX: usize = 200;

/// What a tool of this kind keeps between calls.
pub struct Runner {
    config: Arc<Subprocess>,
    slots: slots::OfTool,
}

impl Runner {
    /// One of the tools that share these slots.
    pub fn new(config: &Arc<Subprocess>, slots: &Arc<Slots>) -> Self {
        Self { config: config.clone(), slots: slots.of_tool(config.processes_max) }
    }

    /// Runs the program. Dropping the future kills it, with all it has started.
    pub async fn run(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let Some(limit) = self.config.timeout else { return self.at_leisure(run).await };
        let deadline = Instant::now() + limit;
        let ran = timeout_at(deadline, Box::pin(self.at_leisure(run))).await;
        ran.unwrap_or_else(|_| Err(Failure::timeout(limit)))
    }

    async fn at_leisure(&self, run: &Run<'_>) -> Result<Output, Failure> {
        let command = Command::of(&self.config, run)?;
        let running = self.slots.take()?;
        let program = Program {
            command: &command.program,
            args: &command.args,
            env: command.env,
            cwd: command.cwd.as_deref(),
        };
        let started = Box::pin(launch(program, self.config.memory_bytes_max)).await;
        let Started { process, stdin, stdout, stderr } =
            started.map_err(|error| not_started(&error, &command.program))?;
        let process = process.holding(running);

        let words = LastWords::hiding(run.withheld.values());
        let talk = async {
            let talked = futures_util::try_join!(
                stdout::collect(stdout, &self.config, run.reporter),
                async {
                    stderr::tell(stderr, &words, run.reporter).await;
                    Ok(())
                },
                async {
                    feed(stdin, command.stdin).await;
                    Ok(())
                },
            );
            talked.map(|(bytes, (), ())| bytes)
        };
        // Either may be first; what is cut off does not wait for the end.
        let both = futures_util::try_join!(talk, async { end(process).await.map_err(Stop::Io) });
        match both {
            Ok((bytes, status)) => self.whole(&bytes, status, &words),
            Err(Stop::Cut(bytes)) => self.cut(&bytes),
            Err(Stop::Io(error)) => {
                Err(Failure::new(Reason::Broken, "the connection to the program broke off").detail(error))
            }
        }
    }

    /// More than the limit came.
    fn cut(&self, bytes: &[u8]) -> Result<Output, Failure> {
        let limit = self.config.output_bytes_max;
        if !self.config.truncate {
            let message = format!("the program wrote more than {limit} bytes");
            return Err(Failure::new(Reason::TooLarge, message));
        }
        let text = stdout::text(stdout::whole_characters(bytes));
        let mut output = match self.config.output {
            OutputForm::Lines => lines(text),
            _ => Output::text(text),
        };
        let note = format!("[cut off: the program wrote more than {limit} bytes, and was ended there]");
        output.content.push(crate::Content::Text(note));
        if let Some(Value::Object(structured)) = &mut output.structured {
            structured.insert("truncated".to_owned(), true.into());
        }
        Ok(output)
    }

    fn whole(&self, bytes: &[u8], status: ExitStatus, words: &LastWords) -> Result<Output, Failure> {
        let text = stdout::text(bytes);
        match status.code() {
            Some(code) if self.config.success_codes.contains(&code) => {}
            Some(code) => return Err(refused(code, &text, words)),
            None => {
                let signal = status.signal().unwrap_or_default();
                let message = format!("the program was ended by signal {signal}");
                return Err(Failure::new(Reason::Broken, words.with(message)));
            }
        }
        match self.config.output {
            OutputForm::Text => Ok(Output::text(text)),
            OutputForm::Lines => Ok(lines(text)),
            OutputForm::Json => match serde_json::from_str(&text) {
                Ok(value) => Ok(Output { structured: Some(value), ..Output::text(text) }),
                Err(error) => {
                    let start: String = words.hide(&text).chars().take(EXCERPT_CHARS_MAX).collect();
                    let message = format!("the program should write JSON: {error}; it wrote {start:?}");
                    Err(Failure::new(Reason::Broken, message))
                }
            },
        }
    }
}

fn lines(text: String) -> Output {
    let lines: Vec<&str> = text.lines().collect();
    Output { structured: Some(json!({"lines": lines})), ..Output::text(text) }
}

fn refused(code: i32, stdout: &str, words: &LastWords) -> Failure {
    let message = format!("the program ended with exit code {code}");
    let message = match words.is_empty() {
        // Some programs say on stdout what is wrong.
        true => words.with_these(message, stdout),
        false => words.with(message),
    };
    Failure::new(Reason::Refused, message)
}

/// Until the program ends; then whatever it has left behind is killed, which
/// could hold its pipes open for ever.
async fn end(mut process: Process) -> io::Result<ExitStatus> {
    let ended = process.ended().await;
    drop(process);
    ended
}

/// Writes all there is to read. A program need not read it.
async fn feed(mut stdin: ChildStdin, input: Option<Vec<u8>>) {
    if let Some(input) = input {
        _ = stdin.write_all(&input).await;
        _ = stdin.shutdown().await;
    }
}

fn not_started(error: &io::Error, program: &str) -> Failure {
    use rustix::io::Errno;
    let failure = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Failure::new(Reason::Misconfigured, "the tool's program is not on the node"),
        Some(Errno::ACCESS | Errno::PERM | Errno::NOEXEC) => {
            Failure::new(Reason::Misconfigured, "the node may not run the tool's program")
        }
        Some(Errno::TOOBIG) => {
            Failure::new(Reason::TooLarge, "the arguments are too long for the tool's program")
        }
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
            Failure::new(Reason::Overloaded, "the node cannot start another program now")
        }
        _ => Failure::new(Reason::Misconfigured, "the tool's program cannot be started"),
    };
    failure.detail(format!("{program}: {error}"))
}

#[cfg(test)]
mod tests;
