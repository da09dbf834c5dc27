//! Which MCP endpoint `call`, `tools list` and `stdio` speak to.

use mt_proto::pb::control as pb;

use crate::{
    args::EndpointArgs,
    context::Context,
    endpoint::{self, Origin},
    output::{Exit, Failure},
    sync::Sync,
};

/// The URL of the endpoint that was asked for: as given, or of a gateway on
/// this machine's `mtctl up`, or on a node that the control plane knows.
///
/// # Errors
/// When there is no node to speak to.
pub async fn resolve(context: &Context, args: &EndpointArgs) -> Result<String, Failure> {
    if let Some(url) = &args.url {
        return Ok(url.clone());
    }
    let server = endpoint::server(&context.global);
    if server.origin == Origin::Recorded
        && let Some(record) = endpoint::running(&endpoint::data_dir(&context.global)?)
    {
        return Ok(gateway_url(&record.mcp, &args.gateway));
    }
    let direct = "--url http://HOST:3001/mcp, to speak to a node directly";
    let client = context.client().await;
    let mut client = client.map_err(|failure| match server.origin {
        Origin::Given => failure.try_this(direct),
        Origin::Recorded | Origin::Default => failure,
    })?;
    let fleet = client.nodes().await?;
    best_url(&fleet, &args.gateway).ok_or_else(|| {
        Failure::new(Exit::Unreachable, "no node is connected to the control plane")
            .cause(format!("{} knows {} nodes, none of them connected now", server.url, fleet.nodes.len()))
            .try_this("mtctl nodes")
            .try_this(direct)
    })
}

/// Where a node serves a gateway.
pub fn gateway_url(node_url: &str, gateway: &str) -> String {
    let node_url = node_url.trim_end_matches('/');
    if gateway == "default" { format!("{node_url}/mcp") } else { format!("{node_url}/g/{gateway}/mcp") }
}

/// The endpoint of a gateway on a node that is connected and up to date, else
/// on any that is connected.
fn best_url(fleet: &pb::ListNodesResponse, gateway: &str) -> Option<String> {
    let url = |node: &pb::NodeStatus| {
        node.node.as_ref().map(|hello| hello.mcp_url.clone()).filter(|url| node.connected && !url.is_empty())
    };
    let reachable =
        fleet.nodes.iter().filter_map(|node| Some((Sync::of(node, fleet.generation), url(node)?)));
    // Of equals the first, in the order of node ids.
    let (_, url) = reachable.min_by_key(|(sync, _)| *sync != Sync::Synced)?;
    Some(gateway_url(&url, gateway))
}

#[cfg(test)]
mod tests {
    use mt_proto::pb::node::Hello;

    use super::*;

    #[test]
    fn the_default_gateway_has_the_short_path() {
        assert_eq!(gateway_url("http://h:3001/", "default"), "http://h:3001/mcp");
        assert_eq!(gateway_url("http://h:3001", "team"), "http://h:3001/g/team/mcp");
    }

    #[test]
    fn a_node_that_is_up_to_date_is_asked_first() {
        let node = |id: &str, connected, acked| pb::NodeStatus {
            node: Some(Hello { node_id: id.into(), mcp_url: format!("http://{id}"), ..Default::default() }),
            connected,
            generation_acked: acked,
            ..Default::default()
        };
        let mut fleet = pb::ListNodesResponse {
            nodes: vec![node("a", true, 1), node("b", true, 2), node("c", false, 2)],
            generation: 2,
            catalog_revision: 0,
        };
        assert_eq!(best_url(&fleet, "default").as_deref(), Some("http://b/mcp"));
        fleet.nodes.retain(|node| !node.connected);
        assert_eq!(best_url(&fleet, "default"), None);
    }
}
