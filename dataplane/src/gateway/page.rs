//! What a view keeps of the results that it is asked for again and again.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use super::kind::ListKind;
use crate::mcp::{text, version};

/// What clients hear before they list anything.
#[derive(Debug, Default)]
pub struct Greetings {
    /// As [`version::LEGACY`] has them.
    pub initialize: [OnceLock<Bytes>; version::LEGACY.len()],
    pub discover: OnceLock<Bytes>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// `{"tools":[…]}`: a whole result for those that want no type of it.
    plain: Bytes,
    /// The array in it.
    entries: Bytes,
    /// The same with what a result says of itself.
    typed: OnceLock<Bytes>,
}

impl Page {
    /// A page of a kind of entries, each a JSON object.
    pub fn new(kind: ListKind, entries: &[&Bytes]) -> Self {
        let length = entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
        let mut out = BytesMut::with_capacity(length + kind.member().len() + 8);
        out.put_slice(b"{\"");
        out.put_slice(kind.member().as_bytes());
        out.put_slice(b"\":");
        let start = out.len();
        out.put_u8(b'[');
        for (i, entry) in entries.iter().enumerate() {
            if i > 0 {
                out.put_u8(b',');
            }
            out.put_slice(entry);
        }
        out.put_u8(b']');
        let end = out.len();
        out.put_u8(b'}');
        let plain = out.freeze();
        Self { entries: plain.slice(start..end), plain, typed: OnceLock::new() }
    }

    /// A JSON array.
    pub fn entries(&self) -> &Bytes {
        &self.entries
    }

    /// The whole result, with the cursor of the next page if there is one.
    /// `of_itself` makes what a typed result says of itself, from a comma on: the
    /// same each time. None: the result has no type.
    pub fn result(&self, of_itself: Option<impl FnOnce() -> Vec<u8>>, next: Option<&str>) -> Bytes {
        match (of_itself, next) {
            (None, None) => self.plain.clone(),
            (Some(of_itself), None) => self.typed.get_or_init(|| self.joined(None, &of_itself())).clone(),
            (None, Some(next)) => self.joined(Some(next), b"}"),
            (Some(of_itself), Some(next)) => self.joined(Some(next), &of_itself()),
        }
    }

    fn joined(&self, next: Option<&str>, end: &[u8]) -> Bytes {
        let next = next.map(text::encode);
        let open = &self.plain[..self.plain.len() - 1];
        let mut out = Vec::with_capacity(open.len() + next.as_ref().map_or(0, |n| n.len() + 16) + end.len());
        out.extend_from_slice(open);
        if let Some(next) = next {
            out.extend_from_slice(b",\"nextCursor\":");
            out.extend_from_slice(&next);
        }
        out.extend_from_slice(end);
        out.into()
    }
}
