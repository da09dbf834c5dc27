//! What both ends of discovery compute alike: names of items, their versions,
//! the hash of a view, and catalogs in parts. Rules: docs/discovery.md.
//!
//! Nothing here knows a stream, a nonce or a node: that is the machines'.

use std::{collections::BTreeMap, fmt};

use prost::{Message, bytes::Bytes};

use crate::{
    pb::discovery::{Catalog, FleetFact, Item},
    resource::{Key, ResourceName},
};

/// The type of everything that makes up a node's view.
pub const TYPE_ITEM: &str = "type.googleapis.com/magictunnel.discovery.v1.Item";
/// The type of facts of the fleet.
pub const TYPE_FACT: &str = "type.googleapis.com/magictunnel.discovery.v1.FleetFact";
/// The name of the item that ends a push.
pub const MARKER: &str = "marker";
/// The name of the fact that holds the sealing keys.
pub const KEY_RING: &str = "key-ring";
/// The name of the fact that says which nodes there are.
pub const NODES: &str = "nodes";
/// Subscribes to everything of a type.
pub const WILDCARD: &str = "*";

/// A response of a push stays within this, unless it holds one item only.
pub const PUSH_BYTES_MAX: usize = 1 << 20;
/// A part of a catalog, as encoded.
pub const PART_BYTES_MAX: usize = 512 << 10;
/// One entry of a catalog, and the facts about its server.
pub const ENTRY_BYTES_MAX: usize = PART_BYTES_MAX - PART_OVERHEAD_BYTES;
/// What both ends must be able to take in one gRPC message.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The backend's name, the count of parts, and the heads of the fields.
const PART_OVERHEAD_BYTES: usize = 128;

/// The name of an item: what it says, and nothing else is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ItemName {
    /// `marker`
    Marker,
    /// `backend/time`
    Resource(Key),
    /// `catalog/time/0`
    Catalog { backend: ResourceName, part: u32 },
}

impl ItemName {
    /// From the form that it displays as.
    pub fn parse(text: &str) -> Option<Self> {
        if text == MARKER {
            return Some(Self::Marker);
        }
        let Some(rest) = text.strip_prefix("catalog/") else { return Key::parse(text).map(Self::Resource) };
        let (backend, digits) = rest.split_once('/')?;
        let part: u32 = digits.parse().ok()?;
        // One part has one name: no `00`, no `+1`.
        if part.to_string() != digits {
            return None;
        }
        Some(Self::Catalog { backend: backend.parse().ok()?, part })
    }
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marker => f.write_str(MARKER),
            Self::Resource(key) => key.fmt(f),
            Self::Catalog { backend, part } => write!(f, "catalog/{backend}/{part}"),
        }
    }
}

/// The version of an item with this content: 32 lower-case hex digits.
pub fn version_of(encoded: &[u8]) -> String {
    blake3::hash(encoded).to_hex()[..32].to_owned()
}

/// The hash of a view from the names and versions of its items, in any order,
/// each name once. A marker among them does not count.
pub fn view_hash<'a>(items: impl IntoIterator<Item = (&'a str, &'a str)>) -> [u8; 32] {
    let ordered: BTreeMap<&[u8], &str> =
        items.into_iter().filter(|(name, _)| *name != MARKER).map(|(name, v)| (name.as_bytes(), v)).collect();
    let mut hasher = blake3::Hasher::new();
    for (name, version) in ordered {
        hasher.update(name).update(&[0]).update(version.as_bytes()).update(b"\n");
    }
    *hasher.finalize().as_bytes()
}

/// An item as it rides in a response.
pub fn pack_item(item: &Item) -> prost_types::Any {
    prost_types::Any { type_url: TYPE_ITEM.to_owned(), value: item.encode_to_vec() }
}

/// The encoded form of an item that holds an already encoded resource, byte for
/// byte: decoding it would lose the fields that a newer version has added.
pub fn encode_resource_item(resource: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(resource.len() + 11);
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(resource.len() as u64, &mut out);
    out.extend_from_slice(resource);
    out.into()
}

/// A fact as it rides in a response.
pub fn pack_fact(fact: &FleetFact) -> prost_types::Any {
    prost_types::Any { type_url: TYPE_FACT.to_owned(), value: fact.encode_to_vec() }
}

/// What rides in a response is not what its type promises.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("there is no content")]
    Missing,
    #[error("the type is {0:?}")]
    Type(String),
    #[error("the content does not decode")]
    Decode(#[from] prost::DecodeError),
}

