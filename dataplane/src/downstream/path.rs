//! Which path is which gateway's which service. Pure.

use mt_proto::resource::ResourceName;

/// The gateway whose paths have no name in them.
pub const DEFAULT_GATEWAY: &str = "default";

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    pub gateway: &'a str,
    pub service: Service,
}

/// The ways in which a gateway is served over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Streamable HTTP, both eras.
    Streamable,
    /// The stream of HTTP+SSE.
    Events,
    /// Where its client posts to.
    Messages,
    WebSocket,
}

/// Reads a path; none if nothing is there.
pub fn parse(path: &str) -> Option<Path<'_>> {
    let (gateway, rest) = match path.strip_prefix("/g/") {
        Some(named) => {
            let (name, rest) = named.split_once('/')?;
            name.parse::<ResourceName>().ok()?;
            (name, rest)
        }
        None => (DEFAULT_GATEWAY, path.strip_prefix('/')?),
    };
    let service = match rest {
        "mcp" | "mcp/" | "mcp/streamable" => Service::Streamable,
        "mcp/sse" => Service::Events,
        "mcp/messages" | "mcp/messages/" => Service::Messages,
        "mcp/ws" => Service::WebSocket,
        _ => return None,
    };
    Some(Path { gateway, service })
}

/// Where a gateway is served by streamable HTTP.
pub fn streamable(gateway: &str) -> String {
    match gateway {
        DEFAULT_GATEWAY => "/mcp".to_owned(),
        named => format!("/g/{named}/mcp"),
    }
}

/// Where the clients of its event streams post to.
pub fn messages(gateway: &str) -> String {
    format!("{}/messages", streamable(gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gateway_has_every_service() {
        let services = [
            ("mcp", Service::Streamable),
            ("mcp/", Service::Streamable),
            ("mcp/streamable", Service::Streamable),
            ("mcp/sse", Service::Events),
            ("mcp/messages", Service::Messages),
            ("mcp/ws", Service::WebSocket),
        ];
        for (rest, service) in services {
            assert_eq!(parse(&format!("/{rest}")), Some(Path { gateway: "default", service }));
            assert_eq!(parse(&format!("/g/team/{rest}")), Some(Path { gateway: "team", service }));
        }
        for path in ["", "/", "mcp", "/mcpx", "/mcp/x", "/g/team", "/g//mcp", "/g/Te am/mcp", "/g/a/b/mcp"] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn clients_of_an_event_stream_are_sent_to_where_their_messages_are_taken() {
        for gateway in ["default", "team"] {
            assert_eq!(parse(&messages(gateway)), Some(Path { gateway, service: Service::Messages }));
            assert_eq!(parse(&streamable(gateway)), Some(Path { gateway, service: Service::Streamable }));
        }
    }
}
