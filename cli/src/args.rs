//! What may be typed: every command, option and example of `mtctl`.
//!
//! Only the shape is here. Nothing is read, resolved or connected while
//! arguments are parsed, so that `--help` answers at once.

mod generate;
mod help;
mod manage;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mt_proto::resource::Kind;

pub use generate::{BackendArgs, Choice, DescribedArgs, GenerateCommand, Target};
#[cfg(test)]
pub use help::try_parse;
pub use help::{command, exit_codes, parse};
pub use manage::{StatsArgs, SwitchArgs, Switchable, VisibilityArgs};

use crate::output::{ColorWhen, Format};

/// One MCP endpoint for all your MCP servers, on one machine or on a fleet.
#[derive(Debug, Parser)]
#[command(name = "mtctl", version, max_term_width = 100, next_line_help = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The control plane. Default: that of the `mtctl up` on this machine, else http://127.0.0.1:7001
    #[arg(long, global = true, env = "MT_SERVER", hide_env = true, value_name = "URL")]
    pub server: Option<String>,
    /// How data is printed on stdout
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_possible_values = false
    )]
    pub output: Format,
    /// When to use color; NO_COLOR is followed too
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
    /// Never ask a question
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Where `mtctl up` keeps its store. Default: $XDG_DATA_HOME/magictunnel or ~/.local/share/magictunnel
    #[arg(long, global = true, env = "MT_DATA_DIR", hide_env = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a control plane and a node here, in one process
    #[command(after_help = help::UP, alias = "serve")]
    Up(UpArgs),
    /// Stop the `mtctl up` of this machine
    #[command(after_help = help::DOWN)]
    Down(DownArgs),
    /// Show the state of everything on one screen
    #[command(after_help = help::STATUS)]
    Status,
    /// Add the MCP servers of a client's configuration file
    #[command(after_help = help::IMPORT)]
    Import(ImportArgs),
    /// Speak MCP on stdin and stdout, for clients that start a command
    #[command(after_help = help::STDIO)]
    Stdio(EndpointArgs),

    /// List tools, and choose which are listed
    #[command(after_help = help::TOOLS, subcommand_required = true)]
    Tools {
        #[command(subcommand)]
        command: ToolsCommand,
    },
    /// Call a tool
    #[command(after_help = help::CALL)]
    Call(CallArgs),

    /// Count what the gateways have
    #[command(after_help = help::STATS)]
    Stats(StatsArgs),
    /// Switch backends, tool sets or their tools on
    #[command(after_help = help::SWITCH)]
    Enable(SwitchArgs),
    /// Switch them off: they are not shown, and cannot be called
    #[command(after_help = help::SWITCH)]
    Disable(SwitchArgs),

    /// Create or replace resources from files
    #[command(after_help = help::APPLY)]
    Apply(ApplyArgs),
    /// Check files without a control plane
    #[command(after_help = help::VALIDATE)]
    Validate(FilesArgs),
    /// Show what files would change, or what changed between two generations
    #[command(after_help = help::DIFF)]
    Diff(DiffArgs),
    /// List resources, or show one
    #[command(after_help = help::GET, alias = "ls")]
    Get(GetArgs),
    /// Show one resource and what is known about it
    #[command(after_help = help::DESCRIBE)]
    Describe(DescribeArgs),
    /// Make capability files for services that describe themselves
    #[command(after_help = generate::HELP, subcommand_required = true)]
    Generate {
        #[command(subcommand)]
        command: GenerateCommand,
    },
    /// Delete resources
    #[command(after_help = help::DELETE)]
    Delete(DeleteArgs),

    /// Make, change and take back the API keys of those who call
    #[command(after_help = help::PRINCIPAL, subcommand_required = true)]
    Principal {
        #[command(subcommand)]
        command: PrincipalCommand,
    },

    /// List what was changed, when and by whom
    #[command(after_help = help::HISTORY)]
    History(HistoryArgs),
    /// Take back the changes of a generation
    #[command(after_help = help::UNDO)]
    Undo(UndoArgs),

    /// Show the nodes and what each has in service
    #[command(after_help = help::NODES)]
    Nodes,

    /// Change the keys that seal session ids and other things clients carry
    #[command(after_help = help::KEYS, subcommand_required = true)]
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },

    /// Print a completion script for a shell
    #[command(after_help = help::COMPLETION)]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// What the exit codes mean
    #[command(name = "exit-codes", after_help = help::EXIT_CODES_EXAMPLES, long_about = help::exit_codes())]
    ExitCodes,

    /// A small MCP server that works offline, on stdin and stdout
    #[command(name = "demo-server", hide = true, after_help = help::DEMO_SERVER)]
    DemoServer,
}

