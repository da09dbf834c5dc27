//! The signals that end a command that would go on for ever.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::{Exit, Failure};

/// What asks this process to end.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::Failed, "cannot wait for signals").cause(error);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
