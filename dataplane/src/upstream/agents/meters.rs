//! What is counted about the tools of a tool set. Handles are made once: a call
//! only adds.

use std::{collections::BTreeMap, sync::Arc};

use metrics::{Counter, Histogram, counter, histogram};
use mt_agent::{Failure, Reason};
use mt_proto::resource::ToolSet;
use tokio::time::Instant;

/// By the tool's name.
pub struct Meters {
    of_tools: BTreeMap<String, Arc<OfAgent>>,
    failures: Vec<(Reason, Counter)>,
}

/// Of all tools on this node that an agent runs.
struct OfAgent {
    result: Counter,
    failure: Counter,
    /// The client has gone, or the node has.
    abandoned: Counter,
    seconds: Histogram,
}

impl OfAgent {
    fn new(agent: &'static str) -> Arc<Self> {
        let count =
            |outcome: &'static str| counter!("mt_agent_calls_total", "agent" => agent, "outcome" => outcome);
        Arc::new(Self {
            result: count("result"),
            failure: count("failure"),
            abandoned: count("abandoned"),
            seconds: histogram!("mt_agent_call_seconds", "agent" => agent),
        })
    }
}

impl Meters {
    pub fn new(tool_set: &ToolSet) -> Self {
        let mut kinds: BTreeMap<&'static str, Arc<OfAgent>> = BTreeMap::new();
        let of_tools = tool_set.tools.iter().map(|tool| {
            let agent = tool.agent.name();
            (tool.name.clone(), kinds.entry(agent).or_insert_with(|| OfAgent::new(agent)).clone())
        });
        let of_tools = of_tools.collect();
        let name = tool_set.name.as_str();
        let failure = |reason: Reason| {
            let count = counter!("mt_agent_failures_total", "tool_set" => name.to_owned(), "reason" => reason.as_str());
            (reason, count)
        };
        Self { of_tools, failures: Reason::ALL.into_iter().map(failure).collect() }
    }

    /// Counts a call that begins; it counts as abandoned unless it is told how
    /// it ended. None: there is no such tool.
    pub fn begin(&self, tool: &str) -> Option<Running<'_>> {
        let meters = self.of_tools.get(tool)?;
        Some(Running { meters, outcome: &meters.abandoned, began: Instant::now() })
    }

    pub fn failed(&self, failure: &Failure) {
        if let Some((_, count)) = self.failures.iter().find(|(reason, _)| *reason == failure.reason) {
            count.increment(1);
        }
    }
}

/// A call that is being counted.
pub struct Running<'a> {
    meters: &'a OfAgent,
    outcome: &'a Counter,
    began: Instant,
}

impl Running<'_> {
    pub fn end(mut self, is_result: bool) {
        self.outcome = if is_result { &self.meters.result } else { &self.meters.failure };
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.meters.seconds.record(self.began.elapsed().as_secs_f64());
        self.outcome.increment(1);
    }
}
