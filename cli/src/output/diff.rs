//! Differences between two states of resources, as people read them.

use std::fmt::Write as _;

use similar::{ChangeTag, TextDiff};

use super::{BAD, DIM, GOOD, escape::escape_block};

/// A unified diff of two texts, with styles; empty if they are the same.
pub fn unified(before_name: &str, before: &str, after_name: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let diff = TextDiff::from_lines(before, after);
    let mut text = format!("{DIM}--- {before_name}\n+++ {after_name}{DIM:#}\n");
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        let _ = writeln!(text, "{DIM}{}{DIM:#}", hunk.header());
        for change in hunk.iter_changes() {
            let value = change.value();
            let line = escape_block(value.strip_suffix('\n').unwrap_or(value));
            let _ = match change.tag() {
                ChangeTag::Equal => writeln!(text, " {line}"),
                ChangeTag::Delete => writeln!(text, "{BAD}-{line}{BAD:#}"),
                ChangeTag::Insert => writeln!(text, "{GOOD}+{line}{GOOD:#}"),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_diff() {
        assert_eq!(unified("a", "x\n", "b", "x\n"), "");
    }

    #[test]
    fn a_changed_line_is_shown_with_its_neighbors() {
        let text = unified("backend/t (generation 1)", "a\nb\nc\n", "backend/t (files)", "a\nB\nc\n");
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        --- backend/t (generation 1)
        +++ backend/t (files)
        @@ -1,3 +1,3 @@
         a
        -b
        +B
         c
        ");
    }
}
