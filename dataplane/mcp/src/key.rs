//! The members of `params` that the gateway looks at, and where they are.

use crate::scan::{ParseError, Quoted, Reason, Scanner, Span};
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
