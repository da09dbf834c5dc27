//! What the node writes to backends, as JSON-RPC messages.
//!
//! A request is written around the params, which stay the bytes that they are:
//! small ones are copied once into one buffer, large ones are sent from where
//! they lie.

use std::{
    convert::Infallible,
    iter,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::mcp::{
    id::RawId,
    lines, meta,
    method::Method,
    splice::{self, Object},
    text,
    version::ProtocolVersion,
};

/// Params up to this are copied: one small write beats three pieces.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// A message in up to three pieces; also a body of an HTTP request.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    head: Bytes,
    /// Of large messages: a request is moved more than once before it is written.
    rest: Vec<Bytes>,
}

impl Outgoing {
    /// A request.
    pub fn request(id: &RawId, method: &Method, params: &Bytes) -> Self {
        let mut head = BytesMut::with_capacity(64 + method.as_str().len() + params.len().min(COPY_BYTES_MAX));
        head.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        head.put_slice(id.as_bytes());
        head.put_slice(b",\"method\":");
        head.put_slice(&text::encode(method.as_str()));
        head.put_slice(b",\"params\":");
        if params.len() <= COPY_BYTES_MAX {
            head.put_slice(params);
            head.put_u8(b'}');
            return head.freeze().into();
        }
        Self { head: head.freeze(), rest: vec![params.clone(), Bytes::from_static(b"}")] }
    }

    fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        iter::once(&self.head).chain(&self.rest)
    }

    pub fn len(&self) -> usize {
        self.pieces().map(Bytes::len).sum()
    }

    /// The message as one line of a pipe.
    pub fn into_line(self) -> Bytes {
        let mut line = Vec::with_capacity(self.len() + 1);
        for piece in self.pieces() {
            lines::encode(piece, &mut line);
            // One line end is enough, and it is the last.
            line.pop();
        }
        line.push(b'\n');
        line.into()
    }
}

impl From<Bytes> for Outgoing {
    fn from(message: Bytes) -> Self {
        Self { head: message, rest: Vec::new() }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        let mut pieces = iter::once(&mut this.head).chain(&mut this.rest);
        let next = pieces.find(|piece| !piece.is_empty()).map(std::mem::take);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// The answer to a request of the backend: a raw `result` or a raw `error`.
pub fn response(id: &RawId, outcome: &Result<Bytes, Bytes>) -> Bytes {
    match outcome {
        Ok(result) => splice::response(id, result),
        Err(error) => splice::error_response(Some(id), error),
    }
}

/// Tells a backend that nobody waits for a request any more.
pub fn cancelled(id: &RawId) -> Bytes {
    let params = Object::default()
        .set("requestId", id.as_bytes())
        .set_text("reason", "the caller no longer waits")
        .finish();
    splice::notification(&Method::Cancelled, Some(&params))
}

/// The params of a modern request of the node's own: what every one must say
/// about itself, and nothing else.
pub fn own_params(version: ProtocolVersion) -> Bytes {
    Object::default().set("_meta", &meta::request_meta(version, &b"{}"[..], &own_info())).finish()
}

/// How the node introduces itself where it does not speak for one client.
pub fn own_info() -> Bytes {
    Object::default().set_text("name", "magictunnel").set_text("version", env!("CARGO_PKG_VERSION")).finish()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn large_params_are_sent_from_where_they_lie() {
        let params = Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(COPY_BYTES_MAX)));
        let request = Outgoing::request(&RawId::number(7), &Method::ToolsCall, &params);
        assert_eq!(request.rest[0].as_ptr(), params.as_ptr());
        assert_eq!(request.size_hint().exact(), Some(request.len() as u64));
        let sent = request.collect().await.unwrap().to_bytes();
        let value: serde_json::Value = serde_json::from_slice(&sent).unwrap();
        assert_eq!(value["id"], 7);
        assert_eq!(value["method"], "tools/call");
    }

    #[test]
    fn a_line_holds_no_line_end_but_its_own() {
        let params = Bytes::from_static(b"{\n  \"name\":\r\n \"a\\nb\"\n}");
        let line = Outgoing::request(&RawId::text("x"), &Method::ToolsCall, &params).into_line();
        assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["params"]["name"], "a\nb");
    }

    #[test]
    fn what_the_node_says_of_itself_is_json() {
        for message in [
            own_params(crate::mcp::version::LATEST_MODERN),
            cancelled(&RawId::text("a\"b")),
            response(&RawId::number(0), &Ok(Bytes::from_static(b"{}"))),
        ] {
            serde_json::from_slice::<serde_json::Value>(&message).unwrap();
        }
    }
}
