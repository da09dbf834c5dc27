//! Server-sent events: bytes to events and back.
//!
//! The decoder takes what a read brings and hands out events whose data shares
//! that memory whenever the event was not cut in two. It copes with what real
//! servers send (CR, LF or CRLF, comments, `id` before or after the rest, data
//! on many lines, priming events without data) and bounds what one event may
//! hold. It has no opinion on ids and `retry`; it reports them.

use bytes::{Buf, Bytes, BytesMut};

/// A comment that keeps a stream alive and means nothing.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// `event` and `retry`.
const NAME_BYTES_MAX: usize = 5;

/// One event. Anything that ends with an empty line and has a field is one,
/// even without data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `None` means `message`.
    pub name: Option<Bytes>,
    /// The id this event sets, not the one it inherits.
    pub id: Option<Bytes>,
    /// `None` if there was no data field, empty if it was empty.
    pub data: Option<Bytes>,
    pub retry_ms: Option<u64>,
}

impl Event {
    /// Whether it may carry a JSON-RPC message.
    pub fn is_message(&self) -> bool {
        self.name.as_deref().is_none_or(|name| name == b"message")
            && self.data.as_ref().is_some_and(|data| !data.is_empty())
    }
}

/// An event was longer than allowed. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {bytes_max} bytes")]
pub struct TooLong {
    pub bytes_max: usize,
}

/// Bytes to events.
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    /// What was read and not yet looked at.
    chunk: Bytes,
    /// The beginning of a line whose end has not arrived.
    line: BytesMut,
    /// The last line ended with CR; an LF now belongs to it.
    skip_line_feed: bool,
    /// Nothing has been read, so a byte order mark may come.
    at_start: bool,
    event: Event,
    /// Whether a field has been seen since the last empty line.
    dirty: bool,
    more_data: BytesMut,
    /// Bytes of fields that the open event holds.
    held: usize,
    failed: bool,
}

/// One line, where it stands.
struct Line<'a> {
    source: Source<'a>,
    start: usize,
    end: usize,
}

enum Source<'a> {
    Chunk(&'a Bytes),
    /// The line was cut in two.
    Joined(Bytes),
}

impl Line<'_> {
    fn source(&self) -> &Bytes {
        match &self.source {
            Source::Chunk(chunk) => chunk,
            Source::Joined(line) => line,
        }
    }

    fn text(&self) -> &[u8] {
        &self.source()[self.start..self.end]
    }

    fn slice_from(&self, at: usize) -> Bytes {
        self.source().slice(self.start + at..self.end)
    }
}

