//! `params` of a message: the raw object, and where the few members are that a
//! gateway looks at.
//!
//! A member that we look at may occur once. Twice, or in another case
//! (`"Name"`), is refused: some JSON parsers take the last of two, some match
//! keys without regard to case, and a backend must never see another name than
//! the policy saw.

use std::borrow::Cow;

use bytes::Bytes;

use crate::id::RawId;
use crate::key::{Index, Key};
use crate::patch::Patch;
use crate::raw::Raw;
use crate::scan::{Limits, ParseError, Reason, Scanner, or_not_utf8};
use crate::text;

/// The params of a request or notification; also any object that is read by
/// the same keys.
#[derive(Clone, Debug)]
pub struct Params {
    raw: Option<Bytes>,
    index: Index,
}

impl Params {
    /// A message without `params`.
    pub const NONE: Self = Self { raw: None, index: Index::EMPTY };

    /// Scans an object that stands alone.
    pub fn scan(raw: &Bytes, limits: Limits) -> Result<Self, ParseError> {
        let params = Self::read(raw, limits)?;
        if let Some(offset) = params.index.odd_case {
            return Err(ParseError { offset: offset as usize, reason: Reason::KeyCase });
        }
        Ok(params)
    }

    fn read(raw: &Bytes, limits: Limits) -> Result<Self, ParseError> {
        let mut scanner = Scanner::new(raw, limits)?;
        let mut index = Index::EMPTY;
        let object = index.read(&mut scanner, raw).map_err(|error| or_not_utf8(raw, error))?;
        scanner.end()?;
        Ok(Self { raw: Some(raw.slice(object.range())), index })
    }

    /// Params that came in a message, in which texts were replaced by texts or
    /// members were taken out; whatever else was done goes through [`Self::scan`].
    /// What a key may look like was judged when they came: an unknown method may
    /// have a `Name` of its own.
    pub fn edited(raw: &Bytes) -> Self {
        Self::read(raw, Limits::BACKEND)
            .expect("params that were scanned once and got another text or lost members scan again")
    }

    pub(crate) fn new(raw: Bytes, index: Index) -> Self {
        Self { raw: Some(raw), index }
    }

    /// The whole object; `None` if the message had none.
    pub fn raw(&self) -> Option<&Bytes> {
        self.raw.as_ref()
    }

    /// The whole object, `{}` if the message had none.
    pub fn object(&self) -> Bytes {
        self.raw.clone().unwrap_or(Bytes::from_static(b"{}"))
    }

    /// A member as raw JSON, sharing the message's memory.
    pub fn get(&self, key: Key) -> Option<Bytes> {
        let raw = self.raw.as_ref()?;
        Some(raw.slice(self.index.get(key)?.range()))
    }

    /// A member as raw JSON.
    pub fn peek(&self, key: Key) -> Option<&[u8]> {
        Some(&self.raw.as_ref()?[self.index.get(key)?.range()])
    }

    /// A member that is a string, as text. `None` if it is absent or anything
    /// but a string.
    pub fn text(&self, key: Key) -> Option<Cow<'_, str>> {
        text::decode(self.peek(key)?)
    }

    /// A member that is an id or a token.
    pub fn id(&self, key: Key) -> Option<RawId> {
        RawId::from_json(self.peek(key)?)
    }

    /// `name`.
    pub fn name(&self) -> Option<Cow<'_, str>> {
        self.text(Key::Name)
    }

    /// `uri`.
    pub fn uri(&self) -> Option<Cow<'_, str>> {
        self.text(Key::Uri)
    }

    /// `cursor`; an empty one is a cursor.
    pub fn cursor(&self) -> Option<Cow<'_, str>> {
        self.text(Key::Cursor)
    }

    /// `taskId`.
    pub fn task_id(&self) -> Option<Cow<'_, str>> {
        self.text(Key::TaskId)
    }

    /// `arguments`.
    pub fn arguments(&self) -> Option<Bytes> {
        self.get(Key::Arguments)
    }

    /// `_meta`.
    pub fn meta(&self) -> Option<Bytes> {
        self.get(Key::Meta)
    }

    /// Whether this is a retry of a call that has asked (`inputResponses` or
    /// `requestState` is there).
    pub fn is_retry(&self) -> bool {
        self.peek(Key::InputResponses).is_some() || self.peek(Key::RequestState).is_some()
    }

    /// Edits on this object. Members known here cost no second scan.
    pub fn patch(&self) -> Patch {
        Patch::of_params(self.object(), self.index)
    }
}

impl Raw for Params {
    fn size(&self) -> usize {
        self.raw().map_or(2, Bytes::len)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw().map_or(b"{}", |raw| raw));
    }
}
