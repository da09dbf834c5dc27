//! The commands: one file each, from parsed arguments to what is printed.
//!
//! A command reads, asks and prints; what it prints is made by pure functions
//! beside it. Only `up` names the planes.

mod apply;
mod call;
mod changes;
mod completion;
mod delete;
mod demo_server;
mod describe;
mod diff;
mod down;
mod edit;
mod follow;
mod generate;
mod get;
mod history;
mod import;
mod keys;
mod nodes;
mod principal;
mod settle;
mod signals;
mod stats;
mod status;
mod stdio;
mod switch;
mod tools;
mod undo;
mod up;
mod validate;
mod visibility;

use std::{future::Future, time::Duration};

use tokio::runtime::Runtime;

pub use get::exact;
pub use up::guard_if_asked;

use crate::{
    args::{Cli, Command, ToolsCommand},
    context::Context,
    output::{Exit, Failure, Format, Output},
};

/// What a finished command leaves behind may take so long to end.
const RUNTIME_END: Duration = Duration::from_millis(200);

/// Runs one command.
///
/// # Errors
/// What went wrong, with the format in which it is to be said.
pub fn run(cli: Cli, output: Output) -> Result<Exit, (Format, Failure)> {
    let format = output.format;
    let context = Context { global: cli.global, output };
    dispatch(&context, cli.command).map_err(|failure| (format, failure))
}

fn dispatch(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => up::run(context, args),
        Command::Down(args) => wait(down::run(context, &args)),
        Command::Status => wait(status::run(context)),
        Command::Import(args) => wait(import::run(context, &args)),
        Command::Stdio(args) => wait(stdio::run(context, &args)),
        Command::Tools { command: ToolsCommand::List(args) } => wait(tools::run(context, &args)),
        Command::Tools { command: ToolsCommand::Show(args) } => wait(visibility::run(context, &args, false)),
        Command::Tools { command: ToolsCommand::Hide(args) } => wait(visibility::run(context, &args, true)),
        Command::Stats(args) => wait(stats::run(context, &args)),
        Command::Enable(args) => wait(switch::run(context, &args, true)),
        Command::Disable(args) => wait(switch::run(context, &args, false)),
        Command::Call(args) => wait(call::run(context, &args)),
        Command::Apply(args) => wait(apply::run(context, &args)),
        Command::Validate(args) => validate::run(context, &args),
        Command::Diff(args) => wait(diff::run(context, &args)),
        Command::Get(args) => wait(get::run(context, &args)),
        Command::Describe(args) => wait(describe::run(context, &args)),
        Command::Generate { command } => wait(generate::run(context, &command)),
        Command::Delete(args) => wait(delete::run(context, &args)),
        Command::Principal { command } => wait(principal::run(context, &command)),
        Command::History(args) => wait(history::run(context, &args)),
        Command::Undo(args) => wait(undo::run(context, &args)),
        Command::Nodes => wait(nodes::run(context)),
        Command::Keys { command } => wait(keys::run(context, &command)),
        Command::Completion { shell } => completion::run(context, shell),
        Command::ExitCodes => context.output.data(&crate::args::exit_codes()).map(|()| Exit::Ok),
        Command::DemoServer => demo_server::run(),
    }
}

/// Runs a future on a runtime of its own; the commands that need none never
/// pay for one.
fn wait(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)?;
    finish(runtime, command)
}

fn finish(runtime: Runtime, command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let result = runtime.block_on(command);
    // A thread that still waits for the terminal must not keep the process.
    runtime.shutdown_timeout(RUNTIME_END);
    result
}

/// Chooses the crypto of this process, for every TLS connection in it.
fn crypto() {
    // Only the first choice counts, and all are the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Starts the log of this process on stderr; `RUST_LOG` says how much.
fn log(default: &str) {
    use tracing_subscriber::EnvFilter;

    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    // Fails only if there is a log already.
    let _ = log.try_init();
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, "cannot start").cause(error)
}
