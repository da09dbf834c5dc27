//! How many programs run at once: of one tool, and of all tools of a set.

use std::sync::Arc;

use metrics::{Counter, Gauge, counter, gauge};
use mt_proto::resource::{Agent, ToolSet};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Failure, Reason};

/// Of all tools of a set, unless one of them alone may have more.
const PROCESSES_MAX: usize = 64;

/// The programs that the tools of one set may run at once.
pub struct Slots {
    all: Arc<Semaphore>,
    running: Gauge,
    started: Counter,
    refused: Counter,
}

/// Those that one of the tools may run at once.
pub struct OfTool {
    own: Arc<Semaphore>,
    shared: Arc<Slots>,
}

/// A program that runs, as long as this lives.
pub struct Running {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
    gauge: Gauge,
}

impl Slots {
    pub fn new(tool_set: &ToolSet) -> Arc<Self> {
        let wanted = tool_set.tools.iter().filter_map(|tool| match &tool.agent {
            Agent::Subprocess(config) => Some(config.processes_max),
            _ => None,
        });
        let max = wanted.fold(PROCESSES_MAX, usize::max);
        let name = tool_set.name.to_string();
        Arc::new(Self {
            all: Arc::new(Semaphore::new(max)),
            running: gauge!("mt_agent_processes", "tool_set" => name.clone()),
            started: counter!("mt_agent_processes_started_total", "tool_set" => name.clone()),
            refused: counter!("mt_agent_processes_refused_total", "tool_set" => name),
        })
    }

    /// Those of a tool that may run so many.
    pub fn of_tool(self: &Arc<Self>, processes_max: usize) -> OfTool {
        OfTool { own: Arc::new(Semaphore::new(processes_max)), shared: self.clone() }
    }
}

impl OfTool {
    /// Room for one more program.
    ///
    /// # Errors
    /// If as many run as may.
    pub fn take(&self) -> Result<Running, Failure> {
        let slots = &self.shared;
        let own = self.own.clone().try_acquire_owned();
        let both = own.and_then(|own| Ok((own, slots.all.clone().try_acquire_owned()?)));
        let Ok((own, shared)) = both else {
            slots.refused.increment(1);
            let message = "as many programs run for these tools as may, at the moment";
            return Err(Failure::new(Reason::Overloaded, message));
        };
        slots.started.increment(1);
        slots.running.increment(1.0);
        Ok(Running { _own: own, _shared: shared, gauge: slots.running.clone() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}