#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// Capability files, or directories of them: they are followed while it runs
    #[arg(value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Where MCP clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3001", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the control plane serves gRPC
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7001", value_parser = address)]
    pub control: SocketAddr,
    /// Where the control plane serves health and metrics
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7002", value_parser = address)]
    pub http: SocketAddr,
    /// Where the node serves health, metrics and its state
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901", value_parser = address)]
    pub admin: SocketAddr,
    /// Directory beneath which the files of resources are; nothing outside of it is read
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub files_dir: PathBuf,
    /// Import this client configuration once it runs, as `mtctl import` does
    #[arg(long, value_name = "FILE")]
    pub import: Vec<PathBuf>,
    /// Allow addresses that other machines can reach, although there is no TLS
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DownArgs {
    /// How long to wait for it to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub wait: Duration,
}

#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The file; - is stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show what would be done and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Replace what exists under the same name; otherwise it is kept
    #[arg(long)]
    pub replace: bool,
    /// The gateway that shows the servers; it is made if there is none
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub gateway: String,
    /// How long to wait for the tools of the new servers; 0s does not wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub wait: Duration,
}

/// Which MCP endpoint is spoken to.
#[derive(Clone, Debug, Default, Args)]
pub struct EndpointArgs {
    /// The gateway
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub gateway: String,
    /// Any MCP endpoint, instead of a gateway of this fleet
    #[arg(long, value_name = "URL", conflicts_with = "gateway")]
    pub url: Option<String>,
    /// Who calls: an API key or a token. Better in MT_API_KEY, as others can see a command line
    #[arg(long, env = "MT_API_KEY", hide_env = true, value_name = "KEY", value_parser = secret)]
    pub api_key: Option<Secret>,
}

/// A text that is not printed by accident.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

#[derive(Debug, Subcommand)]
pub enum ToolsCommand {
    /// List the tools that a gateway shows
    #[command(after_help = help::TOOLS, alias = "ls")]
    List(ToolsListArgs),
    /// List tools that are hidden
    #[command(after_help = help::VISIBILITY)]
    Show(VisibilityArgs),
    /// List tools no more; they can still be called by name
    #[command(after_help = help::VISIBILITY)]
    Hide(VisibilityArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ToolsListArgs {
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Which protocol to speak: legacy has sessions, modern is 2026-07-28
    #[arg(long, value_name = "ERA", default_value = "auto")]
    pub era: Era,
}

#[derive(Clone, Debug, Args)]
pub struct CallArgs {
    /// The tool, by the name that `mtctl tools list` shows
    #[arg(value_name = "TOOL")]
    pub tool: String,
    /// Arguments: k=v (read by the tool's schema) or k:=JSON
    #[arg(value_name = "K=V")]
    pub arguments: Vec<String>,
    /// All arguments as one JSON object; - reads it from stdin
    #[arg(long, value_name = "OBJECT")]
    pub json: Option<String>,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
    /// Which protocol to speak: legacy has sessions, modern is 2026-07-28
    #[arg(long, value_name = "ERA", default_value = "auto")]
    pub era: Era,
    /// How long the call may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

/// Which protocol to speak to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Era {
    // Legacy, and modern if the answer is that only modern will do.
    Auto,
    // `initialize` and sessions, up to revision 2025-11-25.
    Legacy,
    // Stateless, from revision 2026-07-28.
    Modern,
}

#[derive(Clone, Debug, Args)]
pub struct FilesArgs {
    /// A file, a directory of files, a pattern as in 'caps/**/*.yaml', one after ! for files to leave
    /// out, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE|DIR|GLOB|-", required = true)]
    pub filename: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub files: FilesArgs,
    /// Show what would change and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Go on with every change of the files, until it is stopped
    #[arg(long, conflicts_with_all = ["dry_run", "if_generation"])]
    pub watch: bool,
    /// Refuse if the configuration is no longer at this generation
    #[arg(long, value_name = "N")]
    pub if_generation: Option<u64>,
    /// Delete what has this label and is not in the files; all of several labels must match
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub prune_label: Vec<(String, String)>,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
}

#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    /// Compare the configuration with files: a file, a directory, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", conflicts_with_all = ["from", "to"])]
    pub filename: Vec<PathBuf>,
    /// The older generation
    #[arg(value_name = "N", required_unless_present = "filename")]
    pub from: Option<u64>,
    /// The newer generation. Default: the newest
    #[arg(value_name = "M")]
    pub to: Option<u64>,
    /// With -f: count as gone what has this label and is not in the files
    #[arg(long, value_name = "K=V", value_parser = label, requires = "filename")]
    pub prune_label: Vec<(String, String)>,
}

#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// Which kind
    #[arg(value_name = "KIND")]
    pub kind: KindArg,
    /// Which one; all of the kind if left out
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only those with this label; all of several labels must match
    #[arg(short = 'l', long = "label", value_name = "K=V", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// As it was at this generation
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub generation: u64,
}

