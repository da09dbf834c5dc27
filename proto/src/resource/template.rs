//! How tools are named for clients.

use super::check::{is_tool_name_byte, quoted};
use crate::resource::problem::closest;

/// Names that clients see are at most so long: the limit of the large model
/// providers' APIs.
const TOOL_NAME_CHARS_MAX: usize = 64;
/// What is left of a longer name, before `_` and 8 hexadecimal digits.
const KEPT_CHARS: usize = TOOL_NAME_CHARS_MAX - 9;
/// Of a namespace.
const NAMESPACE_BYTES_MAX: usize = 63;
/// Of a template as written.
const TEMPLATE_BYTES_MAX: usize = 256;

/// How a name for clients is made: a text with `{tool}` in it once, and
/// `{backend}` and `{namespace}` already filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    pub before: String,
    pub after: String,
}

/// The text is not a [`NameTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    #[error("the template has no {{tool}}, so all tools would have one name")]
    NoTool,
    #[error("the template has {{tool}} more than once")]
    ToolTwice,
    #[error("{} is not something a template knows", quoted(.0))]
    Placeholder(String),
    #[error("the template has a brace without its partner")]
    Brace,
    #[error("{0:?} may not be in the name of a tool")]
    Character(char),
    #[error("the template names {{namespace}}, but the gateway has none")]
    NoNamespace,
    #[error("the template is longer than {TEMPLATE_BYTES_MAX} characters")]
    Long,
}

impl InvalidTemplate {
    /// What to try.
    pub fn hint(&self) -> String {
        match self {
            InvalidTemplate::NoTool => "for example `{backend}_{tool}`".into(),
            InvalidTemplate::NoNamespace => "set `namespace`, or leave `{namespace}` out".into(),
            InvalidTemplate::Placeholder(name) => match closest(name, ["namespace", "backend", "tool"]) {
                Some(near) => format!("did you mean `{{{near}}}`?"),
                None => "it knows `{namespace}`, `{backend}` and `{tool}`".into(),
            },
            InvalidTemplate::Character(_) => "a name is made of A-Z, a-z, 0-9, '_', '.' and '-'".into(),
            InvalidTemplate::ToolTwice | InvalidTemplate::Brace | InvalidTemplate::Long => {
                "a template reads like `{namespace}.{backend}.{tool}`".into()
            }
        }
    }
}

impl NameTemplate {
    /// What a gateway without a template has.
    pub const DEFAULT: &'static str = "{backend}_{tool}";
    /// What keeps names as they are.
    pub const PLAIN: &'static str = "{tool}";

    /// Reads a template and fills in everything but the tool.
    ///
    /// # Errors
    /// If it does not have `{tool}` exactly once, names something else or an
    /// empty namespace, or has characters that no tool name may have.
    pub fn parse(template: &str, namespace: &str, backend: &str) -> Result<Self, InvalidTemplate> {
        if template.len() > TEMPLATE_BYTES_MAX {
            return Err(InvalidTemplate::Long);
        }
        let (mut before, mut text) = (None, String::new());
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c == '}' {
                return Err(InvalidTemplate::Brace);
            }
            if c != '{' {
                match u8::try_from(c) {
                    Ok(byte) if is_tool_name_byte(byte) => text.push(c),
                    _ => return Err(InvalidTemplate::Character(c)),
                }
                continue;
            }
            let (name, tail) = rest.split_once('}').ok_or(InvalidTemplate::Brace)?;
            rest = tail;
            match name {
                "tool" if before.is_some() => return Err(InvalidTemplate::ToolTwice),
                "tool" => before = Some(std::mem::take(&mut text)),
                "backend" => text.push_str(backend),
                "namespace" if namespace.is_empty() => return Err(InvalidTemplate::NoNamespace),
                "namespace" => text.push_str(namespace),
                other => return Err(InvalidTemplate::Placeholder(other.to_owned())),
            }
        }
        match before {
            Some(before) => Ok(Self { before, after: text }),
            None => Err(InvalidTemplate::NoTool),
        }
    }

    /// The name that clients see for a tool.
    ///
    /// At most 64 characters: a longer one keeps its first 55, `_` and 8
    /// hexadecimal digits of the BLAKE3 hash of the whole. The bare `{tool}`
    /// never changes a name.
    pub fn apply(&self, tool: &str) -> String {
        if self.before.is_empty() && self.after.is_empty() {
            return tool.to_owned();
        }
        let mut name = String::with_capacity(self.before.len() + tool.len() + self.after.len());
        name.push_str(&self.before);
        name.push_str(tool);
        name.push_str(&self.after);
        if name.chars().nth(TOOL_NAME_CHARS_MAX).is_some() {
            let hash = blake3::hash(name.as_bytes()).to_hex();
            let kept = name.char_indices().nth(KEPT_CHARS).map_or(name.len(), |(end, _)| end);
            name.truncate(kept);
            name.push('_');
            name.push_str(&hash[..8]);
        }
        name
    }
}

