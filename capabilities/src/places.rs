//! Where the fields of a resource stand in its text.

use std::collections::{HashMap, HashSet};

use crate::source::Span;

/// The places of one resource's fields, by path.
#[derive(Clone, Debug, Default)]
pub struct Places {
    spans: HashMap<String, Span>,
    /// Fields that could not be read. What is said about their values is a
    /// consequence, not a second mistake.
    spoiled: HashSet<String>,
}

impl Places {
    pub fn insert(&mut self, path: &str, span: Span) {
        self.spans.insert(path.to_owned(), span);
    }

    pub fn spoil(&mut self, path: &str) {
        self.spoiled.insert(path.to_owned());
    }

    /// The place of a field, or of the nearest one around it that is there.
    pub fn find(&self, path: &str) -> Span {
        let mut path = path;
        loop {
            if let Some(span) = self.spans.get(path) {
                return span.clone();
            }
            match parent(path) {
                Some(around) => path = around,
                None => return Span::default(),
            }
        }
    }

    /// Whether the field, or one around it, could not be read.
    pub fn is_spoiled(&self, path: &str) -> bool {
        std::iter::successors(Some(path), |path| parent(path)).any(|path| self.spoiled.contains(path))
    }
}

/// The path without its last step; none, if it has no step.
fn parent(path: &str) -> Option<&str> {
    let end = if path.ends_with("\"]") {
        path.rfind("[\"")
    } else if path.ends_with(']') {
        path.rfind('[')
    } else {
        path.rfind('.')
    };
    match end {
        Some(end) => Some(&path[..end]),
        None => (!path.is_empty()).then_some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_there_has_the_place_of_what_is_around_it() {
        let mut places = Places::default();
        places.insert("", 0..1);
        places.insert("spec.members[0]", 5..6);
        assert_eq!(places.find("spec.members[0].rename[\"a.b]\"]"), 5..6);
        assert_eq!(places.find("spec.members[1].backend"), 0..1);
        assert_eq!(places.find("metadata.name"), 0..1);
    }

    #[test]
    fn what_is_in_a_spoiled_field_is_spoiled() {
        let mut places = Places::default();
        places.spoil("spec.http");
        assert!(places.is_spoiled("spec.http.url") && places.is_spoiled("spec.http"));
        assert!(!places.is_spoiled("spec") && !places.is_spoiled("spec.httpx"));
    }
}
