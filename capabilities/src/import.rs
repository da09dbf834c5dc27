//! Makes resources of other programs' configurations.
//!
//! Every entry gets a note that says what became of it. Nothing is dropped in
//! silence, and what this version cannot serve is kept out with the reason.
//! Nothing is run or resolved here: a reference to a variable becomes a Secret,
//! which a node reads.

mod entry;
mod external;
mod mcp_servers;
mod proxy;
mod reference;
mod vscode;

use std::{collections::BTreeMap, sync::Arc};

use mt_proto::{
    pb::resource::{self as pb, resource::Spec},
    resource::{Key, Problem, ResourceSet},
};

use crate::{
    Diagnostic, FILE_BYTES_MAX,
    document::trees,
    escaped,
    names::Names,
    node::{Entry, Node},
    source::Source,
};

/// Entries in one file.
const ENTRIES_MAX: usize = 1000;

/// What was made of a file.
#[derive(Clone, Debug)]
pub struct Import {
    /// Which configuration it was.
    pub format: &'static str,
    /// Secrets, then backends in the order of the file, then the gateway, if
    /// the file has a namespace.
    pub resources: Vec<pb::Resource>,
    pub notes: Vec<Note>,
}

/// What became of an entry, or of a part of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// The entry's name in the file; empty for the file as a whole.
    pub entry: String,
    pub outcome: Outcome,
    /// In words, without a period.
    pub text: String,
}

/// How much of an entry is in the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is there.
    Taken,
    /// Something about it is different, missing, or left to do.
    Changed,
    /// It is not there.
    KeptOut,
}

/// Reads the configuration of another program: `mcpServers` (Claude Desktop,
/// Claude Code, Cursor and others), VS Code's `servers`, `external_mcp`,
/// `external-mcp-servers.yaml`, and the YAML of proxy mode; as YAML, or as JSON
/// with comments.
///
/// # Errors
/// If the text is not YAML or JSON, or nothing that is known here.
pub fn import(file_name: &str, text: &str) -> Result<Import, Vec<Diagnostic>> {
    if text.len() > FILE_BYTES_MAX {
        return Err(crate::parse(file_name, text).diagnostics); // One, about its size.
    }
    let source = Source::new(file_name, text);
    let (documents, diagnostics) = trees(&source);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let Some(root) = documents.iter().find(|document| !document.is_null()) else {
        let hint =
            Some("it takes the configuration of an MCP client, such as `{\"mcpServers\": {...}}`".into());
        return Err(vec![source.diagnostic(&(0..0), "", "the file is empty", hint)]);
    };
    let mut importer = Importer::default();
    let format = read(&mut importer, root).map_err(|wrong| {
        vec![source.diagnostic(&wrong.span, "", wrong.message, Some(wrong.hint.to_owned()))]
    })?;
    if documents.iter().filter(|document| !document.is_null()).count() > 1 {
        importer.note(
            "",
            Outcome::Changed,
            "the file has several documents, and only the first is read".into(),
        );
    }
    Ok(importer.finish(format))
}

/// The file as a whole is not what it should be.
struct Wrong {
    span: crate::source::Span,
    message: String,
    hint: &'static str,
}

fn read(importer: &mut Importer, root: &Node) -> Result<&'static str, Wrong> {
    const FORMATS: &str = "known are `mcpServers`, VS Code's `servers`, `external_mcp`, `httpServices` and such, \
                           and `proxy` with `servers`";
    let wrong =
        |message: &str, hint| Err(Wrong { span: first_line(root), message: message.to_owned(), hint });
    if root.as_map().is_none() {
        return wrong("the file is not an object", FORMATS);
    }
    if root.get("kind").is_some() && root.get("apiVersion").is_some() {
        return wrong("the file has resources already", "`mtctl apply -f FILE` takes it");
    }
    if root.get("external_mcp").is_some() {
        return external::read_external_mcp(importer, root);
    }
    if root.get("proxy").is_some() && root.get("servers").is_some() {
        return proxy::read(importer, root);
    }
    if root.as_map().is_some_and(|entries| entries.iter().any(|e| e.key.ends_with("Services"))) {
        return external::read_services(importer, root);
    }
    if root.get("mcpServers").is_some() {
        return mcp_servers::read(importer, root);
    }
    if root.get("servers").is_some() || root.get("mcp").is_some_and(|mcp| mcp.get("servers").is_some()) {
        return vscode::read(importer, root);
    }
    wrong("this is no configuration that is known here", FORMATS)
}

fn first_line(node: &Node) -> crate::source::Span {
    match node.as_map().and_then(<[Entry]>::first) {
        Some(first) => first.key_span.clone(),
        None => node.span.clone(),
    }
}

