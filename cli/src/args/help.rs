//! The words of `--help`: the grouped overview, and examples for each command.
//!
//! The overview is made from the commands themselves, so that none can be
//! missing from it.

use std::{ffi::OsString, fmt::Write as _};

use clap::{CommandFactory, FromArgMatches, builder::styling};

use super::Cli;
use crate::output::Exit;

/// The groups of the overview, in order. A test checks that each visible
/// command is in one.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Start", &["up", "down", "status", "import", "stdio"]),
    ("Tools", &["tools", "call", "stats", "enable", "disable"]),
    ("Configuration", &["apply", "generate", "validate", "diff", "get", "describe", "delete", "principal"]),
    ("History", &["history", "undo"]),
    ("Fleet", &["nodes", "keys"]),
    ("Help", &["help", "completion", "exit-codes"]),
];

const HEADING: styling::Style = styling::Style::new().bold();
const LITERAL: styling::Style = styling::AnsiColor::Cyan.on_default();

const STYLES: styling::Styles = styling::Styles::styled()
    .header(HEADING)
    .usage(HEADING)
    .literal(LITERAL)
    .placeholder(styling::Style::new())
    .error(styling::AnsiColor::Red.on_default().bold())
    .valid(styling::AnsiColor::Green.on_default())
    .invalid(styling::AnsiColor::Yellow.on_default());

/// The whole definition, with the grouped overview as its help.
pub fn command() -> clap::Command {
    let command = Cli::command().styles(STYLES);
    let overview = overview(&command);
    command
        .help_template("{about}\n\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}")
        .after_help(overview)
        .mut_subcommand("exit-codes", |c| c.help_template("{about}{after-help}"))
}

/// Reads the arguments of this process; prints help or the mistake and ends
/// the process where that is the answer.
pub fn parse() -> Cli {
    match try_parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    }
}

