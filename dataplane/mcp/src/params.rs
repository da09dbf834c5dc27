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
use crate::patch::Patch;
use crate::scan::{Limits, ParseError, Quoted, Reason, Scanner, Span, or_not_utf8};
use crate::text;

macro_rules! keys {
    ($($variant:ident $wire:literal)*) => {
        /// A member of `params` that the gateway looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Key {
            $(#[doc = concat!("`", $wire, "`")] $variant,)*
        }

        impl Key {
            pub const ALL: &'static [Key] = &[$(Key::$variant),*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $wire,)*
                }
            }

            #[inline]
            pub(crate) fn parse(key: &[u8]) -> Option<Self> {
                $(
                    const _: () = assert!($wire.len() <= LONGEST_KEY);
                    if key == $wire.as_bytes() {
                        return Some(Self::$variant);
                    }
                )*
                None
            }
        }
    };
}

/// Longer keys are none of ours.
const LONGEST_KEY: usize = 20;

keys! {
    Name "name"
    Uri "uri"
    Cursor "cursor"
    TaskId "taskId"
    Arguments "arguments"
    Meta "_meta"
    InputResponses "inputResponses"
    RequestState "requestState"
    Ref "ref"
    Argument "argument"
    Task "task"
    ProtocolVersion "protocolVersion"
    Capabilities "capabilities"
    ClientInfo "clientInfo"
    Level "level"
    RequestId "requestId"
    ProgressToken "progressToken"
    Notifications "notifications"
    ElicitationId "elicitationId"
}

const KEYS: usize = Key::ALL.len();

/// Where the members are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index {
    spans: [Span; KEYS],
    pub(crate) members: u32,
    /// The first key that differs from one of ours only in case.
    pub(crate) odd_case: Option<u32>,
}

impl Index {
    pub(crate) const EMPTY: Self = Self { spans: [Span::NONE; KEYS], members: 0, odd_case: None };

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<Span> {
        self.spans[key as usize].or_none()
    }

    /// Reads an object at the scanner and notes where its members are, seen
    /// from its own start. Where the object is.
    pub(crate) fn read(&mut self, scanner: &mut Scanner<'_>, bytes: &[u8]) -> Result<Span, ParseError> {
        scanner.peek()?;
        let start = scanner.offset() as u32;
        let mut more = scanner.open_object()?;
        while more {
            let quoted = scanner.key()?;
            let value = scanner.value()?;
            self.members += 1;
            match Sighting::of(quoted, bytes) {
                Sighting::None => {}
                Sighting::Case => self.odd_case = self.odd_case.or(Some(quoted.span.start)),
                Sighting::Key(key) if self.get(key).is_some() => {
                    return Err(ParseError {
                        offset: quoted.span.start as usize,
                        reason: Reason::DuplicateKey,
                    });
                }
                Sighting::Key(key) => {
                    self.spans[key as usize] = Span { start: value.start - start, end: value.end - start };
                }
            }
            more = scanner.next_member()?;
        }
        Ok(Span { start, end: scanner.offset() as u32 })
    }
}

enum Sighting {
    None,
    Key(Key),
    Case,
}

impl Sighting {
    #[inline]
    fn of(quoted: Quoted, bytes: &[u8]) -> Self {
        if quoted.escaped {
            return text::decode(&bytes[quoted.span.range()])
                .map_or(Self::None, |key| Self::of_text(key.as_bytes()));
        }
        Self::of_text(quoted.inner(bytes))
    }

    #[inline]
    fn of_text(key: &[u8]) -> Self {
        if let Some(key) = Key::parse(key) {
            Self::Key(key)
        } else if Key::ALL.iter().any(|known| text::folds_to(key, known.as_str())) {
            Self::Case
        } else {
            Self::None
        }
    }
}

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
        let mut scanner = Scanner::new(raw, limits)?;
        let mut index = Index::EMPTY;
        let object = index.read(&mut scanner, raw).map_err(|error| or_not_utf8(raw, error))?;
        scanner.end()?;
        if let Some(offset) = index.odd_case {
            return Err(ParseError { offset: offset as usize, reason: Reason::KeyCase });
        }
        Ok(Self { raw: Some(raw.slice(object.range())), index })
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
