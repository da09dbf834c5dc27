//! What is wrong with a set of resources, and where.

use std::fmt;

use super::Kind;

/// One thing that is wrong with a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The resource; its name may not be a proper one.
    pub kind: Option<Kind>,
    pub name: String,
    /// The field, by its name in YAML: `spec.members[1].backend`.
    pub path: String,
    /// What is wrong, lower case, without a period.
    pub message: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Problem {
    /// The field with its resource, as the API's errors name it:
    /// `gateway/default:spec.members[1].backend`.
    pub fn field(&self) -> String {
        let kind = self.kind.map_or("resource", Kind::slug);
        format!("{kind}/{}:{}", self.name, self.path)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field(), self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The path of an entry of a map: `labels.team`, or `labels["a.b/c"]` where the
/// key is not a plain word, so that a path always reads back in one way.
pub fn key_path(map: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (plain, map.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{map}.{key}"),
        (false, _) => format!("{map}[{key:?}]"),
    }
}

/// Longer texts are nobody's typing mistake, and comparing them is slow.
const SUGGESTION_CHARS_MAX: usize = 80;

/// The candidate that `wrong` was most likely meant to be, if one is near.
///
/// Case, `-` and `_` do not count, so that `tool_name` finds `toolName`.
pub fn closest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> String {
        let text = text.chars().take(SUGGESTION_CHARS_MAX + 1);
        text.filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
    };
    let folded = fold(wrong);
    let length = folded.chars().count();
    if length == 0 || length > SUGGESTION_CHARS_MAX {
        return None;
    }
    let allowed = if length <= 2 { 1 } else { length.div_ceil(3).min(4) };
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(wrong.len()) <= allowed + 4)
        .map(|candidate| (strsim::osa_distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let fields = ["toolName", "namespace", "members", "pageSize"];
        assert_eq!(closest("tool_name", fields), Some("toolName"));
        assert_eq!(closest("memebrs", fields), Some("members"));
        assert_eq!(closest("pagesize", fields), Some("pageSize"));
        assert_eq!(closest("color", fields), None);
        assert_eq!(closest("", fields), None);
        assert_eq!(closest(&"m".repeat(10_000), fields), None);
    }

    #[test]
    fn keys_that_are_not_words_are_quoted_in_paths() {
        assert_eq!(key_path("metadata.labels", "team"), "metadata.labels.team");
        assert_eq!(key_path("metadata.labels", "a.b/c\""), r#"metadata.labels["a.b/c\""]"#);
        assert_eq!(key_path("", "spec"), "spec");
    }
}