/// The item in a response.
///
/// # Errors
/// If there is none, or it is something else.
pub fn unpack_item(any: Option<&prost_types::Any>) -> Result<Item, UnpackError> {
    Ok(Item::decode(typed(any, TYPE_ITEM)?)?)
}

/// The fact in a response.
///
/// # Errors
/// If there is none, or it is something else.
pub fn unpack_fact(any: Option<&prost_types::Any>) -> Result<FleetFact, UnpackError> {
    Ok(FleetFact::decode(typed(any, TYPE_FACT)?)?)
}

fn typed<'a>(any: Option<&'a prost_types::Any>, type_url: &str) -> Result<&'a [u8], UnpackError> {
    let any = any.ok_or(UnpackError::Missing)?;
    if any.type_url == type_url { Ok(&any.value) } else { Err(UnpackError::Type(any.type_url.clone())) }
}

/// An entry does not fit into a part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of backend {backend} is {bytes} bytes, more than {ENTRY_BYTES_MAX}")]
pub struct EntryTooLarge {
    pub backend: String,
    /// `tool 17`, `the server's facts`.
    pub what: String,
    pub bytes: usize,
}

/// Splits a catalog into parts of at most [`PART_BYTES_MAX`], in order: the
/// facts of the server, tools, prompts, resources, templates. Whatever fits
/// goes into the part at hand, so equal catalogs have equal parts.
///
/// # Errors
/// If one entry does not fit into a part of its own.
pub fn split_catalog(whole: Catalog) -> Result<Vec<Catalog>, EntryTooLarge> {
    let backend = whole.backend;
    let empty = || Catalog { backend: backend.clone(), ..Catalog::default() };
    let too_large = |what: String, bytes| Err(EntryTooLarge { backend: backend.clone(), what, bytes });

    let mut parts = vec![];
    let mut open = Catalog { server: whole.server, ..empty() };
    let mut open_bytes = open.server.as_ref().map_or(0, |facts| field_bytes(facts.encoded_len()));
    if open_bytes > ENTRY_BYTES_MAX {
        return too_large("the server's facts".to_owned(), open_bytes);
    }
    type List = fn(&mut Catalog) -> &mut Vec<Bytes>;
    let lists: [(&str, Vec<Bytes>, List); 4] = [
        ("tool", whole.tools, |part| &mut part.tools),
        ("prompt", whole.prompts, |part| &mut part.prompts),
        ("resource", whole.resources, |part| &mut part.resources),
        ("resource template", whole.resource_templates, |part| &mut part.resource_templates),
    ];
    for (kind, entries, list) in lists {
        for (index, entry) in entries.into_iter().enumerate() {
            let bytes = field_bytes(entry.len());
            if bytes > ENTRY_BYTES_MAX {
                return too_large(format!("{kind} {index}"), bytes);
            }
            if open_bytes + bytes > ENTRY_BYTES_MAX {
                parts.push(std::mem::replace(&mut open, empty()));
                open_bytes = 0;
            }
            open_bytes += bytes;
            list(&mut open).push(entry);
        }
    }
    parts.push(open);
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    for part in &mut parts {
        part.parts = count;
    }
    Ok(parts)
}

/// A field of this many bytes, with its head.
fn field_bytes(content: usize) -> usize {
    1 + prost::length_delimiter_len(content) + content
}

/// Parts do not make a catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    #[error("a catalog has at least one part")]
    Empty,
    #[error("part {part} is of backend {found:?}, part 0 of {backend:?}")]
    Backend { part: usize, found: String, backend: String },
    #[error("part {part} says there are {said} parts; there are {have}")]
    Count { part: usize, said: u32, have: usize },
    #[error("part {part} holds facts of the server, which belong into part 0")]
    Facts { part: usize },
}

/// Puts parts, in order, back into one catalog, which is its only part.
///
/// # Errors
/// If they are not the parts of one catalog.
pub fn join_catalog(parts: impl IntoIterator<Item = Catalog>) -> Result<Catalog, JoinError> {
    let parts: Vec<Catalog> = parts.into_iter().collect();
    let have = parts.len();
    let mut parts = parts.into_iter().enumerate();
    let (_, mut whole) = parts.next().ok_or(JoinError::Empty)?;
    check_count(0, &whole, have)?;
    for (part, catalog) in parts {
        check_count(part, &catalog, have)?;
        if catalog.backend != whole.backend {
            return Err(JoinError::Backend { part, found: catalog.backend, backend: whole.backend });
        }
        if catalog.server.is_some() {
            return Err(JoinError::Facts { part });
        }
        whole.tools.extend(catalog.tools);
        whole.prompts.extend(catalog.prompts);
        whole.resources.extend(catalog.resources);
        whole.resource_templates.extend(catalog.resource_templates);
    }
    whole.parts = 1;
    Ok(whole)
}

