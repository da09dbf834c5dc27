//! From drafts of tools to capability files: plain `tools:` files with
//! comments, each checked by reading it back.

use std::fmt::Write as _;

use mt_proto::{
    pb::resource::{self as pb, resource::Spec},
    resource::ResourceSet,
};
use serde_json::{Map, Value, json};

use super::{Draft, Drafts, File, GenerateError, Generated, Made, Notes, Options, SecretDraft};
use crate::{API_VERSION, Diagnostic, check_onto, emit, parse};

/// What one file may have by an estimate that is never too small; a store takes
/// resources of up to 1 MiB.
const FILE_BYTES_MAX: usize = 900 << 10;
/// Tools of one file, for those who read it.
const FILE_TOOLS_MAX: usize = 2_000;
const COMMENT_CHARS_MAX: usize = 160;

pub fn assemble(mut drafts: Drafts, options: &Options) -> Result<Generated, GenerateError> {
    let tools = std::mem::take(&mut drafts.tools);
    let groups = split(tools);
    let several = groups.len() > 1;
    let mut generated = Generated { title: drafts.title.clone(), ..Generated::default() };
    let base = surroundings(&drafts, several);
    let count = groups.len();
    for (i, (suffix, tools)) in groups.into_iter().enumerate() {
        let stem = if several { format!("{}-{suffix}", options.name) } else { options.name.clone() };
        let part = Part { stem: &stem, number: several.then_some((i + 1, count)), drafts: &drafts, options };
        let (text, tools) = part.compiled(tools, &base, &mut generated.notes)?;
        generated.tools.extend(tools.iter().map(made));
        if !tools.is_empty() {
            generated.files.push(File { stem, text });
        }
    }
    if several && !drafts.secrets.is_empty() {
        let text: Vec<String> =
            drafts.secrets.iter().map(|secret| crate::to_yaml(&resource(secret))).collect();
        generated.files.push(File { stem: format!("{}-secrets", options.name), text: text.join("---\n") });
    }
    let broken = std::mem::take(&mut generated.notes);
    generated.notes = drafts.notes.into_notes();
    generated.notes.extend(broken);
    Ok(generated)
}

/// One file that is being made.
struct Part<'a> {
    stem: &'a str,
    /// Which of how many.
    number: Option<(usize, usize)>,
    drafts: &'a Drafts,
    options: &'a Options,
}

impl Part<'_> {
    /// The text, and the tools that are in it: those that do not compile are
    /// kept out, with a note.
    fn compiled(
        &self,
        mut tools: Vec<Draft>,
        base: &ResourceSet,
        notes: &mut Vec<crate::Note>,
    ) -> Result<(String, Vec<Draft>), GenerateError> {
        let text = self.text(&tools);
        let wrong = self.wrong(&text, base);
        if wrong.is_empty() {
            return Ok((text, tools));
        }
        let mut found = Notes::default();
        let mut bad: Vec<usize> = Vec::new();
        for diagnostic in &wrong {
            let Some(index) = tool_of(&diagnostic.path).filter(|index| *index < tools.len()) else {
                return Err(GenerateError::Broken(wrong));
            };
            if !bad.contains(&index) {
                bad.push(index);
                let hint = diagnostic.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
                let text = format!("what was made of it does not compile: {}{hint}", diagnostic.message);
                found.kept_out(&tools[index].call, text);
            }
        }
        notes.extend(found.into_notes());
        let mut index = 0;
        tools.retain(|_| {
            index += 1;
            !bad.contains(&(index - 1))
        });
        let text = self.text(&tools);
        let wrong = self.wrong(&text, base);
        if wrong.is_empty() { Ok((text, tools)) } else { Err(GenerateError::Broken(wrong)) }
    }

    fn wrong(&self, text: &str, base: &ResourceSet) -> Vec<Diagnostic> {
        check_onto(&[parse(&format!("{}.yaml", self.stem), text)], base)
    }

    fn text(&self, tools: &[Draft]) -> String {
        let mut text = self.header(tools.len());
        let indent = match self.number {
            None => 2,
            // Several files may be shown or stored as one, so each says its name.
            Some(_) => {
                let metadata =
                    json!({"apiVersion": API_VERSION, "kind": "ToolSet", "metadata": {"name": self.stem}});
                text.push_str(&emit::yaml(&metadata));
                text.push_str("spec:\n");
                4
            }
        };
        let pad = " ".repeat(indent);
        if tools.is_empty() {
            let _ = writeln!(text, "{}tools: []", &pad[2..]);
        } else {
            let _ = writeln!(text, "{}tools:", &pad[2..]);
        }
        for (i, tool) in tools.iter().enumerate() {
            let gap = if i > 0 { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{pad}# {}", comment(&tool.call));
            for line in emit::yaml(&Value::Array(vec![value(tool)])).lines() {
                let pad = if line.is_empty() { "" } else { &pad };
                let _ = writeln!(text, "{pad}{line}");
            }
        }
        if self.number.is_none() {
            for secret in &self.drafts.secrets {
                let _ = write!(text, "---\n{}", crate::to_yaml(&resource(secret)));
            }
        }
        text
    }

    fn header(&self, tools: usize) -> String {
        let mut text = format!("# {}\n", comment(&self.drafts.title));
        let part = self.number.map_or_else(String::new, |(i, of)| format!(", file {i} of {of}"));
        let noun = if tools == 1 { "tool" } else { "tools" };
        let source = comment(&self.options.source);
        let _ = writeln!(
            text,
            "# {tools} {noun}, made by `mtctl generate {}` from {source}{part}",
            self.drafts.kind
        );
        for secret in &self.drafts.secrets {
            let (name, variable) = (&secret.name, &secret.variable);
            let _ =
                writeln!(text, "# The secret `{name}` is read from the variable {variable} of each node.");
        }
        text
    }
}

