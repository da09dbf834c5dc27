//! The methods of MCP, and what each revision says about them, as a table.
//!
//! A method that is not here is [`Method::Other`] and passes through.

use std::fmt;

use crate::key::Key;
use crate::text;
use crate::version::ProtocolVersion::{self, *};

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
    Both,
}

/// What the table says about a method.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub wire: &'static str,
    pub direction: Direction,
    /// The revisions that have it, as core or as the tasks extension.
    pub first: ProtocolVersion,
    pub last: ProtocolVersion,
}

macro_rules! methods {
    ($($variant:ident $wire:literal $direction:ident $first:ident $last:ident)*) => {
        /// What a message asks for or tells.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $wire, "`")] $variant,)*
            /// One we do not know.
            Other(Box<str>),
        }

        impl Method {
            /// Every known method.
            pub const KNOWN: &'static [Method] = &[$(Method::$variant),*];

            fn known(wire: &[u8]) -> Option<Self> {
                $(if wire == $wire.as_bytes() {
                    return Some(Self::$variant);
                })*
                None
            }

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $wire,)*
                    Self::Other(wire) => wire,
                }
            }

            /// What is known about it; `None` for others.
            pub fn facts(&self) -> Option<Facts> {
                match self {
                    $(Self::$variant => Some(Facts {
                        wire: $wire,
                        direction: Direction::$direction,
                        first: $first,
                        last: $last,
                    }),)*
                    Self::Other(_) => None,
                }
            }
        }
    };
}

methods! {
    Initialize "initialize" ToServer V2024_11_05 V2025_11_25
    Initialized "notifications/initialized" ToServer V2024_11_05 V2025_11_25
    Ping "ping" Both V2024_11_05 V2025_11_25
    Discover "server/discover" ToServer V2026_07_28 V2026_07_28
    ToolsList "tools/list" ToServer V2024_11_05 V2026_07_28
    ToolsCall "tools/call" ToServer V2024_11_05 V2026_07_28
    ResourcesList "resources/list" ToServer V2024_11_05 V2026_07_28
    ResourcesRead "resources/read" ToServer V2024_11_05 V2026_07_28
    ResourceTemplatesList "resources/templates/list" ToServer V2024_11_05 V2026_07_28
    ResourcesSubscribe "resources/subscribe" ToServer V2024_11_05 V2025_11_25
    ResourcesUnsubscribe "resources/unsubscribe" ToServer V2024_11_05 V2025_11_25
    PromptsList "prompts/list" ToServer V2024_11_05 V2026_07_28
    PromptsGet "prompts/get" ToServer V2024_11_05 V2026_07_28
    Complete "completion/complete" ToServer V2024_11_05 V2026_07_28
    SetLevel "logging/setLevel" ToServer V2024_11_05 V2025_11_25
    Listen "subscriptions/listen" ToServer V2026_07_28 V2026_07_28
    TasksGet "tasks/get" Both V2025_11_25 V2026_07_28
    TasksList "tasks/list" Both V2025_11_25 V2025_11_25
    TasksResult "tasks/result" Both V2025_11_25 V2025_11_25
    TasksCancel "tasks/cancel" Both V2025_11_25 V2026_07_28
    TasksUpdate "tasks/update" ToServer V2026_07_28 V2026_07_28
    CreateMessage "sampling/createMessage" ToClient V2024_11_05 V2025_11_25
    RootsList "roots/list" ToClient V2024_11_05 V2025_11_25
    Elicit "elicitation/create" ToClient V2025_06_18 V2025_11_25
    Cancelled "notifications/cancelled" Both V2024_11_05 V2026_07_28
    Progress "notifications/progress" Both V2024_11_05 V2026_07_28
    LogMessage "notifications/message" ToClient V2024_11_05 V2026_07_28
    ToolsListChanged "notifications/tools/list_changed" ToClient V2024_11_05 V2026_07_28
    PromptsListChanged "notifications/prompts/list_changed" ToClient V2024_11_05 V2026_07_28
    ResourcesListChanged "notifications/resources/list_changed" ToClient V2024_11_05 V2026_07_28
    ResourcesUpdated "notifications/resources/updated" ToClient V2024_11_05 V2026_07_28
    RootsListChanged "notifications/roots/list_changed" ToServer V2024_11_05 V2025_11_25
    ElicitationComplete "notifications/elicitation/complete" ToClient V2025_11_25 V2025_11_25
    TaskStatus "notifications/tasks/status" Both V2025_11_25 V2025_11_25
    TasksNotification "notifications/tasks" ToClient V2026_07_28 V2026_07_28
    SubscriptionsAcknowledged "notifications/subscriptions/acknowledged" ToClient V2026_07_28 V2026_07_28
}