fn check_count(part: usize, catalog: &Catalog, have: usize) -> Result<(), JoinError> {
    if catalog.parts as usize == have {
        Ok(())
    } else {
        Err(JoinError::Count { part, said: catalog.parts, have })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::pb::{
        discovery::{ServerFacts, item},
        resource::{Metadata, Resource},
    };

    fn catalog(sizes: [Vec<usize>; 4], facts: bool) -> Catalog {
        let [tools, prompts, resources, templates] =
            sizes.map(|list| list.into_iter().map(|n| Bytes::from(vec![b'x'; n])).collect());
        Catalog {
            backend: "time".into(),
            server: facts.then(|| ServerFacts { instructions: "ask".into(), ..Default::default() }),
            tools,
            prompts,
            resources,
            resource_templates: templates,
            parts: 1,
        }
    }

    #[test]
    fn names_are_what_they_display_as() {
        for text in ["marker", "backend/time", "tool-set/a1", "catalog/time/0", "catalog/time/12"] {
            assert_eq!(ItemName::parse(text).map(|name| name.to_string()).as_deref(), Some(text));
        }
        for text in [
            "",
            "Marker",
            "backend",
            "backend/A",
            "catalog/time",
            "catalog/time/00",
            "catalog/time/+1",
            "catalog//0",
        ] {
            assert_eq!(ItemName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_hash_of_a_view_depends_on_content_and_not_on_order_or_marker() {
        let view = [("backend/a", "1"), ("backend/b", "2")];
        let hash = view_hash(view);
        assert_eq!(hash, view_hash([view[1], (MARKER, "x"), view[0]]));
        assert_eq!(hash, *blake3::hash(b"backend/a\x001\nbackend/b\x002\n").as_bytes());
        assert_ne!(hash, view_hash([view[0]]));
        assert_eq!(view_hash([]), *blake3::hash(b"").as_bytes());
    }

    #[test]
    fn a_resource_rides_byte_for_byte() {
        let resource = Resource {
            metadata: Some(Metadata { name: "time".into(), ..Default::default() }),
            ..Default::default()
        };
        let encoded = encode_resource_item(&resource.encode_to_vec());
        let item = Item { item: Some(item::Item::Resource(resource)) };
        assert_eq!(encoded, item.encode_to_vec());
        assert_eq!(unpack_item(Some(&pack_item(&item))).unwrap(), item);
        assert!(matches!(unpack_item(None), Err(UnpackError::Missing)));
        assert!(matches!(unpack_fact(Some(&pack_item(&item))), Err(UnpackError::Type(_))));
    }

    #[test]
    fn an_entry_that_fits_nowhere_is_named() {
        let error =
            split_catalog(catalog([vec![1, PART_BYTES_MAX], vec![], vec![], vec![]], true)).unwrap_err();
        assert_eq!(error.what, "tool 1");
    }

    #[test]
    fn parts_of_different_catalogs_do_not_join() {
        let parts = split_catalog(catalog([vec![400 << 10; 3], vec![], vec![], vec![]], true)).unwrap();
        assert_eq!(parts.len(), 3);
        assert_eq!(join_catalog([]), Err(JoinError::Empty));
        assert_eq!(join_catalog(parts[..2].to_vec()), Err(JoinError::Count { part: 0, said: 3, have: 2 }));
        let mut other = parts.clone();
        other[1].backend = "git".into();
        assert!(matches!(join_catalog(other), Err(JoinError::Backend { part: 1, .. })));
        let mut other = parts;
        other[2].server = Some(ServerFacts::default());
        assert_eq!(join_catalog(other), Err(JoinError::Facts { part: 2 }));
    }

    proptest! {
        #[test]
        fn parts_stay_within_the_limit_and_join_to_the_whole(
            sizes in [vec(0usize..300_000, 0..5), vec(0usize..300_000, 0..5), vec(0usize..9, 0..5), vec(0usize..9, 0..5)],
            facts: bool,
        ) {
            let whole = catalog(sizes, facts);
            let parts = split_catalog(whole.clone()).unwrap();
            prop_assert!(parts.iter().all(|part| part.encoded_len() <= PART_BYTES_MAX));
            prop_assert_eq!(join_catalog(parts).unwrap(), whole);
        }
    }
}
