//! From settings and arguments to what is started: all texts are ready before
//! anything happens.

use std::path::PathBuf;

use mt_proto::{
    resource::{
        Subprocess,
        agent::subprocess::{Program, Stdin},
    },
    template::Template,
};

use crate::{Failure, Reason, Run};

const SHELL: &str = "/bin/sh";

/// A program that is about to be started.
pub struct Command {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: Option<PathBuf>,
    pub stdin: Option<Vec<u8>>,
}

impl Command {
    /// # Errors
    /// If an argument or a secret is missing, or a value may not stand where it
    /// would.
    pub fn of(config: &Subprocess, run: &Run<'_>) -> Result<Self, Failure> {
        let (program, args) = match &config.program {
            Program::Direct { command, args } => (authored(command, run)?, elements(args, run)?),
            Program::Shell(text) => {
                let text = text.render(run.scope())?.shell()?;
                (SHELL.to_owned(), vec!["-c".to_owned(), text])
            }
        };
        let mut env = Vec::with_capacity(config.env.len());
        for (name, text) in &config.env {
            let value = run.text(text)?;
            if value.contains('\0') {
                let message = format!("variable {name} cannot hold a NUL character");
                return Err(Failure::new(Reason::InvalidArguments, message));
            }
            env.push((name.clone(), value));
        }
        let cwd = config.cwd.as_ref().map(|cwd| authored(cwd, run)).transpose()?.map(PathBuf::from);
        if let Some(cwd) = cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            let failure = Failure::new(Reason::Misconfigured, "the tool's folder is not on the node");
            return Err(failure.detail(cwd.display()));
        }
        let stdin = match &config.stdin {
            None => None,
            Some(Stdin::Text(text)) => Some(text.render(run.scope())?.text().into_bytes()),
            Some(Stdin::Json(tree)) => Some(tree.render(run.scope())?.to_string().into_bytes()),
        };
        Ok(Self { program, args, env, cwd, stdin })
    }
}

/// What only the author and the node's environment say, whatever the call is.
fn authored(template: &Template, run: &Run<'_>) -> Result<String, Failure> {
    let pieces = template.render(run.scope())?;
    if !pieces.is_literal() {
        let message = "what the tool runs, and where, must not come from the arguments of a call";
        return Err(Failure::new(Reason::Misconfigured, message));
    }
    let text = pieces.text();
    if text.is_empty() || text.contains('\0') {
        return Err(Failure::new(Reason::Misconfigured, "the tool's program has no name"));
    }
    Ok(text)
}

/// One element for each template, or as many as it stands for. After a `--` of
/// the author's nothing is an option any more.
fn elements(templates: &[Template], run: &Run<'_>) -> Result<Vec<String>, Failure> {
    let mut args = Vec::with_capacity(templates.len());
    let mut operands = false;
    for template in templates {
        args.extend(template.render(run.scope())?.argv(operands)?);
        operands |= template.literal() == Some("--");
    }
    Ok(args)
}
