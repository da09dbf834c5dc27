//! A pipe to a child process: one message on one line of its stdin and stdout.

use std::{sync::Arc, time::Duration};

use mt_proto::resource::{ResourceName, StdioTransport, Value};

use super::{
    pipe::{Open, Pipe, Terms},
    process::{self, LastWords, Program, Started},
    pump::{self, Pumps},
    secrets::Secrets,
};
use crate::gateway::call::CallError;

/// How the processes of one backend are started.
pub struct Stdio {
    backend: ResourceName,
    pub transport: StdioTransport,
    secrets: Secrets,
}

/// Names and values.
type Variables = Vec<(String, String)>;

impl Stdio {
    pub fn new(backend: ResourceName, transport: &StdioTransport, secrets: Secrets) -> Self {
        Self { backend, transport: transport.clone(), secrets }
    }

    /// Starts a process with the tasks that serve it. Dropping this starts none.
    pub async fn open(&self, terms: Terms, idle_max: Duration) -> Result<Open, CallError> {
        let (env, hidden) = self.env()?;
        let program = Program {
            command: &self.transport.command,
            args: &self.transport.args,
            env,
            cwd: self.transport.cwd.as_deref(),
        };
        let launch = process::launch(program, self.transport.memory_bytes_max, &terms.meters);
        let Started { process, stdin, stdout, stderr } = launch.await.map_err(|error| {
            self.unreachable(format!("{:?} cannot be started: {error}", self.transport.command))
        })?;
        tracing::debug!(backend = %self.backend, command = self.transport.command, "process started");
        let shared = Arc::clone(&terms.shared);
        let (pipe, queue) = Pipe::new(terms);
        let words = LastWords::new(hidden, self.transport.memory_bytes_max);
        let tasks = &shared.tasks;
        let pumps = Pumps {
            wrote: tasks.spawn(pump::write(pipe.clone(), queue, stdin)),
            read: tasks.spawn(pump::read(pipe.clone(), stdout, self.transport.line_bytes_max)),
            drained: tasks.spawn(process::drain_stderr(stderr, words.clone(), self.backend.to_string())),
        };
        tasks.spawn(pump::supervise(pipe.clone(), process, pumps, words.clone(), idle_max));
        Ok(Open { pipe, words: Some(words) })
    }

    /// The variables of the configuration, and which of their values are secret.
    fn env(&self) -> Result<(Variables, Vec<String>), CallError> {
        let mut env = Vec::with_capacity(self.transport.env.len());
        let mut hidden = Vec::new();
        for (name, value) in &self.transport.env {
            let value = match value {
                Value::Text(text) => text.clone(),
                Value::Secret(secret) => {
                    let value = (self.secrets)(secret).map_err(|why| self.unreachable(why))?;
                    hidden.push(value.clone());
                    value
                }
            };
            env.push((name.clone(), value));
        }
        Ok((env, hidden))
    }

    fn unreachable(&self, reason: String) -> CallError {
        CallError::Unreachable { backend: self.backend.clone(), reason }
    }
}
