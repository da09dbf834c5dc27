//! `mtctl stats`: how much the gateways have.

use mt_proto::pb::control::{GatewayStats, GetStatsRequest};
use serde_json::json;

use super::Context;
use crate::{
    args::StatsArgs,
    output::{Exit, Failure, Format, Table},
};

pub async fn run(context: &Context, args: &StatsArgs) -> Result<Exit, Failure> {
    let mut client = context.client().await?;
    let request = GetStatsRequest { gateway: args.gateway.clone().unwrap_or_default() };
    let answer = client.fleet.get_stats(request).await;
    let gateways = answer.map_err(|status| client.failure("cannot count", &status))?.into_inner().gateways;
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
        Format::Table => context.output.data(&table(&gateways))?,
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
    })
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