impl Decoder {
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            chunk: Bytes::new(),
            line: BytesMut::new(),
            skip_line_feed: false,
            at_start: true,
            event: Event::default(),
            dirty: false,
            more_data: BytesMut::new(),
            held: 0,
            failed: false,
        }
    }

    /// Takes what a read brought. Events are fetched with
    /// [`next_event`](Self::next_event), until there is none, before the next
    /// chunk comes.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    /// The next complete event; `None` if more bytes are needed. An event that
    /// is still open when the stream ends is void.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        if self.failed {
            return Err(self.fail());
        }
        // Out of its field while lines of it are looked at in place.
        let mut chunk = std::mem::take(&mut self.chunk);
        let mut at = 0;
        let found = self.read(&chunk, &mut at);
        chunk.advance(at);
        self.chunk = chunk;
        found
    }

    /// Reads on from `at`, up to the end of an event or of the chunk.
    fn read(&mut self, chunk: &Bytes, at: &mut usize) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.next_line(chunk, at) {
            if self.held + line.text().len() > self.event_bytes_max {
                return Err(self.fail());
            }
            if !line.text().is_empty() {
                self.field(&line);
                continue;
            }
            self.held = 0;
            if self.dirty {
                self.dirty = false;
                let mut event = std::mem::take(&mut self.event);
                if !self.more_data.is_empty() {
                    event.data = Some(self.more_data.split().freeze());
                }
                return Ok(Some(event));
            }
        }
        if self.held + self.line.len() > self.event_bytes_max {
            return Err(self.fail());
        }
        Ok(None)
    }

    #[cold]
    fn fail(&mut self) -> TooLong {
        self.failed = true;
        TooLong { bytes_max: self.event_bytes_max }
    }

    fn next_line<'a>(&mut self, chunk: &'a Bytes, at: &mut usize) -> Option<Line<'a>> {
        if self.skip_line_feed && *at < chunk.len() {
            self.skip_line_feed = false;
            *at += usize::from(chunk[*at] == b'\n');
        }
        let rest = &chunk[*at..];
        let Some(length) = memchr::memchr2(b'\r', b'\n', rest) else {
            // Bounded by the caller, chunk by chunk.
            self.line.extend_from_slice(rest);
            *at = chunk.len();
            return None;
        };
        let (start, end) = (*at, *at + length);
        self.skip_line_feed = chunk[end] == b'\r';
        *at = end + 1;
        let mut line = if self.line.is_empty() {
            Line { source: Source::Chunk(chunk), start, end }
        } else {
            self.line.extend_from_slice(&chunk[start..end]);
            let joined = self.line.split().freeze();
            Line { start: 0, end: joined.len(), source: Source::Joined(joined) }
        };
        if std::mem::take(&mut self.at_start) && line.text().starts_with(b"\xef\xbb\xbf") {
            line.start += 3;
        }
        Some(line)
    }

    fn field(&mut self, line: &Line<'_>) {
        let text = line.text();
        // No name that means something is longer.
        let colon = text.iter().take(NAME_BYTES_MAX + 1).position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(0) => return,
            Some(colon) => {
                let space = usize::from(text.get(colon + 1) == Some(&b' '));
                (&text[..colon], colon + 1 + space)
            }
            None => (text, text.len()),
        };
        let value = || line.slice_from(value);
        match name {
            b"data" => {
                self.held += text.len();
                self.data(value());
            }
            b"event" => {
                self.held += text.len();
                self.event.name = Some(value());
            }
            // The name holds no NUL.
            b"id" if !text.contains(&0) => {
                self.held += text.len();
                self.event.id = Some(value());
            }
            b"retry" => {
                let Some(retry_ms) = milliseconds(&value()) else { return };
                self.event.retry_ms = Some(retry_ms);
            }
            _ => return,
        }
        self.dirty = true;
    }

    /// The first line is kept as it is; a second one makes a copy of both.
    fn data(&mut self, value: Bytes) {
        if let Some(first) = self.event.data.take() {
            if self.more_data.is_empty() {
                self.more_data.extend_from_slice(&first);
            }
            self.more_data.extend_from_slice(b"\n");
            self.more_data.extend_from_slice(&value);
            self.event.data = Some(Bytes::new());
        } else {
            self.event.data = Some(value);
        }
    }
}

