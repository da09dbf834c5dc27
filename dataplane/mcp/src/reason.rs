//! Why bytes are refused as a message: each reason once, with its place.

use crate::id::RawId;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("the text ends too early")]
    End,
    #[error("not valid JSON")]
    Syntax,
    #[error("not valid UTF-8")]
    Utf8,
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    #[error("a control character in a string must be escaped")]
    ControlCharacter,
    #[error("half of a surrogate pair")]
    LoneSurrogate,
    #[error("text after the end of the message")]
    Trailing,
    #[error("nested too deeply")]
    Depth,
    #[error("too many values")]
    Tokens,
    #[error("longer than 4 GiB")]
    Length,
    #[error("a message must be an object")]
    NotAnObject,
    #[error("the key occurs twice")]
    DuplicateKey,
    #[error("the key differs from a known one only in case")]
    KeyCase,
    #[error("jsonrpc must be \"2.0\"")]
    Jsonrpc,
    #[error("id must be an integer or a string")]
    Id,
    #[error("id is too long")]
    IdLength,
    #[error("method must be a string")]
    Method,
    #[error("params must be an object")]
    Params,
    #[error("neither a request nor a notification nor a response")]
    Shape,
    #[error("a batch must have between 1 and its maximum of messages")]
    BatchLength,
}

impl Reason {
    /// Whether the bytes are not even JSON (`-32700`); otherwise they are JSON
    /// but no message (`-32600`).
    pub fn is_syntax(self) -> bool {
        matches!(
            self,
            Self::End
                | Self::Syntax
                | Self::Utf8
                | Self::ByteOrderMark
                | Self::ControlCharacter
                | Self::LoneSurrogate
                | Self::Trailing
                | Self::Depth
                | Self::Tokens
                | Self::Length
        )
    }
}

/// Bytes that are not what they should be, and where that showed. Small,
/// because every step of the scanner may return it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct ParseError {
    pub offset: usize,
    pub reason: Reason,
}

/// A message that is refused, and whose it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct BadMessage {
    pub offset: usize,
    pub reason: Reason,
    /// The id of the message, where it is certain: the answer should carry it.
    pub id: Option<RawId>,
}
