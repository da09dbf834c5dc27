//! `mtctl nodes`: which node has what in service.

use std::time::SystemTime;

use serde_json::{Value, json};

use mt_proto::pb::control as pb;

use super::Context;
use crate::{
    output::{
        Exit, Failure, Format, Table,
        age::{age, rfc3339},
        shorten,
    },
    sync::Sync,
};

const REFUSAL_CHARS_MAX: usize = 100;

pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let fleet = context.client().await?.nodes().await?;
    match context.format() {
        Format::Table if fleet.nodes.is_empty() => {}
        Format::Table => context.output.data(&table(&fleet, SystemTime::now()))?,
        Format::Name => {
            let names = fleet.nodes.iter().map(|node| id(node).to_owned() + "\n");
            context.output.data(&names.collect::<String>())?;
        }
        Format::Json | Format::Yaml => context.output.value(&json!({
            "generation": fleet.generation,
            "catalog_revision": fleet.catalog_revision,
            "nodes": fleet.nodes.iter().map(|node| to_value(node, fleet.generation)).collect::<Vec<_>>(),
        }))?,
    }
    if fleet.nodes.is_empty() {
        context.output.say("no node has registered yet");
    }
    Ok(Exit::Ok)
}

pub fn id(node: &pb::NodeStatus) -> &str {
    node.node.as_ref().map_or("", |hello| hello.node_id.as_str())
}

fn table(fleet: &pb::ListNodesResponse, now: SystemTime) -> String {
    let mut table = Table::new(["NODE", "VERSION", "GENERATION", "STATE", "SEEN", "URL", "NOTE"]);
    for node in &fleet.nodes {
        let hello = node.node.clone().unwrap_or_default();
        let generation = if node.generation_sent == node.generation_acked {
            node.generation_acked.to_string()
        } else {
            format!("{}→{}", node.generation_acked, node.generation_sent)
        };
        let note = match node.generation_refused {
            0 => String::new(),
            refused => shorten(&format!("refused {refused}: {}", node.refusal), REFUSAL_CHARS_MAX),
        };
        table.row([
            hello.node_id,
            hello.version,
            generation,
            Sync::of(node, fleet.generation).word().to_owned(),
            age(node.last_seen_time.as_ref(), now),
            hello.mcp_url,
            note,
        ]);
    }
    table.render()
}

fn to_value(node: &pb::NodeStatus, head: u64) -> Value {
    let hello = node.node.clone().unwrap_or_default();
    json!({
        "node": hello.node_id,
        "version": hello.version,
        "labels": hello.labels,
        "mcp_url": hello.mcp_url,
        "admin_url": hello.admin_url,
        "state": Sync::of(node, head).word(),
        "connected": node.connected,
        "last_seen": rfc3339(node.last_seen_time.as_ref()),
        "generation_sent": node.generation_sent,
        "generation_acked": node.generation_acked,
        "catalog_revision_acked": node.catalog_revision_acked,
        "generation_refused": (node.generation_refused != 0).then_some(node.generation_refused),
        "refusal": (!node.refusal.is_empty()).then_some(&node.refusal),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mt_proto::pb::node::Hello;

    use super::*;

    fn node(id: &str, connected: bool, sent: u64, acked: u64, refused: u64) -> pb::NodeStatus {
        pb::NodeStatus {
            node: Some(Hello { node_id: id.into(), version: "1.0".into(), ..Default::default() }),
            connected,
            last_seen_time: Some(prost_types::Timestamp { seconds: 998, nanos: 0 }),
            generation_sent: sent,
            generation_acked: acked,
            generation_refused: refused,
            refusal: if refused > 0 { "unknown field".into() } else { String::new() },
            ..Default::default()
        }
    }

    #[test]
    fn each_state_of_a_node_is_told_apart() {
        let fleet = pb::ListNodesResponse {
            nodes: vec![
                node("us-1", true, 4, 4, 0),
                node("us-2", true, 4, 3, 0),
                node("eu-1", true, 4, 3, 4),
                node("ap-1", false, 4, 4, 0),
            ],
            generation: 4,
            catalog_revision: 2,
        };
        insta::assert_snapshot!(table(&fleet, SystemTime::UNIX_EPOCH + Duration::from_secs(1000)), @r"
        NODE  VERSION  GENERATION  STATE     SEEN  URL  NOTE
        us-1  1.0      4           synced    2s    -    -
        us-2  1.0      3→4         updating  2s    -    -
        eu-1  1.0      3→4         refused   2s    -    refused 4: unknown field
        ap-1  1.0      4           offline   2s    -    -
        ");
    }
}
