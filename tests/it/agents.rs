//! Every agent with every kind of client, through one node, against the real
//! thing: each file below `agents/` starts a service and says how tools reach it.

pub mod database;
pub mod graphql;
pub mod grpc;
pub mod http;
pub mod llm;
pub mod mcp;
pub mod sse;
pub mod subprocess;
pub mod websocket;

use std::{
    any::Any,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, eventually},
    manifest::gateway,
    matrix::{Kind, client::Client},
};

/// How many cells are at work at the same time.
const CELLS_AT_ONCE: usize = 4;
/// For opening a conversation and for each check; none needs a tenth of it.
const CHECK_MAX: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

/// A service that an agent reaches, and the tools that reach it.
pub struct Served {
    /// As it is written in `type`; names of tools begin with it and `_`.
    pub agent: &'static str,
    /// A capability file.
    pub tools: String,
    /// Further resources that it needs: backends, secrets.
    pub more: String,
    /// Calls of the slow tools that the service still works on.
    pub running: Arc<AtomicUsize>,
    /// Ends the service when it is dropped.
    #[expect(dead_code, reason = "to be dropped is all that it is for")]
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Served {
    /// The file and the resources, to be applied together.
    fn files(&self) -> [(String, &str); 2] {
        [(format!("{}.yaml", self.agent), &self.tools), (format!("{}-more.yaml", self.agent), &self.more)]
    }
}

/// A node that serves each of them as a gateway of its own, under the agent's name.
pub async fn serve(services: &[Served]) -> Cluster {
    let cluster = Cluster::start(1).await;
    let own: Vec<(String, &str)> = services.iter().flat_map(Served::files).collect();
    let gateways: String = services
        .iter()
        .map(|served| gateway(served.agent, &json!({"members": [{"toolSet": served.agent}]})))
        .collect();
    let mut files: Vec<(&str, &str)> = own.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    files.push(("gateways.yaml", &gateways));
    cluster.apply_files(&files).await;
    cluster
}

struct Cell<'a> {
    client: &'a Client,
    served: &'a Served,
}

type Outcome = Result<(), String>;

/// A letter for the table, and what is done.
type Check = (char, for<'a> fn(&'a Cell<'a>) -> BoxFuture<'a, Outcome>);

const CHECKS: [Check; 6] = [
    ('S', |cell| Box::pin(success(cell))),
    ('E', |cell| Box::pin(error(cell))),
    ('T', |cell| Box::pin(late(cell))),
    ('X', |cell| Box::pin(cancel(cell))),
    ('P', |cell| Box::pin(progress(cell))),
    ('M', |cell| Box::pin(mebibyte(cell))),
];
const LEGEND: &str =
    "S success, E error, T timeout, X cancel, P progress, M 1 MiB of output; - does not work";

impl Cell<'_> {
    fn params(&self, tool: &str, arguments: &Value) -> Value {
        json!({"name": format!("{}_{tool}", self.served.agent), "arguments": arguments})
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<Value, String> {
        let answer = self.client.ask("tools/call", self.params(tool, &arguments)).await?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{tool}: {answer}")),
        }
    }
}

fn ensure(right: bool, what: impl FnOnce() -> String) -> Outcome {
    if right { Ok(()) } else { Err(what().chars().take(800).collect()) }
}

/// All that a result says to people.
pub fn text_of(result: &Value) -> String {
    let blocks = result["content"].as_array().into_iter().flatten();
    blocks.filter_map(|block| block["text"].as_str()).collect()
}

async fn success(cell: &Cell<'_>) -> Outcome {
    let result = cell.call("ok", json!({"text": "Grüße 🙂"})).await?;
    ensure(result["isError"] != true && text_of(&result).contains("Grüße 🙂"), || result.to_string())
}

fn failed(result: &Value, reason: &str) -> Outcome {
    let said = &result["_meta"]["io.magictunnel/error"]["reason"];
    ensure(result["isError"] == true && *said == reason && !text_of(result).is_empty(), || result.to_string())
}

async fn error(cell: &Cell<'_>) -> Outcome {
    failed(&cell.call("fail", json!({})).await?, "refused")
}

async fn late(cell: &Cell<'_>) -> Outcome {
    failed(&cell.call("late", json!({})).await?, "timeout")?;
    at_rest(cell).await
}

