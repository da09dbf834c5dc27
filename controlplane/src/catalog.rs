//! What backends offer, as nodes report it: put together from parts, and
//! checked.
//!
//! Entries stay the bytes that came; they are looked at only far enough to know
//! that a node can serve them.

use std::collections::BTreeMap;

use mt_proto::{
    discovery::{self as shared, ENTRY_BYTES_MAX},
    pb::{
        discovery::{Catalog, ServerFacts},
        node::CatalogReport,
    },
    resource::ResourceName,
};
use prost::{Message, bytes::Bytes};
use serde::Deserialize;

/// Tools of one backend; the same for its prompts, resources and templates.
pub const ENTRIES_MAX: usize = 10_000;
/// The whole catalog of one backend.
pub const CATALOG_BYTES_MAX: usize = 10 << 20;
/// Parts of one report: many more than a catalog of that size has.
pub const PARTS_MAX: u32 = 64;
/// Reports that one node may have begun and not ended.
pub const OPEN_REPORTS_MAX: usize = 8;

const PREFIX: &str = "catalog/";

/// The key of a catalog in its log.
pub fn key_of(backend: &str) -> String {
    format!("{PREFIX}{backend}")
}

/// The backend whose catalog has this key.
pub fn backend_of(key: &str) -> Option<&str> {
    key.strip_prefix(PREFIX).filter(|backend| backend.parse::<ResourceName>().is_ok())
}