/// What is in the store, and not in the file that is checked.
fn surroundings(drafts: &Drafts, with_secrets: bool) -> ResourceSet {
    let mut resources = Vec::new();
    if with_secrets {
        resources.extend(drafts.secrets.iter().map(resource));
    }
    if let Some(backend) = &drafts.backend {
        let stdio = pb::StdioTransport { command: "backend".into(), ..Default::default() };
        let spec =
            pb::Backend { transport: Some(pb::backend::Transport::Stdio(stdio)), ..Default::default() };
        let metadata = pb::Metadata { name: backend.clone(), ..Default::default() };
        resources.push(pb::Resource { metadata: Some(metadata), spec: Some(Spec::Backend(spec)) });
    }
    ResourceSet::gather(resources).0
}

fn resource(secret: &SecretDraft) -> pb::Resource {
    let metadata = pb::Metadata { name: secret.name.clone(), ..Default::default() };
    let source = Some(pb::secret::Source::Env(secret.variable.clone()));
    pb::Resource { metadata: Some(metadata), spec: Some(Spec::Secret(pb::Secret { source })) }
}

/// The index in `spec.tools[3].routing`.
fn tool_of(path: &str) -> Option<usize> {
    path.strip_prefix("spec.tools[")?.split_once(']')?.0.parse().ok()
}

/// One group if that fits a file, else one or several for each group that the
/// description has; each with the end of its file's name.
fn split(tools: Vec<Draft>) -> Vec<(String, Vec<Draft>)> {
    let fits = |tools: &[Draft]| {
        tools.len() <= FILE_TOOLS_MAX && tools.iter().map(wire_bytes).sum::<usize>() <= FILE_BYTES_MAX
    };
    if fits(&tools) {
        return vec![(String::new(), tools)];
    }
    let mut groups: Vec<(String, Vec<Draft>)> = Vec::new();
    for tool in tools {
        let name = crate::names::legal_name(&tool.group).unwrap_or_else(|| "tools".into());
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, tools)) => tools.push(tool),
            None => groups.push((name, vec![tool])),
        }
    }
    let mut files = Vec::new();
    for (name, tools) in groups {
        if fits(&tools) {
            files.push((name, tools));
            continue;
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        let mut number = 1;
        for tool in tools {
            let more = wire_bytes(&tool);
            if !part.is_empty() && (bytes + more > FILE_BYTES_MAX || part.len() == FILE_TOOLS_MAX) {
                files.push((format!("{name}-{number}"), std::mem::take(&mut part)));
                (number, bytes) = (number + 1, 0);
            }
            bytes += more;
            part.push(tool);
        }
        files.push((format!("{name}-{number}"), part));
    }
    files
}

/// No less than what a tool has when it is stored.
fn wire_bytes(tool: &Draft) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 12,
            Value::Array(items) => 12 + items.iter().map(of).sum::<usize>(),
            Value::Object(entries) => {
                12 + entries.iter().map(|(key, value)| key.len() + 16 + of(value)).sum::<usize>()
            }
            _ => 14,
        }
    }
    of(&value(tool))
}

/// As it is written in the file.
fn value(tool: &Draft) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), tool.name.clone().into());
    for (key, text) in [("title", &tool.title), ("description", &tool.description)] {
        if !text.is_empty() {
            object.insert(key.into(), text.clone().into());
        }
    }
    object.insert("inputSchema".into(), tool.input.clone());
    if let Some(output) = &tool.output {
        object.insert("outputSchema".into(), output.clone());
    }
    if !tool.annotations.is_empty() {
        object.insert("annotations".into(), Value::Object(tool.annotations.clone()));
    }
    object.insert("routing".into(), json!({"type": tool.agent, "config": tool.config}));
    Value::Object(object)
}

fn made(tool: &Draft) -> Made {
    let required = tool.input["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = tool.input["properties"].as_object().into_iter().flat_map(Map::keys);
    let argument = |name: &String| match required.iter().any(|r| r == name) {
        true => name.clone(),
        false => format!("[{name}]"),
    };
    Made {
        name: tool.name.clone(),
        call: comment(&tool.call),
        arguments: names.map(argument).collect(),
        described: !tool.description.is_empty(),
    }
}

/// One line that nothing can break out of.
fn comment(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    super::bounded(&crate::escaped(&line), COMMENT_CHARS_MAX)
}
