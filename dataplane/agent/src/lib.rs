//! Agents: what runs a tool that no MCP server has. One leaf file for each.
//!
//! ```text
//!  Invocation ─► Agents::call: arguments meet the schema? ─► the tool's runner, until its deadline
//!                     ◄─ progress, logs (Reporter)             subprocess, http, grpc, sse, graphql,
//!                     ◄─ Output, or a Failure                  llm, websocket, database
//! ```
//!
//! An agent knows nothing of MCP's eras or transports: it gets arguments and
//! gives content. Dropping the future of a call cancels it, and whatever it has
//! started ends.

mod client;
mod collect;
mod database;
mod failure;
mod graphql;
mod grpc;
mod hide;
mod http;
mod llm;
mod output;
mod report;
mod schema;
mod sse;
mod subprocess;
#[cfg(test)]
mod testing;
mod websocket;

use std::{collections::HashMap, sync::Arc};

use mt_proto::{
    resource::{Agent, ResourceName, Text, Tool, ToolSet},
    template::Scope,
};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use self::hide::Withheld;
pub use self::{
    failure::{Failure, Reason},
    output::{Content, OUTPUT_BYTES_MAX, Output},
    report::{Level, Reporter},
    schema::Schemas,
};

/// Resolves a secret to its value; the error names it and never holds a value.
pub type Secrets = Arc<dyn Fn(&ResourceName) -> Result<String, String> + Send + Sync>;

/// One call of a tool.
pub struct Invocation<'a> {
    pub tool: &'a str,
    pub arguments: Map<String, Value>,
    /// When the answer is due at the latest, whatever the tool's own limit is.
    pub deadline: Instant,
    pub reporter: &'a dyn Reporter,
}

/// The tools of one tool set on one node.
pub struct Agents {
    tools: HashMap<String, Bound>,
    secrets: Secrets,
}

struct Bound {
    tool: Arc<Tool>,
    schemas: Schemas,
    runner: Runner,
}

/// A tool's agent, with what it keeps between calls.
enum Runner {
    Subprocess(subprocess::Runner),
    Http(http::Runner),
    Grpc(grpc::Runner),
    Sse(sse::Runner),
    GraphQl(graphql::Runner),
    Llm(llm::Runner),
    WebSocket(websocket::Runner),
    Database(database::Runner),
}

/// What a runner gets for one call.
pub(crate) struct Run<'a> {
    pub arguments: &'a Map<String, Value>,
    pub deadline: Instant,
    pub reporter: &'a dyn Reporter,
    pub secrets: &'a Secrets,
    /// A variable of the environment, which is withheld from now on.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    pub withheld: &'a Withheld,
}

impl Agents {
    /// Opens nothing yet. Tools of other backends are not among them: the
    /// gateway calls those itself.
    pub fn new(tool_set: &ToolSet, secrets: Secrets) -> Self {
        let servers = Arc::default();
        let processes = subprocess::Slots::new(tool_set);
        let databases = database::Pools::new(&tool_set.name);
        let bound = tool_set.tools.iter().filter_map(|tool| {
            let runner = match &tool.agent {
                Agent::Subprocess(config) => Runner::Subprocess(subprocess::Runner::new(config, &processes)),
                Agent::Http(config) => Runner::Http(http::Runner::new(config)),
                Agent::Grpc(config) => Runner::Grpc(grpc::Runner::new(config, &servers)),
                Agent::Sse(config) => Runner::Sse(sse::Runner::new(config)),
                Agent::GraphQl(config) => Runner::GraphQl(graphql::Runner::new(config)),
                Agent::Llm(config) => Runner::Llm(llm::Runner::new(config)),
                Agent::WebSocket(config) => Runner::WebSocket(websocket::Runner::new(config)),
                Agent::Database(config) => Runner::Database(database::Runner::new(config, &databases)),
                Agent::Mcp(_) => return None,
            };
            let tool = Arc::new(tool.clone());
            Some((tool.name.clone(), Bound { schemas: Schemas::default(), runner, tool }))
        });
        Self { tools: bound.collect(), secrets }
    }

    /// Runs a tool. None: there is no such tool.
    ///
    /// What goes wrong is the tool's answer too: a model can read it and try
    /// again.
    pub async fn call(&self, invocation: Invocation<'_>) -> Option<Result<Output, Failure>> {
        let bound = self.tools.get(invocation.tool)?;
        Some(self.run(bound, &invocation).await)
    }

    async fn run(&self, bound: &Bound, invocation: &Invocation<'_>) -> Result<Output, Failure> {
        bound.schemas.check_arguments(&bound.tool.input_schema, &invocation.arguments)?;
        let deadline = invocation.deadline.min(Instant::now() + bound.tool.timeout);
        let withheld = Withheld::default();
        let env = |name: &str| std::env::var(name).ok().inspect(|value| withheld.add(value));
        let run = Run {
            arguments: &invocation.arguments,
            deadline,
            reporter: invocation.reporter,
            secrets: &self.secrets,
            env: &env,
            withheld: &withheld,
        };
        let work = async {
            match &bound.runner {
                Runner::Subprocess(runner) => runner.run(&run).await,
                Runner::Http(runner) => runner.run(&run).await,
                Runner::Grpc(runner) => runner.run(&run).await,
                Runner::Sse(runner) => runner.run(&run).await,
                Runner::GraphQl(runner) => runner.run(&run).await,
                Runner::Llm(runner) => runner.run(&run).await,
                Runner::WebSocket(runner) => runner.run(&run).await,
                Runner::Database(runner) => runner.run(&run).await,
            }
        };
        let output = timeout_at(deadline, Box::pin(work)).await;
        let output = output.unwrap_or_else(|_| Err(Failure::timeout(bound.tool.timeout)));
        let output = output.map_err(|failure| failure.without(&withheld))?;
        output.within_limits()?;
        bound.schemas.check_result(bound.tool.output_schema.as_ref(), &output)?;
        Ok(output)
    }
}

impl Run<'_> {
    /// What this call's templates are filled in with.
    pub fn scope(&self) -> Scope<'_> {
        Scope { arguments: self.arguments, env: self.env }
    }

    /// The text that a setting stands for, as text.
    ///
    /// # Errors
    /// If an argument or a secret is missing.
    pub fn text(&self, text: &Text) -> Result<String, Failure> {
        match text {
            Text::Template(template) => Ok(template.render(self.scope())?.text()),
            Text::Secret(name) => {
                let value = (self.secrets)(name);
                let value = value.map_err(|reason| Failure::new(Reason::Misconfigured, reason))?;
                self.withheld.add(&value);
                Ok(value)
            }
        }
    }
}
