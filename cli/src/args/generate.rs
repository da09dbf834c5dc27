//! What may be typed of `mtctl generate`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use mt_capabilities::generate::Auth;

use super::duration;

pub const HELP: &str = "\
Shows the file and what is in it first; nothing is written without --write or --apply.

Examples:
  mtctl generate openapi https://petstore3.swagger.io/api/v3/openapi.json
  mtctl generate openapi openapi.yaml --include 'GET *' --write capabilities/shop.yaml
  mtctl generate graphql https://api.example.com/graphql --header 'Authorization: Bearer x' --auth bearer
  mtctl generate grpc http://127.0.0.1:50051 --apply
  mtctl generate mcp time --write capabilities/time-tools.yaml";

/// What the tools are made of.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Make a tool of each operation of an OpenAPI 3.0 or 3.1 document
    #[command(name = "openapi", after_help = OPENAPI)]
    OpenApi(DescribedArgs),
    /// Make a tool of each query and mutation of a GraphQL schema
    #[command(name = "graphql", after_help = GRAPHQL)]
    GraphQl(DescribedArgs),
    /// Make a tool of each method of gRPC services
    #[command(after_help = GRPC)]
    Grpc(DescribedArgs),
    /// Make a tool of each tool of a backend, to be renamed or given fixed arguments
    #[command(after_help = MCP)]
    Mcp(BackendArgs),
}

const OPENAPI: &str = "\
The document is JSON or YAML. Filters look at operation ids, tags, paths and `METHOD /path`.

Examples:
  mtctl generate openapi openapi.json -o name
  mtctl generate openapi openapi.yaml --include users --exclude 'DELETE *' --prefix crm_
  mtctl generate openapi https://api.example.com/openapi.json --write capabilities/ --force
  cat openapi.json | mtctl generate openapi - --base-url http://127.0.0.1:8080 --apply";

const GRAPHQL: &str = "\
The source is a file of GraphQL's schema language, a file of what introspection gives, or the address of
the service, which is asked. Filters look at the names of fields and at `query NAME` and `mutation NAME`.

Examples:
  mtctl generate graphql schema.graphql --base-url https://api.example.com/graphql
  mtctl generate graphql https://api.example.com/graphql --exclude 'mutation *' --write capabilities/api.yaml";

const GRPC: &str = "\
The source is the address of a server with reflection, or a file with descriptors, made with
`protoc --include_imports --include_source_info --descriptor_set_out=FILE`. Filters look at
`package.Service/Method` and its parts.

Examples:
  mtctl generate grpc http://127.0.0.1:50051
  mtctl generate grpc shop.binpb --base-url http://shop:50051 --include 'shop.v1.Orders/*' --write shop.yaml";

const MCP: &str = "\
The backend is one of `mtctl get backends`, which the nodes have listed.

Examples:
  mtctl generate mcp time --prefix clock_ --write capabilities/clock.yaml
  mtctl generate mcp github --include 'list_*' --apply";

/// From a description that is a file or behind an address.
#[derive(Clone, Debug, Args)]
pub struct DescribedArgs {
    /// A file, an address (http or https), or - for stdin
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Where the service is, if the source does not say it or says it wrong
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    /// What to show to the service, instead of what the source says: bearer, basic, header:NAME or query:NAME. The
    /// secret is a Secret in the file
    #[arg(long, value_name = "HOW", value_parser = auth)]
    pub auth: Option<Auth>,
    /// A header for fetching the source, as 'Name: value'; it is not in the file
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// How long fetching the source may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Operations that are deprecated too
    #[arg(long)]
    pub deprecated: bool,
    #[command(flatten)]
    pub choice: Choice,
    #[command(flatten)]
    pub target: Target,
}

/// From a backend.
#[derive(Clone, Debug, Args)]
pub struct BackendArgs {
    /// Its name
    #[arg(value_name = "BACKEND")]
    pub backend: String,
    #[command(flatten)]
    pub choice: Choice,
    #[command(flatten)]
    pub target: Target,
}

/// What is taken, and how it is named.
#[derive(Clone, Debug, Args)]
pub struct Choice {
    /// Only what this pattern names; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Not what this pattern names; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// What the name of every tool starts with
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = prefix)]
    pub prefix: String,
    /// The name of the tool set. Default: that of the file, else of the source
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Leave out the schemas of results
    #[arg(long)]
    pub no_output_schema: bool,
}

/// Where it goes.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// Write it: a file that ends in .yaml, or a directory
    #[arg(short, long, value_name = "FILE|DIR")]
    pub write: Option<PathBuf>,
    /// Replace files that are there and different
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Send it to the control plane
    #[arg(long)]
    pub apply: bool,
}

fn auth(text: &str) -> Result<Auth, String> {
    let named = |prefix: &str| text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned);
    match text {
        "bearer" => Ok(Auth::Bearer),
        "basic" => Ok(Auth::Basic),
        _ => named("header:")
            .map(Auth::Header)
            .or_else(|| named("query:").map(Auth::Query))
            .ok_or_else(|| "it is bearer, basic, header:NAME or query:NAME".to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    const CHARS_MAX: usize = 32;
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if legal && text.len() <= CHARS_MAX {
        return Ok(text.to_owned());
    }
    Err(format!("at most {CHARS_MAX} letters, digits, _ and -"))
}
