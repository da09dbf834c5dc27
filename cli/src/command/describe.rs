//! `mtctl describe`: one resource, and what the fleet knows about it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use mt_proto::{
    pb::{control as pb, resource::Resource},
    resource::Kind,
};

use super::{Context, get, stats, status};
use crate::{
    args::DescribeArgs,
    client, manifests,
    output::{Exit, Failure, Format, STRONG, Table, count, escape, shorten},
    target::gateway_url,
};

const REASON_CHARS_MAX: usize = 400;

/// What the fleet says about a resource.
enum Fleet {
    Nothing,
    Backend(pb::FleetBackend),
    /// Where a gateway is served, and what it has.
    Gateway {
        urls: Vec<String>,
        stats: pb::GatewayStats,
    },
}

pub async fn run(context: &Context, args: &DescribeArgs) -> Result<Exit, Failure> {
    let stored = get::one(context, args.kind, &args.name, 0).await?;
    let resource = stored.resource.clone().unwrap_or_default();
    let fleet = fleet(context, &resource, &args.name).await?;
    match context.format() {
        Format::Json | Format::Yaml => context.output.value(&json!({
            "resource": manifests::to_value(&resource),
            "generation": stored.generation,
            "etag": stored.etag,
            "status": to_value(&fleet),
        }))?,
        Format::Name => {
            let name = client::reference_of(&resource).map(|reference| client::display(&reference));
            context.output.data(&name.unwrap_or_default())?;
        }
        Format::Table => context.output.data(&render(&stored, &resource, &fleet))?,
    }
    Ok(Exit::Ok)
}

async fn fleet(context: &Context, resource: &Resource, name: &str) -> Result<Fleet, Failure> {
    match Kind::of(resource) {
        Some(Kind::Backend) => {
            let backends = context.client().await?.backends().await?;
            Ok(backends.into_iter().find(|b| b.backend == name).map_or(Fleet::Nothing, Fleet::Backend))
        }
        Some(Kind::Gateway) => {
            let mut client = context.client().await?;
            let fleet = client.nodes().await?;
            let hellos = fleet.nodes.into_iter().filter(|node| node.connected).filter_map(|node| node.node);
            let urls = hellos.map(|hello| gateway_url(&hello.mcp_url, name)).collect();
            // A gateway that is not published yet has none.
            let stats = client.stats(None).await?.into_iter().find(|stats| stats.gateway == name);
            let stats = stats.unwrap_or_default();
            Ok(Fleet::Gateway { urls, stats })
        }
        _ => Ok(Fleet::Nothing),
    }
}

fn render(stored: &pb::StoredResource, resource: &Resource, fleet: &Fleet) -> String {
    let name =
        client::reference_of(resource).map(|reference| client::display(&reference)).unwrap_or_default();
    let mut text = format!("{STRONG}{}{STRONG:#}\n", escape(&name));
    let _ = writeln!(
        text,
        "changed in generation {}  ·  content {}",
        stored.generation,
        shorten(&stored.etag, 16)
    );
    match fleet {
        Fleet::Nothing => {}
        Fleet::Backend(backend) => {
            let lister = if backend.lister.is_empty() { "nobody" } else { &backend.lister };
            let offers =
                [(backend.tools, "tool"), (backend.prompts, "prompt"), (backend.resources, "resource")]
                    .map(|(number, noun)| count(usize::try_from(number).unwrap_or(usize::MAX), noun));
            let _ = writeln!(text, "{} in the catalog, listed by {}\n", offers.join(", "), escape(lister));
            let mut table = Table::new(["NODE", "STATE", "TOOLS", "REASON"]);
            for (node, seen) in &backend.nodes {
                let reason = shorten(&seen.reason, REASON_CHARS_MAX);
                table.row([
                    node.clone(),
                    status::word(seen.state()).to_owned(),
                    seen.tools.to_string(),
                    reason,
                ]);
            }
            text.push_str(&table.render());
        }
        Fleet::Gateway { urls, stats } => {
            for url in urls {
                let _ = writeln!(text, "served at {}", escape(url));
            }
            text.push_str(&clashes(stats));
        }
    }
    let _ = write!(text, "\n{}", manifests::to_yaml(resource));
    text
}

/// Names that nobody can reach in a later member; nothing if there are none.
fn clashes(stats: &pb::GatewayStats) -> String {
    if stats.clashes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["NAME", "OF A", "IS OF", "NOT OF"]);
    for clash in &stats.clashes {
        let kind = stats::kind(clash).to_owned();
        table.row([clash.name.clone(), kind, clash.winner.clone(), clash.loser.clone()]);
    }
    let mut text = format!("\n{}", table.render());
    let more = (stats.clash_count as usize).saturating_sub(stats.clashes.len());
    if more > 0 {
        let _ = writeln!(text, "… and {more} more");
    }
    let _ = writeln!(text, "give the members other names with `toolName`, `rename` or `exclude`");
    text
}

fn to_value(fleet: &Fleet) -> Value {
    match fleet {
        Fleet::Nothing => Value::Null,
        Fleet::Gateway { urls, stats } => json!({
            "urls": urls,
            "clashes": stats.clashes.iter().map(stats::clash_to_value).collect::<Vec<_>>(),
            "clash_count": stats.clash_count,
        }),
        Fleet::Backend(backend) => {
            let nodes = backend.nodes.iter().map(|(node, seen)| {
                json!({"node": node, "state": status::word(seen.state()), "reason": seen.reason, "tools": seen.tools})
            });
            json!({
                "lister": backend.lister,
                "tools": backend.tools,
                "prompts": backend.prompts,
                "resources": backend.resources,
                "nodes": nodes.collect::<Vec<_>>(),
            })
        }
    }
}
