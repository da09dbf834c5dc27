//! `mtctl`: runs MagicTunnel on one machine, and drives a fleet through its
//! control plane.
//!
//! This file starts and ends the process and decides nothing else. What one
//! process has once (signals, log, crypto provider) is set up by the commands
//! that need it, so that the others answer at once.

mod args;
mod bridge;
mod client;
mod command;
mod context;
mod demo;
mod endpoint;
mod manifests;
mod mcp_client;
mod output;
mod sync;
mod target;

use std::{io::Write as _, process::ExitCode};

use output::Output;

fn main() -> ExitCode {
    if let Some(exit) = command::guard_if_asked() {
        return exit;
    }
    let cli = args::parse();
    cli.global.color.install();
    let output = Output::new(cli.global.output, cli.global.no_input);
    match command::run(cli, output) {
        Ok(exit) => exit.into(),
        Err((format, failure)) => {
            let _ = writeln!(anstream::stderr().lock(), "{}", failure.render(format));
            failure.exit.into()
        }
    }
}
