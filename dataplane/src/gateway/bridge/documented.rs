//! Holds `docs/mcp.md` to what the tables of the code say.

use std::collections::HashMap;

use crate::mcp::{
    Method,
    version::{ALL, ProtocolVersion as V},
};

const DOCUMENT: &str = include_str!("../../../../docs/mcp.md");
const VERSIONS: &str = include_str!("../../../mcp/src/version.rs");

/// What the code asks of a revision, by its name.
type Predicate = (&'static str, fn(V) -> bool);

/// The cells of the rows, by what stands in the first between backticks.
fn rows() -> HashMap<&'static str, Vec<&'static str>> {
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(cells)
        .filter_map(|cells| Some((cells[0].split('`').nth(1)?, cells)))
        .collect()
}

#[test]
fn every_method_has_a_row_with_the_revisions_that_have_it() {
    let rows = rows();
    for method in Method::KNOWN {
        let facts = method.facts().expect("known methods have facts");
        let row = rows.get(facts.wire).unwrap_or_else(|| panic!("docs/mcp.md has no row for {method}"));
        let revisions = if facts.first == facts.last {
            facts.first.to_string()
        } else {
            format!("{} – {}", facts.first, facts.last)
        };
        assert_eq!(row[1], revisions, "{method}");
        assert!(row.len() == 5 && row[2..].iter().all(|cell| !cell.is_empty()), "{method}: {row:?}");
    }
}

#[test]
fn every_difference_of_the_revisions_has_a_row() {
    let predicates: &[Predicate] = &[
        ("is_modern", V::is_modern),
        ("has_sessions", V::has_sessions),
        ("has_server_requests", V::has_server_requests),
        ("has_resumption", V::has_resumption),
        ("disconnect_cancels", V::disconnect_cancels),
        ("requires_request_meta", V::requires_request_meta),
        ("requires_method_headers", V::requires_method_headers),
        ("requires_result_type", V::requires_result_type),
        ("has_request_log_level", V::has_request_log_level),
        ("has_resource_not_found_code", V::has_resource_not_found_code),
        ("unknown_method_is_http_404", V::unknown_method_is_http_404),
        ("has_extensions", V::has_extensions),
        ("has_streamable_http", V::has_streamable_http),
        ("requires_version_header", V::requires_version_header),
        ("allows_batch", V::allows_batch),
        ("polls_sse", V::polls_sse),
        ("has_structured_content", V::has_structured_content),
        ("has_resource_links", V::has_resource_links),
        ("has_audio", V::has_audio),
        ("has_elicitation", V::has_elicitation),
        ("has_url_elicitation", V::has_url_elicitation),
        ("has_sampling_tools", V::has_sampling_tools),
        ("has_core_tasks", V::has_core_tasks),
        ("has_completions_capability", V::has_completions_capability),
    ];
    let declared: Vec<&str> = VERSIONS
        .lines()
        .filter(|line| line.ends_with("(self) -> bool {"))
        .filter_map(|line| line.trim().strip_prefix("pub fn ")?.split('(').next())
        .collect();
    assert_eq!(predicates.iter().map(|(name, _)| *name).collect::<Vec<_>>(), declared);
    let rows = rows();
    for (name, has) in predicates {
        let row = rows.get(name).unwrap_or_else(|| panic!("docs/mcp.md has no row for {name}"));
        let cells: Vec<&str> = ALL.iter().rev().map(|v| if has(*v) { "yes" } else { "–" }).collect();
        assert_eq!(row[2..], cells, "{name}");
    }
}
