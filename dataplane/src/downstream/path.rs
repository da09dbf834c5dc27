//! Which path is which gateway's which service. Pure.

use mt_proto::resource::ResourceName;

/// The gateway whose paths have no name in them.
pub const DEFAULT_GATEWAY: &str = "default";

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<'a> {
    pub gateway: &'a str,
    pub service: Service<'a>,
}

/// The ways in which a gateway is served over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service<'a> {
    /// Streamable HTTP, both eras.
    Streamable,
    /// The stream of HTTP+SSE.
    Events,
    /// Where its client posts to.
    Messages,
    WebSocket,
    /// For those who speak no MCP.
    Plain(Plain<'a>),
}

/// What is served as plain HTTP and JSON. Names are as they are in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain<'a> {
    Tools,
    Tool(&'a str),
    Execute(&'a str),
    Call,
    CallStream,
    Stream,
    SetLevel,
    OpenApi,
    OpenApiSmart,
}

impl<'a> Plain<'a> {
    fn parse(rest: &'a str) -> Option<Self> {
        Some(match rest {
            "mcp/tools" | "dashboard/api/tools" => Self::Tools,
            "mcp/call" | "v1/mcp/call" => Self::Call,
            "mcp/call/stream" => Self::CallStream,
            "mcp/stream" => Self::Stream,
            "mcp/logging/setLevel" => Self::SetLevel,
            "openapi.json" | "dashboard/api/openapi.json" => Self::OpenApi,
            "openapi-smart.json" | "dashboard/api/openapi-smart.json" => Self::OpenApiSmart,
            _ => {
                let rest = rest.strip_prefix("mcp/").or_else(|| rest.strip_prefix("dashboard/api/"))?;
                let (name, operation) = match rest.strip_prefix("tools/")?.split_once('/') {
                    Some((name, "execute")) => (name, Self::Execute as fn(&'a str) -> Self),
                    Some(_) => return None,
                    None => (rest.strip_prefix("tools/")?, Self::Tool as fn(&'a str) -> Self),
                };
                return (!name.is_empty()).then(|| operation(name));
            }
        })
    }

    /// The method that it takes; HEAD goes with GET.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools | Self::Tool(_) | Self::Stream | Self::OpenApi | Self::OpenApiSmart => "GET",
            Self::Execute(_) | Self::Call | Self::CallStream | Self::SetLevel => "POST",
        }
    }
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
        plain => Service::Plain(Plain::parse(plain)?),
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
    fn tools_have_paths_of_their_own_under_either_name() {
        fn plain(path: &str) -> Option<Plain<'_>> {
            match parse(path) {
                Some(Path { gateway: "default", service: Service::Plain(plain) }) => Some(plain),
                _ => None,
            }
        }
        for folder in ["/mcp", "/dashboard/api"] {
            assert_eq!(plain(&format!("{folder}/tools")), Some(Plain::Tools));
            assert_eq!(plain(&format!("{folder}/tools/a%2Fb")), Some(Plain::Tool("a%2Fb")));
            assert_eq!(plain(&format!("{folder}/tools/execute/execute")), Some(Plain::Execute("execute")));
            for path in ["/tools/", "/tools//execute", "/tools/a/b", "/tools/a/execute/", "/toolsx"] {
                assert_eq!(plain(&format!("{folder}{path}")), None, "{folder}{path}");
            }
        }
        for path in ["/mcp/call", "/v1/mcp/call"] {
            assert_eq!(plain(path), Some(Plain::Call));
        }
        let team = parse("/g/team/openapi-smart.json").unwrap();
        assert_eq!(team, Path { gateway: "team", service: Service::Plain(Plain::OpenApiSmart) });
    }

    #[test]
    fn clients_of_an_event_stream_are_sent_to_where_their_messages_are_taken() {
        for gateway in ["default", "team"] {
            assert_eq!(parse(&messages(gateway)), Some(Path { gateway, service: Service::Messages }));
            assert_eq!(parse(&streamable(gateway)), Some(Path { gateway, service: Service::Streamable }));
        }
    }
}
