//! Settings of the subprocess agent.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::{fields::Fields, text::Text};
use crate::template::{Scope, Template, Tree};

const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// Of a tool's stdout, if nothing else is said.
const OUTPUT_BYTES_DEFAULT: u64 = 1 << 20;
/// A result cannot be longer either.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// At once, if nothing else is said.
const PROCESSES_DEFAULT: u64 = 64;
const PROCESSES_MAX: u64 = 1_000;
const ARGS_MAX: usize = 1_000;
/// Codes of success in one list.
const CODES_MAX: usize = 256;
/// Below this no program starts.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const MEMORY_BYTES_MAX: u64 = 1 << 40;

/// A program that is run for each call.
#[derive(Clone, Debug, PartialEq)]
pub struct Subprocess {
    pub program: Program,
    /// Besides the few that every process has from the node.
    pub env: Vec<(String, Text)>,
    /// Holds no argument of a call.
    pub cwd: Option<Template>,
    pub stdin: Option<Stdin>,
    /// A limit of its own, besides the tool's.
    pub timeout: Option<Duration>,
    pub output: OutputForm,
    /// Of stdout.
    pub output_bytes_max: usize,
    /// Whether more than that is cut off, rather than a failure.
    pub truncate: bool,
    /// Whether lines of stdout are progress as they come.
    pub stream: bool,
    /// Never empty.
    pub success_codes: Vec<i32>,
    /// At once, of this tool; at least 1.
    pub processes_max: usize,
    /// What a process, and each that it starts, may map.
    pub memory_bytes_max: Option<u64>,
}

/// What is run.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// A program with its arguments, one template for each.
    Direct {
        /// Holds no argument of a call.
        command: Template,
        args: Vec<Template>,
    },
    /// A text for `/bin/sh -c`, with values as quoted words.
    Shell(Template),
}

/// What a process reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Stdin {
    Text(Template),
    Json(Tree),
}

/// What its stdout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputForm {
    Text,
    /// One value, also as the structured result.
    Json,
    /// `{lines: [...]}` as the structured result.
    Lines,
}

pub(in crate::resource) fn read(fields: &mut Fields<'_, '_>) -> Option<Subprocess> {
    let program = program(fields);
    let env = fields.text_map("env");
    for (name, _) in &env {
        if name.is_empty() || name.contains(['=', '\0']) {
            fields.problem("env", format!("{name:?} is not the name of a variable"), None);
        }
    }
    let cwd = fields.fixed_template("cwd");
    let stdin = stdin(fields);
    let timeout = timeout(fields);
    let output = match fields.choice("output", &["text", "json", "lines"], "text") {
        "json" => OutputForm::Json,
        "lines" => OutputForm::Lines,
        _ => OutputForm::Text,
    };
    let output_bytes_max = fields.count("outputBytesMax", 1..=OUTPUT_BYTES_MAX, OUTPUT_BYTES_DEFAULT);
    let truncate = fields.bool("truncate").unwrap_or(false);
    if truncate && output == OutputForm::Json {
        let hint = "leave `truncate` out, or write `output: text`";
        fields.problem("truncate", "half of a JSON value is none", Some(hint.to_owned()));
    }
    let stream = fields.bool("stream").unwrap_or(false);
    let success_codes = success_codes(fields);
    let processes_max = fields.count("processesMax", 1..=PROCESSES_MAX, PROCESSES_DEFAULT);
    let memory = fields.count("memoryBytesMax", MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX, 0);
    Some(Subprocess {
        program: program?,
        env,
        cwd,
        stdin,
        timeout,
        output,
        output_bytes_max: usize::try_from(output_bytes_max).unwrap_or(usize::MAX),
        truncate,
        stream,
        success_codes,
        processes_max: usize::try_from(processes_max).unwrap_or(usize::MAX),
        memory_bytes_max: Some(memory).filter(|bytes| *bytes > 0),
    })
}

fn program(fields: &mut Fields<'_, '_>) -> Option<Program> {
    let shell = fields.bool("shell").unwrap_or(false);
    if !fields.has("command") {
        fields.missing("command", "for example `command: date`");
    }
    let command = fields.template("command");
    let args = fields.templates("args");
    if args.len() > ARGS_MAX {
        fields.problem("args", format!("at most {ARGS_MAX} arguments"), None);
    }
    let command = command?;
    if shell {
        if !args.is_empty() {
            let hint = "write them into `command`, or leave `shell` out";
            fields.problem("args", "a shell's command has its arguments in its text", Some(hint.to_owned()));
        }
        let fits = fields.fits("command", &command, command.check_shell());
        return fits.then_some(Program::Shell(command));
    }
    if command.literal().is_some_and(|command| command.trim().is_empty() || command.contains('\0')) {
        fields.problem("command", "is not a program", Some("for example `command: date`".to_owned()));
        return None;
    }
    if let Some(text) = command.literal().filter(|text| args.is_empty() && looks_like_a_line(text)) {
        let mut words = text.split_whitespace();
        let (first, rest) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>().join(", "));
        let hint =
            format!("write `command: {first}` and `args: [{rest}]`, or `shell: true` if it is for a shell");
        fields.problem("command", "is one program, not a line for a shell", Some(hint));
    }
    is_the_authors(fields, "command", &command).then_some(Program::Direct { command, args })
}

/// A program in a path with spaces is written with a slash in it.
fn looks_like_a_line(text: &str) -> bool {
    let text = text.trim();
    text.split_once(char::is_whitespace).is_some_and(|(first, _)| !first.contains('/'))
}

/// Whether nothing in a template is a caller's. What a condition picks is
/// looked at again where it is filled in.
fn is_the_authors(fields: &mut Fields<'_, '_>, name: &'static str, template: &Template) -> bool {
    let set = |_: &str| Some(String::new());
    let no_arguments = Map::new();
    let rendered = template.render(Scope { arguments: &no_arguments, env: &set });
    let fixed = rendered.is_ok_and(|pieces| pieces.is_literal());
    if !fixed {
        let hint = "only `{{env.NAME}}` may stand here; values of a call belong in `args`, `env` or `stdin`";
        fields.problem(
            name,
            format!("`{name}` is filled in from the arguments of a call"),
            Some(hint.into()),
        );
    }
    fixed
}

fn stdin(fields: &mut Fields<'_, '_>) -> Option<Stdin> {
    fields.tree("stdin").map(|tree| match tree {
        Tree::Text(template) => Stdin::Text(template),
        other => Stdin::Json(other),
    })
}

fn timeout(fields: &mut Fields<'_, '_>) -> Option<Duration> {
    let time = fields.duration("timeout", TIMEOUT_MIN..=TIMEOUT_MAX, Duration::ZERO);
    (!time.is_zero()).then_some(time)
}

fn success_codes(fields: &mut Fields<'_, '_>) -> Vec<i32> {
    let listed = fields.list("successCodes");
    if listed.is_empty() {
        return vec![0];
    }
    let code = |value: &Value| value.as_u64().and_then(|code| u8::try_from(code).ok()).map(i32::from);
    let codes: Vec<i32> = listed.iter().filter_map(code).collect();
    if codes.len() < listed.len() || codes.len() > CODES_MAX {
        fields.problem("successCodes", "exit codes are numbers of 0 to 255", None);
        return vec![0];
    }
    codes
}