impl Method {
    pub fn parse(wire: &str) -> Self {
        Self::known(wire.as_bytes()).unwrap_or_else(|| Self::Other(wire.into()))
    }

    /// Takes a raw JSON string, already scanned; `None` for anything else.
    pub(crate) fn from_json(raw: &[u8]) -> Option<Self> {
        let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        // What is known has no escapes, unless somebody likes to write them.
        match Self::known(inner) {
            Some(method) => Some(method),
            None => Some(Self::parse(&text::decode(raw)?)),
        }
    }

    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Whether the revision has it. Others may be extensions, so the answer
    /// for them is yes.
    pub fn exists_in(&self, version: ProtocolVersion) -> bool {
        self.facts().is_none_or(|facts| (facts.first..=facts.last).contains(&version))
    }

    /// Whether clients send it.
    pub fn is_for_server(&self) -> bool {
        self.facts().is_none_or(|facts| facts.direction != Direction::ToClient)
    }

    /// Whether servers send it.
    pub fn is_for_client(&self) -> bool {
        self.facts().is_none_or(|facts| facts.direction != Direction::ToServer)
    }

    /// By its name, whether it is never answered.
    pub fn is_notification(&self) -> bool {
        self.as_str().starts_with("notifications/")
    }

    /// The param that `Mcp-Name` repeats, in revisions that have that header.
    pub fn name_param(&self) -> Option<Key> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some(Key::Name),
            Self::ResourcesRead => Some(Key::Uri),
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => Some(Key::TaskId),
            _ => None,
        }
    }

    /// The member of the result that holds the entries of a paginated list.
    pub fn list_member(&self) -> Option<&'static str> {
        match self {
            Self::ToolsList => Some("tools"),
            Self::PromptsList => Some("prompts"),
            Self::ResourcesList => Some("resources"),
            Self::ResourceTemplatesList => Some("resourceTemplates"),
            Self::TasksList => Some("tasks"),
            _ => None,
        }
    }

    /// Whether modern results of it carry `ttlMs` and `cacheScope`.
    pub fn is_cacheable(&self) -> bool {
        matches!(
            self,
            Self::Discover
                | Self::ToolsList
                | Self::PromptsList
                | Self::ResourcesList
                | Self::ResourceTemplatesList
                | Self::ResourcesRead
        )
    }

    /// Whether a modern answer to it may be `input_required`.
    pub fn may_ask(&self) -> bool {
        matches!(self, Self::ToolsCall | Self::PromptsGet | Self::ResourcesRead)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::version;

    #[test]
    fn every_method_is_written_as_it_is_read() {
        for method in Method::KNOWN {
            assert_eq!(&Method::parse(method.as_str()), method);
            assert!(method.is_for_server() || method.is_for_client());
        }
        let wires: HashSet<_> = Method::KNOWN.iter().map(Method::as_str).collect();
        assert_eq!(wires.len(), Method::KNOWN.len());
        assert_eq!(Method::parse("Tools/call"), Method::Other("Tools/call".into()));
    }

    /// Counted in the official schemas; the tasks extension adds get, cancel,
    /// update and its notification, and what servers ask is a request on the
    /// wire only where there are server requests.
    #[test]
    fn each_revision_has_as_many_methods_as_its_schema() {
        let counts = version::ALL
            .map(|version| Method::KNOWN.iter().filter(|method| method.exists_in(version)).count());
        assert_eq!(counts, [18 + 4, 31, 25, 24, 24]);
    }

    #[test]
    fn what_the_modern_era_removed_is_gone() {
        for wire in [
            "initialize",
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "tasks/list",
        ] {
            assert!(!Method::parse(wire).exists_in(V2026_07_28), "{wire}");
        }
        assert!(Method::parse("skills/list").exists_in(V2026_07_28));
        assert!(!Method::Discover.exists_in(V2025_11_25));
    }

    #[test]
    fn a_method_with_a_name_says_where_it_is() {
        assert_eq!(Method::ToolsCall.name_param(), Some(Key::Name));
        assert_eq!(Method::ResourcesRead.name_param(), Some(Key::Uri));
        assert_eq!(Method::TasksGet.name_param(), Some(Key::TaskId));
        assert_eq!(Method::ToolsList.name_param(), None);
    }
}