/// The servers of an object, or of a list of objects that say their names.
fn servers<'a>(node: &'a Node, key: &str) -> Result<Vec<(&'a str, &'a Node)>, Wrong> {
    let found: Vec<(&str, &Node)> = match (node.as_map(), node.as_list()) {
        (Some(entries), _) => entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect(),
        (None, Some(items)) => {
            let name = |item: &'a Node| item.get("name").and_then(Node::as_text).unwrap_or("server");
            items.iter().map(|item| (name(item), item)).collect()
        }
        (None, None) => {
            let message = format!("`{key}` must be an object, but this is {}", node.what());
            return Err(Wrong { span: node.span.clone(), message, hint: "it has one entry for each server" });
        }
    };
    if found.len() > ENTRIES_MAX {
        let message = format!("`{key}` has {} entries, at most {ENTRIES_MAX} are read", found.len());
        return Err(Wrong { span: first_line(node), message, hint: "use several files" });
    }
    Ok(found)
}

/// Collects what becomes of a file.
#[derive(Default)]
struct Importer {
    names: Names,
    secret_names: Names,
    /// By the variable of the environment: the name, and the resource.
    secrets: BTreeMap<String, (String, pb::Resource)>,
    backends: Vec<pb::Resource>,
    gateway: Option<pb::Resource>,
    notes: Vec<Note>,
}

impl Importer {
    fn note(&mut self, entry: &str, outcome: Outcome, text: String) {
        self.notes.push(Note { entry: escaped(entry), outcome, text: escaped(&text) });
    }

    /// What became of an entry, before all that was noted about it since `from`;
    /// of an entry that is kept out nothing else matters.
    fn conclude(&mut self, from: usize, entry: &str, outcome: Outcome, text: String) {
        if outcome == Outcome::KeptOut {
            self.notes.truncate(from);
        }
        self.notes.insert(from, Note { entry: escaped(entry), outcome, text: escaped(&text) });
    }

    /// One note on settings that have no counterpart.
    fn left_out(&mut self, entry: &str, keys: &[&str], why: &str) {
        if keys.is_empty() {
            return;
        }
        let names: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        let (verb, names) = (if keys.len() == 1 { "is" } else { "are" }, names.join(", "));
        self.note(entry, Outcome::Changed, format!("{names} {verb} left out: {why}"));
    }

    /// The name of the Secret that reads a variable.
    fn secret(&mut self, near: &str, variable: &str) -> String {
        if let Some((name, _)) = self.secrets.get(variable) {
            return name.clone();
        }
        let name = self.secret_names.take(near);
        let secret = pb::Secret { source: Some(pb::secret::Source::Env(variable.to_owned())) };
        self.secrets.insert(variable.to_owned(), (name.clone(), managed(&name, Spec::Secret(secret))));
        name
    }

    /// Keeps a backend, unless it would not compile; then says why.
    fn keep(&mut self, backend: pb::Resource) -> Result<(), String> {
        let secrets = self.secrets.values().map(|(_, secret)| secret.clone());
        let (set, mut problems) = ResourceSet::gather(secrets.chain([backend.clone()]));
        problems.extend(set.compile().err().unwrap_or_default());
        if let Some(Problem { message, hint, .. }) = problems.into_iter().next() {
            let hint = hint.map_or_else(String::new, |hint| format!(" ({hint})"));
            return Err(format!("{message}{hint}"));
        }
        self.backends.push(backend);
        Ok(())
    }

    fn finish(self, format: &'static str) -> Import {
        let mut set = ResourceSet::default();
        for backend in &self.backends {
            if let Some(key) = Key::of(backend) {
                set.insert(key, Arc::new(backend.clone()));
            }
        }
        let used = set.secrets();
        let secrets = self.secrets.into_values().filter(|(name, _)| used.contains(name.as_str()));
        let mut resources: Vec<pb::Resource> = secrets.map(|(_, secret)| secret).collect();
        resources.sort_by(|a, b| Key::of(a).cmp(&Key::of(b)));
        resources.extend(self.backends);
        resources.extend(self.gateway);
        Import { format, resources, notes: self.notes }
    }
}

/// A resource that says that it was imported.
fn managed(name: &str, spec: Spec) -> pb::Resource {
    let labels = [("app.kubernetes.io/managed-by".to_owned(), "import".to_owned())].into();
    let metadata = pb::Metadata { name: name.to_owned(), labels, ..Default::default() };
    pb::Resource { metadata: Some(metadata), spec: Some(spec) }
}