#[derive(Clone, Debug, Args)]
pub struct DescribeArgs {
    /// Which kind
    #[arg(value_name = "KIND")]
    pub kind: KindArg,
    /// Which one
    #[arg(value_name = "NAME")]
    pub name: String,
}

#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// Which kind
    #[arg(value_name = "KIND", required_unless_present = "filename")]
    pub kind: Option<KindArg>,
    /// Which ones
    #[arg(value_name = "NAME", required_unless_present = "filename")]
    pub names: Vec<String>,
    /// Delete what these files name instead
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", conflicts_with_all = ["kind", "names"])]
    pub filename: Vec<PathBuf>,
    /// Show what would be deleted and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse if the configuration is no longer at this generation
    #[arg(long, value_name = "N")]
    pub if_generation: Option<u64>,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new key; what was sealed before stays good
    #[command(after_help = help::KEYS)]
    Rotate(KeysRotateArgs),
}

#[derive(Clone, Debug, Args)]
pub struct KeysRotateArgs {
    /// How long nodes have to take the new key before it seals
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub settle: Duration,
}

#[derive(Debug, Subcommand)]
pub enum PrincipalCommand {
    /// Make somebody who may call, with a key that is shown once
    Create(PrincipalCreateArgs),
    /// Make another key; those before work until they are revoked
    Rotate(PrincipalRotateArgs),
    /// Take keys back
    Revoke(PrincipalRevokeArgs),
}

#[derive(Clone, Debug, Args)]
pub struct PrincipalCreateArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A group that it is in; may be repeated
    #[arg(short, long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct PrincipalRotateArgs {
    /// Whose
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Revoke the keys before at once
    #[arg(long)]
    pub now: bool,
}

#[derive(Clone, Debug, Args)]
pub struct PrincipalRevokeArgs {
    /// Whose
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only the key with this id: the beginning of its hash. Default: all keys
    #[arg(long, value_name = "ID")]
    pub key: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// How many, newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

#[derive(Clone, Debug, Args)]
pub struct UndoArgs {
    /// The generation whose changes are taken back. Default: the newest
    #[arg(value_name = "N")]
    pub generation: Option<u64>,
    /// Show what would change and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
}

/// A kind of resource as it is typed, in the singular or the plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    All,
    #[value(alias = "gateways", alias = "gw", alias = "Gateway")]
    Gateway,
    #[value(alias = "backends", alias = "be", alias = "Backend", alias = "server", alias = "servers")]
    Backend,
    #[value(alias = "tool-sets", alias = "toolset", alias = "toolsets", alias = "ts", alias = "ToolSet")]
    ToolSet,
    #[value(alias = "routes", alias = "rt", alias = "Route")]
    Route,
    #[value(alias = "policies", alias = "pol", alias = "Policy")]
    Policy,
    #[value(alias = "secrets", alias = "sec", alias = "Secret")]
    Secret,
    #[value(alias = "principals", alias = "pr", alias = "Principal")]
    Principal,
}

impl KindArg {
    /// None for all kinds.
    pub fn kind(self) -> Option<Kind> {
        Some(match self {
            KindArg::All => return None,
            KindArg::Gateway => Kind::Gateway,
            KindArg::Backend => Kind::Backend,
            KindArg::ToolSet => Kind::ToolSet,
            KindArg::Route => Kind::Route,
            KindArg::Policy => Kind::Policy,
            KindArg::Secret => Kind::Secret,
            KindArg::Principal => Kind::Principal,
        })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms, 30s or 5m"))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address and a port are wanted, as in 127.0.0.1:3001".to_owned())
}

fn secret(text: &str) -> Result<Secret, String> {
    // An empty variable is none.
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(Secret(text.to_owned()));
    }
    Err("a key has no spaces and only ASCII characters".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is written as key=value".to_owned()),
    }
}

#[cfg(test)]
mod tests;
