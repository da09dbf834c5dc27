//! Puts the pages of one list together, and stops a backend that never ends.
//!
//! Pure: `worker.rs` asks for the pages. An entry is not understood here, it
//! stays the bytes that came.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use mt_proto::discovery::ENTRY_BYTES_MAX;

use crate::mcp::Method;

/// Entries of one list.
pub const ENTRIES_MAX: usize = 10_000;
/// Pages of one list.
pub const PAGES_MAX: usize = 1_000;
/// Bytes of the entries of one list.
pub const LIST_BYTES_MAX: usize = 10 << 20;
/// An entry must fit into a part of a catalog, with the head of its field.
const ENTRY_MAX: usize = ENTRY_BYTES_MAX - 16;

/// One of the four lists of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Tools,
    Prompts,
    Resources,
    ResourceTemplates,
}

impl List {
    pub const ALL: [List; 4] = [List::Tools, List::Prompts, List::Resources, List::ResourceTemplates];

    pub fn method(self) -> Method {
        match self {
            List::Tools => Method::ToolsList,
            List::Prompts => Method::PromptsList,
            List::Resources => Method::ResourcesList,
            List::ResourceTemplates => Method::ResourceTemplatesList,
        }
    }

    /// Whether an entry is an object that says what it is called.
    fn identifies(self, entry: &[u8]) -> bool {
        // An array would do for serde.
        let Some(identity) =
            entry.starts_with(b"{").then(|| serde_json::from_slice::<Identity>(entry).ok()).flatten()
        else {
            return false;
        };
        match self {
            List::Tools | List::Prompts => identity.name.is_some(),
            List::Resources => identity.uri.is_some(),
            List::ResourceTemplates => identity.uri_template.is_some(),
        }
    }
}

/// What entries are called by, one of them in each list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    name: Option<String>,
    uri: Option<String>,
    uri_template: Option<String>,
}

/// Why a list cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unlistable {
    #[error("the answer is not a list: {0}")]
    Malformed(String),
    #[error("the list has more than {ENTRIES_MAX} entries")]
    Entries,
    #[error("the list has more than {PAGES_MAX} pages")]
    Pages,
    #[error("the list has more than {LIST_BYTES_MAX} bytes")]
    Bytes,
    #[error("page {page} has a cursor that was already followed")]
    Loop { page: usize },
}

/// A list, as far as it has come.
#[derive(Debug)]
pub struct Pages {
    list: List,
    entries: Vec<Bytes>,
    bytes: usize,
    pages: usize,
    followed: HashSet<String>,
    /// Entries that are too large to be passed on, or cannot be told apart.
    pub left_out: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    prompts: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    resources: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    resource_templates: Option<Vec<&'a RawValue>>,
    next_cursor: Option<String>,
}

impl Pages {
    pub fn new(list: List) -> Self {
        Self { list, entries: vec![], bytes: 0, pages: 0, followed: HashSet::new(), left_out: 0 }
    }

    /// Takes the raw result of one page, and gives the cursor of the next. The
    /// empty string is a cursor like any other.
    ///
    /// # Errors
    /// If the list breaks a limit or goes in circles.
    pub fn take(&mut self, result: &Bytes) -> Result<Option<String>, Unlistable> {
        let page: Page<'_> =
            serde_json::from_slice(result).map_err(|error| Unlistable::Malformed(error.to_string()))?;
        let (name, entries) = match self.list {
            List::Tools => ("tools", page.tools),
            List::Prompts => ("prompts", page.prompts),
            List::Resources => ("resources", page.resources),
            List::ResourceTemplates => ("resourceTemplates", page.resource_templates),
        };
        self.pages += 1;
        for entry in entries.ok_or_else(|| Unlistable::Malformed(format!("there is no {name:?}")))? {
            let entry = entry.get().as_bytes();
            if entry.len() > ENTRY_MAX || !self.list.identifies(entry) {
                // One bad entry must not take the others away.
                self.left_out += 1;
                continue;
            }
            self.bytes += entry.len();
            self.entries.push(Bytes::copy_from_slice(entry));
        }
        let Some(cursor) = page.next_cursor else { return self.within_limits().map(|()| None) };
        if !self.followed.insert(cursor.clone()) {
            return Err(Unlistable::Loop { page: self.pages });
        }
        self.within_limits()?;
        if self.pages == PAGES_MAX { Err(Unlistable::Pages) } else { Ok(Some(cursor)) }
    }