fn milliseconds(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Writes one event. Line ends inside `data` (there are none in JSON written
/// by us, but a backend may send pretty JSON) become further data lines; an id
/// must not hold line ends or NUL, and is left out if it does.
pub fn encode(id: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    encode_event(None, id, data, out);
}

/// Writes one event with a name, as HTTP+SSE needs for `endpoint`.
pub fn encode_event(name: Option<&str>, id: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + 32 + id.map_or(0, str::len));
    for (field, value) in [(&b"event: "[..], name), (&b"id: "[..], id)] {
        if let Some(value) = value.filter(|value| !value.contains(['\n', '\r', '\0'])) {
            out.extend_from_slice(field);
            out.extend_from_slice(value.as_bytes());
            out.push(b'\n');
        }
    }
    let mut rest = data;
    loop {
        out.extend_from_slice(b"data: ");
        let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else { break };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let pair = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(pair)..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\n\n");
}

/// Writes an event without content, which tells the client where to resume and
/// how long to wait before it does.
pub fn encode_priming(id: &str, retry_ms: Option<u64>, out: &mut Vec<u8>) {
    if let Some(retry_ms) = retry_ms {
        out.extend_from_slice(format!("retry: {retry_ms}\n").as_bytes());
    }
    encode(Some(id), b"", out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 16);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = decoder.next_event().unwrap() {
                events.push(event);
            }
        }
        events
    }

    fn event(id: Option<&'static str>, data: Option<&'static str>, retry_ms: Option<u64>) -> Event {
        Event { name: None, id: id.map(Bytes::from), data: data.map(Bytes::from), retry_ms }
    }

    fn check(wire: &str, expected: &[Event]) {
        assert_eq!(decode([wire.as_bytes()]), expected, "{wire:?}");
        assert_eq!(decode(wire.as_bytes().chunks(1)), expected, "{wire:?} byte by byte");
    }

    #[test]
    fn what_real_servers_send_is_read() {
        check("data: {}\n\n", &[event(None, Some("{}"), None)]);
        check("\u{feff}data:{}\r\n\r\n", &[event(None, Some("{}"), None)]);
        check(
            "id: 1\rdata: a\rdata: b\r\rdata:c\r\r",
            &[event(Some("1"), Some("a\nb"), None), event(None, Some("c"), None)],
        );
        let named = Event { name: Some("message".into()), ..event(Some("0/0"), Some("x"), None) };
        check("event: message\nid: 0/0\ndata: x\n\n", std::slice::from_ref(&named));
        check("data: x\nid: 0/0\nevent: message\n\n", &[named]);
        check("data: \nid: 0\nretry: 3000\n\n", &[event(Some("0"), Some(""), Some(3000))]);
        check("id\nretry: 5000\ndata:\n\n", &[event(Some(""), Some(""), Some(5000))]);
        check("id: 2/0\n\n", &[event(Some("2/0"), None, None)]);
        check("data\ndata\n\n", &[event(None, Some("\n"), None)]);
        check(": ping\n\n:\n\n\n\ndata: x\n\n", &[event(None, Some("x"), None)]);
        check("retry: soon\nid: a\0b\nunknown: x\ndata: y\n\n", &[event(None, Some("y"), None)]);
        check("data:  two\n\ndata: unfinished\n", &[event(None, Some(" two"), None)]);
    }

    #[test]
    fn only_events_with_content_are_messages() {
        assert!(event(None, Some("{}"), None).is_message());
        assert!(!event(Some("1"), Some(""), None).is_message());
        assert!(!event(Some("1"), None, None).is_message());
        assert!(!Event { name: Some("endpoint".into()), ..event(None, Some("/x"), None) }.is_message());
    }

    #[test]
    fn data_in_one_piece_is_not_copied() {
        let wire = Bytes::from_static(b"id: 1\ndata: {\"a\":1}\n\n");
        let mut decoder = Decoder::new(100);
        decoder.push(wire.clone());
        let data = decoder.next_event().unwrap().unwrap().data.unwrap();
        assert!(wire.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn an_event_that_is_too_long_ends_the_stream() {
        for wire in
            ["data: 123456789012345\n\n", "data: 12345\ndata: 12345\n\n", "data: 12345678901234567890"]
        {
            let mut decoder = Decoder::new(20);
            decoder.push(Bytes::from_static(wire.as_bytes()));
            assert_eq!(decoder.next_event(), Err(TooLong { bytes_max: 20 }), "{wire}");
            decoder.push(Bytes::from_static(b"\n\ndata: x\n\n"));
            assert!(decoder.next_event().is_err());
        }
        let mut decoder = Decoder::new(20);
        decoder.push(Bytes::from(":".repeat(15) + "\n").repeat(10).into());
        decoder.push(Bytes::from_static(b"data: 1\n\ndata: 2\n\ndata: 34567890\n\n"));
        for _ in 0..3 {
            assert!(decoder.next_event().unwrap().is_some());
        }
    }

    #[test]
    fn an_id_that_would_break_the_frame_is_left_out() {
        let mut out = Vec::new();
        encode_event(Some("endpoint"), Some("a\nb"), b"/x", &mut out);
        assert_eq!(out, b"event: endpoint\ndata: /x\n\n");
        out.clear();
        encode_priming("7", Some(500), &mut out);
        assert_eq!(decode([&out[..]]), [event(Some("7"), Some(""), Some(500))]);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(data in prop::collection::vec("[ -~é]{0,40}(\n[ -~]{0,40}){0,2}", 1..6), id in prop::option::of("[!-~]{1,9}")) {
            let mut wire = Vec::new();
            for data in &data {
                encode(id.as_deref(), data.as_bytes(), &mut wire);
            }
            let events = decode([&wire[..]]);
            let found: Vec<_> = events.iter().map(|event| event.data.clone().unwrap()).collect();
            prop_assert_eq!(found, data);
            prop_assert!(events.iter().all(|event| event.id.as_deref() == id.as_deref().map(str::as_bytes)));
        }

        #[test]
        fn chunking_never_changes_the_events(wire in "(data:|id: |event:|retry: |:|[a-z0-9é]{1,5}|\r|\n|\r\n|\n\n){0,40}", size in 1usize..16) {
            prop_assert_eq!(decode(wire.as_bytes().chunks(size)), decode([wire.as_bytes()]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10)) {
            let whole = chunks.concat();
            prop_assert_eq!(decode(chunks.iter().map(|chunk| &chunk[..])), decode([&whole[..]]));
        }
    }
}