/// Why a report is not taken. It would not be if it came again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the report has no catalog")]
    Empty,
    #[error("part {found} came where part {expected} was due")]
    OutOfOrder { found: u32, expected: usize },
    #[error("more than {OPEN_REPORTS_MAX} reports are under way")]
    TooManyOpen,
    #[error("the catalog is larger than {CATALOG_BYTES_MAX} bytes or {PARTS_MAX} parts")]
    TooLarge,
    #[error(transparent)]
    Parts(#[from] shared::JoinError),
    #[error("there are {count} {what}, more than {ENTRIES_MAX}")]
    TooMany { what: &'static str, count: usize },
    #[error("entry {index} of the {what} is larger than {ENTRY_BYTES_MAX} bytes")]
    EntryTooLarge { what: &'static str, index: usize },
    #[error("entry {index} of the {what} is not an object with a {field}")]
    Entry { what: &'static str, index: usize, field: &'static str },
    #[error("{field} of the server is not a JSON object")]
    Facts { field: &'static str },
    #[error("there is no backend {0:?}")]
    NoBackend(String),
    #[error("another node lists backend {0}")]
    NotLister(String),
}

/// The reports of one node that are under way.
#[derive(Debug, Default)]
pub struct Assembly {
    /// By the name of the backend.
    open: BTreeMap<String, (Vec<Catalog>, usize)>,
}

impl Assembly {
    /// Takes a part, and gives the whole when it was the last one. Part 0 starts
    /// anew; what follows a refused part is passed over until then.
    ///
    /// # Errors
    /// If the report cannot be taken.
    pub fn add(&mut self, report: CatalogReport) -> Result<Option<Catalog>, Refusal> {
        let part = report.catalog.ok_or(Refusal::Empty)?;
        let begun = self.open.remove(&part.backend);
        let (mut parts, mut bytes) = match (report.part, begun) {
            (0, _) => (vec![], 0),
            (_, Some(begun)) => begun,
            (_, None) => return Ok(None),
        };
        if parts.len() != report.part as usize {
            return Err(Refusal::OutOfOrder { found: report.part, expected: parts.len() });
        }
        bytes += part.encoded_len();
        if bytes > CATALOG_BYTES_MAX || report.part >= PARTS_MAX {
            return Err(Refusal::TooLarge);
        }
        let complete = parts.len() + 1 >= part.parts as usize;
        let backend = part.backend.clone();
        parts.push(part);
        if complete {
            return Ok(Some(shared::join_catalog(parts)?));
        }
        if self.open.len() >= OPEN_REPORTS_MAX {
            return Err(Refusal::TooManyOpen);
        }
        self.open.insert(backend, (parts, bytes));
        Ok(None)
    }
}

/// Checks a whole catalog.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(catalog: &Catalog) -> Result<(), Refusal> {
    check_list("tools", &catalog.tools, "name", |bytes| named::<Name>(bytes))?;
    check_list("prompts", &catalog.prompts, "name", |bytes| named::<Name>(bytes))?;
    check_list("resources", &catalog.resources, "uri", |bytes| named::<Uri>(bytes))?;
    let templates = &catalog.resource_templates;
    check_list("resource templates", templates, "uriTemplate", |bytes| named::<UriTemplate>(bytes))?;
    let Some(ServerFacts { server_info, legacy_capabilities, modern_capabilities, .. }) = &catalog.server
    else {
        return Ok(());
    };
    let facts = [
        ("serverInfo", server_info),
        ("capabilities of the legacy era", legacy_capabilities),
        ("capabilities of the modern era", modern_capabilities),
    ];
    match facts.into_iter().find(|(_, bytes)| !bytes.is_empty() && !named::<Object>(bytes)) {
        Some((field, _)) => Err(Refusal::Facts { field }),
        None => Ok(()),
    }
}

fn check_list(
    what: &'static str,
    entries: &[Bytes],
    field: &'static str,
    ok: impl Fn(&[u8]) -> bool,
) -> Result<(), Refusal> {
    if entries.len() > ENTRIES_MAX {
        return Err(Refusal::TooMany { what, count: entries.len() });
    }
    for (index, entry) in entries.iter().enumerate() {
        if entry.len() > ENTRY_BYTES_MAX - 8 {
            return Err(Refusal::EntryTooLarge { what, index });
        }
        if !ok(entry) {
            return Err(Refusal::Entry { what, index, field });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Name {
    #[serde(rename = "name")]
    _name: String,
}

#[derive(Deserialize)]
struct Uri {
    #[serde(rename = "uri")]
    _uri: String,
}

#[derive(Deserialize)]
struct UriTemplate {
    #[serde(rename = "uriTemplate")]
    _uri_template: String,
}

#[derive(Deserialize)]
struct Object {}

/// Whether it is a JSON object with these fields. An array would do for serde.
fn named<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> bool {
    let object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    object && serde_json::from_slice::<T>(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(part: u32, parts: u32, tools: &[&str]) -> CatalogReport {
        let tools = tools.iter().map(|tool| Bytes::from((*tool).to_owned())).collect();
        let catalog = Catalog { backend: "time".into(), tools, parts, ..Default::default() };
        CatalogReport { sequence: 1, catalog: Some(catalog), part }
    }

    #[test]
    fn parts_in_order_make_a_whole() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.add(report(0, 2, &["{}"])), Ok(None));
        let whole = assembly.add(report(1, 2, &["1"])).unwrap().unwrap();
        assert_eq!(whole.tools, ["{}", "1"]);
        assert_eq!(whole.parts, 1);
    }

    #[test]
    fn a_part_out_of_order_refuses_the_report_once() {
        let mut assembly = Assembly::default();
        assembly.add(report(0, 4, &[])).unwrap();
        assert_eq!(assembly.add(report(2, 4, &[])), Err(Refusal::OutOfOrder { found: 2, expected: 1 }));
        assert_eq!(assembly.add(report(3, 4, &[])), Ok(None));
        assert!(assembly.add(report(0, 1, &["{}"])).unwrap().is_some());
    }

    #[test]
    fn a_report_that_grows_beyond_the_limit_is_dropped() {
        let mut assembly = Assembly::default();
        let big = "x".repeat(CATALOG_BYTES_MAX / 2);
        assembly.add(report(0, 3, &[&big])).unwrap();
        assert_eq!(assembly.add(report(1, 3, &[&big])), Err(Refusal::TooLarge));
        assert!(assembly.open.is_empty());
    }

    #[test]
    fn entries_must_be_objects_with_their_name() {
        fn check_tools(tools: &[&str]) -> Result<(), Refusal> {
            check(&report(0, 1, tools).catalog.unwrap())
        }
        assert_eq!(
            check_tools(&[r#"{"name":"now","extra":{"a":[1]}}"#, "\n {\"name\":\"n\\u00e9\"}"]),
            Ok(())
        );
        for bad in
            ["", "[\"now\"]", "{}", r#"{"name":1}"#, r#"{"name":"now"} x"#, r#"{"name":"now""#, "\u{1}"]
        {
            let refusal = check_tools(&[r#"{"name":"a"}"#, bad]);
            assert_eq!(refusal, Err(Refusal::Entry { what: "tools", index: 1, field: "name" }), "{bad}");
        }
    }

    #[test]
    fn facts_of_the_server_must_be_objects_or_absent() {
        let with = |info: &'static str| Catalog {
            server: Some(ServerFacts { server_info: Bytes::from(info), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(check(&with("")), Ok(()));
        assert_eq!(check(&with(r#"{"name":"x"}"#)), Ok(()));
        assert_eq!(check(&with("[]")), Err(Refusal::Facts { field: "serverInfo" }));
    }

    #[test]
    fn keys_of_catalogs_name_their_backend() {
        assert_eq!(backend_of(&key_of("time")), Some("time"));
        assert_eq!(backend_of("catalog/a/0"), None);
        assert_eq!(backend_of("backend/time"), None);
    }
}
