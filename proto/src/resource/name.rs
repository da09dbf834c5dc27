//! What a resource is called.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use crate::pb::{control, resource as pb};

/// The kinds of resources, in the order in which they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Gateway,
    Backend,
    ToolSet,
    Route,
    Policy,
    Secret,
    Principal,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Kind; 7] = [
        Kind::Gateway,
        Kind::Backend,
        Kind::ToolSet,
        Kind::Route,
        Kind::Policy,
        Kind::Secret,
        Kind::Principal,
    ];

    /// As in YAML: `ToolSet`.
    pub fn yaml(self) -> &'static str {
        match self {
            Kind::Gateway => "Gateway",
            Kind::Backend => "Backend",
            Kind::ToolSet => "ToolSet",
            Kind::Route => "Route",
            Kind::Policy => "Policy",
            Kind::Secret => "Secret",
            Kind::Principal => "Principal",
        }
    }

    /// As in names on the wire and on the command line: `tool-set`.
    pub fn slug(self) -> &'static str {
        match self {
            Kind::Gateway => "gateway",
            Kind::Backend => "backend",
            Kind::ToolSet => "tool-set",
            Kind::Route => "route",
            Kind::Policy => "policy",
            Kind::Secret => "secret",
            Kind::Principal => "principal",
        }
    }

    /// From either form, in any case.
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|k| text.eq_ignore_ascii_case(k.slug()) || text.eq_ignore_ascii_case(k.yaml()))
    }

    /// The kind of a resource; none if it says nothing.
    pub fn of(resource: &pb::Resource) -> Option<Kind> {
        Some(match resource.spec.as_ref()? {
            pb::resource::Spec::Gateway(_) => Kind::Gateway,
            pb::resource::Spec::Backend(_) => Kind::Backend,
            pb::resource::Spec::ToolSet(_) => Kind::ToolSet,
            pb::resource::Spec::Route(_) => Kind::Route,
            pb::resource::Spec::Policy(_) => Kind::Policy,
            pb::resource::Spec::Secret(_) => Kind::Secret,
            pb::resource::Spec::Principal(_) => Kind::Principal,
        })
    }

    /// The API's name for it.
    pub fn to_pb(self) -> control::Kind {
        match self {
            Kind::Gateway => control::Kind::Gateway,
            Kind::Backend => control::Kind::Backend,
            Kind::ToolSet => control::Kind::ToolSet,
            Kind::Route => control::Kind::Route,
            Kind::Policy => control::Kind::Policy,
            Kind::Secret => control::Kind::Secret,
            Kind::Principal => control::Kind::Principal,
        }
    }

    /// From the API's name; none for `KIND_UNSPECIFIED`.
    pub fn from_pb(kind: control::Kind) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.to_pb() == kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slug())
    }
}

/// 1 to 63 characters: lower-case letters, digits and `-`, starting and ending
/// with a letter or digit (RFC 1123 label). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName(Arc<str>);

impl ResourceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not a [`ResourceName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: 1 to 63 of a-z, 0-9 and '-', first and last a letter or digit")]
pub struct InvalidName(pub String);

impl FromStr for ResourceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let ok = matches!(bytes.len(), 1..=63)
            && bytes.iter().all(|&b| inner(b) || b == b'-')
            && inner(bytes[0])
            && inner(bytes[bytes.len() - 1]);
        if ok { Ok(Self(text.into())) } else { Err(InvalidName(text.chars().take(80).collect())) }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ResourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Identifies a resource. Displays as `backend/time`, its name in discovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub name: ResourceName,
}

impl Key {
    pub fn new(kind: Kind, name: ResourceName) -> Self {
        Self { kind, name }
    }

    /// The key of a resource, if it has a kind and a proper name.
    pub fn of(resource: &pb::Resource) -> Option<Key> {
        let name = resource.metadata.as_ref()?.name.parse().ok()?;
        Some(Key { kind: Kind::of(resource)?, name })
    }

    /// From the form that it displays as.
    pub fn parse(text: &str) -> Option<Key> {
        let (kind, name) = text.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|k| k.slug() == kind)?;
        Some(Key { kind, name: name.parse().ok()? })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
