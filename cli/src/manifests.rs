//! Capability files as they are named on the command line: read, parsed, and
//! kept with their places, so that whoever finds a mistake later can say where
//! it stands.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use mt_capabilities::{Diagnostic, Document, FILE_BYTES_MAX, LoadError};
use mt_proto::{
    pb::resource::Resource,
    resource::{Key, Kind, Problem, ResourceSet},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::output::{Exit, Failure, count};

pub use mt_capabilities::{to_value, to_yaml};

/// What files say.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub documents: Vec<Document>,
}

/// Reads files, directories of files (with those below them), patterns of files
/// and stdin, which is `-`. Mistakes are left in the documents.
///
/// # Errors
/// When something cannot be read, or there is nothing in it.
pub fn load(paths: &[PathBuf]) -> Result<Manifests, Failure> {
    let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
    let (input, files): (Vec<_>, Vec<_>) = paths.iter().cloned().partition(is_stdin);
    let mut documents = mt_capabilities::load_all(&files).map_err(|error| unreadable(&error))?;
    if !input.is_empty() {
        documents.push(mt_capabilities::parse("<stdin>", &stdin()?));
    }
    let manifests = Manifests { documents };
    if manifests.resources().is_empty() && !manifests.is_broken() {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(Exit::Usage, format!("no resources in {}", names.join(", "))));
    }
    Ok(manifests)
}

/// All of stdin, within the limit for a file.
///
/// # Errors
/// When it cannot be read or is not text.
pub fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    // One byte more than is allowed, so that the parser sees that it is too long.
    let read = io::stdin().lock().take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::new(Exit::Failed, "cannot read stdin").cause(error))?;
    Ok(text)
}

/// A text file, within the same limit.
///
/// # Errors
/// When it cannot be read or is not text.
pub fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| no_file(path, &error))
}

pub fn unreadable(error: &LoadError) -> Failure {
    match error {
        LoadError::Io { path, source } => no_file(path, source),
        other => Failure::new(Exit::Failed, other.to_string()),
    }
}

fn no_file(path: &Path, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, format!("cannot read {}", path.display())).cause(error)
}

/// A failure that shows diagnostics.
pub fn report(diagnostics: &[Diagnostic], message: &str) -> Failure {
    let values = diagnostics.iter().filter_map(|diagnostic| serde_json::to_value(diagnostic).ok()).collect();
    let message = format!("{message}: {}", count(diagnostics.len(), "mistake"));
    Failure::new(Exit::Failed, message).report(mt_capabilities::render(diagnostics), values)
}

impl Manifests {
    pub fn resources(&self) -> Vec<Resource> {
        self.documents
            .iter()
            .flat_map(|document| &document.resources)
            .map(|located| located.resource.clone())
            .collect()
    }

    /// Whether the files have mistakes of their own, whatever is in the store.
    pub fn is_broken(&self) -> bool {
        let mut seen = HashSet::new();
        let located = self.documents.iter().flat_map(|document| &document.resources);
        let mut keys = located.map(|located| Key::of(&located.resource));
        self.documents.iter().any(|document| !document.diagnostics.is_empty())
            || !keys.all(|key| key.is_some_and(|key| seen.insert(key)))
    }

    /// What reading the files has found, without a look at what they refer to.
    pub fn own_diagnostics(&self) -> Vec<Diagnostic> {
        self.documents.iter().flat_map(|document| document.diagnostics.clone()).collect()
    }

    /// Everything that is wrong with the files on top of what is there.
    pub fn diagnostics_onto(&self, base: &ResourceSet) -> Vec<Diagnostic> {
        mt_capabilities::check_onto(&self.documents, base)
    }

    /// Everything that is wrong with the files, as far as that can be told
    /// without the store.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        mt_capabilities::check_alone(&self.documents)
    }

    /// What the files refer to and do not have.
    pub fn absent(&self) -> BTreeSet<Key> {
        mt_capabilities::absent(&self.resources())
    }

    /// Shows what the control plane found wrong where it stands in the files.
    pub fn locate(&self, failure: Failure, status: &Status) -> Failure {
        locate(failure, status, |problems| mt_capabilities::place(&self.documents, problems))
    }
}

/// Shows what the control plane found wrong at the places that `place` knows.
pub fn locate(failure: Failure, status: &Status, place: impl Fn(&[Problem]) -> Vec<Diagnostic>) -> Failure {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    if status.code() != Code::InvalidArgument || violations.is_empty() {
        return failure;
    }
    let problems: Vec<Problem> =
        violations.iter().map(|violation| problem(&violation.field, &violation.description)).collect();
    report(&place(&problems), &failure.message)
}

/// From the form that the control plane sends: `backend/time:spec.http.url`.
fn problem(field: &str, description: &str) -> Problem {
    let (resource, path) = field.split_once(':').unwrap_or((field, ""));
    let key = Key::parse(resource);
    let (kind, name) = resource.split_once('/').unwrap_or(("", resource));
    // The hint follows the message in parentheses.
    let hinted = description.strip_suffix(')').and_then(|text| text.rsplit_once(" ("));
    let (message, hint) =
        hinted.map_or((description, None), |(message, hint)| (message, Some(hint.to_owned())));
    Problem {
        kind: key.map(|key| key.kind).or_else(|| Kind::parse(kind)),
        name: name.to_owned(),
        path: path.to_owned(),
        message: message.to_owned(),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: &str = "\
apiVersion: magictunnel/v1
kind: Backend
metadata:
  name: time
spec:
  http:
    url: http://127.0.0.1:9/mcp
";

    #[test]
    fn files_are_broken_by_mistakes_and_by_doubles() {
        let parse = |texts: &[&str]| Manifests {
            documents: texts.iter().map(|text| mt_capabilities::parse("a.yaml", text)).collect(),
        };
        assert!(!parse(&[BACKEND]).is_broken());
        assert!(parse(&[BACKEND, BACKEND]).is_broken());
        assert!(parse(&["kind: Nonsense"]).is_broken());
    }

    #[test]
    fn what_the_control_plane_finds_is_shown_in_the_file() {
        let manifests = Manifests { documents: vec![mt_capabilities::parse("a.yaml", BACKEND)] };
        let details = tonic_types::ErrorDetails::with_bad_request_violation(
            "backend/time:spec.http.url",
            "is taken (use another)",
        );
        let status = Status::with_error_details(Code::InvalidArgument, "1 problem", details);
        let failure = manifests.locate(Failure::new(Exit::Failed, "nothing was applied"), &status);
        let text = failure.render(crate::output::Format::Table);
        assert!(text.contains("error: is taken\n") && text.contains("a.yaml:7:"), "{text}");
        assert!(text.contains("help: use another"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_is_not_found() {
        assert_eq!(load(&["/nonexistent/x.yaml".into()]).unwrap_err().exit, Exit::NotFound);
    }
}
