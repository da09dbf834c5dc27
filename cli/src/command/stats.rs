//! `mtctl stats`: how much the gateways have.

use mt_proto::pb::control::{GatewayStats, NameClash, NameKind};
use serde_json::json;

use super::Context;
use crate::{
    args::StatsArgs,
    output::{Exit, Failure, Format, Table, WARN, escape},
};

pub async fn run(context: &Context, args: &StatsArgs) -> Result<Exit, Failure> {
    let mut client = context.client().await?;
    let gateways = client.stats(args.gateway.as_deref()).await?;
    match context.format() {
        Format::Json | Format::Yaml => {
            let all: Vec<_> = gateways.iter().map(to_value).collect();
            match (&args.gateway, all.as_slice()) {
                (Some(_), [one]) => context.output.value(one)?,
                _ => context.output.value(&all)?,
            }
        }
        Format::Name => {
            context
                .output
                .data(&gateways.iter().map(|g| format!("gateway/{}\n", g.gateway)).collect::<String>())?;
        }
        Format::Table => {
            context.output.data(&table(&gateways))?;
            for stats in gateways.iter().filter(|stats| stats.clash_count > 0) {
                context.output.say(clashes(stats));
            }
        }
    }
    Ok(Exit::Ok)
}

fn to_value(stats: &GatewayStats) -> serde_json::Value {
    json!({
        "gateway": stats.gateway,
        "enabled": stats.enabled,
        "namespace": stats.namespace,
        "servers": stats.servers,
        "tool_sets": stats.tool_sets,
        "tools": stats.tools,
        "hidden_tools": stats.hidden_tools,
        "prompts": stats.prompts,
        "resources": stats.resources,
        "nodes": stats.nodes,
        "clashes": stats.clashes.iter().map(clash_to_value).collect::<Vec<_>>(),
        "clash_count": stats.clash_count,
    })
}

/// That names clash in a gateway, in one line.
pub fn clashes(stats: &GatewayStats) -> String {
    let gateway = escape(&stats.gateway);
    format!(
        "{WARN}gateway {gateway}{WARN:#}: {} names that an earlier member has; see mtctl describe gateway {gateway}",
        stats.clash_count
    )
}

/// A name that two members want, for programs.
pub fn clash_to_value(clash: &NameClash) -> serde_json::Value {
    json!({
        "kind": kind(clash),
        "name": clash.name,
        "winner": clash.winner,
        "loser": clash.loser,
    })
}

/// What a name is of, in one word.
pub fn kind(clash: &NameClash) -> &'static str {
    match clash.kind() {
        NameKind::Prompt => "prompt",
        NameKind::Tool | NameKind::Unspecified => "tool",
    }
}

fn table(gateways: &[GatewayStats]) -> String {
    let mut table = Table::new([
        "GATEWAY",
        "ENABLED",
        "SERVERS",
        "TOOL SETS",
        "TOOLS",
        "HIDDEN",
        "PROMPTS",
        "RESOURCES",
        "NODES",
    ]);
    for stats in gateways {
        let enabled = if stats.enabled { "yes" } else { "no" };
        let numbers = [
            stats.servers,
            stats.tool_sets,
            stats.tools,
            stats.hidden_tools,
            stats.prompts,
            stats.resources,
            stats.nodes,
        ];
        let [a, b, c, d, e, f, g] = numbers.map(|number| number.to_string());
        table.row([stats.gateway.clone(), enabled.to_owned(), a, b, c, d, e, f, g]);
    }
    table.render()
}