/// # Errors
/// What clap has to say, which may also be the help that was asked for.
pub fn try_parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn overview(command: &clap::Command) -> String {
    let mut text = String::new();
    for (group, names) in GROUPS {
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{HEADING}{group}{HEADING:#}");
        for name in names {
            let about = match command.find_subcommand(name).and_then(clap::Command::get_about) {
                Some(about) => about.to_string(),
                None => "Show the help of a command".to_owned(),
            };
            let _ = writeln!(text, "  {LITERAL}{name:<11}{LITERAL:#} {about}");
        }
    }
    text.trim_end().to_owned()
}

/// The text of `mtctl help exit-codes`.
pub fn exit_codes() -> String {
    let mut text = String::from("What the exit codes of mtctl mean:\n\n");
    for code in Exit::ALL {
        let _ = writeln!(text, "  {:>3}  {}", code as u8, code.meaning());
    }
    text.trim_end().to_owned()
}

pub const UP: &str = "\
Examples:
  mtctl up                                  # a small demo that works offline
  mtctl up ./capabilities                   # serve these files and follow their changes
  mtctl up --import ~/.cursor/mcp.json      # serve what a client has configured
  mtctl up --listen 127.0.0.1:8080          # on another port";

pub const DOWN: &str = "\
Examples:
  mtctl down
  mtctl down --wait 5s";

pub const STATUS: &str = "\
Examples:
  mtctl status
  mtctl status -o json
  mtctl status --server http://10.0.0.5:7001";

pub const IMPORT: &str = "\
Reads `mcpServers` (Claude Desktop, Claude Code, Cursor), `servers` (VS Code), external MCP server lists
and proxy-mode YAML. What exists under the same name is kept, unless --replace is given.

Examples:
  mtctl import ~/.config/Claude/claude_desktop_config.json --dry-run
  mtctl import .vscode/mcp.json --yes
  cat mcp.json | mtctl import - --gateway team --wait 0s";

pub const STDIO: &str = "\
Examples:
  mtctl stdio                               # the gateway `default` of this machine
  mtctl stdio --gateway team
  mtctl stdio --url http://10.0.0.7:3001/mcp

In a client's configuration:
  {\"mcpServers\": {\"magictunnel\": {\"command\": \"mtctl\", \"args\": [\"stdio\"]}}}";

pub const TOOLS: &str = "\
Examples:
  mtctl tools list
  mtctl tools list --gateway team -o name
  mtctl tools list --url http://127.0.0.1:3001/mcp -o json";

pub const VISIBILITY: &str = "\
Examples:
  mtctl tools hide 'admin_*'                # in the gateway `default`
  mtctl tools hide '*' --gateway team       # all of them; by name they still work
  mtctl tools show admin_status --gateway team
  mtctl tools hide --tool-set network       # a whole capability file
  mtctl tools hide ping --tool-set network";

pub const STATS: &str = "\
Examples:
  mtctl stats
  mtctl stats default -o json";

pub const SWITCH: &str = "\
Examples:
  mtctl disable backend time
  mtctl enable backend time fetch
  mtctl disable tool-set network --tool ping";

pub const CALL: &str = "\
Examples:
  mtctl call demo_echo message=hello
  mtctl call demo_add a=2 b=40 -o json
  mtctl call demo_roll_dice --json '{\"sides\": 20}'
  mtctl call search query=rust limit:=5 --url http://127.0.0.1:3001/mcp --era modern";

pub const APPLY: &str = "\
All of it is taken, or none.

Examples:
  mtctl apply -f backend.yaml
  mtctl apply -f ./capabilities --dry-run
  mtctl apply -f './caps/**/*.yaml' -f '!./caps/drafts/**'
  mtctl apply -f ./caps --watch             # and go on with every change
  mtctl apply -f ./team-a --prune-label team=a -m 'new search server'
  cat backend.yaml | mtctl apply -f - --if-generation 41";

pub const VALIDATE: &str = "\
Examples:
  mtctl validate -f backend.yaml
  mtctl validate -f ./capabilities -o json";

pub const DIFF: &str = "\
Exit code 0: the same. 1: different. Above 1: an error.

Examples:
  mtctl diff -f ./capabilities
  mtctl diff 41                             # since generation 41
  mtctl diff 41 43";

pub const GET: &str = "\
Examples:
  mtctl get all
  mtctl get backends -l team=a
  mtctl get backend time -o yaml
  mtctl get gateway default --generation 41 -o json";

pub const DESCRIBE: &str = "\
Examples:
  mtctl describe backend time
  mtctl describe gateway default";

pub const DELETE: &str = "\
All of it is deleted, or nothing.

Examples:
  mtctl delete backend time
  mtctl delete backend time fetch --dry-run
  mtctl delete -f ./capabilities -m 'moved to team b'";

pub const PRINCIPAL: &str = "\
A key is shown once, when it is made; the control plane keeps its hash. An id is how a hash begins.

Examples:
  mtctl principal create alice --group ops
  export MT_API_KEY=$(mtctl principal create ci)
  mtctl principal rotate alice              # both keys work until the old one is revoked
  mtctl principal revoke alice --key 3f2a9c1b4d5e
  mtctl get principals";

pub const HISTORY: &str = "\
Examples:
  mtctl history
  mtctl history -n 100 -o json";

pub const UNDO: &str = "\
The reverse of its changes becomes a new generation. It is refused where a later one touched the same.

Examples:
  mtctl undo
  mtctl undo 41 --dry-run";

pub const NODES: &str = "\
Examples:
  mtctl nodes
  mtctl nodes -o json";

pub const KEYS: &str = "\
Examples:
  mtctl keys rotate
  mtctl keys rotate --settle 1m";

pub const COMPLETION: &str = "\
Examples:
  mtctl completion bash > ~/.local/share/bash-completion/completions/mtctl
  mtctl completion zsh > ~/.zfunc/_mtctl";

pub const EXIT_CODES_EXAMPLES: &str = "\
Examples:
  mtctl diff -f ./capabilities > /dev/null || echo 'the files differ'
  mtctl validate -f ./capabilities; echo $?";

pub const DEMO_SERVER: &str = "\
Examples:
  mtctl demo-server
  echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}' | mtctl demo-server";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_is_in_one_group_of_the_overview() {
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for sub in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let times = listed.iter().filter(|name| **name == sub.get_name()).count();
            assert_eq!(times, 1, "{} is {times} times in the overview", sub.get_name());
        }
    }

    #[test]
    fn every_command_has_two_examples() {
        for sub in Cli::command().get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples =
                help.lines().filter(|line| line.starts_with("  ") && line.contains("mtctl")).count();
            assert!(examples >= 2, "{} has {examples} examples", sub.get_name());
        }
    }

    #[test]
    fn every_example_parses() {
        for sub in Cli::command().get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                let Some(start) = line.find("mtctl ") else { continue };
                let parsed = try_parse(words(&line[start..]));
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }

    /// Splits as a shell does, as far as the examples need it.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                '#' | '>' | '|' | ';' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                _ => words.last_mut().expect("never empty").push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}
