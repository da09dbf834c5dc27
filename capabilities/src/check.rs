//! What is wrong with files as a set, and where.

use std::{collections::HashMap, sync::Arc};

use mt_proto::resource::{Key, Kind, Problem, ResourceSet};

use crate::{Diagnostic, Document, Located};

/// Everything that is wrong with files that are the whole configuration: what
/// their reading found, and what compiling them finds.
pub fn check(documents: &[Document]) -> Vec<Diagnostic> {
    check_onto(documents, &ResourceSet::default())
}

/// As [`check`], for files whose resources come into a set that is already
/// there, in the place of those with the same kind and name.
pub fn check_onto(documents: &[Document], base: &ResourceSet) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<Diagnostic> = documents.iter().flat_map(|d| d.diagnostics.clone()).collect();
    let mut set = base.clone();
    let mut first: HashMap<Key, (&Document, &Located)> = HashMap::new();
    for (document, located) in all(documents) {
        let Some(key) = Key::of(&located.resource) else {
            let (_, problems) = ResourceSet::gather([located.resource.clone()]);
            diagnostics.extend(problems.iter().filter_map(|p| diagnose(document, located, p)));
            continue;
        };
        if let Some(earlier) = first.get(&key) {
            diagnostics.push(double(&key, *earlier, (document, located)));
            continue;
        }
        set.insert(key.clone(), Arc::new(located.resource.clone()));
        first.insert(key, (document, located));
    }
    if let Err(problems) = set.compile() {
        diagnostics.extend(place_among(&first, &problems));
    }
    sorted(documents, diagnostics)
}

/// Where resources are that an earlier file, or the same before, has already.
pub(crate) fn doubles(documents: &[Document]) -> Vec<Diagnostic> {
    let mut first: HashMap<Key, (&Document, &Located)> = HashMap::new();
    let mut found = Vec::new();
    for (document, located) in all(documents) {
        let Some(key) = Key::of(&located.resource) else { continue };
        match first.get(&key) {
            Some(earlier) => found.push(double(&key, *earlier, (document, located))),
            None => _ = first.insert(key, (document, located)),
        }
    }
    found
}

fn double(key: &Key, earlier: (&Document, &Located), later: (&Document, &Located)) -> Diagnostic {
    let at = |(document, located): (&Document, &Located)| {
        let line = document.source.position(document.places(located).find("metadata.name").start).0;
        format!("{}:{line}", document.source.name())
    };
    let plain = if [earlier, later].iter().any(|(_, located)| located.named_by_file) {
        "; a plain file is named after itself unless it says `metadata: {name: ...}`"
    } else {
        ""
    };
    let hint = format!("the other is at {}{plain}", at(earlier));
    let span = later.0.places(later.1).find("metadata.name");
    let message = format!("there are two resources {key}");
    later.0.source.diagnostic(&span, "metadata.name", message, Some(hint))
}

/// The places of problems that somebody else found, such as a control plane;
/// what is in none of the files has no place.
pub fn place(documents: &[Document], problems: &[Problem]) -> Vec<Diagnostic> {
    let mut first = HashMap::new();
    for (document, located) in all(documents) {
        if let Some(key) = Key::of(&located.resource) {
            first.entry(key).or_insert((document, located));
        }
    }
    sorted(documents, place_among(&first, problems))
}

fn all(documents: &[Document]) -> impl Iterator<Item = (&Document, &Located)> {
    documents.iter().flat_map(|document| document.resources.iter().map(move |located| (document, located)))
}

fn place_among(files: &HashMap<Key, (&Document, &Located)>, problems: &[Problem]) -> Vec<Diagnostic> {
    let placed = problems.iter().filter_map(|problem| {
        let key = problem.kind.and_then(|kind| Some(Key::new(kind, problem.name.parse().ok()?)));
        match key.and_then(|key| files.get(&key)) {
            Some((document, located)) => diagnose(document, located, problem),
            None => Some(without_place(problem)),
        }
    });
    placed.collect()
}

/// None if the problem follows from a mistake that is already known.
fn diagnose(document: &Document, located: &Located, problem: &Problem) -> Option<Diagnostic> {
    let (places, path) = (document.places(located), problem.path.as_str());
    if places.is_spoiled(path) {
        return None;
    }
    Some(document.source.diagnostic(&places.find(path), path, problem.message.clone(), problem.hint.clone()))
}

fn without_place(problem: &Problem) -> Diagnostic {
    let kind = problem.kind.map_or("resource", Kind::slug);
    let message = format!("{kind}/{} {}: {}", problem.name, problem.path, problem.message);
    Diagnostic::without_place("", &problem.path, message, problem.hint.clone())
}

/// In the order of the files and of the lines in them; what has no place last.
fn sorted(documents: &[Document], mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let order: HashMap<&str, usize> =
        documents.iter().enumerate().map(|(i, d)| (d.source.name(), i)).collect();
    diagnostics
        .sort_by_key(|d| (order.get(d.file.as_str()).copied().unwrap_or(usize::MAX), d.line, d.column));
    diagnostics
}
