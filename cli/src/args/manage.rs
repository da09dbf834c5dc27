//! What may be typed of the commands that run a fleet from day to day: what is
//! shown, what is switched on, and how much there is.

use clap::{Args, ValueEnum};
use mt_proto::resource::Kind;

/// Which tools are listed. What is hidden can still be called by its name.
#[derive(Clone, Debug, Args)]
pub struct VisibilityArgs {
    /// Tools and prompts, by the names that clients see; * stands for any characters. With --tool-set: by the set's
    /// own names, and all of the set if there are none
    #[arg(value_name = "NAME", required_unless_present = "tool_set")]
    pub names: Vec<String>,
    /// In this gateway
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "tool_set")]
    pub gateway: String,
    /// In this tool set, and so in every gateway that has it
    #[arg(long, value_name = "NAME")]
    pub tool_set: Option<String>,
}

/// What is switched on or off.
#[derive(Clone, Debug, Args)]
pub struct SwitchArgs {
    /// Which kind
    #[arg(value_name = "KIND")]
    pub kind: Switchable,
    /// Which ones
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Only this tool of the tool set; may be repeated
    #[arg(long, value_name = "TOOL")]
    pub tool: Vec<String>,
}

/// What can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switchable {
    /// An MCP server
    #[value(alias = "backends", alias = "server")]
    Backend,
    /// A capability file
    #[value(alias = "tool-sets", alias = "toolset", alias = "ts")]
    ToolSet,
}

impl Switchable {
    pub fn kind(self) -> Kind {
        match self {
            Switchable::Backend => Kind::Backend,
            Switchable::ToolSet => Kind::ToolSet,
        }
    }
}

/// Which gateways are counted.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// The gateway; all of them if left out
    #[arg(value_name = "GATEWAY")]
    pub gateway: Option<String>,
}
