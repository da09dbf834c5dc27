//! `mtctl completion`: a script for a shell.

use super::Context;
use crate::output::{Exit, Failure};

pub fn run(context: &Context, shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::args::command(), "mtctl", &mut script);
    context.output.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
