//! The way to a field, which becomes a text only when somebody is told.

use std::fmt;

use mt_proto::resource::key_path;

/// `spec.tools[2].name`, step by step.
#[derive(Clone, Copy)]
pub struct Path<'p> {
    before: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    /// A field at the top.
    pub const fn top(key: &'p str) -> Self {
        Self { before: None, step: Step::Key(key) }
    }

    pub fn key(&'p self, key: &'p str) -> Self {
        Self { before: Some(self), step: Step::Key(key) }
    }

    pub fn index(&'p self, index: usize) -> Self {
        Self { before: Some(self), step: Step::Index(index) }
    }

    /// As people call it: `tools[2]`.
    pub fn name(&self) -> String {
        match (self.step, self.before) {
            (Step::Key(key), _) => key.to_owned(),
            (Step::Index(index), Some(list)) => format!("{}[{index}]", list.name()),
            (Step::Index(index), None) => format!("[{index}]"),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.before.map(Path::to_string).unwrap_or_default();
        match self.step {
            Step::Key(key) => f.write_str(&key_path(&before, key)),
            Step::Index(index) => write!(f, "{before}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_is_written_in_problems() {
        let top = Path::top("spec");
        let (tools, headers) = (top.key("tools"), top.key("headers"));
        let second = tools.index(1);
        assert_eq!(second.key("name").to_string(), "spec.tools[1].name");
        assert_eq!(headers.key("x.y").to_string(), "spec.headers[\"x.y\"]");
        assert_eq!((second.name(), second.key("name").name()), ("tools[1]".to_owned(), "name".to_owned()));
    }
}