async fn at_rest(cell: &Cell<'_>) -> Outcome {
    let still = || cell.served.running.load(Ordering::SeqCst);
    while still() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn cancel(cell: &Cell<'_>) -> Outcome {
    let pending = cell.client.begin("tools/call", cell.params("slow", &json!({}))).await?;
    while cell.served.running.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cell.client.cancel(&pending).await?;
    at_rest(cell).await?;
    success(cell).await.map_err(|reason| format!("and afterwards: {reason}"))
}

async fn progress(cell: &Cell<'_>) -> Outcome {
    let mut params = cell.params("steps", &json!({}));
    let token = format!("steps-{}", uuid());
    params["_meta"]["progressToken"] = token.clone().into();
    let answer = cell.client.ask("tools/call", params).await?;
    ensure(answer["result"]["isError"] != true && answer.get("error").is_none(), || answer.to_string())?;
    let told: Vec<f64> = cell
        .client
        .notices("notifications/progress")
        .iter()
        .filter(|notice| notice["params"]["progressToken"] == token)
        .filter_map(|notice| notice["params"]["progress"].as_f64())
        .collect();
    // Of steps that follow each other closely, as they do on a busy machine, the
    // first and the last are told.
    ensure(told.len() >= 2 && told.is_sorted_by(|a, b| a < b), || format!("before the answer: {told:?}"))
}

fn uuid() -> u64 {
    rand::random()
}

async fn mebibyte(cell: &Cell<'_>) -> Outcome {
    let result = cell.call("big", json!({})).await?;
    let text = text_of(&result);
    ensure(result["isError"] != true && text.len() >= MIB, || {
        format!("{} bytes: {}", text.len(), text.chars().take(300).collect::<String>())
    })
}

/// What became of each check of a cell.
async fn cell(cluster: &Cluster, client: Kind, served: &Served) -> [Outcome; CHECKS.len()] {
    let key = format!("{}-to-{}", client.name(), served.agent);
    let mut conversation = None;
    let mut outcomes = CHECKS.map(|_| Ok(()));
    for ((_, check), outcome) in CHECKS.iter().zip(&mut outcomes) {
        let trying = async {
            // One conversation for all, but for a new one after a failure.
            let own = match conversation.take() {
                Some(open) => open,
                None => {
                    client.open(cluster, served.agent, &key).await.map_err(|e| format!("to open: {e}"))?
                }
            };
            check(&Cell { client: &own, served }).await?;
            match own.take_wrong() {
                wrong if wrong.is_empty() => conversation = Some(own),
                wrong => return Err(wrong.join("; ")),
            }
            Ok(())
        };
        let tried = tokio::time::timeout(CHECK_MAX, trying).await;
        *outcome = tried.unwrap_or_else(|_| Err(format!("not within {CHECK_MAX:?}")));
    }
    outcomes
}

/// Every client with one agent: a row of the matrix. The cells follow each
/// other, for they share the count of what runs.
pub async fn row(cluster: &Cluster, served: &Served) -> (String, Vec<String>) {
    let (mut line, mut failures) = (format!("{:<12}", served.agent), Vec::new());
    for client in Kind::ALL {
        let outcomes = cell(cluster, client, served).await;
        let letters: String = CHECKS
            .iter()
            .zip(&outcomes)
            .map(|((letter, _), outcome)| if outcome.is_ok() { *letter } else { '-' })
            .collect();
        write!(line, "  {letters:<13}").unwrap();
        for ((letter, _), outcome) in CHECKS.iter().zip(outcomes) {
            if let Err(reason) = outcome {
                failures.push(format!("{} -> {}: {letter}: {reason}", client.name(), served.agent));
            }
        }
    }
    (line, failures)
}

/// How each service is started; its owner's file is of that name.
pub type Start = (&'static str, fn() -> BoxFuture<'static, Served>);

/// In the order of the table.
pub const AGENTS: &[Start] = &[
    ("subprocess", || Box::pin(subprocess::start())),
    ("database", || Box::pin(database::start())),
    ("http", || Box::pin(http::start())),
    ("sse", || Box::pin(sse::start())),
    ("graphql", || Box::pin(graphql::start())),
    ("websocket", || Box::pin(websocket::start())),
    ("grpc", || Box::pin(grpc::start())),
    ("llm", || Box::pin(llm::start())),
    ("mcp", || Box::pin(mcp::start())),
];

/// `MT_AGENTS=http,grpc` runs only these rows.
#[tokio::test]
async fn every_agent_works_for_every_client() {
    let only = std::env::var("MT_AGENTS").ok();
    let chosen = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|wanted| wanted == name));
    let starting = AGENTS.iter().filter(|(name, _)| chosen(name)).map(|(_, start)| start());
    matrix(futures_util::future::join_all(starting).await).await;
}

/// Runs the rows of these services, and fails with the table if a cell does.
async fn matrix(services: Vec<Served>) {
    let cluster = serve(&services).await;
    for served in &services {
        let url = cluster.nodes[0].url(served.agent);
        eventually("the tools shown", async || {
            let names = crate::raw::tool_names(&url).await?;
            if names.is_empty() { Err("none".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    let rows: Vec<(String, Vec<String>)> =
        stream::iter(&services).map(|served| row(&cluster, served)).buffered(CELLS_AT_ONCE).collect().await;
    let mut table = format!("\n{:<12}", "");
    for client in Kind::ALL {
        write!(table, "  {:<13}", client.name()).unwrap();
    }
    let mut failures = Vec::new();
    for (line, failed) in rows {
        write!(table, "\n{line}").unwrap();
        failures.extend(failed);
    }
    println!("{table}\n\n{LEGEND}");
    assert!(failures.is_empty(), "{table}\n\n{LEGEND}\n{}", failures.join("\n"));
}
