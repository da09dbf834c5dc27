//! Capability files as they are named on the command line: read, parsed, and
//! kept with their places, so that whoever finds a mistake later can say where
//! it stands.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use mt_capabilities::{Diagnostic, Document, FILE_BYTES_MAX};
use mt_proto::{
    pb::resource::Resource,
    resource::{Key, Kind, Problem},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::output::{Exit, Failure, count};

pub use mt_capabilities::{to_value, to_yaml};

/// Files that are read from one command line.
const FILES_MAX: usize = 10_000;
/// Folders within folders that are looked into.
const DEPTH_MAX: usize = 16;
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What files say.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub documents: Vec<Document>,
}

/// Reads files, directories of files (with those below them) and stdin.
///
/// # Errors
/// When something cannot be read, says nothing, or has mistakes: then with all
/// of them.
pub fn read(paths: &[PathBuf]) -> Result<Manifests, Failure> {
    let manifests = load(paths)?;
    let diagnostics = manifests.own_diagnostics();
    if !diagnostics.is_empty() {
        return Err(report(&diagnostics, "the files have mistakes"));
    }
    if manifests.resources().is_empty() {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(Exit::Usage, format!("no resources in {}", names.join(", "))));
    }
    Ok(manifests)
}

/// As [`read`], but mistakes are left in the documents.
///
/// # Errors
/// When something cannot be read.
pub fn load(paths: &[PathBuf]) -> Result<Manifests, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            documents
                .push(document("<stdin>", io::stdin().lock()).map_err(|error| unreadable(path, &error))?);
            continue;
        }
        let mut files = Vec::new();
        collect(path, 0, &mut files)?;
        for file in files {
            let read = fs::File::open(&file).and_then(|open| document(&file.display().to_string(), open));
            documents.push(read.map_err(|error| unreadable(&file, &error))?);
        }
    }
    Ok(Manifests { documents })
}

/// Whether a file in a directory is one of ours to read.
pub fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    // What is named on the command line is read whatever it is called.
    if !metadata.is_dir() {
        if depth == 0 || is_manifest(path) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries: Result<Vec<_>, io::Error> = fs::read_dir(path).and_then(Iterator::collect);
    let mut inner: Vec<PathBuf> =
        entries.map_err(|error| unreadable(path, &error))?.iter().map(fs::DirEntry::path).collect();
    inner.sort();
    for entry in inner {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && depth < DEPTH_MAX && (entry.is_dir() || is_manifest(&entry)) {
            collect(&entry, depth + 1, files)?;
        }
        if files.len() > FILES_MAX {
            return Err(Failure::new(
                Exit::Usage,
                format!("{} has more than {FILES_MAX} files", path.display()),
            ));
        }
    }
    Ok(())
}

fn document(name: &str, reader: impl io::Read) -> io::Result<Document> {
    let mut text = String::new();
    // One byte more than is allowed, so that the parser sees that it is too long.
    reader.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(mt_capabilities::parse(name, &text))
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
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

    /// What is wrong with the files themselves, without a word about what they
    /// refer to: that may be in the store.
    pub fn own_diagnostics(&self) -> Vec<Diagnostic> {
        let known: HashSet<(&str, usize, usize)> = self.documents.iter().flat_map(places).collect();
        let all = mt_capabilities::check(&self.documents);
        let twice = |diagnostic: &Diagnostic| diagnostic.message.starts_with("there are two resources");
        let own = |d: &Diagnostic| known.contains(&(d.file.as_str(), d.line, d.column)) || twice(d);
        all.into_iter().filter(own).collect()
    }

    /// Everything that is wrong with the files, taken as the whole configuration.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        mt_capabilities::check(&self.documents)
    }

    /// Shows what the control plane found wrong where it stands in the files.
    pub fn locate(&self, failure: Failure, status: &Status) -> Failure {
        let details = status.get_error_details();
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        if status.code() != Code::InvalidArgument || violations.is_empty() {
            return failure;
        }
        let problems: Vec<Problem> =
            violations.iter().map(|violation| problem(&violation.field, &violation.description)).collect();
        let diagnostics = mt_capabilities::place(&self.documents, &problems);
        report(&diagnostics, &failure.message)
    }
}

fn places(document: &Document) -> impl Iterator<Item = (&str, usize, usize)> {
    document.diagnostics.iter().map(|d| (d.file.as_str(), d.line, d.column))
}

/// From the form that the control plane sends: `backend/time:spec.http.url`.
fn problem(field: &str, description: &str) -> Problem {
    let (resource, path) = field.split_once(':').unwrap_or((field, ""));
    let key = Key::parse(resource);
    let (kind, name) = resource.split_once('/').unwrap_or(("", resource));
    Problem {
        kind: key.map(|key| key.kind).or_else(|| Kind::parse(kind)),
        name: name.to_owned(),
        path: path.to_owned(),
        message: description.to_owned(),
        hint: None,
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
    fn a_directory_is_read_with_what_is_below_it_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join("b.yaml"), BACKEND).unwrap();
        fs::write(dir.path().join("sub/a.yml"), BACKEND.replace("time", "fetch")).unwrap();
        for ignored in ["notes.md", ".b.yaml.swp", ".git/c.yaml", ".hidden.yaml"] {
            fs::write(dir.path().join(ignored), "nonsense: [").unwrap();
        }
        let manifests = read(&[dir.path().to_owned()]).unwrap();
        let names: Vec<String> =
            manifests.resources().into_iter().map(|r| r.metadata.unwrap().name).collect();
        assert_eq!(names, ["time", "fetch"]);
    }

    #[test]
    fn what_the_control_plane_finds_is_shown_in_the_file() {
        let manifests = Manifests { documents: vec![mt_capabilities::parse("a.yaml", BACKEND)] };
        let details =
            tonic_types::ErrorDetails::with_bad_request_violation("backend/time:spec.http.url", "is taken");
        let status = Status::with_error_details(Code::InvalidArgument, "1 problem", details);
        let failure = manifests.locate(Failure::new(Exit::Failed, "nothing was applied"), &status);
        let text = failure.render(crate::output::Format::Table);
        assert!(text.contains("is taken") && text.contains("a.yaml:7:"), "{text}");
    }

    #[test]
    fn a_file_that_is_not_there_is_not_found() {
        assert_eq!(read(&["/nonexistent/x.yaml".into()]).unwrap_err().exit, Exit::NotFound);
    }
}