/// Whether a text may be a namespace: 1 to 63 of what tool names are made of.
pub(super) fn is_namespace(text: &str) -> bool {
    matches!(text.len(), 1..=NAMESPACE_BYTES_MAX) && text.bytes().all(is_tool_name_byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(template: &str, expected: Result<&str, InvalidTemplate>) {
        let made = NameTemplate::parse(template, "proxy", "time").map(|t| t.apply("now"));
        assert_eq!(made, expected.map(str::to_owned), "{template}");
    }

    #[test]
    fn templates_are_filled_in() {
        check("{backend}_{tool}", Ok("time_now"));
        check("{namespace}.{backend}.{tool}", Ok("proxy.time.now"));
        check("{tool}", Ok("now"));
        check("{tool}-v2.{backend}", Ok("now-v2.time"));
    }

    #[test]
    fn a_wrong_template_says_what_is_wrong() {
        check("{backend}", Err(InvalidTemplate::NoTool));
        check("", Err(InvalidTemplate::NoTool));
        check("{tool}{tool}", Err(InvalidTemplate::ToolTwice));
        check("{server}_{tool}", Err(InvalidTemplate::Placeholder("server".into())));
        check("{tool", Err(InvalidTemplate::Brace));
        check("tool}", Err(InvalidTemplate::Brace));
        check("{backend}/{tool}", Err(InvalidTemplate::Character('/')));
        check("{tool}é", Err(InvalidTemplate::Character('é')));
        assert_eq!(NameTemplate::parse("{namespace}.{tool}", "", "b"), Err(InvalidTemplate::NoNamespace));
        assert_eq!(InvalidTemplate::Placeholder("backnd".into()).hint(), "did you mean `{backend}`?");
    }

    #[test]
    fn the_bare_template_never_changes_a_name() {
        let bare = NameTemplate::parse("{tool}", "", "b").unwrap();
        let long = "x".repeat(200);
        assert_eq!(bare.apply(&long), long);
    }

    #[test]
    fn a_long_name_is_cut_the_same_way_on_every_node() {
        let template = NameTemplate::parse("{backend}_{tool}", "", "time").unwrap();
        let fits = "t".repeat(59);
        assert_eq!(template.apply(&fits), format!("time_{fits}"));
        let long = template.apply(&"t".repeat(60));
        assert_eq!(long, format!("time_{}_{}", "t".repeat(50), &long[56..]));
        assert_eq!(long, "time_tttttttttttttttttttttttttttttttttttttttttttttttttt_349fa134");
    }

    proptest! {
        #[test]
        fn a_name_made_by_a_template_fits(tool in ".{1,150}", template in "(\\{backend\\}|[a-z_]){1,9}\\{tool\\}[a-z]{0,3}") {
            let name = NameTemplate::parse(&template, "", "time").unwrap().apply(&tool);
            prop_assert!(name.chars().count() <= 64);
        }

        #[test]
        fn no_text_makes_the_parser_panic(template in any::<String>(), braces in "[{}tolbackend]{0,40}") {
            let _ = NameTemplate::parse(&template, "n", "b");
            let _ = NameTemplate::parse(&braces, "", "b");
        }
    }
}
