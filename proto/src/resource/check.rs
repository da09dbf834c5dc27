//! The checks that several kinds share, and where their findings go.
//!
//! A check never stops at the first problem: it writes it down and goes on with
//! a stand-in value, which nobody sees because a set with a problem does not
//! compile.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{Key, Kind, Problem, ResourceName, ResourceSet, Value, name::InvalidName, problem};
use crate::pb::resource as pb;

/// On one resource.
const LABELS_MAX: usize = 32;
/// Of a label's key, and of its value.
const LABEL_CHARS_MAX: usize = 63;
/// All keys and values together.
const ANNOTATION_BYTES_MAX: usize = 64 * 1024;
/// In one list of globs.
const GLOBS_MAX: usize = 256;
/// Of one glob.
const GLOB_BYTES_MAX: usize = 256;
/// Of one set: after so many, the others are not written down.
const PROBLEMS_MAX: usize = 10_000;
/// How many unknown names of one set get a suggestion: each costs a look at all names.
const SUGGESTIONS_MAX: usize = 100;

/// Checks resources one after the other.
pub(super) struct Checker<'a> {
    set: &'a ResourceSet,
    kind: Option<Kind>,
    name: String,
    problems: Vec<Problem>,
    /// Names that are not in the set: the problem, and what was looked for.
    unknown: Vec<(usize, Kind, String)>,
}

impl<'a> Checker<'a> {
    pub fn new(set: &'a ResourceSet) -> Self {
        Self { set, kind: None, name: String::new(), problems: Vec::new(), unknown: Vec::new() }
    }

    /// From here on, problems are of this resource.
    pub fn enter(&mut self, kind: Option<Kind>, name: &str) {
        self.kind = kind;
        name.clone_into(&mut self.name);
    }

