//! After a change: waits until the nodes that are connected have it in service,
//! so that what is typed next meets it.

use std::time::Duration;

use mt_proto::pb::control::{ListNodesResponse, NodeStatus};
use tokio::time::{Instant, sleep};

use super::Context;
use crate::{
    client::Client,
    output::{WARN, count},
};

/// A change is on all nodes within milliseconds; one that takes longer has a
/// reason that `mtctl nodes` shows.
const WAIT_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for the nodes, and says so if one does not follow. The change itself
/// is made whatever they do.
pub async fn settle(context: &Context, client: &mut Client, generation: u64) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let Ok(fleet) = client.nodes().await else { return };
        let state = state(&fleet, generation);
        if state.late.is_empty() {
            for (node, reason) in &state.refused {
                context.output.say(format_args!(
                    "{WARN}node {node} has refused generation {generation}{WARN:#}: {reason}"
                ));
            }
            return;
        }
        if Instant::now() >= deadline {
            context.output.say(format_args!(
                "{WARN}{} not in service within {} s on {}{WARN:#}; see mtctl nodes",
                format_args!("generation {generation} is"),
                WAIT_MAX.as_secs(),
                count(state.late.len(), "node"),
            ));
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What nodes do about a generation.
#[derive(Debug, Default, PartialEq, Eq)]
struct State<'a> {
    late: Vec<&'a str>,
    /// With the reason.
    refused: Vec<(&'a str, &'a str)>,
}

fn state(fleet: &ListNodesResponse, generation: u64) -> State<'_> {
    let mut state = State::default();
    for node in fleet.nodes.iter().filter(|node| node.connected && node.generation_acked < generation) {
        let id = node.node.as_ref().map_or("", |hello| hello.node_id.as_str());
        match has_refused(node, generation) {
            true => state.refused.push((id, node.refusal.as_str())),
            false => state.late.push(id),
        }
    }
    state
}

fn has_refused(node: &NodeStatus, generation: u64) -> bool {
    node.generation_refused >= generation
}

#[cfg(test)]
mod tests {
    use mt_proto::pb::node::Hello;

    use super::*;

    fn node(id: &str, connected: bool, acked: u64, refused: u64) -> NodeStatus {
        NodeStatus {
            node: Some(Hello { node_id: id.into(), ..Default::default() }),
            connected,
            generation_acked: acked,
            generation_refused: refused,
            refusal: "no".into(),
            ..Default::default()
        }
    }

    #[test]
    fn only_connected_nodes_that_neither_have_nor_refused_it_are_waited_for() {
        let nodes = vec![
            node("has", true, 7, 0),
            node("later", true, 9, 0),
            node("gone", false, 1, 0),
            node("behind", true, 6, 0),
            node("refuses", true, 6, 7),
            node("refused-before", true, 5, 6),
        ];
        let fleet = ListNodesResponse { nodes, ..Default::default() };
        let state = state(&fleet, 7);
        assert_eq!(state.late, ["behind", "refused-before"]);
        assert_eq!(state.refused, [("refuses", "no")]);
    }
}