    fn within_limits(&self) -> Result<(), Unlistable> {
        if self.entries.len() > ENTRIES_MAX {
            return Err(Unlistable::Entries);
        }
        if self.bytes > LIST_BYTES_MAX { Err(Unlistable::Bytes) } else { Ok(()) }
    }

    pub fn finish(self) -> Vec<Bytes> {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = r#"{"name":"t"}"#;

    fn tool_of(bytes: usize) -> String {
        format!("{{\"name\":\"{}\"}}", "x".repeat(bytes - TOOL.len() + 1))
    }

    fn page(tools: &[&str], cursor: Option<&str>) -> Bytes {
        let cursor = cursor.map(|cursor| format!(",\"nextCursor\":\"{cursor}\"")).unwrap_or_default();
        format!("{{\"tools\":[{}]{cursor}}}", tools.join(",")).into()
    }

    #[test]
    fn entries_stay_as_they_came_in_the_order_of_pages() {
        let mut pages = Pages::new(List::Tools);
        let first = page(&[r#"{ "name":"a", "x": 1e3 }"#], Some("next"));
        assert_eq!(pages.take(&first), Ok(Some("next".into())));
        assert_eq!(pages.take(&page(&[r#"{"name":"b\u0041"}"#, TOOL], None)), Ok(None));
        let entries = pages.finish();
        assert_eq!(entries, [&br#"{ "name":"a", "x": 1e3 }"#[..], br#"{"name":"b\u0041"}"#, TOOL.as_bytes()]);
    }

    #[test]
    fn the_empty_string_is_a_cursor_and_null_is_none() {
        let mut pages = Pages::new(List::Prompts);
        let first = Bytes::from_static(br#"{"prompts":[],"nextCursor":""}"#);
        assert_eq!(pages.take(&first), Ok(Some(String::new())));
        let second = Bytes::from_static(br#"{"prompts":[],"nextCursor":null,"ttlMs":0}"#);
        assert_eq!(pages.take(&second), Ok(None));
    }

    #[test]
    fn circles_are_noticed() {
        let mut pages = Pages::new(List::Tools);
        for cursor in ["a", "b"] {
            assert_eq!(pages.take(&page(&[TOOL], Some(cursor))), Ok(Some(cursor.into())));
        }
        assert_eq!(pages.take(&page(&[TOOL], Some("a"))), Err(Unlistable::Loop { page: 3 }));
    }

    #[test]
    fn a_list_that_does_not_end_is_given_up() {
        let mut pages = Pages::new(List::Tools);
        let ended = (0..).map(|n| pages.take(&page(&[], Some(&n.to_string())))).find_map(Result::err);
        assert_eq!((ended, pages.pages), (Some(Unlistable::Pages), PAGES_MAX));

        let mut pages = Pages::new(List::Tools);
        let many = page(&vec![TOOL; ENTRIES_MAX + 1], None);
        assert_eq!(pages.take(&many), Err(Unlistable::Entries));

        let mut pages = Pages::new(List::Tools);
        let large = tool_of(ENTRY_MAX);
        let ended = (0..).map(|n| pages.take(&page(&[&large], Some(&n.to_string())))).find_map(Result::err);
        assert_eq!(ended, Some(Unlistable::Bytes));
    }

    #[test]
    fn a_bad_entry_is_left_out_and_counted() {
        let mut pages = Pages::new(List::Tools);
        let monster = tool_of(ENTRY_MAX + 1);
        assert_eq!(pages.take(&page(&[TOOL, &monster, "{}", "7", r#"["t"]"#], None)), Ok(None));
        assert_eq!((pages.left_out, pages.finish().len()), (4, 1));
    }

    #[test]
    fn an_answer_without_the_list_is_not_an_empty_list() {
        let mut pages = Pages::new(List::Resources);
        assert!(matches!(pages.take(&page(&[], None)), Err(Unlistable::Malformed(_))));
        assert!(matches!(pages.take(&Bytes::from_static(b"[]")), Err(Unlistable::Malformed(_))));
    }
}