    pub fn set(&self) -> &'a ResourceSet {
        self.set
    }

    /// Takes over what another checker of the same set has found.
    pub fn absorb(&mut self, other: Checker<'_>) {
        let before = self.problems.len();
        let unknown = other.unknown.into_iter().map(|(at, kind, name)| (before + at, kind, name));
        self.unknown.extend(unknown);
        self.problems.extend(other.problems);
        self.problems.truncate(PROBLEMS_MAX);
    }

    /// Everything that was found. Only here is something looked for that an
    /// unknown name may have been meant to be, so that it is the same however
    /// many checkers there were.
    pub fn into_problems(mut self) -> Vec<Problem> {
        for (at, kind, name) in self.unknown.into_iter().take(SUGGESTIONS_MAX) {
            let names = self.set.of_kind(kind).map(|(key, _)| key.name.as_str());
            let near = problem::closest(&name, names);
            if let (Some(near), Some(problem)) = (near, self.problems.get_mut(at)) {
                problem.hint = Some(format!("did you mean {near:?}?"));
            }
        }
        self.problems
    }

    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.report(path, message.into(), None);
    }

    pub fn problem_with_hint(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.report(path, message.into(), Some(hint.into()));
    }

    pub fn report(&mut self, path: &str, message: String, hint: Option<String>) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let (kind, name) = (self.kind, self.name.clone());
        self.problems.push(Problem { kind, name, path: path.to_owned(), message, hint });
    }

    pub fn metadata(&mut self, metadata: &pb::Metadata) {
        if let Err(error) = metadata.name.parse::<ResourceName>() {
            let hint = name_hint(&metadata.name);
            self.report("metadata.name", error.to_string(), hint);
        }
        self.labels("metadata.labels", &metadata.labels);
        let bytes: usize = metadata.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > ANNOTATION_BYTES_MAX {
            let message = format!("annotations are {bytes} bytes, at most {ANNOTATION_BYTES_MAX} are kept");
            self.problem("metadata.annotations", message);
        }
    }

    pub fn labels(&mut self, path: &str, labels: &BTreeMap<String, String>) {
        if labels.len() > LABELS_MAX {
            self.problem(
                path,
                format!("{} labels are too many, at most {LABELS_MAX} are kept", labels.len()),
            );
        }
        let legal = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        for (key, value) in labels {
            let at = problem::key_path(path, key);
            if key.is_empty() || key.chars().count() > LABEL_CHARS_MAX || !legal(key) {
                let message = format!(
                    "label key {} is not 1 to {LABEL_CHARS_MAX} of A-Z, a-z, 0-9 and '-_./'",
                    quoted(key)
                );
                self.problem(&at, message);
            }
            if value.chars().count() > LABEL_CHARS_MAX || !legal(value) {
                let message = format!(
                    "label value {} is not up to {LABEL_CHARS_MAX} of A-Z, a-z, 0-9 and '-_./'",
                    quoted(value)
                );
                self.problem(&at, message);
            }
        }
    }

    /// The labels that a selector demands; none, if there is no selector.
    pub fn selector(&mut self, path: &str, selector: Option<&pb::LabelSelector>) -> BTreeMap<String, String> {
        let Some(selector) = selector else { return BTreeMap::new() };
        self.labels(&format!("{path}.matchLabels"), &selector.match_labels);
        selector.match_labels.clone()
    }

    pub fn duration(
        &mut self,
        path: &str,
        wire: Option<&prost_types::Duration>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(wire) = wire else { return default };
        let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let value =
            u64::try_from(wire.seconds).ok().zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
        match value {
            Some(value) if range.contains(&value) => value,
            _ => {
                let (least, most) = (human(*range.start()), human(*range.end()));
                self.problem(path, format!("the duration must be {least} to {most}"));
                default
            }
        }
    }

    /// A count, where 0 stands for the default.
    pub fn count(&mut self, path: &str, value: u64, range: RangeInclusive<u64>, default: u64) -> usize {
        let value = match value {
            0 => default,
            value if range.contains(&value) => value,
            value => {
                self.problem(
                    path,
                    format!("{value} is out of range, it must be {} to {}", range.start(), range.end()),
                );
                default
            }
        };
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// A URL that secrets are sent to or keys come from: nobody on the way may
    /// read or change it.
    pub fn secure_url(&mut self, path: &str, text: &str) -> Option<url::Url> {
        const EXAMPLE: &str = "for example `https://auth.example.com/token`";
        let url = match url::Url::parse(text) {
            Ok(url) if url.has_host() => url,
            _ => {
                let message = format!("{} is not a url", quoted(text));
                self.problem_with_hint(path, message, EXAMPLE);
                return None;
            }
        };
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => Some(url),
            "http" if loopback => Some(url),
            "http" => {
                let message = "the url is not encrypted, which is only good enough on loopback";
                self.problem_with_hint(path, message, "write `https://`");
                None
            }
            other => {
                let message = format!("the url starts with {other:?}, it must be https");
                self.problem_with_hint(path, message, EXAMPLE);
                None
            }
        }
    }

    /// A text that goes to the operating system.
    pub fn no_nul(&mut self, path: &str, text: &str) {
        if text.contains('\0') {
            self.problem(path, "the text holds a NUL character, which no program can receive");
        }
    }

    pub fn globs(&mut self, path: &str, globs: &[String]) -> GlobSet {
        if globs.len() > GLOBS_MAX {
            self.problem(
                path,
                format!("{} patterns are too many, at most {GLOBS_MAX} are kept", globs.len()),
            );
            return GlobSet::empty();
        }
        let mut builder = GlobSetBuilder::new();
        for (i, glob) in globs.iter().enumerate() {
            let at = format!("{path}[{i}]");
            if glob.is_empty() || glob.len() > GLOB_BYTES_MAX {
                self.problem_with_hint(
                    &at,
                    format!("a pattern has 1 to {GLOB_BYTES_MAX} characters"),
                    "`*` matches everything",
                );
                continue;
            }
            match GlobBuilder::new(glob).build() {
                Ok(glob) => _ = builder.add(glob),
                Err(error) => {
                    let message = format!("{} is not a pattern: {}", quoted(glob), error.kind());
                    self.problem_with_hint(
                        &at,
                        message,
                        "`*` stands for any characters, `?` for one, `[ab]` for one of these",
                    );
                }
            }
        }
        builder.build().unwrap_or_else(|_| {
            self.problem(path, "the patterns together are too complex");
            GlobSet::empty()
        })
    }

    /// As [`Self::globs`], where an empty list means everything.
    pub fn globs_or_all(&mut self, path: &str, globs: &[String]) -> Option<GlobSet> {
        (!globs.is_empty()).then(|| self.globs(path, globs))
    }

    /// The name of a resource that must be in the set.
    pub fn reference(&mut self, path: &str, kind: Kind, name: &str) -> Option<ResourceName> {
        let parsed: ResourceName = match name.parse() {
            Ok(name) => name,
            Err(error) => {
                self.expect_unknown(kind, name);
                self.report(path, InvalidName::to_string(&error), name_hint(name));
                return None;
            }
        };
        if self.set.get(&Key::new(kind, parsed.clone())).is_some() {
            return Some(parsed);
        }
        self.expect_unknown(kind, name);
        let hint = format!("add a {} with this name, or remove the reference", kind.yaml());
        self.problem_with_hint(path, format!("there is no {kind} {name:?}"), hint);
        None
    }

    /// The next problem is that there is no such name.
    fn expect_unknown(&mut self, kind: Kind, name: &str) {
        if self.unknown.len() < SUGGESTIONS_MAX {
            self.unknown.push((self.problems.len(), kind, name.to_owned()));
        }
    }

    pub fn value(&mut self, path: &str, value: Option<&pb::Value>) -> Option<Value> {
        match value.and_then(|v| v.source.as_ref()) {
            Some(pb::value::Source::Text(text)) => Some(Value::Text(text.clone())),
            Some(pb::value::Source::Secret(name)) => {
                self.reference(&format!("{path}.secret"), Kind::Secret, name).map(Value::Secret)
            }
            None => {
                self.problem_with_hint(
                    path,
                    "the value is missing",
                    "write `value: text` or `value: {secret: name}`",
                );
                None
            }
        }
    }
}

/// Whether labels are all that a selector demands.
pub(super) fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Letters, digits and `_`, not starting with a digit.
pub fn is_env_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// 1 to 128 characters of `A-Za-z0-9_.-`.
pub(super) fn is_tool_name(name: &str) -> bool {
    matches!(name.len(), 1..=128) && name.bytes().all(is_tool_name_byte)
}

pub(super) fn is_tool_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

/// A text of others in a message: escaped, and not longer than a line.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A legal name made of an illegal one.
fn name_hint(name: &str) -> Option<String> {
    let legal: String = name
        .chars()
        .take(63)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let legal = legal.trim_matches('-');
    (!legal.is_empty() && legal != name).then(|| format!("{legal:?} would be a name"))
}

fn human(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds => format!("{seconds} s"),
    }
}
