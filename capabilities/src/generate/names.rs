//! Names of tools and arguments, made of names of others, and patterns that
//! choose among them.

use std::collections::BTreeSet;

use globset::{Glob, GlobSet, GlobSetBuilder};

/// The limit of the large model providers' APIs.
const TOOL_CHARS_MAX: usize = 64;
/// What is left of a longer name, before `_` and 8 hexadecimal digits.
const TOOL_CHARS_KEPT: usize = TOOL_CHARS_MAX - 9;
const ARGUMENT_CHARS_MAX: usize = 64;
/// Words that mean something else in a template.
const RESERVED: [&str; 30] = [
    "and",
    "as",
    "each",
    "else",
    "env",
    "eq",
    "false",
    "ge",
    "gt",
    "gte",
    "if",
    "in",
    "json",
    "le",
    "len",
    "log",
    "lookup",
    "lt",
    "lte",
    "ne",
    "not",
    "null",
    "or",
    "raw",
    "self",
    "this",
    "true",
    "undefined",
    "unless",
    "with",
];

/// Gives out names of tools, each once: letters, digits, `_` and `-`, at most
/// 64 of them. The same description gets the same names each time.
#[derive(Debug, Default)]
pub struct ToolNames {
    prefix: String,
    taken: BTreeSet<String>,
}

impl ToolNames {
    pub fn new(prefix: &str) -> Self {
        let legal = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        Self { prefix: prefix.chars().filter(legal).collect(), taken: BTreeSet::new() }
    }

    /// A name like `wanted`. `identity` tells apart what wants the same name.
    pub fn take(&mut self, wanted: &str, identity: &str) -> String {
        let mut name = format!("{}{}", self.prefix, legal(wanted));
        if name.starts_with(|c: char| !c.is_ascii_alphabetic()) {
            name.insert(0, 't');
        }
        if name.len() > TOOL_CHARS_MAX {
            name = cut(&name, &name);
        }
        let mut attempt = 0_u32;
        while !self.taken.insert(name.clone()) {
            name = cut(&name, &format!("{name} {identity} {attempt}"));
            attempt += 1;
        }
        name
    }
}

/// The beginning of a name, and a mark made of what it stands for.
fn cut(name: &str, whole: &str) -> String {
    let kept = &name[..name.len().min(TOOL_CHARS_KEPT)];
    format!("{}_{}", kept.trim_end_matches('_'), &blake3::hash(whole.as_bytes()).to_hex()[..8])
}

/// What is legal of a name, with one `_` for all that is not.
fn legal(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || c == '-' => name.push(c),
            _ if name.ends_with('_') || name.is_empty() => {}
            _ => name.push('_'),
        }
    }
    let name = name.trim_matches(['_', '-']);
    if name.is_empty() { "tool".to_owned() } else { name.to_owned() }
}

/// Gives out the names of one tool's arguments, each once, so that each can
/// stand in a template.
#[derive(Debug, Default)]
pub struct ArgumentNames(BTreeSet<String>);

impl ArgumentNames {
    /// A name like `wanted`; if that is taken, with its `place` (`query`,
    /// `body`) before it.
    pub fn take(&mut self, wanted: &str, place: &str) -> String {
        let plain = identifier(wanted);
        let placed = identifier(&format!("{place}_{wanted}"));
        let numbered = (2..).map(|n| format!("{plain}_{n}"));
        let name = [plain.clone(), placed]
            .into_iter()
            .chain(numbered)
            .find(|name| !self.0.contains(name))
            .expect("numbers do not end");
        self.0.insert(name.clone());
        name
    }
}

fn identifier(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
        if name.len() >= ARGUMENT_CHARS_MAX {
            break;
        }
    }
    if !text.ends_with('_') {
        name.truncate(name.trim_end_matches('_').len());
    }
    if name.is_empty() {
        name.push_str("value");
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    if RESERVED.contains(&name.as_str()) {
        name.push('_');
    }
    name
}

/// Which operations to take: those that a pattern of the first list names, or
/// all if it is empty, without those that one of the second names.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

impl Filter {
    /// Patterns as shells have them: `*`, `?`, `[ab]`, `{a,b}`; a `*` also
    /// stands for slashes.
    ///
    /// # Errors
    /// The pattern that is none, with the reason.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        Ok(Self { include: globs(include)?, exclude: globs(exclude)? })
    }

    /// Whether something with these names is taken.
    pub(super) fn takes(&self, names: &[&str]) -> bool {
        let any = |globs: &GlobSet| names.iter().any(|name| globs.is_match(name));
        self.include.as_ref().is_none_or(any) && !self.exclude.as_ref().is_some_and(any)
    }
}

fn globs(patterns: &[String]) -> Result<Option<GlobSet>, String> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|error| error.to_string())?);
    }
    set.build().map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tools_keep_what_is_legal_of_their_names() {
        let mut names = ToolNames::new("gh_");
        assert_eq!(names.take("repos/list-for-user", "a"), "gh_repos_list-for-user");
        assert_eq!(names.take("/users/{id}.json", "a"), "gh_users_id_json");
        assert_eq!(names.take("日本", "a"), "gh_tool");
        assert_eq!(ToolNames::new("").take("2fa", ""), "t2fa");
    }

    #[test]
    fn a_name_that_is_taken_or_long_gets_a_mark_that_stays_the_same() {
        let mut names = ToolNames::new("");
        assert_eq!(names.take("list", "GET /a"), "list");
        assert_eq!(names.take("list", "GET /b"), "list_af5f1e23");
        let long = names.take(&"x".repeat(65), "");
        assert_eq!(long, format!("{}_{}", "x".repeat(55), &long[56..]));
    }

    #[test]
    fn arguments_say_where_they_belong_when_they_clash() {
        let mut names = ArgumentNames::default();
        assert_eq!(names.take("id", "path"), "id");
        assert_eq!(names.take("id", "body"), "body_id");
        assert_eq!(names.take("id", "body"), "id_2");
        assert_eq!(names.take("filter[name]", "query"), "filter_name");
        assert_eq!(names.take("if", "query"), "if_");
        assert_eq!(names.take("2", "query"), "_2");
        assert_eq!(names.take("", "query"), "value");
    }

    #[test]
    fn filters_take_what_is_named_and_not_excluded() {
        let list = |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        let filter = Filter::new(&list(&["repos/*", "GET /users/*"]), &list(&["*delete*"])).unwrap();
        assert!(filter.takes(&["repos/get"]));
        assert!(filter.takes(&["x", "GET /users/{id}/keys"]));
        assert!(!filter.takes(&["repos/delete"]));
        assert!(!filter.takes(&["gists/get"]));
        assert!(Filter::default().takes(&[]));
        assert!(Filter::new(&list(&["[a"]), &[]).is_err());
    }

    proptest! {
        #[test]
        fn names_are_legal_and_different(wanted in proptest::collection::vec(".{0,90}|[ab/_]{0,3}", 0..20), prefix in ".{0,80}") {
            let mut tools = ToolNames::new(&prefix);
            let mut arguments = ArgumentNames::default();
            let mut seen = BTreeSet::new();
            let mut seen_arguments = BTreeSet::new();
            for text in &wanted {
                let name = tools.take(text, "same");
                prop_assert!((1..=64).contains(&name.len()), "{}", name);
                prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')), "{}", name);
                prop_assert!(seen.insert(name));
                let argument = arguments.take(text, "query");
                prop_assert!(argument.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
                prop_assert!(!argument.starts_with(|c: char| c.is_ascii_digit()));
                prop_assert!(seen_arguments.insert(argument));
            }
        }
    }
}
