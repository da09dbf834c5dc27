//! A backend that a node runs as child processes.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{Sharing, TIMEOUT_MIN, Value, check_sharing};
use crate::{
    pb::resource as pb,
    resource::check::{Checker, is_env_name, quoted},
};

const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const START_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const IDLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const LINE_BYTES_DEFAULT: u64 = 4 << 20;
const LINE_BYTES_MIN: u64 = 1 << 10;
const LINE_BYTES_MAX: u64 = 64 << 20;
const MEMORY_BYTES_MIN: u64 = 16 << 20;
const MEMORY_BYTES_MAX: u64 = 1 << 40;
const PROCESSES_DEFAULT: u64 = 64;
const PROCESSES_MAX: u64 = 4096;

/// A child process.
#[derive(Clone, Debug, PartialEq)]
pub struct StdioTransport {
    pub command: String,
    pub args: Vec<String>,
    pub env: Vec<(String, Value)>,
    pub cwd: Option<PathBuf>,
    pub sharing: Sharing,
    pub start_timeout: Duration,
    pub line_bytes_max: usize,
    /// What one process may map. None: no limit.
    pub memory_bytes_max: Option<u64>,
    /// On one node.
    pub processes_max: usize,
    /// None: the node's default, which depends on whose process it is.
    pub idle_max: Option<Duration>,
}

pub(super) fn check(checker: &mut Checker<'_>, stdio: &pb::StdioTransport) -> StdioTransport {
    check_command(checker, &stdio.command);
    for (i, arg) in stdio.args.iter().enumerate() {
        checker.no_nul(&format!("spec.stdio.args[{i}]"), arg);
    }
    let mut seen = BTreeSet::new();
    let mut env = Vec::with_capacity(stdio.env.len());
    for (i, var) in stdio.env.iter().enumerate() {
        let path = format!("spec.stdio.env[{i}]");
        let name = format!("{path}.name");
        if !is_env_name(&var.name) {
            let message = format!("{} is not the name of a variable", quoted(&var.name));
            checker.problem_with_hint(&name, message, "letters, digits and '_', not starting with a digit");
        } else if !seen.insert(&var.name) {
            checker.problem(&name, format!("variable {:?} is in the list twice", var.name));
        }
        let path = format!("{path}.value");
        if let Some(value) = checker.value(&path, var.value.as_ref()) {
            if let Value::Text(text) = &value {
                checker.no_nul(&path, text);
            }
            env.push((var.name.clone(), value));
        }
    }
    checker.no_nul("spec.stdio.cwd", &stdio.cwd);
    let sharing = check_sharing(checker, "spec.stdio.sharing", stdio.sharing);
    let start_timeout = checker.duration(
        "spec.stdio.startTimeout",
        stdio.start_timeout.as_ref(),
        TIMEOUT_MIN..=START_TIMEOUT_MAX,
        START_TIMEOUT_DEFAULT,
    );
    let line_bytes_max = checker.count(
        "spec.stdio.lineBytesMax",
        stdio.line_bytes_max,
        LINE_BYTES_MIN..=LINE_BYTES_MAX,
        LINE_BYTES_DEFAULT,
    );
    let memory_bytes_max = (stdio.memory_bytes_max != 0).then(|| {
        let range = MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX;
        let bytes =
            checker.count("spec.stdio.memoryBytesMax", stdio.memory_bytes_max, range, MEMORY_BYTES_MAX);
        u64::try_from(bytes).unwrap_or(MEMORY_BYTES_MAX)
    });
    let processes_max = checker.count(
        "spec.stdio.processesMax",
        stdio.processes_max.into(),
        1..=PROCESSES_MAX,
        PROCESSES_DEFAULT,
    );
    let idle_max = stdio.idle_max.as_ref().map(|idle| {
        let range = Duration::from_secs(1)..=IDLE_MAX;
        checker.duration("spec.stdio.idleMax", Some(idle), range, IDLE_MAX)
    });
    StdioTransport {
        command: stdio.command.clone(),
        args: stdio.args.clone(),
        env,
        cwd: (!stdio.cwd.is_empty()).then(|| stdio.cwd.as_str().into()),
        sharing,
        start_timeout,
        line_bytes_max,
        memory_bytes_max,
        processes_max,
        idle_max,
    }
}

fn check_command(checker: &mut Checker<'_>, command: &str) {
    const PATH: &str = "spec.stdio.command";
    checker.no_nul(PATH, command);
    let mut words = command.split_whitespace();
    let Some(first) = words.next() else {
        checker.problem_with_hint(PATH, "the command is missing", "a path, or the name of a program in PATH");
        return;
    };
    // A path may hold spaces; a name that is looked up in PATH never does in
    // practice, so this is a shell line in the wrong place.
    let is_path = first.contains(['/', '\\']);
    if !is_path && first.len() != command.len() {
        let args: Vec<_> = words.take(20).map(|word| format!("{word:?}")).collect();
        let hint = format!("write `command: {first}` and `args: [{}]`", args.join(", "));
        checker.problem_with_hint(
            PATH,
            "the command is a line of several words, and no shell reads it",
            hint,
        );
    }
}
